"""The account that is kept of every key of a published checkpoint."""

import pytest
import torch

from crossgrain.config import UserError
from crossgrain.interop.keys import Rule, translate

RULES = [
    Rule(r"encoder\.(\d+)\.query", r"layers.\1.qkv", part=0),
    Rule(r"encoder\.(\d+)\.key", r"layers.\1.qkv", part=1),
    Rule(r"head\.(.*)", r"\1"),
    Rule(r".*position_ids", dropped="counted anew"),
]
STATE = {
    "encoder.0.key": torch.full((1, 2), 2.0),
    "encoder.0.query": torch.full((1, 2), 1.0),
    "head.bias": torch.zeros(1, 3, dtype=torch.float16),
    "text.position_ids": torch.arange(4),
}
SHAPES = {"layers.0.qkv": torch.Size([2, 2]), "bias": torch.Size([3])}


def test_keys_are_renamed_stacked_in_order_and_dropped_for_a_reason():
    filled, report = translate(STATE, RULES, SHAPES, "file")
    assert filled["layers.0.qkv"].tolist() == [[1, 1], [2, 2]]  # query above key, whatever the order of the file
    assert (filled["bias"].shape, filled["bias"].dtype) == (SHAPES["bias"], torch.float32)
    assert report.renamed == {
        "encoder.0.key": "layers.0.qkv",
        "encoder.0.query": "layers.0.qkv",
        "head.bias": "bias",
    }
    assert report.dropped == {"text.position_ids": "counted anew"}
    assert set(report.renamed) | set(report.dropped) == set(STATE)
    assert report.summary() == "3 tensors read; 1 dropped: counted anew"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"surprise": torch.zeros(1)}, r"file: unknown keys \['surprise'\] \(1\)"),
        ({"head.bias": None}, r"file: nothing fills \['bias'\] \(1\)"),
        ({"head.scale": torch.zeros(3)}, r"file: no place for \['scale'\] \(1\)"),
        ({"head.bias": torch.zeros(4)}, r"file: bias has shape \(4,\), the model needs \(3,\)"),
        ({"encoder.0.key": None}, r"file: layers.0.qkv has shape \(1, 2\), the model needs \(2, 2\)"),
    ],
)
def test_a_checkpoint_is_read_whole_or_not_at_all(change, told):
    state = {key: value for key, value in (STATE | change).items() if value is not None}
    with pytest.raises(UserError, match=told):
        translate(state, RULES, SHAPES, "file")
