"""`crossgrain collect` from the command line: the words, what is printed, and a small collection from end to end."""

import io
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from collected import write_collection
from PIL import Image

from crossgrain import cli
from crossgrain.collect import hash_sets
from crossgrain.collect.funnel import read_funnel
from crossgrain.collect.recipe import CollectRecipe
from crossgrain.commands.collect import ACTIONS, joined
from crossgrain.config import load_recipe
from crossgrain.data.shards import Shards

RECIPE = """
title: a small web
scenes_web: {pages: 12, seed: 5}
num_workers: 0
num_buckets: 2
records_per_shard: 10
vocab_size: 200
fetch: {contact: owner@example.org}
"""


@pytest.fixture
def said(capsys):
    """said(*words) -> (status, what went to standard output, what to standard error)."""

    def run(*words):
        capsys.readouterr()
        status = cli.main([str(word) for word in words])
        written = capsys.readouterr()
        return status, written.out, written.err

    return run


@pytest.fixture(scope="module")
def collected_web(tmp_path_factory):
    """A collection of a drawn web of a few pages, made by the command; its folder and what was printed."""
    folder = tmp_path_factory.mktemp("collected")
    (folder / "web.yaml").write_text(RECIPE)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert cli.main(["collect", "web.yaml", "seed=3"]) == 0
    return folder / "data" / "web"


@pytest.fixture
def web(collected_web, tmp_path) -> Path:
    return Path(shutil.copytree(collected_web, tmp_path / "web"))


def test_a_collection_has_shards_an_account_a_page_and_a_datasheet(collected_web):
    shards = Shards(collected_web / "shards")
    assert len(shards) > 5
    provenance = shards[0].extra["provenance"]
    assert {"page_url", "image_url", "sha256", "md5", "phash", "licence", "opt_outs_checked"} <= set(provenance)
    rows = read_funnel(collected_web / "funnel.json")  # which checks that it adds up
    assert rows[0].num_in >= 12
    assert rows[-1].num_out == len(shards)
    assert "seed: 3" in (collected_web / "datasheet.md").read_text()
    page = (collected_web / "report.html").read_text()
    assert "a small web: collected pairs" in page
    assert "data:image/jpeg;base64," in page
    for row in rows:
        assert all(reason in page for reason in row.dropped if "&" not in reason and "'" not in reason)


def test_the_same_command_again_does_nothing_and_says_the_same(web, said, monkeypatch):
    before = {file: file.read_bytes() for file in (web / "shards").iterdir()}
    status, out, err = said("collect", web / "recipe.yaml", "--out", web, "--json")
    assert status == 0, err
    told = json.loads(out)
    assert told["pairs"] == len(Shards(web / "shards"))
    assert told["funnel"] == [row.to_json() for row in read_funnel(web / "funnel.json")]
    assert told["planted"] == json.loads((web / "planted.json").read_text())
    assert told["planted"]["kept"] == told["pairs"] and 0 < told["planted"]["recall"] <= 1
    assert {file: file.read_bytes() for file in (web / "shards").iterdir()} == before


def test_what_was_taken_down_stays_away_when_the_collection_goes_on(web, said):
    first, second = (record.extra["provenance"] for record in Shards(web / "shards")[:2])
    status, out, err = said("collect", "remove", web, "--url", first["image_url"], "--hash", second["sha256"], "--json")
    assert status == 0, err
    told = json.loads(out)
    assert {entry["image_url"] for entry in told["removed"]} == {first["image_url"], second["image_url"]}
    left = {record.key for record in Shards(web / "shards")}
    assert first["image_url"] not in (web / "report.html").read_text()
    assert "taken down" in (web / "report.html").read_text()
    status, out, err = said("collect", web / "recipe.yaml", "--out", web)
    assert status == 0, err
    assert "recall " in out and "precision " in out and "planted bad" in out  # how well the planted web was told apart
    again = {record.key for record in Shards(web / "shards")}
    assert not {first["image_url"], second["image_url"]} & {
        record.extra["provenance"]["image_url"] for record in Shards(web / "shards")
    }
    assert again <= left | again
    assert any("taken down" in row.dropped for row in read_funnel(web / "funnel.json"))
    status, _, err = said("collect", "retry", web)
    assert status == 0, err
    assert {record.key for record in Shards(web / "shards")} == again


def test_removal_is_told_to_people(tmp_path, said):
    run = write_collection(tmp_path / "web")
    (tmp_path / "list.txt").write_text("# asked for by mail\nexample.co.uk\n")
    status, out, _ = said("collect", "remove", run, "--list", tmp_path / "list.txt", "--dry-run")
    assert status == 0
    assert "4 records would be removed" in out
    assert not (run / "report.html").exists()
    status, out, _ = said("collect", "remove", run, "--list", tmp_path / "list.txt", "--domain", "example.net")
    assert status == 0
    assert "domain example.co.uk: 4 records" in out
    assert "domain example.net: 4 records" in out
    assert "8 records removed" in out and "4 are left" in out
    assert f"kept out of later runs by {run / 'tombstones.jsonl'}" in out.replace("\n", " ").replace("  ", " ")
    assert (run / "report.html").is_file()


