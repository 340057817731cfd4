import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossgrain.data.masking import Masking, RegionMasking, mask_regions, mask_tokens
from crossgrain.data.text import Tokenizer

SIDE = json.loads((Path(__file__).parents[1] / "golden" / "xvlm" / "data_side.json").read_text())
TOKENIZER = Tokenizer(SIDE["tokenizer"]["vocab"])
WORDS = [i for i in range(len(TOKENIZER)) if i > 5]


@given(
    st.lists(st.sampled_from(WORDS), min_size=1, max_size=50),
    st.booleans(),
    st.sampled_from([Masking(), Masking(probability=0.15, max_masked=3, whole_words=False, skip_gram_probability=0.0)]),
    st.integers(0, 2**32),
)
def test_at_least_one_token_is_hidden_and_never_a_special_one(words, end, masking, seed):
    ids = [TOKENIZER.cls, *words, *([TOKENIZER.sep] if end else [])]
    changed, positions, labels = mask_tokens(ids, TOKENIZER, masking, np.random.default_rng(seed))
    assert 1 <= len(positions) <= masking.max_masked and positions == sorted(set(positions))
    assert positions[0] >= 1 and positions[-1] <= len(words)
    assert labels == [ids[p] for p in positions]
    assert [c for i, c in enumerate(changed) if i not in positions] == [
        v for i, v in enumerate(ids) if i not in positions
    ]


def broken_words(tokens: list[str], hidden: list[int]) -> int:
    """How many words are hidden in part."""
    words: list[list[int]] = []
    for position, token in enumerate(tokens[1:], start=1):
        if token.startswith("##") and words:
            words[-1].append(position)
        else:
            words.append([position])
    return sum(0 < len(set(word) & set(hidden)) < len(word) for word in words)


def neighbours(hidden: list[int]) -> int:
    return sum(position + 1 in hidden for position in hidden)


def test_the_drawing_is_that_of_the_original():
    rng = np.random.default_rng(0)
    index = {token: i for i, token in enumerate(TOKENIZER.tokens)}
    recorded, drawn = np.zeros(4), []
    for case in SIDE["text_masking"]:
        hidden, tokens = case["masked_pos"], case["tokens"]
        became_mask = sum(case["out_tokens"][p] == "[MASK]" for p in hidden)
        recorded += (len(hidden), became_mask, broken_words(tokens, hidden), neighbours(hidden))
        masking = Masking(probability=case["mask_prob"], max_masked=case["mask_max"], whole_words=case["whole_word"])
        runs = []
        for _ in range(100):
            changed, positions, _ = mask_tokens([index[t] for t in tokens], TOKENIZER, masking, rng)
            assert len(positions) == len(hidden)
            became_mask = sum(changed[p] == TOKENIZER.mask for p in positions)
            runs.append((len(positions), became_mask, broken_words(tokens, positions), neighbours(positions)))
        drawn.append(runs)
    totals = np.array(drawn).sum(axis=0)  # (100, 4): what 100 recordings like the original's would have shown
    distance = np.abs(totals.mean(axis=0) - recorded) / np.maximum(totals.std(axis=0), 0.5)
    assert (distance < 3).all(), (recorded, totals.mean(axis=0), totals.std(axis=0))


def test_of_the_hidden_tokens_8_in_10_become_mask_and_1_in_10_any_word():
    rng = np.random.default_rng(1)
    ids = [TOKENIZER.cls, *([WORDS[7]] * 31)]
    became = [
        changed[p]
        for _ in range(1000)
        for changed, where, _ in [mask_tokens(ids, TOKENIZER, Masking(), rng)]
        for p in where
    ]
    assert len(became) == 8000
    assert np.mean(np.array(became) == TOKENIZER.mask) == pytest.approx(0.801, abs=0.02)
    assert np.mean(np.array(became) == WORDS[7]) == pytest.approx(0.101, abs=0.015)
    assert len(set(became)) == len(TOKENIZER)


def test_without_skip_grams_a_hidden_word_is_hidden_whole():
    play, ing = TOKENIZER.tokens.index("play"), TOKENIZER.tokens.index("##ing")
    masking = Masking(skip_gram_probability=0.0, max_masked=2, probability=0.3)
    for seed in range(50):
        ids = [TOKENIZER.cls, *([play, ing] * 3)]
        _, positions, _ = mask_tokens(ids, TOKENIZER, masking, np.random.default_rng(seed))
        assert positions in ([1, 2], [3, 4], [5, 6])


@given(st.integers(0, 120), st.sampled_from([0.0, 0.15, 1.0]), st.integers(1, 20), st.integers(0, 2**32))
def test_a_share_of_the_regions_is_chosen_at_least_one_where_there_is_one(num, probability, most, seed):
    masking = RegionMasking(probability=probability, max_masked=most)
    positions, hidden = mask_regions(num, masking, np.random.default_rng(seed))
    assert len(positions) == len(hidden) == min(num, most, max(1, round(probability * num)))
    assert positions == sorted(set(positions)) and all(0 <= position < num for position in positions)


def test_9_in_10_chosen_regions_are_hidden_and_every_region_is_chosen_as_often():
    rng = np.random.default_rng(2)
    runs = [mask_regions(100, RegionMasking(), rng) for _ in range(1000)]
    assert np.mean([hide for _, hidden in runs for hide in hidden]) == pytest.approx(0.9, abs=0.01)
    counts = np.bincount([position for positions, _ in runs for position in positions], minlength=100)
    assert counts.sum() == 15_000 and counts.min() > 100 and counts.max() < 200
