import io
from dataclasses import replace

import numpy as np
import pytest
from pictures import encoded, record, tokenizer
from PIL import Image

from crossgrain.config import UserError
from crossgrain.data.asks import Reading
from crossgrain.data.images import ImageConfig
from crossgrain.data.records import WHOLE_IMAGE, Record, Region
from crossgrain.data.samples import Recipe, make_sample
from crossgrain.data.text import TextConfig, Tokenizer, train_vocab

TOKENIZER = tokenizer([record(i) for i in range(3)])
RECIPE = Recipe(
    image=ImageConfig(size=32, rand_augment=None), text=TextConfig(vocab="", max_tokens=16), tokenizer=TOKENIZER
)


def samples(one: Record, texts, num_texts, recipe=RECIPE, runs=40):
    return [make_sample(one, texts, num_texts, recipe, np.random.default_rng([7, i])) for i in range(runs)]


def test_a_sample_is_a_function_of_record_and_seed():
    (first,), (again,), other = (samples(record(0), "regions", 4, runs=n) for n in (1, 1, 2))
    assert first.rows == again.rows and np.array_equal(first.pixels, again.pixels)
    assert not np.array_equal(first.pixels, other[1].pixels)


def test_captions_differ_within_a_sample_as_long_as_there_are_some():
    for sample in samples(record(0), "captions", 3):
        texts = [TOKENIZER.decode(row.ids) for row in sample.rows]
        assert len(set(texts)) == 2 and texts[0] == texts[2]
        assert all(row.index == 0 and row.box == WHOLE_IMAGE for row in sample.rows)


def test_regions_follow_their_caption_and_repeat_to_fill():
    seen = set()
    for sample in samples(record(0), "regions", 6):
        indices = [row.index for row in sample.rows]
        distinct = list(dict.fromkeys(indices))
        assert indices[0] == 0 and len(distinct) >= 2 and indices == (distinct * 6)[:6]
        assert all((row.box == WHOLE_IMAGE) == (row.index == 0) for row in sample.rows)
        seen.update(indices)
    assert seen == {0, 1, 2, 3}


def coloured_regions() -> Record:
    """A record whose regions are boxes of one colour each, so that pixels can be held against boxes."""
    pixels = np.zeros((80, 100, 3), np.uint8)
    corners = {"red": (10, 10), "green": (60, 10), "blue": (30, 48)}
    regions = []
    for channel, (name, (x, y)) in enumerate(corners.items()):
        pixels[y : y + 24, x : x + 30, channel] = 255
        regions.append(Region(box=(x / 100, y / 80, (x + 30) / 100, (y + 24) / 80), label=name))
    return Record(key="c", image=encoded(pixels), regions=tuple(regions))


@pytest.mark.parametrize("region_crop", ["around_region", "scale"])
def test_boxes_follow_crop_and_flip(region_crop):
    recipe = replace(RECIPE, image=replace(RECIPE.image, region_crop=region_crop, crop_scale=(0.6, 1.0)))
    drawn = samples(coloured_regions(), "regions", 3, recipe)
    shares = [(r.box[2] - r.box[0]) * (r.box[3] - r.box[1]) for sample in drawn for r in sample.rows if r.index]
    assert (max(shares) > 0.09 / 0.6 + 0.01) == (region_crop == "around_region")  # a region is 0.09 of the image
    for sample in drawn:
        for row in sample.rows:
            channel = sample.pixels[row.index - 1] > 127
            ys, xs = np.nonzero(channel)
            seen = np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]) / 32
            np.testing.assert_allclose(row.box, seen, atol=1.5 / 32)


def half_red(text: str) -> Record:
    pixels = np.zeros((40, 40, 3), np.uint8)
    pixels[:, :20, 0] = 255
    return Record(key="h", image=encoded(pixels), captions=(text,))


@pytest.mark.parametrize("left_right", ["swap_words", "keep_image", "ignore"])
def test_what_is_said_of_left_and_right_stays_true(left_right):
    vocabulary = Tokenizer(train_vocab(["red is left", "red is right", "red is here"], 60))
    image = ImageConfig(size=16, rand_augment=None, crop_scale=(1.0, 1.0), left_right=left_right)
    recipe = replace(RECIPE, image=image, tokenizer=vocabulary)
    told = set()
    for text in ("red is left", "red is here"):
        for sample in samples(half_red(text), "captions", 1, recipe):
            side = "left" if sample.pixels[0, 8, 4] > 127 else "right"
            told.add((text, side, vocabulary.decode(sample.rows[0].ids)))
    anywhere = {("red is here", "left", "red is here"), ("red is here", "right", "red is here")}
    assert (
        told
        == anywhere
        | {
            "swap_words": {("red is left", "left", "red is left"), ("red is left", "right", "red is right")},
            "keep_image": {("red is left", "left", "red is left")},
            "ignore": {("red is left", "left", "red is left"), ("red is left", "right", "red is left")},
        }[left_right]
    )


def test_an_image_is_kept_where_a_reference_names_a_side():
    image = replace(RECIPE.image, flip=1.0, left_right="keep_image")
    reading = Reading(tokenizer=TOKENIZER, text=RECIPE.text, num_references=2)
    recipe = replace(RECIPE, image=image, reading=reading)
    for said, flipped in {"a star left of it": False, "a star beside it": True}.items():
        one = replace(record(0), captions=("a house", said))
        drawn = samples(one, "captions", 1, recipe)
        assert {sample.flipped for sample in drawn} == {flipped}


def test_the_upright_image_is_what_boxes_speak_about():
    one = coloured_regions()
    exif = Image.Exif()
    exif[0x0112] = 6
    file = io.BytesIO()
    Image.open(io.BytesIO(one.image)).transpose(Image.Transpose.ROTATE_90).save(file, "PNG", exif=exif)
    upright, turned = (samples(r, "regions", 3, runs=5) for r in (one, replace(one, image=file.getvalue())))
    for plain, other in zip(upright, turned, strict=True):
        assert plain.rows == other.rows and np.array_equal(plain.pixels, other.pixels)


def test_unusable_records_are_named():
    with pytest.raises(UserError, match=r"record 'record_0': its image cannot be read: truncated"):
        samples(replace(record(0), image=record(0).image[:-100]), "captions", 1)
    with pytest.raises(UserError, match=r"record 'record_0': none of its 1 regions has a text"):
        samples(replace(record(0), regions=(Region(box=WHOLE_IMAGE),)), "regions", 1)


def test_images_that_keep_their_shape_are_shown_whole():
    image = ImageConfig(size=40, long_side=60, rand_augment=None, flip=0.5)
    for sample in samples(coloured_regions(), "regions", 3, replace(RECIPE, image=image)):
        assert sample.pixels.shape == (3, 40, 50) and {row.index for row in sample.rows} == {1, 2, 3}
        for row in sample.rows:
            ys, xs = np.nonzero(sample.pixels[row.index - 1] > 127)
            seen = np.array([xs.min() / 50, ys.min() / 40, (xs.max() + 1) / 50, (ys.max() + 1) / 40])
            np.testing.assert_allclose(row.box, seen, atol=1.5 / 40)
