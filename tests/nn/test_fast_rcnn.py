"""Regions from pixels: what is cut, what is hidden, what is trained."""

import math
from dataclasses import replace

import pytest
import torch
from torchvision.models import resnet50

from crossgrain.config import UserError
from crossgrain.data.types import RawRegions
from crossgrain.nn.fast_rcnn import FastRCNN, hidden_pixels

SIZES = ((96, 128), (80, 64))
NUM_REGIONS = 4


def raw_regions(seed: int = 0, **changes) -> RawRegions:
    """Two images of different sizes on one canvas; the first region is the whole image, the last of image 1 padding."""
    draw = torch.Generator().manual_seed(seed)
    low = torch.rand(2, NUM_REGIONS, 2, generator=draw) * 0.5
    boxes = torch.cat([low, low + 0.1 + 0.4 * torch.rand(2, NUM_REGIONS, 2, generator=draw)], 2)
    boxes[:, 0] = torch.tensor([0.0, 0.0, 1.0, 1.0])
    mask = torch.ones(2, NUM_REGIONS, dtype=torch.bool)
    mask[1, 3] = False
    given = {
        "pixels": torch.randint(0, 256, (2, 3, 96, 128), generator=draw, dtype=torch.uint8),
        "size": torch.tensor(SIZES),
        "boxes": boxes.where(mask[..., None], 0.0),
        "mask": mask,
        "image": torch.tensor([0, 1, 1]),
    }
    return RawRegions(**given | changes)


def hide(*places: tuple[int, int]) -> torch.Tensor:
    hidden = torch.zeros(2, NUM_REGIONS, dtype=torch.bool)
    for place in places:
        hidden[place] = True
    return hidden


def make(**changes) -> FastRCNN:
    torch.manual_seed(0)
    config = {"name": "test_resnet", "dilated": False, "pooled_size": 4, **changes}
    return FastRCNN(FastRCNN.Config(**config))


def close(actual, expected, **options):
    torch.testing.assert_close(actual, expected, **{"rtol": 1e-4, "atol": 1e-5} | options)


@torch.no_grad()
def test_regions_keep_their_places_and_padding_is_zero():
    model, given = make(), raw_regions(hidden=hide((0, 2)))
    regions = model(given)
    assert regions.features.shape == (2, NUM_REGIONS, model.feature_dim) == (2, NUM_REGIONS, 96)
    assert torch.equal(regions.features.any(-1), given.mask)
    for name in ("boxes", "mask", "image", "hidden"):
        assert getattr(regions, name) is getattr(given, name)


@torch.no_grad()
def test_pixels_are_zero_where_and_only_where_a_region_is_hidden(monkeypatch):
    model, given, seen = make(), raw_regions(), []
    original = FastRCNN.features
    monkeypatch.setattr(FastRCNN, "features", lambda self, x, *stages: (seen.append(x), original(self, x, *stages))[1])
    model(given)
    model(replace(given, hidden=hide((0, 1), (0, 3), (1, 2))))
    clean, masked = seen[0], seen[2]
    gone = torch.zeros(2, 96, 128, dtype=torch.bool)
    for image, number in ((0, 1), (0, 3), (1, 2)):
        (height, width), (x1, y1, x2, y2) = SIZES[image], given.boxes[image, number].tolist()
        rows = slice(math.floor(y1 * height), math.ceil(y2 * height))
        gone[image, rows, math.floor(x1 * width) : math.ceil(x2 * width)] = True
    assert 0.02 < gone.float().mean() < 0.5
    assert not masked[gone[:, None].expand_as(masked)].any()
    assert torch.equal(masked, clean.masked_fill(gone[:, None], 0.0))
    assert clean[0].all() and not clean[1, :, 80:].any() and not clean[1, :, :, 64:].any()  # the canvas beside image 1


def test_no_mask_is_made_for_every_box():
    """100 boxes on 600 x 1000 pixels: nothing larger than a mask of the image and one of every axis."""
    boxes = torch.rand(1, 100, 4).sort(-1).values[..., [0, 1, 2, 3]]
    with torch.profiler.profile(profile_memory=True, activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        hidden_pixels(boxes, torch.ones(1, 100, dtype=torch.bool), torch.tensor([[600, 1000]]), 600, 1000)
    largest = max(event.cpu_memory_usage for event in profile.events())
    assert 0 < largest <= 2 * 4 * 600 * 1000


@torch.no_grad()
def test_what_is_hidden_cannot_be_seen():
    """Neither in its own feature, nor in a neighbour's, nor in the whole image's."""
    model, given = make(), raw_regions(hidden=hide((0, 1)))
    x1, y1, x2, y2 = (given.boxes[0, 1] * torch.tensor([128, 96, 128, 96])).tolist()
    inside = (0, slice(None), slice(math.floor(y1), math.ceil(y2)), slice(math.floor(x1), math.ceil(x2)))
    changed = given.pixels.clone()
    changed[inside] = 255 - changed[inside]
    again = replace(given, pixels=changed)
    assert torch.equal(model(again).features, model(given).features)
    before, after = (model(replace(regions, hidden=None)).features for regions in (given, again))
    assert not torch.allclose(before[0, 1], after[0, 1], atol=1e-3)
    assert not torch.allclose(before[0, 0], after[0, 0], atol=1e-3)


@torch.no_grad()
def test_the_canvas_beside_an_image_does_not_matter():
    model, given = make(), raw_regions()
    repainted = given.pixels.clone()
    repainted[1, :, 80:], repainted[1, :, :, 64:] = 255, 255
    close(model(replace(given, pixels=repainted)).features, model(given).features)


@pytest.mark.parametrize(("frozen", "first_trained"), [((1, 2), 3), ((1, 2, 3, 4), 5)])
def test_gradients_reach_the_trained_stages_and_no_frozen_one(frozen, first_trained):
    model = make(frozen_stages=frozen).train()
    buffers = {name: value.clone() for name, value in model.named_buffers()}
    model(raw_regions(hidden=hide((0, 1)))).features.square().sum().backward()
    norms = {
        id(p) for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d) for p in module.parameters()
    }
    for number in range(1, 6):
        parameters = [p for module in model.stage(number) for p in module.parameters()]
        weights = [p for p in parameters if id(p) not in norms]
        trained = number >= first_trained
        assert weights and all((p.grad is not None and p.grad.any().item()) == trained for p in weights), number
        assert all(p.requires_grad == trained for p in weights)
        assert all(p.grad is None and not p.requires_grad for p in parameters if id(p) in norms)
    assert all(torch.equal(value, buffers[name]) for name, value in model.named_buffers())


