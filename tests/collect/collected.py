"""A small collection as `crossgrain collect` leaves it: shards with provenance, the account, samples, a recipe."""

import hashlib
import io
from pathlib import Path

from PIL import Image

from crossgrain.collect.funnel import FunnelRow, write_funnel
from crossgrain.collect.samples import Sample, Samples, write_samples
from crossgrain.data.records import Record
from crossgrain.data.shards import ShardWriter

SITES = ("images.example.org", "example.co.uk", "pictures.example.net")
TEXTS = ("a red star above a small blue house", "two green trees beside a road", "the harbour of an old town at night")


def picture(number: int, size: tuple[int, int] = (40, 32)) -> bytes:
    """A JPEG of one colour that differs from number to number."""
    file = io.BytesIO()
    Image.new("RGB", size, ((37 * number) % 256, (91 * number) % 256, (53 * number) % 256)).save(file, "JPEG")
    return file.getvalue()


def collected_record(number: int) -> tuple[Record, tuple[int, int]]:
    """A record as aggregation makes it, and the size of its picture."""
    size = (320 + 20 * number, 310 + 10 * (number % 7))
    image, site = picture(number, size), SITES[number % len(SITES)]
    url = f"https://{site}/{number}.jpg"
    fetched = image + b"\0"  # what came over the network: the kept file was re-encoded
    provenance = {
        "page_url": f"https://www.example.com/page{number // 2}.html",
        "image_url": url,
        "text_kind": ("alt", "title", "figcaption")[number % 3],
        "licence": "https://creativecommons.org/licenses/by/4.0/" if number % 4 == 0 else "",
        "sha256": hashlib.sha256(fetched).hexdigest(),
        "md5": hashlib.md5(fetched).hexdigest(),
        "phash": f"{(number * 0x9E3779B97F4A7C15) % 2**64:016x}",
        "language": "en",
        "score": round(0.2 + 0.05 * number, 3),
        "natural": 0.9,
        "unsafe": 0.01,
        "opt_outs_checked": ["robots.txt", "X-Robots-Tag"],
    }
    key = hashlib.sha256(url.encode()).hexdigest()[:20]
    texts = (TEXTS[number % 3] + " again" * (number % 4),)
    return Record(key=key, image=image, captions=texts, extra={"provenance": provenance}), size


def write_collection(out: Path, size: int = 12, per_shard: int = 4) -> Path:
    """A whole run folder; its path."""
    out.mkdir(parents=True)
    with ShardWriter(out / "shards", records_per_shard=per_shard, source={"collected": "test"}) as writer:
        for number in range(size):
            record, (width, height) = collected_record(number)
            writer.write(record, "jpg", width, height)
    rows = [
        FunnelRow(stage="pages", unit="pages", num_in=40, num_out=35, dropped={"opted out: meta noai": 5}),
        FunnelRow(stage="pages", unit="images", num_in=200, num_out=80, dropped={"icon": 110, "no text": 10}),
        FunnelRow(stage="images", unit="images", num_in=80, num_out=size + 3, dropped={"too small": 77 - size}),
        FunnelRow(stage="aggregate", unit="pairs", num_in=size + 3, num_out=size, dropped={"better text": 3}),
    ]  # fmt: skip
    write_funnel(out / "funnel.json", rows)
    samples = Samples()
    for number in range(4):
        record, _ = collected_record(number)
        told = record.extra["provenance"]
        addresses = {"image_url": told["image_url"], "page_url": told["page_url"]}
        samples.add(Sample(stage="aggregate", text=record.captions[0], **addresses), record.image)
        odd = {"image_url": f"https://{SITES[0]}/small{number}.png", "text": f"<b>icon</b> {number}"}
        samples.add(Sample(stage="images", reason="too small", detail="87 x 90", **odd), picture(50 + number))
    samples.add(Sample(stage="pages", reason="declared too small", text="logo"))
    (out / "samples").mkdir()
    write_samples(out / "samples" / "samples.jsonl", samples)
    (out / "recipe.yaml").write_text("title: a test\nseed: 3\nfetch:\n  agent: crossgrain\n", encoding="utf-8")
    return out


def shard_bytes(out: Path) -> dict[str, bytes]:
    """The files of a collection's data set."""
    return {file.name: file.read_bytes() for file in (out / "shards").iterdir() if not file.name.startswith(".")}
