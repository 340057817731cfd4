"""Kill a collection at random points, with everything that it started, and go on: the end is that of an unbroken run.

    python tests/collect/kill_and_resume_collect.py [--kills 20] [--pages 2000] [--workers 2] [--seed 0]

Images come from servers of this process, which count what they are asked. What a journal or a finished part had
committed when its run was killed must never be asked for again, and the shards must be the same bytes in the end.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pyarrow.parquet
from planted_web import LOOPBACK, ServedWeb, served, shard_bytes

from crossgrain.collect.planted import judge
from crossgrain.collect.stages.images import _name
from crossgrain.config import save_recipe

RUN = """
import sys
from pathlib import Path
from crossgrain.collect.pipeline import run_collect
from crossgrain.collect.recipe import CollectRecipe
from crossgrain.config import load_recipe
if __name__ == "__main__":
    run_collect(load_recipe(CollectRecipe, Path(sys.argv[1])), Path(sys.argv[2]))
"""


def start(recipe: Path, out: Path) -> subprocess.Popen:
    """A run in a process group of its own."""
    script = recipe.with_name("run.py")
    script.write_text(RUN)
    environment = {**os.environ, LOOPBACK: "1"}
    return subprocess.Popen(
        [sys.executable, str(script), str(recipe), str(out)], start_new_session=True, env=environment
    )


def committed(out: Path) -> set[str]:
    """The names of the image addresses with an outcome on disk: in journals, and in parts that are done."""
    folder, names = out / "work" / "images", set()
    for journal in folder.glob("part-*.journal.jsonl"):
        for line in journal.read_bytes().split(b"\n")[1:-1]:  # the first names the task, the last may be torn
            names.add(json.loads(line)["name"])
    for done in folder.glob("part-*.done.json"):
        table = pyarrow.parquet.read_table(folder / (done.name.removesuffix(".done.json") + ".parquet"))
        names.update(map(_name, table["image_url"].to_pylist()))
    return names


def kill_and_resume(server: ServedWeb, recipe: Path, folder: Path, kills: int, seed: int) -> dict[str, int]:
    """Run once unbroken, once with `kills` kills; raises AssertionError where something is lost or asked for twice."""
    begin = time.monotonic()
    assert start(recipe, folder / "unbroken").wait() == 0
    seconds, dice = time.monotonic() - begin, random.Random(seed)
    before = server.requests.copy()
    killed = kept = 0
    for _ in range(kills):
        process = start(recipe, folder / "killed")
        try:
            process.wait(timeout=dice.uniform(0.1, 1.0) * seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            killed += 1
        time.sleep(0.2)  # requests under way come to their end
        safe, asked = committed(folder / "killed"), server.requests.copy()
        kept = max(kept, len(safe))
        process = start(recipe, folder / "killed")
        try:
            process.wait(timeout=dice.uniform(0.2, 0.8) * seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            killed += 1
        again = [url for url in server.requests - asked if _name(url) in safe]
        assert not again, f"asked for again: {again[:3]}"
    assert start(recipe, folder / "killed").wait() == 0
    assert shard_bytes(folder / "killed") == shard_bytes(folder / "unbroken")
    return {"kills": killed, "committed": kept, "requests": sum((server.requests - before).values())}


def main() -> None:
    """Kill as often as the arguments say and print what was seen."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--pages", type=int, default=2000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, served(arguments.pages) as (server, web, planted):
        warc = server.write_pages(Path(folder) / "web", web, planted)
        recipe = server.recipe(warc, num_workers=arguments.workers, tasks_per_domain=4, num_buckets=8)
        save_recipe(recipe, Path(folder) / "recipe.yaml")
        seen = kill_and_resume(
            server, Path(folder) / "recipe.yaml", Path(folder), -(-arguments.kills // 2), arguments.seed
        )
        sys.stdout.write(f"{seen}\n")
        sys.stdout.write("\n".join(judge(Path(folder) / "killed" / "shards", warc.parent).lines()) + "\n")


if __name__ == "__main__":
    main()
