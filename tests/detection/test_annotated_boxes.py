"""Annotated boxes as regions: what detectors say of given boxes, and data sets whose regions they are."""

import pickle
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from outside_detector import Quarters
from pictures import picture
from test_detectors import CPU, FEW, SMALL_VG, images

from crossgrain import cli
from crossgrain.checks import stamp_of
from crossgrain.config import UserError, configclass
from crossgrain.data import regions
from crossgrain.data.asks import object_rows
from crossgrain.data.pairs import RegionsConfig, detected_regions
from crossgrain.data.records import Record, Region
from crossgrain.data.regions import RegionFeatures, joined
from crossgrain.data.shards import Shards, ShardWriter
from crossgrain.detection import pipeline, trained
from crossgrain.detection.bottom_up import BottomUp
from crossgrain.detection.coco import TorchvisionFasterRCNN
from crossgrain.detection.interface import Selection, regions_of
from crossgrain.detection.pipeline import DetectConfig, detect
from crossgrain.detection.small import SmallFasterRCNN
from crossgrain.detection.trained import TrainedDetector

LEFT, RIGHT = (0.0, 0.0, 0.5, 0.5), (0.5, 0.0, 1.0, 0.5)  # the upper quarters, which `Quarters` finds
THIN = (0.3, 0.2, 0.300001, 0.9)  # less than a pixel wide
OBJECTS = [(THIN, LEFT), (RIGHT, (0.1, 0.2, 0.7, 0.9), RIGHT), (LEFT,), ()]  # of the records, again and again
SIZES = [(64, 32), (32, 64), (64, 32), (40, 40), (96, 48)]  # with even sides once resized
NAMES = ("boxes", "features", "labels", "class_probs", "attributes")


class Describing(Quarters):
    """Quarters of the image, and the mean colours of given boxes."""

    @configclass
    class Config:
        factor: float = 1.0
        die_at: int | None = None
        fail_at: int | None = None
        forgotten: int = 0  # boxes of every image

    def describe_boxes(self, images, boxes):
        self.calls += 1
        if self.calls == self.config.fail_at:
            raise KeyboardInterrupt
        return [self.colours(i.float(), b[self.config.forgotten :]) for i, b in zip(images, boxes, strict=True)]

    def colours(self, image, boxes):
        places = zip(boxes[:, :2].floor().int().tolist(), boxes[:, 2:].ceil().int().tolist(), strict=True)
        features = [image[:, y:v, x:u].mean((1, 2)) for (x, y), (u, v) in places]
        features = torch.stack(features) if features else torch.zeros(0, 3)
        return regions_of(boxes, tuple(image.shape[1:]), features, features.softmax(1))


def config(**keys) -> DetectConfig:
    detector = Describing.Config(**{key: keys.pop(key) for key in ("fail_at", "forgotten") if key in keys})
    return DetectConfig(detector=detector, **{"processes": 1, "batch_size": 2, **keys})


@pytest.fixture
def data(tmp_path):
    """Three shards; every fourth picture has no object, one cannot be read, and every fifth record is of val."""
    with ShardWriter(tmp_path / "data", records_per_shard=7) as writer:
        for i in range(20):
            width, height = SIZES[i % len(SIZES)]
            objects = tuple(Region(box=box, label="thing") for box in OBJECTS[i % 4])
            image = picture(i, (width, height)) if i != 6 else b"no picture"
            split = "train" if i % 5 else "val"
            record = Record(key=f"r{i}", image=image, captions=("x",), regions=objects, split=split)
            writer.write(record, "jpg", width, height)
    return tmp_path / "data"


def found(folder) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.glob("*regions*")}


def stored(folder) -> dict[str, RegionFeatures]:
    return {record.key: record.detected for record in Shards(folder, regions=True)}


def rows(one: RegionFeatures, chosen) -> dict[str, np.ndarray]:
    return {name: getattr(one, name)[chosen] for name in NAMES if getattr(one, name) is not None}


def check_equal(some: dict[str, np.ndarray], others: dict[str, np.ndarray]):
    assert some.keys() == others.keys()
    for name in some:  # rows of other batches may be rounded otherwise
        assert some[name].astype("f4") == pytest.approx(others[name].astype("f4"), rel=2e-3, abs=1e-4), name


def in_pixels(boxes, image) -> torch.Tensor:
    height, width = image.shape[1:]
    return torch.as_tensor(np.array(boxes, "f4")) * torch.tensor([width, height, width, height])


