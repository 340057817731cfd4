"""The small detector: what it learns, how its training resumes, and its run folder as a detector."""

import os
import shutil
import signal

import numpy as np
import pytest
import torch

from crossgrain import cli
from crossgrain.config import UserError, find_recipe, load_recipe, read_config
from crossgrain.data.shards import Shards
from crossgrain.detection.measure import overlaps
from crossgrain.detection.pipeline import DetectConfig, detect
from crossgrain.detection.small import PAD, Objects, SmallFasterRCNN
from crossgrain.detection.train import DetectorLearner, DetectorRecipe, load_network, train_detector, with_classes
from crossgrain.detection.trained import TrainedDetector
from tiny_runs import draw_scenes

TINY = """
model: {image_size: 64, widths: [8, 16, 16], anchors: [12, 24], feature_dim: 32, proposals: 6}
batch_size: 4
steps: 4
train: {precision: float32, num_workers: 0, save_every: 2, log_every: 1, tensorboard: false}
"""


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    return draw_scenes(tmp_path_factory.mktemp("scenes") / "data", size=16)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    path = tmp_path_factory.mktemp("recipe") / "tiny.yaml"
    path.write_text(TINY)
    return path


@pytest.fixture(scope="module")
def trained(scenes, recipe, tmp_path_factory):
    return train_detector(recipe, scenes, tmp_path_factory.mktemp("runs") / "detector")


def squares(count: int, seed: int) -> tuple[torch.Tensor, Objects]:
    """Pictures of one square each, red or blue, on a grey field."""
    rng = np.random.default_rng(seed)
    pixels = np.full((count, 3, 64, 64), 128, np.uint8)
    boxes, label = np.zeros((count, 2, 4), np.float32), np.full((count, 2), PAD)
    for i in range(count):
        x, y, side, colour = *rng.integers(4, 36, 2), rng.integers(14, 24), rng.integers(2)
        pixels[i, :, y : y + side, x : x + side] = np.array([[255, 0, 0], [0, 0, 255]])[colour][:, None, None]
        boxes[i, 0], label[i, 0] = np.array([x, y, x + side, y + side]) / 64, colour
    attributes = torch.nn.functional.one_hot(torch.from_numpy(label.clip(0)), 2).float()
    objects = Objects(boxes=torch.from_numpy(boxes), label=torch.from_numpy(label), attributes=attributes)
    return torch.from_numpy(pixels), objects


def test_it_learns_where_objects_are_what_they_are_and_their_attributes():
    config = SmallFasterRCNN.Config(
        image_size=64, widths=(8, 16, 16), anchors=(12.0, 24.0), proposals=6, classes=("a", "b"), attributes=("c", "d")
    )
    model = SmallFasterRCNN(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3)
    for step in range(60):
        optimizer.zero_grad()
        torch.stack(list(model.losses(*squares(16, step)).values())).sum().backward()
        optimizer.step()
    pixels, objects = squares(16, 1000)
    good = 0
    for i, (boxes, described) in enumerate(model.eval().find(pixels)):
        best = described.classes.softmax(1)[:, :-1].max(1).values.argmax()
        iou = overlaps(boxes[best, None].numpy() / 64, objects.boxes[i, :1].numpy())[0, 0]
        named = described.classes[best, :-1].argmax() == objects.label[i, 0] == described.attributes[best].argmax()
        good += bool(iou > 0.5 and named)
    assert good >= 14


def test_mirror_images_and_padding_do_not_change_what_there_is_to_find(scenes, recipe):
    model = SmallFasterRCNN(SmallFasterRCNN.Config(image_size=64, classes=("a", "b"), attributes=("c", "d"))).eval()
    pixels, objects = squares(4, 0)
    padded = Objects(
        boxes=torch.nn.functional.pad(objects.boxes, (0, 0, 0, 3)),
        label=torch.nn.functional.pad(objects.label, (0, 3), value=PAD),
        attributes=torch.nn.functional.pad(objects.attributes, (0, 0, 0, 3)),
    )
    losses, same = model.losses(pixels, objects), model.losses(pixels, padded)
    assert {name: loss.item() for name, loss in losses.items()} == {n: pytest.approx(x.item()) for n, x in same.items()}


