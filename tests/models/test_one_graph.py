"""torch.compile makes one graph of a training step's forward pass: nothing in it depends on the data.

In an interpreter of its own: the checks of shapes that the suite adds to every function would break the graph.
"""

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

FAMILIES = {  # module, learner, batch
    "imagebert": ("tiny_regions", "imagebert_learner", "region_batch"),
    "pixelbert": ("tiny_pixels", "pixelbert_learner", "pixel_batch"),
    "vlbert": ("tiny_vlbert", "vlbert_learner", "vlbert_batch"),
}


@pytest.fixture(scope="module")
def told() -> dict[str, dict]:
    command = [sys.executable, __file__, *FAMILIES]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_forward_pass_is_one_graph(told, family):
    assert told[family] == {"graphs": 1, "breaks": 0, "reasons": []}


def explain(family: str) -> dict:
    import torch

    module, learner, batch = FAMILIES[family]
    made = importlib.import_module(module)
    found = torch._dynamo.explain(getattr(made, learner)())(getattr(made, batch)())
    reasons = [str(reason.reason) for reason in found.break_reasons]
    return {"graphs": found.graph_count, "breaks": found.graph_break_count, "reasons": reasons}


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))
    sys.stdout.write(json.dumps({family: explain(family) for family in sys.argv[1:]}))
