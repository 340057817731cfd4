"""The detectors with published architectures, at random weights: what they give, and what they say of wrong files."""

import json

import pytest
import torch
from safetensors.torch import save_file

from crossgrain.config import UserError, find_class
from crossgrain.data.regions import stamp_text
from crossgrain.detection import DETECTORS
from crossgrain.detection import coco as coco_module
from crossgrain.detection.bottom_up import RULES, BottomUp, C4FasterRCNN, load
from crossgrain.detection.coco import TorchvisionFasterRCNN
from crossgrain.detection.interface import Selection

CPU = torch.device("cpu")
FEW = Selection(score_threshold=0.0, min_boxes=2, max_boxes=6, short_side=64, long_side=96)
SMALL_VG = {"name": "resnet26", "num_classes": 9, "num_attributes": 4, "candidates": 60, "proposals": 8, "pooled": 4}


def images(count: int = 2) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return [torch.randint(0, 256, (3, 64, 90), dtype=torch.uint8, generator=generator) for _ in range(count)]


def check(detector, selection=FEW):
    """Regions are well formed, equal when found again, and the stamp says what made them."""
    found = detector.detect(images())
    again = detector.detect(images())
    assert found == again
    for regions in found:
        assert selection.min_boxes <= len(regions) <= selection.max_boxes + selection.whole_image
        assert regions.features.shape[1] == detector.feature_size == detector.stamp()["feature_size"]
        assert regions.class_probs.shape[1] == detector.num_classes == detector.stamp()["num_classes"]
        assert regions.features.astype("f4").std() > 0
        assert abs(regions.features).max() < 65504
    assert not (found[0].features[:1] == found[1].features[:1]).all()
    assert detector.stamp()["image_size"] == [64, 96]
    return found


def test_torchvisions_detector_describes_its_regions_with_2048_features():
    detector = TorchvisionFasterRCNN(TorchvisionFasterRCNN.Config(weights=None, seed=5), FEW, CPU)
    found = check(detector)
    assert (detector.feature_size, detector.num_classes, detector.weights) == (2048, 90, "random:5")
    assert detector.stamp()["detector"] == "torchvision"
    alone = detector.detect(images()[1:])[0]
    assert alone.boxes == pytest.approx(found[1].boxes, abs=1e-4)
    whole = Selection(**{**vars(FEW), "whole_image": True})
    detector.chosen = whole
    first = check(detector, whole)[0]
    assert first.boxes[0].tolist() == [0, 0, 1, 1]
    assert (first.boxes[1:] == found[0].boxes).all()
    assert (first.features[1:] == found[0].features).all()


def test_weights_of_torchvisions_detector_come_from_a_file(tmp_path, monkeypatch):
    source = TorchvisionFasterRCNN(TorchvisionFasterRCNN.Config(weights=None, seed=1), FEW, CPU)
    state = {name: x for name, x in source.model.state_dict().items() if "num_batches_tracked" not in name}
    save_file(state, tmp_path / "weights.safetensors")
    config = TorchvisionFasterRCNN.Config(weights=str(tmp_path / "weights.safetensors"))
    loaded = TorchvisionFasterRCNN(config, FEW, CPU)
    assert loaded.detect(images(1)) == source.detect(images(1))
    assert len(loaded.weights) == 64
    with pytest.raises(UserError, match="no weights at"):
        TorchvisionFasterRCNN(TorchvisionFasterRCNN.Config(weights="gone.pth"), FEW, CPU)

    def offline(*_, **__):
        raise OSError("no network")

    monkeypatch.setattr(type(coco_module.PUBLISHED["coco"]), "get_state_dict", offline)
    with pytest.raises(UserError, match=r"'coco' .* could not be downloaded \(OSError\): give a file .*weights=null"):
        TorchvisionFasterRCNN(TorchvisionFasterRCNN.Config(), FEW, CPU)


def test_the_detector_of_bottom_up_attention_gives_classes_and_attributes():
    detector = BottomUp(BottomUp.Config(**SMALL_VG), FEW, CPU)
    found = check(detector)
    assert all(((regions.attributes >= 0) & (regions.attributes < 4)).all() for regions in found)
    whole = Selection(**{**vars(FEW), "whole_image": True})
    detector.chosen = whole
    assert check(detector, whole)[0].boxes[0].tolist() == [0, 0, 1, 1]
    plain = BottomUp(BottomUp.Config(**{**SMALL_VG, "num_attributes": 0, "pool": "align", "refined": False}), FEW, CPU)
    assert check(plain)[0].attributes is None


