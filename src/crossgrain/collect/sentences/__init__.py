"""Sentence detection and cleaning: repair, cutting, rules, two language identifiers.

Read in this order: `clean` (the stage), `repair`, `boilerplate`, `split`, `rules` (and `wordlists`), `language`,
`presets` (the values of published data sets).
"""

from crossgrain.collect.sentences.clean import Cleaner, CleanText
from crossgrain.collect.sentences.presets import SentenceConfig

__all__ = ["CleanText", "Cleaner", "SentenceConfig"]
