"""What a sentence must be like: rules with the values of published data sets, each to be overridden."""

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from crossgrain.collect.sentences.language import Identifiers
from crossgrain.config import UserError, configclass

Preset = Literal["lait", "cc12m", "coyo", "laion"]
Need = Literal["determiner", "preposition"]
Ratio = Annotated[float, Field(ge=0, le=1)]
Natural = Annotated[int, Field(ge=0)]
_ENDLESS = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Rules:
    """Every rule with its value. A least value of 0, or a greatest ratio of 1, switches a rule off."""

    min_words: int = 0
    max_words: int = _ENDLESS
    min_chars: int = 0
    max_chars: int = _ENDLESS
    max_repetition: float = 1.0  # occurrences of the most frequent content word after its first, per word
    max_capitals: float = 1.0  # upper-case letters per letter
    max_symbols: float = 1.0  # characters that are no letters, digits or ordinary punctuation, per character
    max_punctuation: float = 1.0  # ordinary punctuation, per character
    max_digits: float = 1.0  # per character
    needs: tuple[Need, ...] = ()
    boilerplate: bool = True  # cut it off and drop what is nothing else; also addresses and names of files
    personal_data: bool = True  # drop texts with e-mail addresses, telephone, card and account numbers
    near_sentences: bool = True  # text near an image must be a sentence: hold a determiner, preposition, pronoun, ...
    identifiers: Identifiers = "both"
    min_language_score: float = 0.5


# LAIT's text rules are known in words only (URLs, heavy punctuation, irregular texts); its ratios here are our own.
# COYO and LAION asked one identifier, of which fastText is the nearest here. CC12M and COYO also wanted a noun: that
# takes a tagger, so it is left out.
_SOUND = Rules(max_repetition=0.2, max_capitals=0.5, max_symbols=0.1, max_punctuation=0.2, max_digits=0.3)
PRESETS: dict[str, Rules] = {
    "lait": replace(_SOUND, min_words=3, max_words=60),
    "cc12m": replace(_SOUND, min_words=3, max_words=256, max_capitals=1.0, needs=("determiner",)),
    "coyo": Rules(
        min_words=3, max_words=256, max_chars=1000, boilerplate=False, near_sentences=False, identifiers="fasttext"
    ),
    "laion": Rules(min_chars=5, boilerplate=False, near_sentences=False, identifiers="fasttext"),
}


@configclass
class SentenceConfig:
    """How texts are cleaned and judged; a rule that is left out is as the preset has it."""

    preset: Preset = "lait"
    language: str = "en"
    min_words: Natural | None = None
    max_words: Natural | None = None
    min_chars: Natural | None = None
    max_chars: Natural | None = None
    max_repetition: Ratio | None = None
    max_capitals: Ratio | None = None
    max_symbols: Ratio | None = None
    max_punctuation: Ratio | None = None
    max_digits: Ratio | None = None
    needs: tuple[Need, ...] | None = None
    boilerplate: bool | None = None
    personal_data: bool | None = None
    near_sentences: bool | None = None
    identifiers: Identifiers | None = None
    min_language_score: Ratio | None = None
    short_words: Natural = 16  # up to so many words the language that the page declares counts as evidence
    profanity: Path | None = None  # a text file with one word or phrase per line, # opens a comment
    extra_boilerplate: Path | None = None  # the same, for phrases that make a sentence boilerplate

    def rules(self) -> Rules:
        """The preset's rules with what is overridden here."""
        said = {field.name: getattr(self, field.name) for field in fields(Rules)}
        rules = replace(PRESETS[self.preset], **{name: value for name, value in said.items() if value is not None})
        for least, most, what in (
            (rules.min_words, rules.max_words, "words"),
            (rules.min_chars, rules.max_chars, "chars"),
        ):
            if least > most:
                raise UserError(f"min_{what} {least} is more than max_{what} {most}: no text could pass")
        return rules
