"""The perceptual hash: what it survives, what it does not, and that its bits never change."""

import numpy as np
import pytest
from found_images import edits, saved, scene
from PIL import Image, ImageOps

from crossgrain.collect.hashes import DECODE_SIDE, SAME_IMAGE, mirrored_phashes, phash
from crossgrain.data.images import open_image


def hashed(data) -> int:
    return phash(open_image(data, at_least=DECODE_SIDE))


def distances(one: list[int], other: list[int]) -> np.ndarray:
    """Bits between every one and every other: (N, M)."""
    left, right = (np.array(values, dtype=np.uint64) for values in (one, other))
    return np.bitwise_count(left[:, None] ^ right[None]).astype(int)


def recall(originals: list[bytes]) -> tuple[dict[str, float], int]:
    """Share of the edited copies found within `SAME_IMAGE` by kind of edit, and the bits between the closest two."""
    hashes = [hashed(data) for data in originals]
    copies: dict[str, list[int]] = {}
    for data in originals:
        for name, edited in edits(open_image(data)).items():
            copies.setdefault(name, []).append(hashed(edited))
    found = {name: float((np.diag(distances(hashes, values)) <= SAME_IMAGE).mean()) for name, values in copies.items()}
    return found, int((distances(hashes, hashes) + 99 * np.eye(len(hashes), dtype=int)).min())


def test_copies_of_drawn_scenes_are_known_and_scenes_are_told_apart():
    found, closest = recall([saved(scene(index), quality=92) for index in range(60)])
    assert found["JPEG q40"] == found["half size"] == found["10 % stretch"] == 1.0
    assert found["brightness x 1.3"] >= 0.85
    assert closest > SAME_IMAGE


def test_copies_of_photos_are_known(shared):
    photos = sorted((shared / "photos").glob("*/images/*.jpg"))[::8]
    found, closest = recall([path.read_bytes() for path in photos])
    assert len(photos) > 100
    assert found["JPEG q40"] == found["half size"] == found["10 % stretch"] == 1.0
    assert found["brightness x 1.3"] >= 0.97 and found["4 % crop"] >= 0.85
    assert closest > SAME_IMAGE + 2


def test_the_bits_of_a_picture_never_change():
    y, x = np.mgrid[:96, :128]
    pixels = np.stack([2 * x, 2 * y, (x * y) // 64 + 40 * ((x // 16 + y // 24) % 2)], axis=-1).astype(np.uint8)
    assert f"{phash(Image.fromarray(pixels)):016x}" == "1a75a0e744a5a3b7"


def test_half_of_the_bits_are_set_unless_the_image_is_blank():
    for index in range(5):
        assert phash(scene(index)).bit_count() == 32
    for colour in ((255, 255, 255), (0, 0, 0), (12, 180, 77)):
        assert phash(Image.new("RGB", (333, 500), colour)) == 0


@pytest.mark.parametrize("index", range(4))
def test_the_mirrored_hash_is_that_of_the_mirrored_image(index):
    image = scene(index, 320)
    own, mirrored = mirrored_phashes(image)
    assert own == phash(image)
    assert mirrored == phash(ImageOps.mirror(image)) != own


def test_partly_decoded_jpegs_have_nearly_the_same_hash():
    large = [saved(scene(index, 1200), quality=90) for index in range(6)]
    for data in large:
        whole, part = open_image(data), open_image(data, at_least=DECODE_SIDE)
        assert part.width * 8 == whole.width
        assert (phash(whole) ^ phash(part)).bit_count() <= 4
