"""Captions to the words that BLEU, ROUGE-L and CIDEr compare, without Java.

The official evaluation of captions runs Stanford's PTBTokenizer (CoreNLP 3.4.1, options -preserveLines -lowerCase) and
removes punctuation (pycocoevalcap tokenizer/ptbtokenizer.py). These are its documented rules of Penn Treebank
tokens, as far as English captions meet them; tests hold them against what the program itself gave. Where they differ:
a telephone number or a fraction that the program keeps together over a space is two words here, which is also what BLEU
and CIDEr make of it; what is written in the manner of web pages may be cut elsewhere.

An oddity is kept: the program's names of brackets are in small letters by the time they are to be removed in capitals,
so that "-lrb-" and its kind stay among the words.
"""

import re
from functools import lru_cache

# What is removed; quotation marks and dashes of all kinds have become the first of these.
PUNCTUATION = frozenset(("''", "'", "``", "`", ".", "?", "!", ",", ":", "-", "--", "...", ";"))
BRACKETS = {"(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-"}

# With a period behind it a word of these is one token, in any case of its letters.
_ABBREVIATIONS = """
    adj adm adv ala al alex apr ariz assn assoc asst atty attys aug ave bancorp bhd bldg blvd brig bros calif capt cf
    cie cmdr co col colo comdr conn corp cos cpl ct dak dec dept det dr drs elec ens esq est etc ext feb fla fri ft ga
    gen gov govs hon inc ind insp intl invt jan jos jr jul jun kan kans ky lt ltd maj mar md messrs mfg mich minn mlle
    mme mo mon mont mr mrs ms msgr mt mtg natl neb nev nov oct okla penn pfc ph plc ppte ppty pres prof profs pte ptes
    pty ptys pvt rd rep reps rev rt sen sens sep sept seq sfc sgt spc sq sr st ste supt sys tel tenn thu thurs treas tue
    tues univ va vs vt wed wis wisc wm wyo
"""
_CAPITALISED = "Ark Az Del Ill La Mass Miss Ore Pa Tex Wash"  # these with a capital only: "pa." ends a sentence
_BEFORE_NUMBERS = "art ca fig figs no nos op pp prop"  # "No. 5", but "oh no."
# A single letter ends a sentence where one of these begins the next: "vitamin C. They ...".
_SENTENCE_STARTERS = """
    A About According Additionally After An As At But Earlier He Her Here However If In It Last Many More Now Once One
    Other Our She Since So Some Such That The Their Then There These They This We What When While Yet You
"""

_DOTS, _NONE = dict.fromkeys("…\x85", " ... "), dict.fromkeys("\xad\ufe0f", "")
_DOUBLE, _SINGLE = dict.fromkeys("“”«»", '"'), dict.fromkeys("‘‛‹›\x91", "`")
_DASHES, _SPACES = dict.fromkeys("–—―\x96\x97", "--"), dict.fromkeys("\u200b\u200d", " ")
_MONEY = {"€": "$", "£": "#", "¢": " cents "}
_SMALL = {"½": " 1/2 ", "¼": " 1/4 ", "¾": " 3/4 ", "⅓": " 1/3 ", "⅔": " 2/3 ", "²": " ² ", "³": " ³ "}
_SAME = str.maketrans({"\x92": "’"} | _DOTS | _NONE | _DOUBLE | _SINGLE | _DASHES | _SPACES | _MONEY | _SMALL)
_ASTRAL = re.compile("[\U00010000-\U0010ffff]")  # emoji and the like are not in the program's alphabet
_ENTITIES = {"amp": "&", "lt": "<", "gt": ">", "quot": '"', "apos": "'", "nbsp": " ", "mdash": "--", "ndash": "--"}
_ENTITY = re.compile(f"&({'|'.join(_ENTITIES)});", re.IGNORECASE)
_TAG = re.compile(r"""(<[/!?]?[A-Za-z][\w:-]*(?:\s+[\w:-]+(?:\s*=\s*(?:"[^"]*"|'[^']*'|[^\s<>"']+))?)*\s*/?>)""")
_FIRST_WORD = re.compile(r"[A-Z][A-Za-z]*(?!\w)")
_SPLIT_OFF = re.compile(r"’(?:s|d|m|ll|re|ve)|n’t|y’", re.IGNORECASE)  # the apostrophe of these becomes the plain one

_L, _A = r"[^\W\d_]", r"[^\W_]"  # a letter; a letter or digit
_END = rf"(?!{_A})"
_Q = "['’]"
_CLITIC = rf"(?:'(?:s|d|m|n|ll|re|ve)(?!{_L})|’(?:s|d|m|n|ll|re|ve))"
_PART = rf"(?:[dlo]{_Q})?{_A}+"
_ACRONYM = r"[A-Za-z](?:\.[A-Za-z])+"
_HYPHENED = rf"{_PART}(?:[.,]{_A}+)*\.?(?:[-_‐‑](?:{_ACRONYM}\.?{_END}|{_PART}))+"
_SLASHED = r"[A-Za-z\d]+(?:-[A-Za-z\d]+)*(?:/[A-Za-z\d]+(?:-[A-Za-z\d]+)*){1,2}"
_WORD = rf"{_L}{_A}*(?:[.!?]{_L}{_A}*)*"
_WHOLE = rf"{_END}(?!'\w|[-_/]\w)"


