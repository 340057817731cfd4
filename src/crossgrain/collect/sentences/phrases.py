"""An operator's list of words and phrases, found in texts as whole words."""

import re
from collections.abc import Iterable
from pathlib import Path

from crossgrain.config import UserError


class PhraseList:
    """Words and phrases, found whatever their case and the blanks between their words; an empty list finds nothing."""

    def __init__(self, phrases: Iterable[str] = ()):
        self.phrases = tuple(sorted({" ".join(phrase.casefold().split()) for phrase in phrases if phrase.strip()}))
        # The longest first is not needed: one match is enough. Without \b: a phrase may begin with a sign.
        parts = "|".join(re.escape(phrase).replace(r"\ ", r"\s+") for phrase in self.phrases)
        self._pattern = re.compile(rf"(?<!\w)(?:{parts})(?!\w)") if parts else None

    @classmethod
    def read(cls, path: Path | None) -> "PhraseList":
        """One phrase per line in UTF-8; `#` opens a comment. No path: an empty list."""
        if path is None:
            return cls()
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{path}: no list of phrases can be read from it: {error}") from None
        return cls(line.split("#", 1)[0] for line in text.splitlines())

    def stand_in(self, text: str) -> bool:
        """Whether one of the phrases stands in `text`."""
        return self._pattern is not None and self._pattern.search(text.casefold()) is not None