@torch.no_grad()
def test_published_features_are_c4_and_a_dilated_c5_by_torchvisions_own_parts():
    """ResNet-50 with torchvision's layers, regions cut as the original cuts them, one image after another."""
    model = make(name="resnet50", pooled_size=14, dilated=True).eval()
    theirs = resnet50(weights=None).eval()
    assert theirs.load_state_dict(model.body.state_dict(), strict=False).missing_keys == ["fc.weight", "fc.bias"]
    for block in theirs.layer4:
        block.conv2.stride, block.conv2.dilation, block.conv2.padding = (1, 1), (2, 2), (2, 2)
    theirs.layer4[0].downsample[0].stride = (1, 1)
    given = raw_regions()
    features = model(given).features
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    x = (given.pixels[:1] / 255 - mean[:, None, None]) / std[:, None, None]
    x = theirs.maxpool(theirs.relu(theirs.bn1(theirs.conv1(x))))
    c4 = theirs.layer3(theirs.layer2(theirs.layer1(x)))[0]
    x1, y1, x2, y2 = (given.boxes[0, 1] * torch.tensor([128, 96, 128, 96]) / 16).tolist()
    cut = cut_by_hand(c4, x1, y1, max(x2 - x1, 1.0), max(y2 - y1, 1.0))
    expected = theirs.layer4(cut[None]).mean((2, 3))[0]
    assert expected.shape == (2048,)
    close(features[0, 1] / expected.abs().max(), expected / expected.abs().max(), atol=1e-4)


def cut_by_hand(c4: torch.Tensor, x1: float, y1: float, width: float, height: float) -> torch.Tensor:
    """14 x 14 points of a box in cells, between the four nearest: common/lib/roi_pooling, one sample for each."""
    rows = (y1 + (torch.arange(14) + 0.5) * height / 14).clamp(0, c4.shape[1] - 1)
    columns = (x1 + (torch.arange(14) + 0.5) * width / 14).clamp(0, c4.shape[2] - 1)
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    top, left = y.floor().long(), x.floor().long()
    below, right = (top + 1).clamp(max=c4.shape[1] - 1), (left + 1).clamp(max=c4.shape[2] - 1)
    down, across = y - top, x - left
    upper = c4[:, top, left] * (1 - across) + c4[:, top, right] * across
    lower = c4[:, below, left] * (1 - across) + c4[:, below, right] * across
    return upper * (1 - down) + lower * down


@torch.no_grad()
def test_caffes_networks_take_blue_first_and_halve_their_maps_in_the_first_convolution():
    with torch.device("meta"):
        model = FastRCNN(FastRCNN.Config(stride_in_1x1=True, pixels="caffe"))
    assert [len(model.stage(number)) for number in (2, 3, 4, 5)] == [3, 4, 23, 3]
    for number in (3, 4):
        first, second, *_ = model.stage(number)
        assert (first.conv1.stride, first.conv2.stride, second.conv1.stride) == ((2, 2), (1, 1), (1, 1))
    dilated = [(block.conv1.stride, block.conv2.stride, block.conv2.dilation) for block in model.stage(5)]
    assert dilated == [((1, 1), (1, 1), (2, 2))] * 3
    pixels = torch.tensor([10, 20, 30], dtype=torch.uint8).view(1, 3, 1, 1)
    blue, green, red = make(pixels="caffe").normalise(pixels).flatten().tolist()
    assert (blue, green, red) == pytest.approx((30 - 102.9801, 20 - 115.9465, 10 - 122.7717), abs=1e-3)


@torch.no_grad()
def test_bfloat16_is_close_to_float32():
    model, given = make(), raw_regions(hidden=hide((0, 1)))
    exact = model(given).features
    with torch.autocast("cpu", torch.bfloat16):
        rough = model(given).features
    assert (rough.float() - exact).abs().max() < 0.05 * exact.abs().max()


def test_a_network_that_cannot_be_dilated_says_so():
    with pytest.raises(UserError, match="write dilated: false"):
        make(dilated=True)
