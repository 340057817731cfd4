"""The parts of the light scorer: what it sees, what it reads, and how it learns."""

import io

import numpy as np
import pytest
from PIL import Image

from crossgrain.collect.scoring.alignment import _info_nce, _step, train_alignment
from crossgrain.collect.scoring.heads import apply_head, train_head
from crossgrain.collect.scoring.measures import accuracy, auc, measure
from crossgrain.collect.scoring.negatives import junk_text, junk_thumbnail, mismatched_partners
from crossgrain.collect.scoring.pictures import (
    COLOURS,
    NUM_WHOLE,
    NUM_WINDOWS,
    SIDE,
    WINDOW_SIZE,
    colour_table,
    describe,
    describe_thumbnail,
)
from crossgrain.collect.scoring.words import (
    MAX_UNITS,
    colours_named,
    hash_units,
    places_in,
    units_of,
    words_of,
    writing,
)

NAMES = list(COLOURS)


def encoded(pixels: np.ndarray, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


@pytest.mark.parametrize(
    ("rgb", "name"),
    [((220, 30, 30), "red"), ((40, 90, 215), "blue"), ((20, 20, 20), "black"), ((250, 250, 250), "white"),
     ((128, 128, 128), "grey"), ((40, 150, 60), "green"), ((240, 210, 40), "yellow"), ((120, 70, 40), "brown")],
)  # fmt: skip
def test_a_plain_colour_is_called_by_its_name(rgb, name):
    red, green, blue = (value >> 3 for value in rgb)
    assert NAMES[colour_table()[red << 10 | green << 5 | blue].argmax()] == name
    assert colour_table().sum(1) == pytest.approx(np.ones(32**3), abs=1e-5)


def test_a_window_tells_what_stands_in_it_and_what_does_not():
    pixels = np.full((SIDE, SIDE, 3), 128, np.uint8)
    pixels[:16, :16] = (220, 30, 30)
    windows, whole = describe_thumbnail(pixels)
    assert windows.shape == (NUM_WINDOWS, WINDOW_SIZE)
    assert whole.shape == (NUM_WHOLE,)
    red = windows[:, 16 * 11 + NAMES.index("red")]  # of the middle of each window
    last = windows[-49:]  # the smallest windows, row by row
    assert red[-49] > 0.9  # upper left
    assert red[-1] < 0.1  # lower right
    plain = describe_thumbnail(np.full((SIDE, SIDE, 3), 128, np.uint8))[0]
    assert last[-1] == pytest.approx(plain[-1], abs=0.02)
    shares = whole[-2 * len(NAMES) :]
    assert shares[NAMES.index("red")] == pytest.approx(1 / 16, abs=0.02)
    assert shares[len(NAMES) + NAMES.index("red")] > 0.9


def test_edges_are_told_by_their_direction():
    stripes = np.zeros((SIDE, SIDE, 3), np.uint8)
    stripes[::8] = stripes[1::8] = stripes[2::8] = stripes[3::8] = 255
    across, down = (describe_thumbnail(p)[0][0, :128].reshape(16, 8) for p in (stripes, stripes.transpose(1, 0, 2)))
    assert across.mean(0).argmax() == 4  # gradients that point down
    assert down.mean(0).argmax() == 0


def test_every_format_and_mode_is_described_and_what_is_no_image_is_not():
    grey = np.arange(100 * 80, dtype=np.uint8).reshape(80, 100) % 251
    for data in (encoded(grey), encoded(np.stack([grey] * 4, -1)), encoded(grey, "JPEG"), encoded(grey[:9, :9], "GIF")):
        windows, whole = describe(data)
        assert np.isfinite(windows).all()
        assert np.isfinite(whole).all()
    assert describe(b"") is None
    assert describe(encoded(grey, "JPEG")[:300]) is None


def test_words_and_pairs_of_them_are_hashed_alike_everywhere():
    assert words_of("A Red  star, and the dog’s 2 balls!") == ["a", "red", "star", "and", "the", "dog’s", "2", "balls"]
    assert units_of(["a", "red", "star"]) == ["a", "red", "star", "a red", "red star"]
    assert len(units_of(["word"] * 100)) < MAX_UNITS
    assert hash_units(["red"]).tolist() == [4200685455]
    vocabulary = np.sort(hash_units(["red", "star", "blue"]))
    assert places_in(vocabulary, ["green", "red"]).tolist() == [-1, vocabulary.tolist().index(4200685455)]
    assert places_in(vocabulary[:0], ["red"]).tolist() == [-1]
    assert words_of("") == units_of([]) == []


def test_text_only_features_are_finite_and_tell_shouting_from_speech():
    rarity = np.ones(3)
    plain, loud = writing("a red star", ["a", "red", "star"], rarity), writing("A RED 99", ["a", "red", "99"], rarity)
    assert loud[4] > plain[4] == 0
    assert loud[5] > plain[5] == 0
    assert np.isfinite(writing("", [], np.zeros(0))).all()
    assert np.flatnonzero(colours_named(["scarlet", "gray", "table"])).tolist() == sorted(
        (NAMES.index("red"), NAMES.index("grey"))
    )


def test_measures_of_known_scores():
    right, wrong = np.array([0.9, 0.8, 0.4]), np.array([0.5, 0.1, 0.1, 0.1])
    assert auc(right, wrong) == pytest.approx(11 / 12)
    assert auc(right, right) == 0.5
    assert accuracy(right, wrong) == (pytest.approx((1 + 3 / 4) / 2), 0.4)
    told = measure(right, wrong)
    assert told["recalls"][0] == {"recall": 1.0, "threshold": 0.4, "mismatched_dropped": 0.75}
    assert told["percentiles"]["matched"]["50"] == 0.8


def test_a_wrong_partner_shares_no_caption():
    groups = [("a", "b"), ("B", "c"), ("d",), ("e",)]
    for seed in range(20):
        partners = mismatched_partners(groups, np.random.default_rng(seed))
        assert all(partner != image for image, partner in enumerate(partners))
        assert partners[0] != 1
        assert partners[1] != 0


def test_junk_is_drawn_by_the_generator_alone():
    for make in (lambda rng: junk_text(["a red star", "b"], rng), lambda rng: junk_thumbnail(16, rng).tobytes()):
        drawn = [[make(rng) for _ in range(30)] for rng in map(np.random.default_rng, (1, 1, 2))]
        assert drawn[0] == drawn[1] != drawn[2]
        assert len(set(drawn[0])) > 10


def test_gradients_are_those_of_finite_differences():
    rng = np.random.default_rng(0)
    batch, size, hidden, dim, units = 4, 5, 6, 3, 8
    weights = {
        "hidden": rng.normal(size=(size, hidden)), "hidden_bias": rng.normal(size=hidden),
        "out": rng.normal(size=(hidden, dim)), "units": rng.normal(size=(units, dim)),
        "importance": rng.normal(size=units),
    }  # fmt: skip
    windows, here = rng.normal(size=(batch, 7, size)), np.array([0, 2, 3, 7])
    counts, keep = rng.integers(0, 2, (batch, 4)).astype(float), np.array([[0.0, 2, 2, 2, 0, 2]])
    _, gradients = _step(weights, windows, here, counts, keep)
    for name, value in weights.items():
        for at in (tuple(rng.integers(value.shape)) for _ in range(6)):
            change = np.zeros_like(value)
            change[at] = 1e-6
            ahead, behind = (
                _step({**weights, name: value + sign * change}, windows, here, counts, keep)[0] for sign in (1, -1)
            )
            assert gradients[name][at] == pytest.approx((ahead - behind) / 2e-6, abs=1e-6), name
    assert _info_nce(np.eye(3) * 100)[0] == pytest.approx(0, abs=1e-6)


def test_windows_learn_which_words_they_show():
    rng = np.random.default_rng(0)
    kinds = rng.normal(size=(6, 10)).astype(np.float32) * 2
    shown = np.array([rng.permutation(6)[:2] for _ in range(80)])
    windows = rng.normal(size=(80, 5, 10)).astype(np.float32) * 0.3
    for row, pair in enumerate(shown):
        windows[row, rng.permutation(5)[:2]] += kinds[pair]
    texts = [[np.array(pair)] for pair in shown]
    options = {"hidden": 16, "dim": 8, "steps": 200, "batch_size": 16, "lr": 1e-2, "decay": 0.0, "dropout": 0.0}
    runs = [list(train_alignment([windows], [texts], 6, **options, rng=np.random.default_rng(3))) for _ in range(2)]
    assert [step for step, _, _ in runs[0]] == [100, 200]
    assert (
        runs[0][-1][1] < 1.2
    )  # log 16 for chance; about log 2 where each of 15 pairs of kinds stands in a batch twice
    for name, value in runs[0][-1][2].items():
        assert np.array_equal(value, runs[1][-1][2][name]), name


def test_the_head_learns_and_no_row_depends_on_its_neighbours():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(600, 7)).astype(np.float32) * 10 + 3
    matched = ((features[:, 0] - 3) * (features[:, 1] - 3) > 0).astype(np.float32)  # no straight line tells these
    weights = train_head(features, matched, hidden=16, epochs=400, lr=2e-2, decay=0.0, rng=np.random.default_rng(1))
    scores = apply_head(weights, features)
    assert ((scores > 0.5) == (matched > 0)).mean() > 0.9
    assert np.array_equal(scores[17:19], apply_head(weights, features[17:19]))