def _either(words: str) -> str:
    return "|".join(words.split())


# The first that fits at a place decides; one with groups gives each of them as a token.
_RULES = [
    re.compile(rule, re.IGNORECASE)
    for rule in (
        # addresses
        r"(?:https?://|www\.)[^\s\"<>|(){}\[\]]+[^\s\"<>|(){}\[\].!?,;:'-]",
        r"[\w.+-]*\w@(?:[\w-]+\.)*[\w-]*\w",
        # words that are two, and what an apostrophe joins or parts
        rf"(can)(not){_WHOLE}|(gon|wan)(na){_WHOLE}|(got)(ta){_WHOLE}|(lem|gim)(me){_WHOLE}|(more)('n){_END}",
        r"'t(?=is|was)|[A-Za-z\d]*[A-MO-Z](?=n['’`‘]t)",
        rf"n['’`‘]t(?!{_L})|y{_Q}(?=[aeiou]|know)|(?-i:Y){_Q}",
        rf"s{_Q}mores|cap{_Q}n|c'mon|li{_Q}l|l{_Q}il|nat{_Q}l|ev'ry|e{_Q}er|o`clock",
        rf"{_Q}n{_Q}|{_Q}(?:em|till?|cause)|{_Q}(?:\d\d(?=\s|$)|[2-9]0s{_END})",
        rf"{_L}+[aeiouy]{_Q}[aeiou]{_L}*",
        _CLITIC,
        rf"(?-i:[dlnoA-HJ-XZ])(?!{_CLITIC}){_Q}{_L}{{2,}}",
        rf"(?:[djl]|ol|somethin|dunkin)(?!{_CLITIC}){_Q}",
        # joined words, and periods that belong to what they follow
        rf"(?:{_HYPHENED}|{_WORD}|\d+)\.(?=[,;:])",
        _SLASHED,
        _HYPHENED,
        rf"{_ACRONYM}\.{_END}|ph\.d\.{_END}",
        rf"[A-Z]\.(?!{_L}| A)",
        rf"(?:{_either(_ABBREVIATIONS)}|(?-i:{_either(_CAPITALISED)}|{_either(_CAPITALISED.upper())}))\.(?!{_L})",
        rf"(?:{_either(_BEFORE_NUMBERS)})\.(?=\s*\d)",
        # plain words and numbers
        r"(?-i:[A-Z]+(?:[&+][A-Z]+)+)|(?-i:[A-Z]{1,2}\$)|[cf]#|c\+\+",
        _WORD,
        r"[-+]?(?:\d+(?:[.,:]\d+)+|[.,:]\d+(?:[.,:]\d+)*|\d++(?![^\W\d_]))|[-+]\d+",
        rf"{_A}+",
        # marks
        r"#[A-Za-z]+|@[A-Za-z_]\w*|-[LR][RCS]B-|\\[*/]",
        r"[<>]?[:;=]['o*-]?(?-i:[()DPdp\\[{|])(?!\w)|\^_\^|-_-|<<|>>",
        r"--+|\.\.\.+|''|``|[?!]+|\*+|_+|#+|@+|.",
    )
]


def caption_words(caption: str) -> list[str]:
    """The words of a caption as the official evaluation compares them: small letters, no punctuation.

    A line break in it is a space. The caption stands for itself. In the official evaluation the next caption of the
    file has a say where one ends with a single letter and a period ("plan B."): the period is then part of the letter,
    as here, unless the next one begins with "A", "The" or the like.
    """
    text = _ENTITY.sub(lambda found: _ENTITIES[found[1].lower()], caption)
    text = _ASTRAL.sub("", text.translate(_SAME))
    words: list[str] = []
    for part in _TAG.split(text):
        chunks = part.split()
        if _TAG.fullmatch(part):
            words += [chunk.lower() for chunk in chunks]
            continue
        for chunk, following in zip(chunks, [*chunks, ""][1:], strict=True):
            words += _words(chunk + _hint(following) if chunk.endswith(".") else chunk)
    return words


def _hint(following: str) -> str:
    """What matters of the text behind a period: whether it begins with a number (" 0") or a sentence (" A")."""
    if following[:1].isdigit():
        return " 0"
    first = _FIRST_WORD.match(following)
    return " A" if first and first.group().capitalize() in _SENTENCE_STARTERS.split() else ""


@lru_cache(maxsize=1 << 16)
def _words(chunk: str) -> tuple[str, ...]:
    """The words of a text without spaces; behind a period a hint may follow at what comes next."""
    end = len(chunk.split(" ")[0])
    found, start = [], 0
    while start < end:
        match = next(match for rule in _RULES if (match := rule.match(chunk, start)))
        found += [token for token in match.groups() if token] or [match.group()]
        start = match.end()
    return tuple(word for word in map(_plain, found) if word not in PUNCTUATION)


def _plain(token: str) -> str:
    """A token in small letters; dashes and dots of any number are one, and brackets have their names."""
    if not token.strip("-") or not token.strip("."):
        return token[0]
    if token in ('"', "’", "‐", "‑"):
        return "'"
    if _SPLIT_OFF.fullmatch(token):
        token = token.replace("’", "'")
    if token[0] in ":;=<>":  # a smiley names its round brackets only
        return token.lower().replace("(", BRACKETS["("]).replace(")", BRACKETS[")"])
    return BRACKETS.get(token, token.lower())
