"""Judge one text by counts and closed lists: the first rule that it breaks is its reason."""

import re
import string
from typing import NamedTuple

from crossgrain.collect.sentences.boilerplate import is_file_name
from crossgrain.collect.sentences.language import OTHER_BY_FASTTEXT, OTHER_BY_PYCLD2
from crossgrain.collect.sentences.phrases import PhraseList
from crossgrain.collect.sentences.presets import Rules
from crossgrain.collect.sentences.split import MARKS, count_words, words_of
from crossgrain.collect.sentences.wordlists import CLOSED_WORDS
from crossgrain.config import UserError

BLANK, BROKEN, TWICE = "blank text", "broken characters", "said twice"
FILE_NAME, BOILERPLATE, TOO_FEW = "file name", "boilerplate", "too few words"
# In the order in which they are asked: a text's reason is the first rule that it breaks.
REASONS = (
    BLANK, FILE_NAME, TOO_FEW, BOILERPLATE, BROKEN, "personal data", "profanity", "too short", "too long",
    "too many words", "repeats words", "too many capitals", "too many symbols", "too much punctuation",
    "too many digits", OTHER_BY_PYCLD2, OTHER_BY_FASTTEXT, "no determiner", "no preposition", "no sentence",
)  # fmt: skip

_SIGN = re.compile(rf"[^\w\s・{MARKS}]|[\d_]")  # "・" is the blank between words in katakana
_CAPITALS, _DIGIT_SIGNS = string.ascii_uppercase.encode(), string.digits.encode()
_LETTERS_AND_BLANKS = string.ascii_letters.encode() + b" \t\n\r\x0b\x0c\x1c\x1d\x1e\x1f"
_PUNCTUATION = frozenset(".,;:!?'\"()%&/’‘“”«»„‚‹›…–—-。，、！？；：（）「」『』【】《》〈〉〔〕～〜·।؟،؛¿¡")
_ASCII_PUNCTUATION = "".join(filter(str.isascii, _PUNCTUATION)).encode()
_RUN = re.compile(r"([^\w\s.])\1\1|\.{4}|[!?]{3}")
_BROKEN = re.compile(r"[\ufffd\ue000-\uf8ff\U000f0000-\U0010ffff\x80-\x9f]")

_MAIL = re.compile(
    r"\w[@＠][\w-]+(?:\.|\s?[\[(]dot[\])]\s?)\w|[\[(]at[\])]\s?[\w-]+\s?(?:\.|[\[(]dot[\])])", re.IGNORECASE
)
_ENOUGH_DIGITS = 7
_DIGITS = re.compile(r"(?:\d\D{0,3}){7}")  # as close as in a number
_NUMBERS = re.compile(
    r"\+\d[\d ()./-]{7,}\d"  # +49 30 1234567
    r"|(?<![\d.-])(?:1[ .-])?\(?\d{3}\)?[ .-]\d{3}[.-]\d{4}(?!\d)|\(\d{2,5}\)\s?\d[\d -]{4,}\d"  # (555) 123-4567
    r"|\b(?:tel|telephone|phone|call|fax|mobile|cell|whatsapp|contact|(?:my|our|phone|telephone) number)\b"
    r"(?: (?:us|me|now|today|at|on|is))*\.?:?\s*\(?\d[\d ()./-]{5,}\d"
    r"|(?<!\d)0\d{1,4}[ /-]\d{5}|(?<!\d)0\d{2,4}[ /-]\d{3,4}[ -]\d{3,4}(?!\d)|\b0\d(?:[ .-]\d\d){4}\b"  # 030 1234567
    r"|\b\d{3}-\d{2}-\d{4}\b|\b(?:[3-6]\d{3}|2[2-7]\d\d)(?:[ -]\d{4}){3}\b"  # a social security number, a card
    r"|\b(?-i:[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){3,7}(?: ?[A-Z0-9]{1,3})?)\b",  # IBAN
    re.IGNORECASE,
)