def test_show_completes_a_recipe_of_collecting(tmp_path, said):
    (tmp_path / "web.yaml").write_text(RECIPE)
    status, out, err = said("show", tmp_path / "web.yaml", "sentences.preset=coyo")
    assert status == 0, err
    (tmp_path / "shown.yaml").write_text(out)
    given = load_recipe(CollectRecipe, tmp_path / "web.yaml", ("sentences.preset=coyo",))
    assert load_recipe(CollectRecipe, tmp_path / "shown.yaml") == given
    assert "near_distance: 8" in out


def test_the_page_can_be_drawn_anew(tmp_path, said):
    run = write_collection(tmp_path / "web")
    status, out, _ = said("collect", "report", run)
    assert status == 0
    assert "report.html" in out and "datasheet.md" in out
    assert (run / "report.html").is_file()


def test_a_hash_set_is_made_of_files_folders_and_prepared_data(tmp_path, said):
    run = write_collection(tmp_path / "web", 3)
    (tmp_path / "test_set" / "deep").mkdir(parents=True)
    for number in range(4):
        (tmp_path / "test_set" / "deep" / f"{number}.JPG").write_bytes(stripes(number))
    (tmp_path / "one.jpg").write_bytes(stripes(9))
    (tmp_path / "test_set" / "broken.png").write_bytes(b"no picture")
    paths = (tmp_path / "test_set", tmp_path / "one.jpg", run / "shards")
    out_file = tmp_path / "hashes" / "set"
    status, out, err = said("collect", "hash-set", *paths, "--name", "coco", "--out", out_file)
    assert status == 0, err
    made = hash_sets.load(out_file)
    assert (made.name, len(made.hashes)) == ("coco", 5 + 1)  # the three of one colour have one hash
    assert "coco: 6 images hashed, 1 could not be" in out and "not an image" in out
    status, _, err = said("collect", "hash-set", tmp_path / "gone", "--out", tmp_path / "x")
    assert (status, err) == (2, f"crossgrain: no images at {tmp_path / 'gone'}\n")


def stripes(number: int) -> bytes:
    pixels = np.random.default_rng(number).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).resize((120, 90)).save(file, "JPEG")
    return file.getvalue()


def test_mistakes_are_one_line(tmp_path, said):
    run = write_collection(tmp_path / "web", 3)
    for words, told in (
        (("collect", "nothing_of_that_name"), "no recipe at nothing_of_that_name"),
        (("collect", "remove", tmp_path, "--url", "https://a.org/x"), f"no data set in {tmp_path}"),
        (("collect", "remove", run), "say what to remove"),
        (("collect", "remove", run, "--hash", "12"), "'12' is no hash"),
        (("collect", "remove", run, "--list", tmp_path / "gone"), "no list at"),
        (("collect", "report", tmp_path), "no collection in"),
        (("collect", "retry", tmp_path), "no collection in"),
        (("collect", "train-scorer", run / "shards", "--out", tmp_path / "s", "epohcs=1"), "epohcs"),
    ):
        status, out, err = said(*words)
        assert (status, out) == (2, ""), (words, out)
        assert told in err
        assert err.startswith("crossgrain: ") and err.count("\n") == 1, err


def test_what_follows_collect_is_a_recipe_unless_it_is_an_action():
    assert joined(["collect", "remove", "x"]) == ["collect remove", "x"]
    assert joined(["collect", "removed.yaml"]) == ["collect", "removed.yaml"]
    assert joined(["show", "collect", "remove"]) == ["show", "collect", "remove"]
    assert joined(["collect"]) == ["collect"] and joined([]) == []
    choices = cli.build_parser()._subparsers._group_actions[0].choices
    assert {name for name in choices if name.startswith("collect")} == {"collect", *(f"collect {a}" for a in ACTIONS)}


def test_overrides_stand_on_either_side_of_the_flags():
    for words in (["collect", "r", "seed=1", "--out", "x"], ["collect", "r", "--out", "x", "seed=1"]):
        assert (cli._parse(words).overrides, cli._parse(words).out) == (["seed=1"], Path("x"))
    for _ in range(2):  # a flag may come again, and nothing is kept from call to call
        assert cli._parse(["collect", "remove", "x", "--url", "a", "b", "--url", "c"]).url == ["a", "b", "c"]
    with pytest.raises(SystemExit):
        cli._parse(["collect", "remove", "x", "seed=1"])


def test_without_the_extra_the_command_says_what_to_install(tmp_path):
    code = "import sys; sys.modules['fastwarc'] = None; from crossgrain.cli import main; sys.exit(main(sys.argv[1:]))"
    words = [sys.executable, "-c", code, "collect", "retry", str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    told = "crossgrain: `crossgrain collect` needs fastwarc: install the extra, pip install 'crossgrain[collect]'\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", told)
