"""A collection by worker processes that is killed goes on where it was: same bytes, nothing asked twice."""

from kill_and_resume_collect import kill_and_resume
from killed import LOOPBACK
from planted_web import served

from crossgrain.collect.pipeline import run_collect
from crossgrain.config import save_recipe


def test_killed_runs_end_in_the_same_bytes_and_fetch_nothing_twice(tmp_path, monkeypatch):
    monkeypatch.setenv(LOOPBACK, "1")
    with served(10) as (server, web, planted):
        warc = server.write_pages(tmp_path / "web", web, planted)
        recipe = server.recipe(warc, num_workers=1, num_buckets=2)
        save_recipe(recipe, tmp_path / "recipe.yaml")
        run_collect(server.recipe(warc, num_workers=0, num_buckets=2), tmp_path / "unbroken")
        seen = kill_and_resume(server, tmp_path / "recipe.yaml", tmp_path, tmp_path / "unbroken", kills=2)
    assert seen["kills"] >= 1 and seen["committed"] > 10 and seen["requests"] > 0
