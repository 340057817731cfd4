"""Stage 3: what pages say about an image becomes clean sentences in one language, and every drop has its reason."""

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from importlib.metadata import version

from crossgrain.collect.candidates import PageText, TextKind
from crossgrain.collect.sentences.boilerplate import is_file_name, without_boilerplate
from crossgrain.collect.sentences.cut import cut
from crossgrain.collect.sentences.language import LanguageTest, model_path
from crossgrain.collect.sentences.phrases import PhraseList
from crossgrain.collect.sentences.presets import SentenceConfig
from crossgrain.collect.sentences.repair import repair
from crossgrain.collect.sentences.rules import BLANK, BOILERPLATE, REASONS, TOO_FEW, TWICE, Judge
from crossgrain.collect.sentences.split import count_words, sentences, words_of

_MAX_CHARS = 4_000  # of a raw text: more is no caption, and no rule should have to read it
_REMEMBERED = 4096  # judgements: pages of a site say the same things again and again
_MAX_SENTENCES = 12  # of a text near an image: what comes later is not near


@dataclass(frozen=True, slots=True)
class CleanText:
    """A text that passed: repaired, stripped, in `language` with the identifiers' score from 0 to 1."""

    kind: TextKind
    text: str
    language: str
    language_score: float


class Cleaner:
    """Cleans the texts of an image by one configuration; what it remembers changes no answer. Not for pickling."""

    def __init__(self, config: SentenceConfig):
        rules = config.rules()
        self._language = LanguageTest(config.language, rules.identifiers, rules.min_language_score, config.short_words)
        self._profanity = PhraseList.read(config.profanity)
        self._boilerplate = PhraseList.read(config.extra_boilerplate)
        self._rules = rules
        self._judge = Judge(rules, self._language.language, self._profanity, self._boilerplate)
        self._short_words = config.short_words
        self._verdict = lru_cache(maxsize=_REMEMBERED)(self._judged)

    def fingerprint(self) -> str:
        """A hash of all that decides: rules, the operator's lists, the language identifiers."""
        decides = {
            "rules": asdict(self._rules),
            "language": [self._language.language, self._short_words],
            "lists": [self._profanity.phrases, self._boilerplate.phrases],
            "pycld2": version("pycld2"),
            "fasttext": hashlib.sha256(model_path().read_bytes()).hexdigest(),
        }
        return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()

    def clean(self, texts: Sequence[PageText], page_language: str = "") -> tuple[list[CleanText], Counter[str]]:
        """The texts that pass, in their order, and how many were dropped by reason; together as many as came in.

        Of text near the image one sentence is picked: of those that pass, the one that shares most words with the
        image's other texts, else the first.
        """
        kept: list[CleanText] = []
        dropped: Counter[str] = Counter()
        said: set[str] = set()
        for text in texts:
            result = self._clean(text, page_language, texts)
            if isinstance(result, str):
                dropped[result] += 1
            elif (folded := result.text.casefold()) in said:
                dropped[TWICE] += 1
            else:
                said.add(folded)
                kept.append(result)
        assert len(texts) == len(kept) + dropped.total()
        return kept, dropped

    def _clean(self, text: PageText, page_language: str, texts: Sequence[PageText]) -> CleanText | str:
        """The clean text, one of the image's `texts`, or the reason why there is none."""
        if len(text.text) > _MAX_CHARS and text.kind != "near":
            return "too long"
        repaired = repair(text.text[:_MAX_CHARS])
        if not repaired:
            return BLANK
        if text.kind == "near":
            others = [other.text for other in texts if other.kind != "near"]
            return self._picked(repaired, page_language, others)
        result = self._verdict(repaired, False, page_language)
        return result if isinstance(result, str) else CleanText(text.kind, *result)

    def _tidy(self, text: str) -> tuple[str, str]:
        """(text after cutting, "") or ("", reason); what comes out would come out of it again unchanged."""
        if not self._rules.boilerplate:
            return text, ""
        if count_words(text) < self._rules.min_words and not is_file_name(text):
            return "", TOO_FEW  # cutting would not make it longer
        while True:
            text = cut(text)
            rest = without_boilerplate(text) if text else ""
            if not rest:
                return "", BOILERPLATE
            if rest == text:
                return text, ""
            text = rest

    def _judged(self, text: str, near: bool, page_language: str) -> tuple[str, str, float] | str:
        """(text, language, score) of a repaired text that passes, or the reason why it does not."""
        tidy, reason = self._tidy(text)
        if reason or (reason := self._judge.reason(tidy)):
            return reason
        reason, score = self._language.check(tidy, count_words(tidy), page_language)
        return reason or self._judge.lacks(tidy, near) or (tidy, self._language.language, score)

    def _picked(self, text: str, page_language: str, others: Sequence[str]) -> CleanText | str:
        """The best sentence of a repaired text; else the reason of the sentence that came furthest."""
        found = sentences(text)[:_MAX_SENTENCES]
        if others and len(found) > 1:
            context = {word for other in others for word in words_of(other) if len(word) > 3}
            found.sort(key=lambda sentence: -len(context.intersection(words_of(sentence))))
        reasons: list[str] = []
        for sentence in found:
            result = self._verdict(sentence, True, page_language)
            if isinstance(result, str):
                reasons.append(result)
            elif result[0] == sentence or len(sentences(result[0])) == 1:
                return CleanText("near", *result)
            elif isinstance(again := self._picked(result[0], page_language, others), CleanText):
                return again  # cutting had opened a new end of a sentence
            else:
                reasons.append(again)
        return max(reasons, key=REASONS.index)
