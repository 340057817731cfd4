"""A small web on loopback, and what was collected from it in one go: once for each file of tests."""

import pytest
from small_web import small_web

from crossgrain.collect.pipeline import run_collect


@pytest.fixture(scope="module")
def web(tmp_path_factory):
    """(the server, a recipe for its pictures)."""
    with small_web(tmp_path_factory.mktemp("web")) as (server, recipe):
        yield server, recipe


@pytest.fixture(scope="module")
def whole(web, tmp_path_factory):
    """(the run folder, the result)."""
    out = tmp_path_factory.mktemp("whole") / "out"
    return out, run_collect(web[1], out)
