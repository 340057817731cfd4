import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pictures import encoded
from PIL import Image

from crossgrain.data.augment import (
    augment_colours,
    box_in_crop,
    crop_around,
    flip_box,
    mentions_direction,
    random_crop,
    render,
    swap_directions,
)
from crossgrain.data.images import EncodedImage

sides = st.integers(8, 400)
boxes = st.tuples(*[st.floats(0, 0.98)] * 4).map(
    lambda v: (min(v[0], v[2]), min(v[1], v[3]), max(v[0], v[2]) + 0.02, max(v[1], v[3]) + 0.02)
)


@given(sides, sides, st.integers(0, 1000))
def test_a_random_crop_keeps_the_wanted_share_of_the_image(width, height, seed):
    x1, y1, x2, y2 = random_crop((width, height), (0.2, 1.0), np.random.default_rng(seed))
    assert 0 <= x1 < x2 <= 1 and 0 <= y1 < y2 <= 1
    if 3 / 4 < width / height < 4 / 3:
        assert (x2 - x1) * (y2 - y1) > 0.2 * 0.8  # but for rounding to whole pixels


def test_a_crop_of_all_of_a_square_is_the_whole_image():
    assert random_crop((64, 64), (1.0, 1.0), np.random.default_rng(0)) in {(0, 0, 1, 1), (0.0, 0.0, 1.0, 1.0)}


@given(boxes, sides, sides, st.integers(0, 1000))
def test_a_crop_around_a_region_holds_all_of_it(box, width, height, seed):
    crop = crop_around(box, (width, height), np.random.default_rng(seed))
    assert all(crop[i] <= box[i] + 1e-9 and crop[i + 2] >= box[i + 2] - 1e-9 for i in (0, 1))
    inside = box_in_crop(box, crop)
    assert inside is not None and all(0 <= v <= 1 for v in inside)


def test_a_region_is_clipped_while_more_than_half_of_it_is_seen():
    crop = (0.5, 0.0, 1.0, 1.0)
    assert box_in_crop((0.45, 0.2, 0.65, 0.4), crop) == pytest.approx((0.0, 0.2, 0.3, 0.4))
    assert box_in_crop((0.35, 0.2, 0.65, 0.4), crop) is None  # half of it
    assert box_in_crop((0.1, 0.2, 0.3, 0.4), crop) is None


@given(boxes)
def test_flipping_twice_changes_nothing(box):
    assert flip_box(flip_box(box)) == pytest.approx(box)


@pytest.mark.parametrize(
    ("text", "flipped"),
    [
        ("The star LEFT of the Right house", "The star RIGHT of the Left house"),
        ("leftmost fish, right-hand side, facing leftwards", "rightmost fish, left-hand side, facing rightwards"),
        ("a bright copyright notice and a cleft", "a bright copyright notice and a cleft"),
    ],
)
def test_left_and_right_change_places_in_a_text(text, flipped):
    assert swap_directions(text) == flipped and swap_directions(flipped) == text
    assert mentions_direction(text) == (text != flipped)


def test_crop_and_resize_is_one_resampling_of_what_the_box_shows():
    pixels = np.zeros((40, 80, 3), np.uint8)
    pixels[:20, 40:60] = (255, 0, 0)
    view = np.asarray(render(EncodedImage(encoded(pixels)), (0.5, 0.0, 0.75, 0.5), (16, 16)))
    assert view.shape == (16, 16, 3) and view[..., 0].min() > 230 and view[..., 1:].max() == 0


def test_a_large_jpeg_decoded_smaller_shows_the_same_crop():
    patches = np.random.default_rng(0).integers(0, 255, (6, 6, 3), dtype=np.uint8)
    smooth = np.asarray(Image.fromarray(patches).resize((900, 600)))
    files = [EncodedImage(encoded(smooth, kind)) for kind in ("JPEG", "PNG")]
    jpeg, png = (np.asarray(render(file, (0.1, 0.2, 0.7, 0.9), (64, 64))).astype(int) for file in files)
    assert np.abs(jpeg - png).mean() < 2


def test_colour_operations_change_colours_but_move_nothing():
    pixels = np.broadcast_to(np.linspace((40, 60, 50), (90, 140, 100), 32).astype(np.uint8), (32, 32, 3))
    image, seen = Image.fromarray(pixels), set()
    for seed in range(60):
        view = np.asarray(augment_colours(image, 2, 7, np.random.default_rng(seed))).astype(int)
        assert np.abs(np.diff(view[1:-1], axis=0)).max() == 0 and view[5, 25, 1] > view[5, 5, 1]
        seen.add(view.astype(np.uint8).tobytes())
    assert len(seen) >= 5 and image.tobytes() in seen


def test_the_same_random_numbers_give_the_same_colours():
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (8, 8, 3), dtype=np.uint8))
    views = {augment_colours(image, 3, 7, np.random.default_rng(5)).tobytes() for _ in range(3)}
    assert len(views) == 1
