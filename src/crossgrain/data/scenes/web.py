"""The planted web: sites of pages around photographs of scenes, of which it is known what a collector should keep.

Every page holds good pairs (a photograph with a true caption in one of four places, shown in one of nine ways) and
planted bad ones of named kinds. `truth.json` lists them all; `crossgrain.collect.planted` judges a collection by it.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from crossgrain.data.records import Record
from crossgrain.data.scenes import web_images as images
from crossgrain.data.scenes.web_archive import Resource, write_warc
from crossgrain.data.scenes.web_pages import MAIN, Planted, Web
from crossgrain.data.shards import ShardWriter

TRUTH, TEST_SET = "truth.json", "test_set"
PAGES_PER_WARC = 250
_VERSION = 1  # of what is drawn


def _made(pages: int, seed: int) -> dict[str, Any]:
    return {"version": _VERSION, "pages": pages, "seed": seed}


def write_truth(out: Path, web: Web, planted: Sequence[Planted]) -> None:
    """truth.json: every image of the web with its kind, and what is true of every scene."""
    rows = [{name: value for name, value in asdict(row).items() if value} for row in planted]
    truth = {"made": _made(web.pages, web.seed), "planted": rows, "captions": web.told}
    part = out / f"{TRUTH}.tmp"
    part.write_text(json.dumps(truth, separators=(",", ":")) + "\n", encoding="utf-8")
    part.replace(out / TRUTH)


def write_web(out: Path, pages: int, seed: int) -> None:
    """The web as WARC files (web-00000.warc.gz, ...), the images of `test_set`, and truth.json, which is written last.

    A web that is there already, of as many pages and the same seed, stays as it is.
    """
    if (out / TRUTH).exists() and json.loads((out / TRUTH).read_text(encoding="utf-8"))["made"] == _made(pages, seed):
        return
    web, planted, furniture = Web(pages, seed), [], []
    (out / TEST_SET).mkdir(parents=True, exist_ok=True)
    for resource, row in web.furniture():
        furniture.append(resource)
        planted.append(row)
    for number, start in enumerate(range(0, pages, PAGES_PER_WARC)):

        def resources(start: int = start) -> Iterator[Resource]:
            yield from furniture
            for i in range(start, min(pages, start + PAGES_PER_WARC)):
                served, rows = web.page(i)
                yield from served
                planted.extend(rows)
                if any(row.kind.endswith("test-set copy") for row in rows):
                    (out / TEST_SET / f"{i:06d}.jpg").write_bytes(images.jpeg(web.test_image(i), 92))

        write_warc(out / f"web-{number:05d}.warc.gz", resources())
    write_truth(out, web, planted)


def write_supervised(out: Path, pairs: int, seed: int, overwrite: bool = False) -> None:
    """A small set of photographs of yet other scenes with true captions: what a scorer learns from."""
    web = Web(0, seed + 2_000_000)
    with ShardWriter(
        out, source={"scenes": "photographs", "pairs": pairs, "seed": seed}, overwrite=overwrite
    ) as writer:
        for i in range(pairs):
            scene = web.scene(i, MAIN)
            side = web.side(i)
            data = images.jpeg(images.photograph(scene, side))
            record = Record(key=scene.key, image=data, captions=web.captions(scene))
            writer.write(record, "jpg", side, side)