def check_whole_image(detector, shown):
    """The whole image, which detectors describe like any box and do not move, is the box that all of them can find."""
    whole = [torch.tensor([[0.0, 0.0, image.shape[2], image.shape[1]]]) for image in shown]
    for one, described in zip(detector.detect(shown), detector.describe_boxes(shown, whole), strict=True):
        check_equal(rows(described, slice(None)), rows(one, slice(1)))
    boxes = [in_pixels([THIN, LEFT, (0.2, 0.1, 0.9, 1.0), LEFT], image) for image in shown]
    described = detector.describe_boxes(shown, boxes)
    swapped = detector.describe_boxes(shown, [one.flip(0) for one in boxes])
    for one, other in zip(described, swapped, strict=True):
        check_equal(rows(one, slice(None, None, -1)), rows(other, slice(None)))
        assert abs(one.features[1].astype("f4") - one.features[2].astype("f4")).max() > 1e-3
        check_equal(rows(one, [1]), rows(one, [3]))


def test_torchvisions_detector_gives_a_box_the_features_that_it_has_when_it_finds_it():
    selection = Selection(**{**vars(FEW), "whole_image": True})
    detector = TorchvisionFasterRCNN(TorchvisionFasterRCNN.Config(weights=None, seed=5), selection, CPU)
    check_whole_image(detector, images())
    shown = images(1)
    one = detector.detect(shown)[0]
    described = detector.describe_boxes(shown, [in_pixels(one.boxes, shown[0])])[0]
    assert len(one) > 2
    assert described.features.astype("f4") == pytest.approx(one.features.astype("f4"), rel=2e-3, abs=1e-4)


def test_the_detector_of_bottom_up_attention_says_the_same_of_its_proposals():
    selection = Selection(**{**vars(FEW), "whole_image": True})
    detector = BottomUp(BottomUp.Config(**SMALL_VG), selection, CPU)
    check_whole_image(detector, images())
    unrefined = BottomUp(BottomUp.Config(**SMALL_VG, pool="align", refined=False), FEW, CPU)
    shown = images()
    both = unrefined.detect(shown)
    boxes = [in_pixels(one.boxes, image) for one, image in zip(both, shown, strict=True)]
    for one, described in zip(both, unrefined.describe_boxes(shown, boxes), strict=True):
        check_equal(rows(described, slice(None)), rows(one, slice(None)))


def test_the_small_detector_says_the_same_of_its_proposals(monkeypatch):
    torch.manual_seed(2)
    sizes = {"image_size": 64, "widths": (8, 16, 16), "anchors": (12.0, 24.0), "feature_dim": 32, "proposals": 6}
    names = {"classes": ("a", "b", "c"), "attributes": ("red", "big")}
    network = SmallFasterRCNN(SmallFasterRCNN.Config(**sizes, **names)).eval()
    monkeypatch.setattr(trained, "load_network", lambda run: network)
    run = TrainedDetector.Config(run=Path("run"))
    chosen = Selection(**{**vars(TrainedDetector.default_selection(run)), "whole_image": True})
    detector = TrainedDetector(run, chosen, CPU)
    shown = [image[:, :64, :64].contiguous() for image in images()]
    check_whole_image(detector, shown)
    with torch.no_grad(), trained.autocast(trained.resolve_precision("auto", CPU), CPU):
        fine, coarse = network.maps(torch.stack(shown))
        proposals = network.propose(*network.first_stage(coarse))
        wanted = network.second_stage(fine, proposals).feature.numpy()
    described = detector.describe_boxes(shown, proposals)
    assert np.concatenate([one.features for one in described]) == pytest.approx(wanted, rel=2e-3, abs=1e-4)


def test_annotated_boxes_are_the_regions_in_their_order(data):
    report = detect(data, config(boxes="annotated"))
    assert report.empty == Counter({"no annotated boxes": 5, "not an image": 1})
    assert regions.read_stamp(data)["boxes"] == "annotated"
    kept = stored(data)
    for record in Shards(data):
        one = kept[record.key]
        wanted = () if record.key == "r6" else OBJECTS[int(record.key[1:]) % 4]
        assert one.boxes.tolist() == np.array(wanted, "f4").reshape(-1, 4).tolist()
        assert one.scores.tolist() == [1.0] * len(wanted)
    detect(data, config(overwrite=True))
    for key, one in stored(data).items():  # the same box gets the same features when it is found
        place = [row for row, box in enumerate(kept[key].boxes.tolist()) if box == list(LEFT)]
        for row in place:
            (same,) = [other for other, box in enumerate(one.boxes.tolist()) if box == list(LEFT)]
            check_equal(rows(kept[key], [row]), rows(one, [same]))
    whole = config(boxes="annotated", whole_image=True, overwrite=True)
    assert detect(data, whole).empty == Counter({"not an image": 1})
    for key, one in stored(data).items():
        assert key == "r6" or one.boxes[0].tolist() == [0, 0, 1, 1]
        assert one.boxes[1:].tolist() == kept[key].boxes.tolist()


