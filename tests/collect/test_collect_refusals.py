"""Mistakes and what the system refuses: one line, and exit status 2."""

import errno
import os
from pathlib import Path

import pytest
from collected import write_collection
from small_web import picture

from crossgrain import cli
from crossgrain.commands.collect import is_collection

RECIPE = "inputs: [{path: pairs.jsonl, kind: pairs, text_column: text}]\nfetch_missing: false\nnum_workers: 0\n"


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("recipe.yaml").write_text(RECIPE)
    Path("pairs.jsonl").write_text('{"url": "http://a.test/1.jpg", "text": "a red boat in the harbour"}\n')
    return "recipe.yaml"


def refused(capsys, *words):
    """What was said of it."""
    capsys.readouterr()
    assert cli.main([str(word) for word in words]) == 2
    said = capsys.readouterr().err
    assert said.startswith("crossgrain: ") and said.count("\n") == 1
    return said


def test_a_folder_that_cannot_be_made_is_named(recipe, capsys):
    Path("file").write_text("")
    assert "Not a directory: file/below" in refused(capsys, "collect", recipe, "--out", "file/below")
    assert "/proc/none" in refused(capsys, "collect", recipe, "--out", "/proc/none")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_a_full_disk_or_one_that_cannot_be_written_to_is_a_line(recipe, capsys, monkeypatch, number):
    def fails(*arguments, **options):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("crossgrain.collect.tasks.flush", fails)
    monkeypatch.setattr("crossgrain.collect.pipeline.write_funnel", fails)
    assert os.strerror(number) in refused(capsys, "collect", recipe, "--out", "out")
    run = write_collection(Path("web"), 3)
    monkeypatch.setattr("crossgrain.collect.report.write_whole", fails)
    assert os.strerror(number) in refused(capsys, "collect", "report", run)
    assert os.strerror(number) in refused(capsys, "collect", "remove", run, "--url", "https://images.example.org/0.jpg")


def test_an_error_of_the_program_is_no_mistake_of_the_users(recipe, monkeypatch):
    def fails(*arguments, **options):
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))

    monkeypatch.setattr("crossgrain.collect.pipeline.write_funnel", fails)
    with pytest.raises(OSError, match="Bad file descriptor"):
        cli.main(["collect", recipe, "--out", "out"])


def test_a_hash_set_of_no_image_or_in_place_of_a_folder_is_refused(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert "no image to hash for empty" in refused(
        capsys, "collect", "hash-set", tmp_path / "empty", "--out", tmp_path / "set"
    )
    (tmp_path / "1.jpg").write_bytes(picture(1))
    assert "is a folder" in refused(capsys, "collect", "hash-set", tmp_path / "1.jpg", "--out", tmp_path / "empty")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["1.jpg", "empty"]


def test_two_test_sets_of_one_name_are_refused(recipe, tmp_path, capsys):
    for folder, number in (("coco", 1), ("flickr", 2)):
        (tmp_path / folder / "images").mkdir(parents=True)
        (tmp_path / folder / "images" / "1.jpg").write_bytes(picture(number))
        assert cli.main(["collect", "hash-set", f"{folder}/images", "--out", f"{folder}.hashes"]) == 0
    words = ("collect", recipe, "aggregate.test_sets=[coco.hashes, flickr.hashes]", "--out", "out")
    assert "two test sets are called images: coco.hashes and flickr.hashes" in refused(capsys, *words)
    assert not Path("out/recipe.yaml").exists()


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        (RECIPE, True),
        ("\ufeff" + RECIPE, True),
        ("{inputs: [{path: a.warc}], seed: 3}", True),
        ('"scenes_web": {pages: 3}', True),
        ("model: {type: xvlm}\n# inputs: none\ntext: |\n  x\n", False),
        ("inputs: [", False),
        ("just words", False),
    ],
)
def test_a_recipe_of_collecting_is_known_by_its_keys_however_it_is_written(tmp_path, text, is_one):
    (tmp_path / "recipe.yaml").write_text(text)
    assert is_collection(tmp_path / "recipe.yaml") == is_one


def test_names_that_are_no_unicode_do_not_stop_the_report(tmp_path):
    from crossgrain.documents.writing import write_whole

    write_whole(tmp_path / "report.html", ["a page called \udcff.html"])
    assert (tmp_path / "report.html").read_text() == "a page called \\udcff.html"
