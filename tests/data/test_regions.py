"""What a detector found: its bytes, and the files beside the shards."""

import io
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import picture

from crossgrain.config import UserError
from crossgrain.data import regions
from crossgrain.data.records import Record
from crossgrain.data.regions import RegionFeatures
from crossgrain.data.shards import Shards, ShardWriter

STAMP = {"detector": "tiny", "weights": "random:0", "score_threshold": 0.2, "image_size": (60, 100)}


def some(seed: int, num: int = 5, size: int = 8, classes: int | None = 4) -> RegionFeatures:
    rng = np.random.default_rng(seed)
    corners = np.sort(rng.random((num, 2, 2)), axis=1)
    probs = None if classes is None else rng.dirichlet(np.ones(classes), num)
    return RegionFeatures.of(
        corners.reshape(num, 4),
        rng.normal(size=(num, size)),
        None if probs is None else probs.argmax(1),
        rng.random(num),
        probs,
        rng.integers(0, 9, num),
    )


@pytest.fixture
def folder(tmp_path):
    with ShardWriter(tmp_path / "data", records_per_shard=3) as writer:
        for i in range(7):
            split = ("train", "val")[i % 2]
            writer.write(Record(key=f"r{i}", image=picture(i), captions=("x",), split=split), "jpg", 40, 32)
    return tmp_path / "data"


def detect(folder, shards=("000000", "000001", "000002"), stamp=STAMP, **options):
    """Write the regions of some shards, as a detector would; record 4 could not be read, record 5 was not asked for."""
    done = regions.open_regions(folder, stamp, **options)
    keys = {"000000": (0, 1, 2), "000001": (3, 4), "000002": (6,)}
    for shard in shards:
        if shard not in done:
            found = ((f"r{i}", RegionFeatures.empty(8, 4) if i == 4 else some(i)) for i in keys[shard])
            regions.write_region_shard(folder, shard, found)
    return regions.finish_regions(folder)


def contents(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@pytest.mark.parametrize("found", [some(1), some(2, classes=None), RegionFeatures.empty(8, 4), RegionFeatures.empty(8)])
def test_regions_come_back_from_their_bytes_and_numpy_reads_them(found):
    data = found.to_bytes()
    assert RegionFeatures.from_bytes(data) == found
    assert data == RegionFeatures.from_bytes(data).to_bytes()
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        assert np.array_equal(arrays["features"], found.features) and arrays["boxes"].dtype == np.float32


def test_regions_differ_where_one_value_does():
    assert some(1) != some(2) and some(1) != some(1, classes=None) and some(1) == some(1)


def test_values_beyond_float16_and_the_image_are_clipped():
    found = RegionFeatures.of([[-0.1, 0, 1.2, 1]], [[1e9, -1e9, 0.5]])
    assert found.features.tolist() == [[65504, -65504, 0.5]]
    assert found.boxes.tolist() == [[0, 0, 1, 1]] and found.labels.tolist() == [-1] and found.scores.tolist() == [1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": [4] * 5}, "label 4 of 4 classes"),
        ({"labels": [-2] * 5}, "label -2"),
        ({"scores": [0.5] * 4}, "scores"),
        ({"features": np.full((5, 8), np.nan)}, "features is not finite"),
        ({"boxes": np.tile([0.5, 0, 0.4, 1], (5, 1))}, "a box is not"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(change, message):
    good = some(1)
    values = {name: getattr(good, name) for name in ("boxes", "features", "labels", "scores", "class_probs")}
    with pytest.raises(ValueError, match=message):
        RegionFeatures.of(**{**values, **change})


def npz(**arrays) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def promised(shape) -> bytes:
    """An .npz whose features promise `shape` and hold nothing."""
    member, buffer = io.BytesIO(), io.BytesIO()
    np.lib.format.write_array_header_1_0(member, {"descr": "<f2", "fortran_order": False, "shape": shape})
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("features.npy", member.getvalue())
    return buffer.getvalue()


def bomb() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("features.npy", bytes(regions.MAX_BYTES + 1))
    return buffer.getvalue()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"PK nonsense",
        npz(boxes=np.zeros((0, 4), np.float32)),
        npz(boxes=np.array([object()])),
        npz(**{"../boxes": np.zeros(3)}),
        promised((10**6, 10**6)),
        promised((-1, 4)),
        bomb(),
        some(1).to_bytes()[:-100],
    ],
    ids=["empty", "no zip", "too few arrays", "pickle", "strange name", "huge", "negative", "bomb", "cut off"],
)
def test_other_bytes_are_a_value_error(data):
    with pytest.raises(ValueError, match="no regions of an image"):
        RegionFeatures.from_bytes(data)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2000), st.integers(0, 255))
