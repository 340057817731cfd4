import io
import multiprocessing
import os
import pickle
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from crossgrain.config import UserError
from crossgrain.data import removal
from crossgrain.data.records import Record, Region
from crossgrain.data.shards import Shards, ShardWriter


def png(shade: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (16, 12), (shade, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def records(count: int = 7) -> list[Record]:
    region = Region(box=(0.1, 0.2, 0.5, 0.75), label="cat", attributes=("black",), phrases=("a cat on a mat",))
    return [
        Record(
            key=f"image_{i}",
            image=png(i),
            captions=(f"picture {i}", "ein Bär ☃"),
            regions=(region,) * (i % 3),
            split=("train", "val")[i % 2],
            extra={"source": f"file:{i}"},
        )
        for i in range(count)
    ]


def write(path, some, **options):
    with ShardWriter(path, records_per_shard=3, **options) as writer:
        for record in some:
            writer.write(record, "png", 16, 12)
    return path


@pytest.fixture
def folder(tmp_path):
    return write(tmp_path / "data", records())


class Killed(BaseException):
    """What no handler of ours stops, as little as a kill."""


def contents(path):
    return {file.name: file.read_bytes() for file in path.iterdir()}


def read_one(shards, index, queue):
    queue.put(shards[index])


def test_random_access_gives_what_was_written_in_any_order(folder):
    shards = Shards(folder)
    assert list(shards) == records()
    for i in (6, 0, 3, 5):
        assert shards[i] == records()[i]
    assert shards[-1] == records()[-1]
    assert shards.texts(4) == replace(records()[4], image=b"")
    with pytest.raises(IndexError):
        shards[7]


def test_a_split_is_a_filter_over_all_shards(folder):
    val = Shards(folder, "val")
    assert [record.key for record in val] == ["image_1", "image_3", "image_5"]
    assert val.split_names() == {"train": 4, "val": 3}
    assert val.column("num_regions").tolist() == [1, 0, 2]
    assert val.column("key").tolist() == ["image_1", "image_3", "image_5"]


def test_a_standard_tar_reader_finds_key_and_extension_pairs(folder):
    with tarfile.open(folder / "000001.tar") as tar:
        members = tar.getmembers()
        assert [m.name for m in members] == [f"image_{i}.{e}" for i in (3, 4, 5) for e in ("png", "json")]
        assert tar.extractfile("image_4.png").read() == records()[4].image
        assert {(m.mtime, m.uid, m.gid, m.mode, m.uname) for m in members} == {(0, 0, 0, 0o644, "")}


def test_the_same_records_give_the_same_bytes(folder, tmp_path):
    assert contents(folder) == contents(write(tmp_path / "again", records()))
    assert sorted(contents(folder))[-1] == "manifest.json"


@settings(max_examples=25, deadline=None)
@given(
    st.text(st.sampled_from("abcXYZ019_-"), min_size=1, max_size=150), st.text(max_size=40), st.binary(max_size=2000)
)
def test_any_key_text_and_image_come_back(tmp_path_factory, key, text, image):
    if any("\ud800" <= c <= "\udfff" for c in text):
        return
    record = Record(key=key, image=image, captions=(text,))
    path = write(tmp_path_factory.mktemp("data"), [record])
    assert Shards(path)[0] == record
    with tarfile.open(path / "000000.tar") as tar:
        assert tar.extractfile(f"{key}.png").read() == image


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_shards_work_in_forked_processes_and_after_pickling(folder):
    shards = Shards(folder)
    assert shards[0] == records()[0]
    copy = pickle.loads(pickle.dumps(shards))
    assert copy[5] == records()[5]
    context = multiprocessing.get_context("spawn")
    queue = context.SimpleQueue()
    process = context.Process(target=read_one, args=(shards, 5, queue))
    process.start()
    assert queue.get() == records()[5]
    process.join()


def test_the_index_holds_no_python_objects(folder):
    arrays = [value for value in vars(Shards(folder)).values() if isinstance(value, np.ndarray)]
    assert arrays and all(array.dtype != object for array in arrays)


def test_a_missing_split_is_named_with_the_splits_that_exist(folder):
    with pytest.raises(UserError, match="no split 'test': its splits are train, val"):
        Shards(folder, "test")


def test_a_folder_without_a_manifest_is_no_data_set(tmp_path):
    with pytest.raises(UserError, match=r"no data set in .*nothing"):
        Shards(tmp_path / "nothing")


def test_a_shortened_tar_is_a_clear_error(folder):
    os.truncate(folder / "000002.tar", 100)
    with pytest.raises(UserError, match=r"000002.tar is shorter than its index says"):
        Shards(folder)[6]


def test_a_failed_write_leaves_nothing_behind(tmp_path):
    with pytest.raises(ZeroDivisionError), ShardWriter(tmp_path / "new") as writer:
        writer.write(records()[0], "png", 16, 12)
        raise ZeroDivisionError
    assert not (tmp_path / "new").exists()


def test_existing_data_are_replaced_only_on_request(folder):
    with pytest.raises(UserError, match="already holds a data set"):
        write(folder, records(2))
    assert len(Shards(folder)) == 7
    write(folder, records(2), overwrite=True)
    assert len(Shards(folder)) == 2
    assert sorted(contents(folder)) == ["000000.parquet", "000000.tar", "manifest.json"]


def test_tars_of_others_are_never_touched(tmp_path):
    (tmp_path / "mine.tar").write_bytes(b"precious")
    with pytest.raises(UserError, match=r"mine.tar belongs to no finished data set"):
        write(tmp_path, records(), overwrite=True)
    assert (tmp_path / "mine.tar").read_bytes() == b"precious"


@pytest.mark.parametrize("finished_renames", [0, 1, 4])
def test_a_run_killed_at_the_end_can_simply_run_again(tmp_path, finished_renames):
    write(tmp_path / "data", records())
    whole = contents(tmp_path / "data")
    work = tmp_path / "data" / ".partial"
    work.mkdir()
    for name in sorted(whole)[finished_renames:]:
        (tmp_path / "data" / name).rename(work / name)
    with pytest.raises(UserError, match="no data set"):
        Shards(tmp_path / "data")
    write(tmp_path / "data", records(4))
    assert [r.key for r in Shards(tmp_path / "data")] == ["image_0", "image_1", "image_2", "image_3"]
    assert "000002.tar" not in contents(tmp_path / "data")


def test_two_writers_never_share_a_folder(tmp_path):
    with ShardWriter(tmp_path / "data") as writer:
        writer.write(records()[0], "png", 16, 12)
        with pytest.raises(UserError, match=r"data is being written to by another process"):
            write(tmp_path / "data", records(2), overwrite=True)
    assert [record.key for record in Shards(tmp_path / "data")] == ["image_0"]
    write(tmp_path / "data", records(2), overwrite=True)
    assert len(Shards(tmp_path / "data")) == 2


@pytest.mark.parametrize("reached", ["000000.tar", "000001.parquet", "validation.json"])
def test_a_run_killed_while_it_replaces_data_can_simply_run_again(folder, monkeypatch, reached):
    unlink = Path.unlink

    def killed(path, missing_ok=False):
        if path.name == reached and not (folder / "manifest.json").exists():
            raise Killed
        unlink(path, missing_ok)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Path, "unlink", killed)
        write(folder, records(2), overwrite=True)
    write(folder, records(2))
    assert list(Shards(folder)) == records(2)
    assert sorted(contents(folder)) == ["000000.parquet", "000000.tar", "manifest.json"]


@pytest.mark.parametrize("files_gone", [False, True])
def test_a_killed_removal_takes_nothing_from_the_data_that_replace_its_own(folder, monkeypatch, files_gone):
    calls = []

    def killed(path):
        calls.append(path)
        if len(calls) == 2:
            raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(removal, "finish_removal", killed)
        removal.remove_records(folder, {"000000": [0]})
    if files_gone:
        (folder / "000000.tar").unlink()
        (folder / "000000.parquet").unlink()
    write(folder, records(11), overwrite=True)
    removal.finish_removal(folder)
    assert list(Shards(folder)) == records(11)