def theirs(model: C4FasterRCNN) -> dict[str, torch.Tensor]:
    """The network's tensors in Detectron2's names, written out by hand."""
    stages = {f"layer{i}": f"backbone.res{i + 1}" for i in (1, 2, 3)} | {"layer4": "roi_heads.res5"}
    heads = {
        "rpn_conv": "proposal_generator.rpn_head.conv", "rpn_score": "proposal_generator.rpn_head.objectness_logits",
        "rpn_deltas": "proposal_generator.rpn_head.anchor_deltas", "class_score": "roi_heads.box_predictor.cls_score",
        "box_deltas": "roi_heads.box_predictor.bbox_pred", "attribute_class": "roi_heads.box_predictor.cls_embedding",
        "attribute_hidden": "roi_heads.box_predictor.fc_attr", "attribute_score": "roi_heads.box_predictor.attr_score",
    }  # fmt: skip
    state = {"pixel_mean": torch.zeros(3), "proposal_generator.anchor_generator.cell_anchors.0": torch.zeros(12, 4)}
    for name, value in model.state_dict().items():
        if name.endswith("num_batches_tracked"):
            continue
        part, *rest = name.removeprefix("resnet.body.").split(".")
        if part in heads:
            state[f"{heads[part]}.{rest[0]}"] = value
        elif part in ("conv1", "bn1"):
            state[f"backbone.stem.conv1.{'norm.' * (part == 'bn1')}{rest[0]}"] = value
        else:
            block, layer, *last = rest
            if layer == "downsample":
                layer, last = "shortcut", ["norm", last[1]] if last[0] == "1" else [last[1]]
            elif layer.startswith("bn"):
                layer, last = f"conv{layer[2:]}", ["norm", *last]
            state[".".join([stages[part], block, layer, *last])] = value
    return state


def test_detectron2s_names_fill_every_tensor_and_say_the_sizes(tmp_path):
    source = BottomUp(BottomUp.Config(**SMALL_VG, seed=1), FEW, CPU)
    published = theirs(source.model)
    assert len(published) == len(theirs(source.model).keys())
    torch.save({"model": published}, tmp_path / "weights.pth")
    config = BottomUp.Config(**{**SMALL_VG, "num_classes": 1600, "weights": str(tmp_path / "weights.pth")})
    loaded = BottomUp(config, FEW, CPU)
    assert loaded.detect(images(1)) == source.detect(images(1))
    assert (loaded.num_classes, loaded.model.num_attributes) == (9, 4)
    bare = {name: x for name, x in published.items() if not any(k in name for k in ("attr", "cls_embedding"))}
    save_file({name: x.contiguous() for name, x in bare.items()}, tmp_path / "bare.safetensors")
    config = BottomUp.Config(**{**SMALL_VG, "weights": str(tmp_path / "bare.safetensors")})
    assert BottomUp(config, FEW, CPU).detect(images(1))[0].attributes is None


def test_weights_that_are_no_such_detector_are_refused(tmp_path):
    model = C4FasterRCNN(BottomUp.Config(**SMALL_VG), 9, 4)
    state = theirs(model)
    with pytest.raises(UserError, match=r"FILE: unknown keys \['mask_head.weight'\] \(1\)"):
        load(model, {**state, "mask_head.weight": torch.zeros(1)}, "FILE")
    del state["proposal_generator.rpn_head.conv.bias"]
    with pytest.raises(UserError, match=r"nothing fills \['rpn_conv.bias'\] \(1\)"):
        load(model, state, "FILE")
    save_file({"x": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(UserError, match="no weights of this detector"):
        BottomUp(BottomUp.Config(weights=str(tmp_path / "other.safetensors")), FEW, CPU)
    assert len({rule.pattern for rule in RULES}) == len(RULES)


def test_the_table_of_detectors_is_true():
    assert {name: find_class(name, DETECTORS).__name__ for name in DETECTORS} == {
        "torchvision": "TorchvisionFasterRCNN",
        "vg": "BottomUp",
        "scenes": "TrainedDetector",
    }


@pytest.mark.parametrize(
    ("detector", "plain", "changes"),
    [
        (
            BottomUp,
            {"name": "resnet26", "num_classes": 3, "num_attributes": 0},
            [{"pool": "align"}, {"refined": False}, {"proposals": 20}, {"anchors": (32.0,)}, {"name": "resnet50"}],
        ),
        (TorchvisionFasterRCNN, {"weights": None, "num_classes": 3}, [{"norm_eps": 1e-5}]),
    ],
)
def test_a_stamp_knows_every_setting_that_changes_regions(detector, plain, changes):
    made = [detector(detector.Config(**plain | change), FEW, CPU).stamp() for change in ({}, *changes)]
    texts = [stamp_text(json.loads(json.dumps(stamp))) for stamp in made]
    assert len(set(texts)) == len(texts)
    assert ", settings (" in texts[0] and "weights" not in made[0]["settings"]
