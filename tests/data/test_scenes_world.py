import io
import pickle
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from crossgrain.config import UserError
from crossgrain.data.records import Record
from crossgrain.data.scenes import HELD_OUT, SPLITS, draw_scene, make_scene
from crossgrain.data.scenes.draw import label_map
from crossgrain.data.scenes.world import COLOURS, FILLINGS, KINDS, SIZES
from crossgrain.data.sets.scenes import read, split_sizes


def colour_kinds(scene):
    return {(thing.colour, thing.kind) for thing in scene.things}


def extent(mask):
    """The box of the True pixels of a square mask, in [0, 1]."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]) / len(mask)


def test_the_same_seed_gives_the_same_bytes_and_another_seed_other_scenes():
    first, again, other = ([item() for item in read(5, seed, split="test")] for seed in (3, 3, 4))
    assert first == again
    assert all(a.image != b.image and a.captions != b.captions for a, b in zip(first, other, strict=True))


def test_a_scene_does_not_depend_on_how_many_there_are():
    small, large = (list(read(size, 0)) for size in (16, 64))
    assert small[0]() == large[0]()
    assert small[-1]() == large[64 - 8 + 1]()  # unseen_000001


def test_sizes_are_shared_out_over_the_splits_in_order():
    assert split_sizes(12_000) == {"train": 10_500, "val": 500, "test": 500, "unseen": 500}
    assert split_sizes(80) == {"train": 50, "val": 10, "test": 10, "unseen": 10}
    assert split_sizes(4) == {"train": 1, "val": 1, "test": 1, "unseen": 1}
    assert split_sizes(3) == {"train": 3, "val": 0, "test": 0, "unseen": 0}
    keys = [item().key for item in read(8, 0)]
    assert keys == [*(f"train_{i:06d}" for i in range(5)), "val_000000", "test_000000", "unseen_000000"]


def test_items_travel_to_workers_and_draw_records_of_the_size_asked_for():
    (item,) = read(1, 7, split="unseen", image_size=80)
    record = pickle.loads(pickle.dumps(item))()
    assert isinstance(record, Record) and record.split == "unseen"
    image = Image.open(io.BytesIO(record.image))
    assert (image.format, image.size, image.mode) == ("JPEG", (80, 80), "RGB")


@pytest.mark.parametrize("wrong", [{"size": 0}, {"split": "dev"}, {"image_size": 4}])
def test_values_that_cannot_be_are_refused_in_one_line(wrong):
    with pytest.raises(UserError) as error:
        read(**{"size": 1, "seed": 0, **wrong})
    assert "\n" not in str(error.value) and str(next(iter(wrong.values()))) in str(error.value)


def test_only_unseen_shows_the_held_out_pairs_and_every_unseen_scene_does():
    for split in SPLITS:
        shown = [bool(HELD_OUT & colour_kinds(make_scene(1, split, i))) for i in range(300)]
        assert all(shown) if split == "unseen" else not any(shown)
    assert len(HELD_OUT) == len(KINDS) * len(COLOURS) // 10


def test_training_shows_every_value_of_every_attribute_and_one_to_five_objects():
    scenes = [make_scene(0, "train", i) for i in range(200)]
    things = [thing for scene in scenes for thing in scene.things]
    assert {thing.kind for thing in things} == set(KINDS) and len(KINDS) >= 16
    assert {thing.colour for thing in things} == set(COLOURS) and len(COLOURS) == 10
    assert {thing.size for thing in things} == set(SIZES) and {thing.filling for thing in things} == set(FILLINGS)
    assert set(Counter(len(scene.things) for scene in scenes)) == {1, 2, 3, 4, 5}
    assert len({scene.background for scene in scenes}) >= 5


def test_boxes_are_the_extents_of_what_is_drawn():
    width = 512
    for index in range(60):
        for thing in make_scene(2, "train", index).things:
            assert 0 <= thing.box[0] < thing.box[2] <= 1 and 0 <= thing.box[1] < thing.box[3] <= 1
            drawn = extent(np.asarray(label_map(thing, width, (0, 0), (width, width))) > 0)
            np.testing.assert_allclose(drawn, thing.box, atol=4 / width)


def test_objects_overlap_but_stay_recognisable_and_keep_their_visible_extent():
    width, overlapping = 256, 0
    for index in range(120):
        scene = make_scene(5, "train", index)
        masks = [np.asarray(label_map(thing, width, (0, 0), (width, width))) > 0 for thing in scene.things]
        overlapping += bool(scene.overlapping)
        for i, mask in enumerate(masks):
            visible = mask & ~np.logical_or.reduce([np.zeros_like(mask), *masks[i + 1 :]])
            assert visible.sum() >= 0.65 * mask.sum()
            np.testing.assert_allclose(extent(visible), scene.things[i].box, atol=6 / width)
    assert overlapping > 20


def test_a_scene_looks_the_same_at_every_size():
    scene = make_scene(0, "train", 12)
    small = np.asarray(draw_scene(scene, 96), dtype=float)
    large = np.asarray(draw_scene(scene, 288).reduce(3), dtype=float)
    assert np.abs(small - large).mean() < 8


def test_every_object_stands_out_from_its_background():
    for index in range(40):
        scene = make_scene(9, "val", index)
        pixels = np.asarray(draw_scene(scene, 128), dtype=float)
        for thing in scene.things:
            labels = np.asarray(label_map(thing, 128, (0, 0), (128, 128)))
            inside = pixels[labels == 3]  # the outline
            x1, y1, x2, y2 = (round(128 * value) for value in thing.box)
            rim = np.concatenate([pixels[y1 - 1, x1:x2], pixels[min(y2, 127), x1:x2]])
            assert np.abs(np.median(inside, axis=0) - np.median(rim, axis=0)).max() > 25
