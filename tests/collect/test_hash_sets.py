"""Hash sets of test data: built from a folder, read back, and asked for copies."""

import numpy as np
import pytest
from found_images import saved, scene
from PIL import ImageOps

from crossgrain.collect import hash_sets
from crossgrain.collect.hashes import phash
from crossgrain.config import UserError


@pytest.fixture
def folder(tmp_path):
    images = tmp_path / "images"
    (images / "below").mkdir(parents=True)
    for index in range(12):
        file = images / ("below" if index % 2 else ".") / f"{index}.jpg"
        file.write_bytes(saved(scene(index), quality=90))
    (images / "broken.jpg").write_bytes(b"no image")
    (images / "notes.txt").write_text("no image either")
    return images


def test_a_set_knows_its_images_their_copies_and_their_mirror_images(folder, tmp_path):
    made, drops = hash_sets.build(hash_sets.images_below(folder), "tiny_test", tmp_path / "tiny.txt")
    assert drops.dropped == {"not an image": 1}
    read = hash_sets.load(tmp_path / "tiny.txt")
    assert read.name == "tiny_test" and np.array_equal(read.hashes, made.hashes) and len(read.hashes) == 12
    known = [scene(3), ImageOps.mirror(scene(4)), scene(5).resize((200, 180)), scene(30), ImageOps.flip(scene(6))]
    found = read.contains(np.array([phash(image) for image in known], dtype=np.uint64))
    assert found.tolist() == [True, True, True, False, False]


def test_the_same_images_make_the_same_file(folder, tmp_path):
    paths = hash_sets.images_below(folder)
    hash_sets.build(paths, "one", tmp_path / "a.txt")
    hash_sets.build([path.read_bytes() for path in reversed(paths)], "one", tmp_path / "b.txt")
    assert (tmp_path / "a.txt").read_bytes() == (tmp_path / "b.txt").read_bytes()
    assert not list(tmp_path.glob(".tmp-*"))


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("", "no hash set of phash64-1"),
        ("# hash set phash256-9 other\n", "no hash set of phash64-1"),
        ("# hash set phash64-1 other\nxyz 00\n", "broken hash set"),
        ("# hash set phash64-1 other\n00\n", "broken hash set"),
        ("# hash set phash64-1 other\n" + "f" * 17 + " 00\n", "broken hash set"),
    ],
)
def test_other_files_are_refused(content, complaint, tmp_path):
    (tmp_path / "set.txt").write_text(content)
    with pytest.raises(UserError, match=complaint):
        hash_sets.load(tmp_path / "set.txt")


def test_mistakes_are_said(tmp_path):
    with pytest.raises(UserError, match="no folder of images"):
        hash_sets.images_below(tmp_path / "nowhere")
    with pytest.raises(UserError, match="one word"):
        hash_sets.build([], "two words", tmp_path / "set.txt")
    with pytest.raises(UserError, match="no hash set"):
        hash_sets.load(tmp_path / "nowhere.txt")
    with pytest.raises(UserError, match="no image to hash for empty: 1 x not an image; first at image 0"):
        hash_sets.build([b"no image"], "empty", tmp_path / "set.txt")
    assert not list(tmp_path.iterdir())


def test_an_empty_set_contains_nothing(tmp_path):
    (tmp_path / "none.txt").write_text("# hash set phash64-1 none\n")
    empty = hash_sets.load(tmp_path / "none.txt")
    assert empty.contains(np.array([0, 5], dtype=np.uint64)).tolist() == [False, False]
