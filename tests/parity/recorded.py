"""Recorded cases of the original implementations: `CROSSGRAIN_GOLDEN` names another folder of them."""

import json
import os
from pathlib import Path

import pytest
from safetensors.torch import load_file

GOLDEN = Path(os.environ.get("CROSSGRAIN_GOLDEN", Path(__file__).resolve().parents[1] / "golden"))


class Case:
    """One recorded case: `meta`, `weights` (float32) and `io`."""

    def __init__(self, family: Path, name: str, meta: dict):
        self.family, self.name, self.meta = family, name, meta

    def load(self, part: str) -> dict:
        tensors = load_file(self.family / f"{self.name}.{part}.safetensors")
        return {k: v.float() if part == "weights" and v.is_floating_point() else v for k, v in tensors.items()}

    def __repr__(self) -> str:
        return self.name


def cases(family: str, *prefixes: str) -> list:
    """The recorded cases whose names open with one of `prefixes`; one skipped placeholder where the folder has none."""
    folder = GOLDEN / family
    meta = json.loads((folder / "meta.json").read_text()) if (folder / "meta.json").is_file() else {}
    names = [name for name in meta if name.startswith(prefixes)]
    found = [pytest.param(Case(folder, n, meta[n]), id=n) for n in names if (folder / f"{n}.io.safetensors").is_file()]
    return found or [pytest.param(None, id="none", marks=pytest.mark.skip(reason=f"no recorded {family} {prefixes}"))]