def test_pictures_without_an_object_train_too():
    model = SmallFasterRCNN(SmallFasterRCNN.Config(image_size=64, classes=("a",), attributes=("b",)))
    nothing = Objects(boxes=torch.zeros(2, 1, 4), label=torch.full((2, 1), PAD), attributes=torch.zeros(2, 1, 1))
    losses = model.losses(torch.zeros(2, 3, 64, 64, dtype=torch.uint8), nothing)
    assert all(torch.isfinite(loss) for loss in losses.values())
    assert losses["region_box"] == losses["anchor_box"] == 0


def test_classes_and_attributes_are_those_of_the_data(scenes):
    records = Shards(scenes, "train")
    settled = with_classes(read_config(DetectorRecipe, {"steps": 1}, "here"), records)
    labels = {region.label for record in records for region in record.regions}
    assert settled.model.classes == tuple(sorted(labels))
    assert {"red", "small"} & set(settled.model.attributes)
    assert with_classes(settled, records) is settled


def test_a_stopped_training_ends_like_an_unbroken_one(scenes, recipe, trained, tmp_path, monkeypatch):
    forward, calls = DetectorLearner.forward, []

    def stop_at_the_third(learner, batch):
        calls.append(batch)
        if len(calls) == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return forward(learner, batch)

    monkeypatch.setattr(DetectorLearner, "forward", stop_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        train_detector(recipe, scenes, tmp_path / "run")
    with pytest.raises(UserError, match="not trained to its end"):
        load_network(tmp_path / "run")
    assert train_detector(recipe, scenes, tmp_path / "run") == tmp_path / "run"
    assert len(calls) == 4
    a, b = (load_network(run).state_dict() for run in (trained, tmp_path / "run"))
    assert all(torch.equal(x, y) for x, y in zip(a.values(), b.values(), strict=True))


def test_a_run_is_a_detector_and_its_stamp_knows_the_weights(scenes, trained, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(scenes, data)
    config = DetectConfig(detector=TrainedDetector.Config(run=trained), processes=1, whole_image=True, min_boxes=2)
    report = detect(data, config)
    assert report.images == 16
    for record in Shards(data, regions=True):
        assert record.detected.boxes[0].tolist() == [0, 0, 1, 1]
        assert 2 <= len(record.detected) <= 9
        assert record.detected.features.shape[1] == 32
    stamp = config.build().stamp()
    assert (stamp["detector"], len(stamp["weights"]), stamp["image_size"]) == ("scenes", 64, [64, None])
    with pytest.raises(UserError, match="looks at squares of 64 pixels"):
        DetectConfig(detector=TrainedDetector.Config(run=trained), short_side=32).build()
    with pytest.raises(UserError, match="is no run folder"):
        DetectConfig(detector=TrainedDetector.Config(run=tmp_path)).build()


def test_one_command_trains_detects_and_compares(scenes, recipe, tmp_path, capsys):
    data = tmp_path / "data"
    shutil.copytree(scenes, data)
    words = ["detect", str(data), "processes=1"]
    assert cli.main([*words, f"train={recipe}", "measure=val", "score_threshold=0"]) == 0
    told = capsys.readouterr().out
    assert "16 images in 1 shards" in told
    assert "objects found at IoU 0.5" in told
    assert "with the right label" in told
    assert (data / "detector" / "checkpoints" / "step_00000004").is_dir()
    assert cli.main([*words, f"train={recipe}"]) == 2  # another threshold: other regions
    refused = capsys.readouterr().err
    assert "already holds regions of another detector" in refused
    for mistake, words_told in {
        "detector=yolo": "unknown type 'yolo'",
        "max_boxes=0": "max_boxes",
        "scroe_threshold=1": "scroe_threshold: unknown key",
        "features=odd": "path: is missing",
        "detector.run=gone": "run: unknown key",
    }.items():
        assert cli.main(["detect", str(data), mistake]) == 2, mistake
        assert words_told in capsys.readouterr().err
    assert cli.main(["detect", str(data), f"train={recipe}", "detector=vg"]) == 2
    assert cli.main(["detect", str(data), "features=odd", "path=x"]) == 2
    assert "unknown format of features 'odd'" in capsys.readouterr().err


def test_the_recipe_of_the_library_reads():
    read = find_recipe("quickstart_detector")
    assert read.name == "quickstart_detector.yaml"
    settled = load_recipe(DetectorRecipe, read)
    assert settled.model.feature_dim <= 256
