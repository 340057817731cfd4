"""An operator's list of words and phrases, found in texts as whole words."""

import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path

from crossgrain.collect.sentences.split import UNSPACED
from crossgrain.config import UserError

_UNSPACED = re.compile(f"[{UNSPACED}]")
_SPACED = rf"[^\W{UNSPACED}]"  # a letter or digit of writing with blanks between words


class PhraseList:
    """Words and phrases, found whatever their case and the blanks between their words; an empty list finds nothing.

    In writing without blanks (Chinese, Japanese, Thai, ...) they are found wherever they stand.
    """

    def __init__(self, phrases: Iterable[str] = ()):
        folded = (unicodedata.normalize("NFC", phrase).casefold().split() for phrase in phrases)
        self.phrases = tuple(sorted({" ".join(words) for words in folded if words}))
        by_edges: dict[tuple[str, str], list[str]] = {}
        for phrase in self.phrases:  # without \b: a phrase may begin with a sign
            before = "" if _UNSPACED.match(phrase[0]) else f"(?<!{_SPACED})"
            behind = "" if _UNSPACED.match(phrase[-1]) else f"(?!{_SPACED})"
            by_edges.setdefault((before, behind), []).append(re.escape(phrase).replace(r"\ ", r"\s+"))
        # The longest first is not needed: one match is enough.
        parts = [f"{before}(?:{'|'.join(same)}){behind}" for (before, behind), same in by_edges.items()]
        self._pattern = re.compile("|".join(parts)) if parts else None

    @classmethod
    def read(cls, path: Path | None) -> "PhraseList":
        """One phrase per line in UTF-8; `#` opens a comment. No path: an empty list."""
        if path is None:
            return cls()
        try:
            text = path.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{path}: no list of phrases can be read from it: {error}") from None
        return cls(line.split("#", 1)[0] for line in text.splitlines())

    def stand_in(self, text: str) -> bool:
        """Whether one of the phrases stands in `text`."""
        return self._pattern is not None and self._pattern.search(text.casefold()) is not None
