"""The whole pipeline over a planted web whose images are fetched from servers of this machine."""

import json

import pytest
from collected import shard_bytes
from planted_web import LOOPBACK, NamesThings, served

from crossgrain.collect.funnel import read_funnel
from crossgrain.collect.pages.inputs import Input
from crossgrain.collect.pipeline import retry, run_collect
from crossgrain.collect.planted import judge
from crossgrain.config import UserError

PAGES = 20  # one turn of all kinds


@pytest.fixture(autouse=True)
def _loopback(monkeypatch):
    monkeypatch.setenv(LOOPBACK, "1")


def dropped(out, unit="images"):
    rows = [row for row in read_funnel(out / "funnel.json") if row.unit == unit]
    return {reason: count for row in rows for reason, count in row.dropped.items()}


def test_images_are_fetched_once_and_what_opts_out_is_not_kept(tmp_path):
    with served(PAGES) as (server, web, planted):
        warc = server.write_pages(tmp_path / "web", web, planted)
        recipe = server.recipe(warc, scorer=NamesThings.Config())
        result = run_collect(recipe, tmp_path / "run")
        asked = server.requests.copy()
        again = run_collect(recipe, tmp_path / "run")
        assert server.requests == asked and again.num_pairs == result.num_pairs
    judgement = judge(tmp_path / "run" / "shards", warc.parent)
    assert judgement.recall >= 0.9, "\n".join(judgement.lines())
    wrong = {row.kind for row in judgement.bad if row.num_kept}
    assert not any(kind.startswith(("opted-out", "missing", "broken", "not an image")) for kind in wrong), wrong
    images = {url: count for url, count in asked.items() if "/photos/" in url}
    assert max(images.values()) == 1
    kinds = {row.kind for row in planted}
    opted_out = [kind for kind in kinds if kind.startswith("opted-out page")]
    assert opted_out and server.num_asked(*opted_out, "icon", "banner", "thumbnail", planted=planted) == 0
    reasons = dropped(tmp_path / "run")
    assert any("X-Robots-Tag" in reason for reason in reasons) and any("DataMining" in reason for reason in reasons)


def test_robots_of_a_host_closes_its_images_with_wildcards_too(tmp_path):
    with served(8, robots="User-agent: *\nDisallow: /photos/*.jpg$\nAllow: /\n") as (server, web, planted):
        warc = server.write_pages(tmp_path / "web", web, planted)
        result = run_collect(server.recipe(warc), tmp_path / "run")
        assert result.num_pairs == 0 and "robots" in result.nothing
        assert not any("/photos/" in url and url.endswith(".jpg") for url in server.requests)
        assert any("robots" in reason for reason in dropped(tmp_path / "run"))


def test_retry_asks_only_for_what_failed_for_the_moment(tmp_path):
    with served(8, busy=True) as (server, web, planted):
        warc = server.write_pages(tmp_path / "web", web, planted)
        patient = {"connect_seconds": 60.0, "total_seconds": 300.0, "grace_seconds": 60.0}
        recipe = server.recipe(warc, {"retries": 0, "breaker_after": 1000, **patient})
        first = run_collect(recipe, tmp_path / "run")
        assert first.num_pairs == 0 and first.num_transient >= 8
        failed = server.requests.copy()
        server.busy = False
        second = retry(tmp_path / "run")
        assert second.num_transient == 0 and second.num_pairs >= 8
        grown = {url: count for url, count in (server.requests - failed).items() if "/photos/" in url}
        assert set(grown.values()) == {1}
        missing = {url for row in planted if row.kind == "missing" for url in row.images}
        assert not any(server.requests[url] > 2 for url in missing)
        asked = server.requests.copy()
        made = shard_bytes(tmp_path / "run")
        retry(tmp_path / "run")
        assert server.requests == asked and shard_bytes(tmp_path / "run") == made


def test_nothing_of_a_hostile_list_is_stored_and_the_run_ends(tmp_path, monkeypatch):
    monkeypatch.delenv(LOOPBACK)
    secret = tmp_path / "secret.jpg"
    with served(4) as (server, _, planted):
        (good,) = [row.images[0] for row in planted if row.kind == "good"][:1]
        secret.write_bytes(server.resources[good].body)
        port = good.split(":")[2].partition("/")[0]
        path = good.partition(f":{port}")[2]
        hosts = (
            "127.0.0.1",
            "localhost",
            "[::1]",
            "[::ffff:127.0.0.1]",
            "2130706433",
            "0x7f.1",
            "0.0.0.0",
            "017700000001",
        )
        urls = [f"http://{host}:{port}{path}" for host in hosts]
        urls += [f"file://{secret}", f"ftp://127.0.0.1:{port}{path}", "http://169.254.169.254/latest/meta-data/a.jpg"]
        urls += ["http://10.0.0.1/a.jpg", "http://192.168.0.1/a.jpg", "gopher://127.0.0.1/a.jpg", str(secret)]
        rows = [
            json.dumps({"url": url, "text": f"A red star and a blue house, number {i}"}) for i, url in enumerate(urls)
        ]
        (tmp_path / "list.jsonl").write_text("\n".join(rows) + "\n")
        listed = Input(path=tmp_path / "list.jsonl", kind="pairs", text_column="text")
        recipe = server.recipe(tmp_path / "no.warc", {"retries": 0, "deadline": 20.0}, inputs=(listed,))
        result = run_collect(recipe, tmp_path / "run")
        assert result.num_pairs == 0 and not server.requests
    assert not any((tmp_path / "run").rglob("*.jpg"))


def test_nobody_is_asked_by_a_run_without_a_contact(tmp_path, monkeypatch):
    monkeypatch.delenv(LOOPBACK)
    with served(2) as (server, web, planted):
        warc = server.write_pages(tmp_path / "web", web, planted)
        with pytest.raises(UserError, match="contact"):
            run_collect(server.recipe(warc, {"contact": ""}), tmp_path / "run")
        assert not server.requests
