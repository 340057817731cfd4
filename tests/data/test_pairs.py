"""Captions that are another image's, and texts of regions that are left out, as studies of noisy data need them."""

from dataclasses import replace

import numpy as np
import pytest
from pictures import record, tokenizer

from crossgrain.data.images import ImageConfig
from crossgrain.data.loader import Source, batches
from crossgrain.data.pairs import with_region_texts, with_wrong_captions
from crossgrain.data.records import Region
from crossgrain.data.samples import Recipe
from crossgrain.data.text import TextConfig

RECORDS = [replace(record(i), captions=(f"caption of picture {i}",)) for i in range(6)]
TOKENIZER = tokenizer(RECORDS)
TEXT = TextConfig(vocab="", max_tokens=14)
RECIPE = Recipe(image=ImageConfig(size=16, crop_scale=(1.0, 1.0), flip=0.0), text=TEXT, tokenizer=TOKENIZER)


def texts_of_records(share: float) -> list[set[tuple[int, ...]]]:
    """Which texts each record came with in five passes over all of them."""
    source = Source(path="data", batch_size=6, wrong_captions=share)
    seen = [set() for _ in RECORDS]
    options = {"seed": 0, "first_step": 0, "last_step": 5, "num_workers": 0, "records": [RECORDS]}
    for ((batch,),) in batches([source], RECIPE, **options):
        for group, ids in zip(batch.group.tolist(), batch.text["clean"].ids.tolist(), strict=True):
            seen[group >> 16 & 0xFFFF].add(tuple(ids))
    return seen


def test_a_wrong_caption_is_another_records_and_stays_the_same():
    own, noisy = texts_of_records(0.0), texts_of_records(0.6)
    assert all(len(texts) == 1 for texts in own + noisy)
    wrong = [mine != given for mine, given in zip(own, noisy, strict=True)]
    assert 1 <= sum(wrong) <= 5
    assert all(given in own for given in noisy)


def test_as_many_captions_are_wrong_as_asked():
    changed = [
        with_wrong_captions(RECORDS[0], 0.3, lambda rng: ["another"], [0, number]).captions == ("another",)
        for number in range(1000)
    ]
    assert np.mean(changed) == pytest.approx(0.3, abs=0.05)
    assert with_wrong_captions(RECORDS[0], 0.0, lambda rng: ["another"], [0]) == RECORDS[0]


def test_texts_of_regions_are_kept_by_kind():
    region = Region(box=(0.0, 0.0, 1.0, 1.0), label="star", attributes=("red",), phrases=("the star left of it",))
    given = replace(RECORDS[0], regions=(region,))
    texts = {kind: with_region_texts(given, kind).regions[0].texts() for kind in ("all", "objects", "phrases")}
    assert texts == {
        "all": ("the star left of it", "red star"),
        "objects": ("red star",),
        "phrases": ("the star left of it",),
    }