class Judge:
    """The rules, for texts of one language."""

    def __init__(self, rules: Rules, language: str, profanity: PhraseList, boilerplate: PhraseList):
        self.rules, self._profanity, self._boilerplate = rules, profanity, boilerplate
        self._closed = CLOSED_WORDS.get(language)
        if rules.needs and self._closed is None:
            known = ", ".join(CLOSED_WORDS)
            raise UserError(f"needs: there is no list of determiners for {language!r}; lists: {known} (or needs: [])")
        self._function_words = self._closed.all if self._closed else frozenset()

    def reason(self, text: str) -> str:
        """Why a tidy text, which is not empty, is dropped, one of REASONS; empty where it is not."""
        rules = self.rules
        if "???" in text or (not text.isascii() and _BROKEN.search(text)):
            return BROKEN
        if rules.boilerplate and is_file_name(text):
            return FILE_NAME
        if self._boilerplate.stand_in(text):
            return BOILERPLATE
        signs = _signs_of(text)
        if rules.personal_data and holds_personal_data(text, signs.digits):
            return "personal data"
        if self._profanity.stand_in(text):
            return "profanity"
        if len(text) < rules.min_chars:
            return "too short"
        if len(text) > rules.max_chars:
            return "too long"
        num_words = count_words(text)
        if num_words < rules.min_words:
            return TOO_FEW
        if num_words > rules.max_words:
            return "too many words"
        return self._of_ratios(text, signs)

    def _of_ratios(self, text: str, signs: "_Signs") -> str:
        rules = self.rules
        if rules.max_repetition < 1 and self._repetition(words_of(text)) > rules.max_repetition:
            return "repeats words"
        if rules.max_capitals < 1 and _share_of_capitals(text, signs.capitals, rules) > rules.max_capitals:
            return "too many capitals"
        if signs.symbols > rules.max_symbols * len(text):
            return "too many symbols"
        if signs.marks > rules.max_punctuation * len(text):
            return "too much punctuation"
        if rules.max_punctuation < 1 and signs.may_run and _RUN.search(text):
            return "too much punctuation"
        if signs.digits > rules.max_digits * len(text):
            return "too many digits"
        return ""

    def lacks(self, text: str, near: bool) -> str:
        """Which closed class a text of this language lacks, as a reason; `near`: it stood near the image."""
        closed = self._closed
        if closed is None or not (near or self.rules.needs):
            return ""
        words = words_of(text)
        if "determiner" in self.rules.needs and closed.determiners.isdisjoint(words):
            return "no determiner"
        if "preposition" in self.rules.needs and closed.prepositions.isdisjoint(words):
            return "no preposition"
        if near and self.rules.near_sentences and self._function_words.isdisjoint(words):
            return "no sentence"
        return ""

    def _repetition(self, words: tuple[str, ...]) -> float:
        """How often the most frequent content word comes again, per word."""
        if len(set(words)) == len(words):
            return 0.0
        content = [word for word in words if word not in self._function_words]
        if len(set(content)) == len(content):
            return 0.0
        return (max(map(content.count, set(content))) - 1) / len(words)


class _Signs(NamedTuple):
    """How many characters of a text are upper-case letters, digits, ordinary punctuation, and none of these nor letter
    nor blank."""

    capitals: int
    digits: int
    marks: int
    symbols: int
    may_run: bool  # whether there are enough to look for runs of one sign


def _signs_of(text: str) -> _Signs:
    if text.isascii():  # many times quicker
        data = text.encode()
        capitals = len(data) - len(data.translate(None, _CAPITALS))
        signs = data.translate(None, _LETTERS_AND_BLANKS)
        undigital = signs.translate(None, _DIGIT_SIGNS) if signs else signs
        symbols = len(undigital.translate(None, _ASCII_PUNCTUATION)) if undigital else 0
        may_run = len(undigital) > 2 and _RUN.search(undigital.decode()) is not None
        return _Signs(capitals, len(signs) - len(undigital), len(undigital) - symbols, symbols, may_run)
    found = _SIGN.findall(text)
    digits = sum(map(str.isdigit, found))
    marks = sum(map(_PUNCTUATION.__contains__, found))
    return _Signs(sum(map(str.isupper, text)), digits, marks, len(found) - digits - marks, len(found) > 2)


def _share_of_capitals(text: str, capitals: int, rules: Rules) -> float:
    """Upper-case letters per character of its words; 0 where they are clearly fewer than may be."""
    words = words_of(text)
    return 0.0 if capitals <= rules.max_capitals * len(words) else capitals / max(sum(map(len, words)), 1)


def holds_personal_data(text: str, digits: int = _ENOUGH_DIGITS) -> bool:
    """An e-mail address, or a number of a telephone, card, account or social security, by its form.

    `digits`: how many `text` holds, where that is known.
    """
    if ("@" in text or "(" in text or "[" in text or "＠" in text) and _MAIL.search(text):
        return True
    return digits >= _ENOUGH_DIGITS and _DIGITS.search(text) is not None and _NUMBERS.search(text) is not None
