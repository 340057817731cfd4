"""What `crossgrain detect DATA key=value ...` means."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from crossgrain.config import UserError, configclass, read_config, with_overrides
from crossgrain.detection.measure import measure
from crossgrain.detection.pipeline import DetectConfig, detect
from crossgrain.detection.train import train_detector
from crossgrain.detection.trained import TrainedDetector

WHERE = "crossgrain detect"


@configclass
class _Import:
    features: str
    path: Path
    overwrite: bool = False


@configclass
class _Detection(DetectConfig):
    train: Path | None = None  # a recipe of a detector: train it on this data first
    measure: str | None = None  # a split: afterwards compare what was found with its annotated regions


def run(data: Path, overrides: Sequence[str], console: Console | None = None) -> list[str]:
    """Give `data` its regions; what to tell the user. UserError for everything that cannot be."""
    keys = [override.partition("=")[0] for override in overrides]
    if "features" in keys:
        from crossgrain.data.features.importing import import_features

        given = read_config(_Import, with_overrides({}, overrides), WHERE)
        report = import_features(data, given.features, given.path, overwrite=given.overwrite, console=console)
        return [*report.lines(), f"regions: {data}"]
    config = read_config(_Detection, _tree(data, overrides), WHERE)
    if config.train is not None:
        if not isinstance(config.detector, TrainedDetector.Config):
            raise UserError(f"{WHERE}: train= makes a detector of type scenes; leave out detector=")
        train_detector(config.train, data, config.detector.run, console)
    told = detect(data, config, console).lines()
    if config.measure is not None:
        told += measure(data, config.measure, config.build().class_names).lines()
    return [*told, f"regions: {data}"]


def _tree(data: Path, overrides: Sequence[str]) -> dict[str, Any]:
    """The settings as a tree; `detector=NAME` is short for `detector.type=NAME`."""
    short = [f"detector.type={o[9:]}" if o.startswith("detector=") and o[9:10] != "{" else o for o in overrides]
    tree = with_overrides({}, short)
    if "train" in tree:
        from crossgrain.config import find_recipe

        tree["train"] = find_recipe(str(tree["train"]))
        tree["detector"] = {"type": "scenes", "run": str(data / "detector"), **tree.get("detector", {})}
    tree.setdefault("detector", {}).setdefault("type", "torchvision")
    return tree
