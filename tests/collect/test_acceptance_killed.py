"""A collection that is killed goes on where it was: same bytes, nothing that was committed is fetched twice."""

from kill_and_resume_collect import kill_and_resume
from planted_web import served

from crossgrain.config import save_recipe


def test_killed_runs_end_in_the_same_bytes_and_fetch_nothing_twice(tmp_path):
    with served(10) as (server, web, planted):
        warc = server.write_pages(tmp_path / "web", web, planted)
        save_recipe(server.recipe(warc), tmp_path / "recipe.yaml")
        seen = kill_and_resume(server, tmp_path / "recipe.yaml", tmp_path, kills=1, seed=0)
    assert seen["requests"] > 0
