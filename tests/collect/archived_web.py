"""A web of a few pages and pictures in one archive, and a recipe that collects it and asks nobody."""

import io
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from PIL import Image
from small_web import picture

from crossgrain.collect.images.filter import ImageFilterConfig
from crossgrain.collect.pages.inputs import Input
from crossgrain.collect.recipe import CollectRecipe
from crossgrain.data.scenes.web_archive import Resource, write_warc
from crossgrain.data.shards import Shards

PAGE, OTHER_PAGE = "http://site.test/page.html", "http://elsewhere.test/page.html"
IMAGE, OTHER_IMAGE = "http://pictures.test/a.jpg", "http://mirror.test/b.jpg"


def page_of(shown: Sequence[tuple[str, str]]) -> bytes:
    """A page that shows pictures, each with a text."""
    drawn = "".join(f'<p><img src="{url}" alt="{escape(text)}" width=500 height=500></p>' for url, text in shown)
    return f"<html lang=en><head><title>x</title></head><body>{drawn}</body></html>".encode()


def write_archive(path: Path, pages: Mapping[str, Sequence[tuple[str, str]]], images: Mapping[str, bytes]) -> Path:
    """A WARC of pages, by address what each shows, and of images; its path."""
    served = [Resource(url, page_of(shown), "text/html") for url, shown in pages.items()]
    write_warc(path, [*served, *(Resource(url, data, "image/jpeg") for url, data in images.items())])
    return path


def recipe_of(*archives: Path, **changes) -> CollectRecipe:
    values = {"images": ImageFilterConfig(min_side=32, min_natural=0.0), "num_buckets": 1, "num_workers": 0}
    return CollectRecipe(
        inputs=tuple(Input(path=path) for path in archives),
        **{"fetch_missing": False, "vocab_size": 0, **values, **changes},
    )


def recompressed(number: int, side: int = 400) -> bytes:
    """A copy of `picture(number, side)`, of another file."""
    file = io.BytesIO()
    Image.open(io.BytesIO(picture(number, side))).save(file, "JPEG", quality=60)
    return file.getvalue()


def collected(out: Path) -> dict[str, str]:
    """The text of every record by the address of its image."""
    shards = Shards(out / "shards") if any((out / "shards").glob("*.tar")) else []
    return {record.extra["provenance"]["image_url"]: record.captions[0] for record in shards}


def holding(out: Path, data: bytes) -> list[str]:
    """The files of a collection in which some bytes stand."""
    return [str(file.relative_to(out)) for file in out.rglob("*") if file.is_file() and data in file.read_bytes()]