def test_annotated_boxes_come_behind_detected_ones_and_only_in_the_splits_that_are_named(data):
    detect(data, config())
    alone, plain = stored(data), stamp_of(data)
    detect(data, config(boxes="both", annotated_splits=("train",), overwrite=True))
    both = stored(data)
    for record in Shards(data):
        mine, one = both[record.key], alone[record.key]
        objects = record.regions if record.split == "train" and record.key != "r6" else ()
        assert len(mine) == len(one) + len(objects)
        assert mine.boxes[len(one) :].tolist() == np.array([o.box for o in objects], "f4").reshape(-1, 4).tolist()
        assert all(
            (values == rows(one, slice(None))[name]).all() for name, values in rows(mine, range(len(one))).items()
        )
    stamp = regions.read_stamp(data)
    assert (stamp["boxes"], stamp["annotated_splits"]) == ("both", ["train"])
    assert stamp_of(data) == plain  # a model that learnt from the detected ones may go on with these


@pytest.mark.parametrize(("boxes", "fail_at"), [("annotated", 6), ("both", 12)])
def test_what_was_stopped_ends_with_the_bytes_of_an_unbroken_run(data, tmp_path, boxes, fail_at):
    shutil.copytree(data, tmp_path / "stopped")
    detect(data, config(boxes=boxes))
    with pytest.raises(KeyboardInterrupt):
        detect(tmp_path / "stopped", config(boxes=boxes, fail_at=fail_at))
    assert not regions.has_regions(tmp_path / "stopped")
    assert detect(tmp_path / "stopped", config(boxes=boxes)).shards_before > 0
    assert found(tmp_path / "stopped") == found(data)
    with pytest.raises(UserError, match=rf"(?s)overwrite=true.* boxes {boxes}"):
        detect(data, config())


def test_another_process_describes_the_same(data):
    chosen = config(boxes="both", annotated_splits=("train",))
    detect(data, chosen)
    elsewhere = pickle.loads(pickle.dumps(pipeline._Work(data, chosen)))
    groups = pipeline._plan(Shards(data), elsewhere.image, chosen.batch_size)
    assert {key: one for group in groups for key, one, _ in elsewhere(group)[1]} == stored(data)


def test_a_detector_that_describes_no_given_boxes_is_refused_before_anything_is_removed(data, capsys):
    detect(data, DetectConfig(detector=Quarters.Config(), processes=1))
    before = found(data)
    words = ["detect", str(data), "detector=outside_detector:Quarters", "overwrite=true"]
    assert cli.main([*words, "boxes=annotated"]) == 2
    told = " ".join(capsys.readouterr().err.split())
    assert "outside_detector:Quarters has no method `describe_boxes`" in told
    assert cli.main([*words, "annotated_splits=[train]"]) == 2
    assert "boxes is detected" in " ".join(capsys.readouterr().err.split())
    with pytest.raises(UserError, match="no split 'tain': its splits are train, val"):
        detect(data, config(boxes="both", annotated_splits=("tain",), overwrite=True))
    assert found(data) == before
    with pytest.raises(UserError, match=r"was given [123, ]+ boxes, and described [012, ]+$"):
        detect(data, config(boxes="annotated", forgotten=1, overwrite=True))


def test_tasks_find_every_object_among_its_regions(data):
    detect(data, config(boxes="both", score_threshold=0.0, min_boxes=4, overwrite=True))
    records = {record.key: record for record in Shards(data, regions=True)}
    record = records["r5"]  # whose first and last objects are one box
    place = record.detected.boxes.tolist().index(list(RIGHT)) + 1  # of the detector's own, which is that very box
    assert object_rows(record, record.detected, 1) == [place, 6, place]
    kept = detected_regions(record, RegionsConfig(max_regions=4))
    assert kept.boxes[1:].tolist() == np.array(OBJECTS[1], "f4").tolist()  # the detector's best one is left
    detect(data, config(boxes="annotated", overwrite=True))
    record = next(record for record in Shards(data, regions=True) if record.key == "r5")
    assert object_rows(record, record.detected, 1) == [1, 2, 1]
    check_equal(rows(record.detected, [0]), rows(record.detected, [2]))
    kept = detected_regions(record, RegionsConfig(max_regions=2))
    assert kept.boxes.tolist() == np.array(OBJECTS[1][:2], "f4").tolist()
    assert object_rows(record, kept, 0) == [0, 1, 0]


def test_regions_are_joined_only_where_both_tell_the_same():
    one = RegionFeatures.of(np.array([LEFT]), np.ones((1, 3)), class_probs=np.ones((1, 2)))
    other = RegionFeatures.of(np.array([RIGHT, LEFT]), np.zeros((2, 3)), class_probs=np.zeros((2, 2)))
    assert joined(one, other).features[:, 0].tolist() == [1, 0, 0]
    assert joined(RegionFeatures.empty(3), other) is other
    with pytest.raises(ValueError, match="class_probs of one part alone"):
        joined(one, RegionFeatures.of(np.array([RIGHT]), np.ones((1, 3))))
