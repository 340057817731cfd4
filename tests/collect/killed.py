"""A collection that is killed, as kill -9 does, right before a certain step that would have made something durable."""

import json
import multiprocessing
import os
import signal
from pathlib import Path

import pyarrow.parquet

from crossgrain.collect import journal
from crossgrain.collect.pipeline import run_collect
from crossgrain.collect.recipe import CollectRecipe
from crossgrain.collect.stages.images import _name

LOOPBACK = "CROSSGRAIN_TEST_ALLOW_LOOPBACK"


def killed_before(step: int, recipe: CollectRecipe, out: Path) -> bool:
    """Collect in another process, killed before its `step`-th fsync or rename; False where it ended before that."""
    context = multiprocessing.get_context("forkserver")  # a process without threads, which has the imports done
    context.set_forkserver_preload(["crossgrain.collect.pipeline"])
    process = context.Process(target=_collect, args=(step, recipe, out))
    process.start()
    process.join()
    assert process.exitcode in (0, -signal.SIGKILL), process.exitcode
    return process.exitcode != 0


def _collect(step: int, recipe: CollectRecipe, out: Path) -> None:
    os.environ[LOOPBACK] = "1"
    journal._EVERY = 2
    left = step

    def counted(function):
        def call(*arguments, **options):
            nonlocal left
            left -= 1
            if not left:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments, **options)

        return call

    os.fsync, os.replace = counted(os.fsync), counted(os.replace)
    run_collect(recipe, out)


def committed(out: Path) -> set[str]:
    """The names of the image addresses with an outcome on disk: in journals, and in parts that are done."""
    folder, names = out / "work" / "images", set()
    for file in folder.glob("part-*.journal.jsonl"):
        for line in file.read_bytes().split(b"\n")[1:-1]:  # the first names the task, the last may be torn
            names.add(json.loads(line)["name"])
    for done in folder.glob("part-*.done.json"):
        table = pyarrow.parquet.read_table(folder / (done.name.removesuffix(".done.json") + ".parquet"))
        names.update(map(_name, table["image_url"].to_pylist()))
    return names
