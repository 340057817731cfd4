"""The CNN that Pixel-BERT starts from: what it learns, and that a Pixel-BERT reads it."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from crossgrain.config import UserError
from crossgrain.data.types import Pixels
from crossgrain.detection.classifier import ObjectClassifier
from crossgrain.detection.small import PAD, Objects
from crossgrain.detection.train import train_cnn
from crossgrain.nn.cnn import CNN
from tiny_runs import draw_scenes

CNN_CONFIG = CNN.Config(name="test_resnet", stages=3, pool=False, frozen_norm=False)
TINY = """
batch_size: 4
steps: 4
train: {precision: float32, num_workers: 0, save_every: 2, log_every: 1, tensorboard: false}
"""


def pairs_of_squares(count: int, seed: int) -> tuple[torch.Tensor, Objects]:
    """Pictures of two squares on a grey field, one on the left and one on the right, each of them red or blue."""
    rng = np.random.default_rng(seed)
    pixels = np.full((count, 3, 64, 64), 128, np.uint8)
    boxes, label = np.zeros((count, 3, 4), np.float32), np.full((count, 3), PAD)
    for i in range(count):
        for j in range(2):
            x, y, side, colour = (
                32 * j + rng.integers(2, 12),
                rng.integers(2, 44),
                rng.integers(14, 18),
                rng.integers(2),
            )
            pixels[i, :, y : y + side, x : x + side] = np.array([[255, 0, 0], [0, 0, 255]])[colour][:, None, None]
            boxes[i, j], label[i, j] = np.array([x, y, x + side, y + side]) / 64, colour
    attributes = torch.nn.functional.one_hot(torch.from_numpy(label.clip(0)), 2).float()
    objects = Objects(boxes=torch.from_numpy(boxes), label=torch.from_numpy(label), attributes=attributes)
    return torch.from_numpy(pixels), objects


def classifier() -> ObjectClassifier:
    torch.manual_seed(0)
    config = ObjectClassifier.Config(image_size=64, cnn=CNN_CONFIG, classes=("a", "b"), attributes=("c", "d"))
    return ObjectClassifier(config)


def test_it_learns_to_name_what_a_box_holds():
    model = classifier()
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3)
    for step in range(25):
        optimizer.zero_grad()
        torch.stack(list(model.losses(*pairs_of_squares(16, step)).values())).sum().backward()
        optimizer.step()
    pixels, objects = pairs_of_squares(16, 1000)
    label = objects.label[:, :2].flatten()
    named, described = model.eval()(pixels, list(objects.boxes[:, :2]))
    right = (named.argmax(1) == label) & (described.argmax(1) == label)
    assert right.sum() >= 30


def test_the_losses_are_means_over_the_objects_that_are_there():
    model = classifier().eval()
    pixels, objects = pairs_of_squares(4, 0)
    empty = replace(objects, label=torch.full_like(objects.label, PAD))
    assert [loss.item() for loss in model.losses(pixels, empty).values()] == [0, 0]
    alone = model.losses(pixels[:1], objects.map(lambda x: x[:1]))
    others = torch.full_like(objects.label, PAD)
    others[0] = objects.label[0]
    among = model.losses(pixels, replace(objects, label=others))
    assert {name: loss.item() for name, loss in among.items()} == {n: pytest.approx(x.item()) for n, x in alone.items()}


def test_what_was_learnt_is_where_a_cnn_of_as_many_stages_starts(tmp_path):
    scenes, recipe, run = tmp_path / "data", tmp_path / "tiny.yaml", tmp_path / "run"
    draw_scenes(scenes, size=16)
    recipe.write_text(TINY)
    tensors = train_cnn(recipe, scenes, run, CNN_CONFIG, 64)
    log = (run / "log.jsonl").read_bytes()
    again = train_cnn(recipe, scenes, run, CNN_CONFIG, 64)
    assert all(torch.equal(tensors[name], again[name]) for name in tensors)
    assert (run / "log.jsonl").read_bytes() == log  # it was not trained again
    with pytest.raises(UserError, match=r"holds another run \(model.image_size is 64 there and 32 here\)"):
        train_cnn(recipe, scenes, run, CNN_CONFIG, 32)

    file = tmp_path / "cnn.safetensors"
    save_file(tensors, file)
    assert not any(name.startswith("layer3.") for name in tensors)
    pixels, _ = pairs_of_squares(2, 0)
    fresh, started = (CNN(replace(CNN_CONFIG, weights=weights)).eval() for weights in (None, str(file)))
    short = CNN(replace(CNN_CONFIG, weights=str(file), stages=2)).eval()  # needs less than the file holds
    learnt = started(Pixels.whole(pixels)).x
    assert not torch.equal(fresh(Pixels.whole(pixels)).x, learnt)
    body = started.body.state_dict()
    assert all(torch.equal(body[name], tensors[name]) for name in tensors)
    assert torch.equal(short.body.layer1[0].conv1.weight, tensors["layer1.0.conv1.weight"])
    with pytest.raises(UserError, match=r"does not fit this encoder: missing .*layer3"):
        CNN(replace(CNN_CONFIG, weights=str(file), stages=4))
