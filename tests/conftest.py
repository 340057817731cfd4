"""What the whole suite shares: one thread, a fixed seed, tiny data, and where outside material may stand."""

import os
from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def fixed_seed():
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def shared() -> Path:
    """A folder of outside samples (photos, formats, broken images), which a plain clone does not have."""
    folder = Path(os.environ.get("CROSSGRAIN_SHARED", ROOT.parent / "shared"))
    if not folder.is_dir():
        pytest.skip("no folder of outside samples (CROSSGRAIN_SHARED)")
    return folder