def test_a_flipped_byte_gives_regions_or_a_value_error(place, value):
    data = bytearray(some(1).to_bytes())
    data[place % len(data)] = value
    try:
        RegionFeatures.from_bytes(bytes(data))
    except ValueError:
        return


def test_records_come_with_their_regions_in_every_split(folder):
    assert not Shards(folder).has_regions() and Shards(folder)[0].detected is None
    assert detect(folder)
    train, val = Shards(folder, "train", regions=True), Shards(folder, "val", regions=True)
    assert train.has_regions()
    assert [record.detected for record in train] == [some(0), some(2), RegionFeatures.empty(8, 4), some(6)]
    assert [record.detected for record in val] == [some(1), some(3), None]
    assert Shards(folder)[0].detected is None and Shards(folder).texts(0).detected is None


def test_what_was_killed_goes_on_and_ends_in_the_same_bytes(folder):
    before = contents(folder)
    detect(folder)
    whole = contents(folder)
    regions.remove_regions(folder, ["000000", "000001", "000002"])
    assert contents(folder) == before
    assert not detect(folder, shards=["000000"])
    (folder / ".000001.regions.tar.123").write_bytes(b"half")
    (folder / "000001.regions.tar").write_bytes(b"renamed, its table not yet")
    with pytest.raises(UserError, match="not all of its regions"):
        Shards(folder, regions=True)
    assert regions.open_regions(folder, STAMP) == {"000000"}
    assert detect(folder)
    assert contents(folder) == whole


def test_a_shard_that_fails_leaves_nothing(folder):
    regions.open_regions(folder, STAMP)
    before = contents(folder)
    for keys in (("r0", "r0"), ("r3",)):
        with pytest.raises(ValueError, match="is no record of shard 000000, or came twice"):
            regions.write_region_shard(folder, "000000", ((key, some(0)) for key in keys))
        assert contents(folder) == before
    with pytest.raises(ValueError, match="no shard 'x'"):
        regions.write_region_shard(folder, "x", [])


def test_another_detector_is_refused_with_both_stamps_unless_asked_to_replace(folder):
    detect(folder)
    other = {**STAMP, "weights": "random:1"}
    with pytest.raises(UserError, match=r"(?s)weights random:0.*weights random:1"):
        regions.open_regions(folder, other)
    assert detect(folder, stamp=other, overwrite=True)
    assert regions.read_stamp(folder) == {**other, "image_size": [60, 100]}


def test_regions_without_a_stamp_are_nobodys(folder):
    detect(folder)
    (folder / regions.REGIONS).unlink()
    with pytest.raises(UserError, match="no known detector"):
        regions.open_regions(folder, STAMP)
    (folder / regions.REGIONS).write_text('{"format_version": 1}')
    with pytest.raises(UserError, match="not readable"):
        regions.read_stamp(folder)


def test_data_that_are_prepared_anew_lose_the_regions_of_the_old(folder):
    detect(folder)
    with ShardWriter(folder, overwrite=True) as writer:
        writer.write(Record(key="new", image=picture(1)), "jpg", 40, 32)
    assert sorted(contents(folder)) == ["000000.parquet", "000000.tar", "manifest.json"]


def test_a_broken_region_tar_is_named(folder):
    detect(folder)
    data = bytearray((folder / "000000.regions.tar").read_bytes())
    data[512:600] = bytes(88)
    (folder / "000000.regions.tar").write_bytes(data)
    with pytest.raises(UserError, match=r"000000.regions.tar, byte 512: no regions of an image"):
        Shards(folder, regions=True)[0]
