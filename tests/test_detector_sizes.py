"""A recipe's sizes against those of the detector that was over its data."""

import json
from types import SimpleNamespace

import pytest

from crossgrain import checks
from crossgrain.config import UserError
from crossgrain.objectives.mlm import MLM
from crossgrain.objectives.region_class import RegionClass
from tiny_regions import CLASSES, FEATURE, imagebert_config


@pytest.fixture
def check(monkeypatch):
    """check(stamp, ...) -> whether the sizes of a recipe fit a data set with this stamp."""

    def check(stamp, **classes):
        monkeypatch.setattr(checks, "read_stamp", lambda folder: json.loads(json.dumps(stamp)))
        objectives = (MLM.Config(), RegionClass.Config(**{"num_classes": CLASSES, **classes}))
        checks._check_detector(SimpleNamespace(model=imagebert_config(), objectives=objectives), "data/pairs")

    return check


def test_features_and_classes_of_the_detector_must_fit_the_recipe(check):
    check({"feature_size": FEATURE, "num_classes": CLASSES})
    check({"feature_size": FEATURE, "num_classes": CLASSES - 1})
    check({"feature_size": FEATURE, "num_classes": 0})
    check({})
    with pytest.raises(UserError, match=r"features of 2048 numbers: set model\.feature_dim to that, it is 7"):
        check({"feature_size": 2048, "num_classes": CLASSES})
    with pytest.raises(UserError, match=r"has regions of 10 classes: set objectives\.1\.num_classes to that, it is 9"):
        check({"feature_size": FEATURE, "num_classes": CLASSES + 1})
    with pytest.raises(UserError, match=r"has regions of 8 classes: set objectives\.1\.num_classes to that, it is 9"):
        check({"feature_size": FEATURE, "num_classes": CLASSES - 1}, soft=True)
