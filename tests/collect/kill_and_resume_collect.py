"""Kill a collection many times, at points spread over all of its work, and go on: the end is that of an unbroken run.

    python tests/collect/kill_and_resume_collect.py [--kills 20] [--pages 2000] [--workers 2]

Every other kill ends all processes at once, the others the main one alone, whose workers must then end by themselves.
Images come from servers of this process, which count what they are asked. What a journal or a finished part had
committed when its run was killed must never be asked for again, and the shards must be the same bytes in the end.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from collected import shard_bytes
from killed import LOOPBACK, committed
from planted_web import ServedWeb, served

from crossgrain.collect.planted import judge
from crossgrain.collect.stage_bar import JournalLines
from crossgrain.collect.stages.images import _name
from crossgrain.config import save_recipe

# Workers read this file too, when they start: their journals have many small batches.
RUN = """
import sys
from pathlib import Path
from crossgrain.collect import journal
from crossgrain.collect.pipeline import run_collect
from crossgrain.collect.recipe import CollectRecipe
from crossgrain.config import load_recipe
journal._EVERY = 3
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


def progress(out: Path) -> int:
    """How far a run is: parts of any stage that are done, and images with an outcome; what is in a journal counts."""
    images = 0
    for done in (out / "work" / "images").glob("part-*.done.json"):
        rows = json.loads(done.read_text())["funnel"]
        images += sum(row["in"] for row in rows if row["unit"] == "images")
    parts = sum(1 for _ in (out / "work").glob("*/part-*.done.json"))
    return parts + images + JournalLines(out / "work" / "images").count()


def kill_at(target: int, recipe: Path, out: Path, alone: bool) -> bool:
    """Run until so much is done, then kill -9: the main process alone, or all. False where it ended before that."""
    process = start(recipe, out)
    while progress(out) < target:
        if process.poll() is not None:
            assert process.returncode == 0
            return False
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL) if alone else os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return True


def kill_and_resume(server: ServedWeb, recipe: Path, folder: Path, unbroken: Path, kills: int) -> dict[str, int]:
    """Run with `kills` kills, then to the end; AssertionError where something is lost, changed, or asked for twice.

    `unbroken`: what a run without kills made of the same recipe.
    """
    out, whole = folder / "killed", progress(unbroken)
    killed, before, safe = 0, server.requests.copy(), set()
    for number in range(kills + 1):
        asked = server.requests.copy()
        if number == kills:
            assert start(recipe, out).wait() == 0
        else:
            killed += kill_at((2 * number + 1) * whole // (2 * kills), recipe, out, alone=number % 2 == 1)
        time.sleep(0.2)  # requests under way come to their end
        again = [url for url in server.requests - asked if _name(url) in safe]
        assert not again, f"asked for again: {again[:3]}"
        safe = committed(out)
    assert shard_bytes(out) == shard_bytes(unbroken)
    return {"kills": killed, "committed": len(safe), "requests": sum((server.requests - before).values())}


def main() -> None:
    """Kill as often as the arguments say and print what was seen."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--pages", type=int, default=2000)
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, served(arguments.pages) as (server, web, planted):
        folder = Path(name)
        warc = server.write_pages(folder / "web", web, planted)
        recipe = folder / "recipe.yaml"
        save_recipe(server.recipe(warc, num_workers=arguments.workers, tasks_per_domain=4, num_buckets=8), recipe)
        assert start(recipe, folder / "unbroken").wait() == 0
        seen = kill_and_resume(server, recipe, folder, folder / "unbroken", arguments.kills)
        sys.stdout.write(f"{seen}\n")
        sys.stdout.write("\n".join(judge(folder / "killed" / "shards", warc.parent).lines()) + "\n")


if __name__ == "__main__":
    main()
