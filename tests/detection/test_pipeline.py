"""Detection over a data set: bytes, kills, stamps and reports."""

import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from kill_and_resume_detection import CALLS
from outside_detector import Quarters
from pictures import picture

from crossgrain import cli
from crossgrain.config import UserError
from crossgrain.data import regions
from crossgrain.data.records import Record
from crossgrain.data.shards import Shards, ShardWriter
from crossgrain.detection import pipeline
from crossgrain.detection.pipeline import DetectConfig, detect

SIZES = [(64, 48), (48, 64), (64, 48), (40, 40), (64, 48), (80, 60), (48, 64)]


@pytest.fixture
def data(tmp_path):
    """Three shards of pictures of four sizes; 64 x 48 and 80 x 60 are the same once resized."""
    with ShardWriter(tmp_path / "data", records_per_shard=7) as writer:
        for i in range(20):
            width, height = SIZES[i % len(SIZES)]
            record = Record(key=f"r{i}", image=picture(i, (width, height)), captions=("x",))
            writer.write(record, "jpg", width, height)
    return tmp_path / "data"


def found(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.glob("*regions*")}


def config(**keys) -> DetectConfig:
    detector = Quarters.Config(**{key: keys.pop(key) for key in ("factor", "die_at", "fail_at") if key in keys})
    return DetectConfig(detector=detector, **{"processes": 1, "batch_size": 2, **keys})


def test_every_image_gets_the_regions_that_the_detector_found_in_it_alone(data):
    report = detect(data, config())
    alone, decode = config().build(), pipeline._Work(data, config()).decode
    for record in Shards(data, regions=True):
        image = decode(int(record.key[1:])).pixels
        assert min(image.shape[1:]) == 32
        assert record.detected == alone.detect([torch.from_numpy(image)])[0]
    assert (report.images, report.boxes, report.shards, report.shards_before) == (20, 80, 3, 0)
    assert report.lines()[0].startswith("20 images in 3 shards: 80 regions, 4.0 an image")


def test_a_killed_detection_ends_with_the_bytes_of_an_unbroken_one(data, tmp_path):
    script = Path(__file__).with_name("kill_and_resume_detection.py")
    ended = subprocess.run([sys.executable, script, data, tmp_path], capture_output=True, text=True)
    assert ended.stdout == " ".join(["-9 0"] * len(CALLS)), ended.stderr
    detect(data, config())
    for call in CALLS:
        assert found(tmp_path / str(call)) == found(data)
        assert list((tmp_path / str(call)).glob(".*regions*")) == []  # nothing of the killed process is left


def test_ctrl_c_leaves_a_state_that_the_same_command_continues(data, tmp_path, capsys):
    words = ["detector=outside_detector:Quarters", "processes=1", "batch_size=2"]
    assert cli.main(["detect", str(data), *words, "detector.fail_at=8"]) == 130
    assert "the same command continues" in capsys.readouterr().err
    assert not regions.has_regions(data)
    assert cli.main(["detect", str(data), *words]) == 0
    assert "1 shards were done before" in capsys.readouterr().out
    assert regions.has_regions(data)


def test_several_processes_write_the_bytes_of_one(data, tmp_path):
    several = tmp_path / "several"
    shutil.copytree(data, several)
    detect(data, config())
    detect(several, config(processes=2))
    assert found(several) == found(data)


def test_regions_of_another_detector_are_not_touched_unless_told(data):
    detect(data, config())
    before = found(data)
    with pytest.raises(UserError, match="overwrite=true") as refused:
        detect(data, config(max_boxes=2))
    assert all(f"max_boxes {most}," in str(refused.value) for most in (4, 2))  # both stamps
    assert found(data) == before
    detect(data, config(max_boxes=2, overwrite=True))
    assert {len(record.detected) for record in Shards(data, regions=True)} == {2}
    assert regions.read_stamp(data)["detector"] == "outside_detector:Quarters"


def test_a_replacement_that_was_broken_off_goes_on(data):
    detect(data, config())
    with pytest.raises(KeyboardInterrupt):
        detect(data, config(max_boxes=2, overwrite=True, fail_at=8))
    report = detect(data, config(max_boxes=2, overwrite=True))
    assert (report.shards, report.shards_before) == (2, 1)
    assert detect(data, config(max_boxes=2, overwrite=True)).shards_before == 0  # asked for once more


def test_images_without_regions_are_counted_by_reason(tmp_path):
    with ShardWriter(tmp_path / "data") as writer:
        for i, image in enumerate([picture(0), b"no picture", picture(1), b""]):
            writer.write(Record(key=f"r{i}", image=image, captions=("x",)), "jpg", 40, 32)
    report = detect(tmp_path / "data", config())
    assert report.empty == Counter({"not an image": 1, "empty file": 1})
    assert [len(record.detected) for record in Shards(tmp_path / "data", regions=True)] == [4, 0, 4, 0]
    strict = config(factor=0.0, score_threshold=0.9, overwrite=True)
    assert detect(tmp_path / "data", strict).empty["nothing found"] == 2


def test_groups_hold_one_size_and_do_not_depend_on_what_is_done(data):
    groups = pipeline._plan(Shards(data), config().selection().image, batch_size=2)
    sizes = [{config().selection().image.shown_size(SIZES[i % 7]) for i in group.indices} for group in groups]
    assert [len(size) for size in sizes] == [1] * len(groups)
    assert sorted(i for group in groups for i in group.indices) == list(range(20))
    assert np.diff([int(group.shard) for group in groups]).min() >= 0


def test_a_lost_process_is_an_error_that_names_its_records():
    with pytest.raises(UserError, match=r"lost in shard 000003, records 4 to 9 \(crashed\): out of memory"):
        pipeline._lost(pipeline._Group("000003", (4, 9)), "decoder crashed")
