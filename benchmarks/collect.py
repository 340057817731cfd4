"""Time collecting: pages to clean candidates on one core, and images from a server into shards beside img2dataset.

    python benchmarks/collect.py [pages] [images] [--warc FILE ...] [--html FOLDER] [--photos FOLDER] [--images 1000]
                                 [--workers 2] [--img2dataset PYTHON] [--json FILE]

pages    WARC records read, HTML parsed, candidates with their texts found, texts cleaned: pages per second of processor
         time. The pages are those of WARC files, of a folder of HTML files (put into a WARC first), or drawn ones,
         which are small.
images   a list of image URLs fetched from a server on this machine, checked, hashed, classified and written into
         shards, all guards on; then the same list with img2dataset, at the same size of output and with as many
         processes, where it can be imported here or by the interpreter of --img2dataset. The images are the JPEG files
         of a folder, or drawn ones. Seconds are wall time, and the server runs on the same cores.
"""

import argparse
import gzip
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

os.environ.setdefault("OMP_NUM_THREADS", "1")
MIN_SECONDS = 5.0
SIDE = 256  # pixels of the shorter side of what is written
IMG2DATASET = """
import sys
from img2dataset import download
download(url_list=sys.argv[1], input_format="parquet", url_col="url", caption_col="text", output_folder=sys.argv[2],
         output_format="webdataset", processes_count=int(sys.argv[3]), thread_count=64, image_size=256,
         resize_mode="keep_ratio", resize_only_if_bigger=True, encode_quality=90, number_sample_per_shard=1000,
         enable_wandb=False, disallowed_header_directives=["noai", "noimageai", "noindex", "noimageindex"])
"""


def time_pages(warcs: list[Path], folder: Path) -> dict[str, Any]:
    """Pages per second of processor time from WARC bytes to clean texts, and what they gave."""
    from crossgrain.collect.candidates import Page, PageText
    from crossgrain.collect.fetch import FetchConfig
    from crossgrain.collect.pages.html import PageConfig, find_candidates
    from crossgrain.collect.pages.inputs import Input, list_inputs, read_pages
    from crossgrain.collect.sentences import Cleaner, SentenceConfig

    config, fetch = PageConfig(), FetchConfig()
    Cleaner(SentenceConfig()).clean([PageText("alt", "A dog on a mat in the sun")])  # the models are loaded once
    shards = list_inputs([Input(path=path) for path in warcs], folder)
    counts = dict.fromkeys(("pages", "html_bytes", "images", "candidates", "texts", "clean_texts", "pairs"), 0)
    parts = dict.fromkeys(("read", "find", "clean"), 0.0)
    passes = 0
    while sum(parts.values()) < MIN_SECONDS:
        passes += 1
        cleaner = Cleaner(SentenceConfig())  # one that remembers no text of the last pass
        for shard in shards:
            last = time.process_time()
            for page in read_pages(shard, fetch):
                if not isinstance(page, Page):
                    continue
                start = time.process_time()
                found = find_candidates(page, config)
                middle = time.process_time()
                cleaned = [cleaner.clean(one.texts, one.page_language)[0] for one in found.candidates]
                end = time.process_time()
                for name, seconds in (("read", start - last), ("find", middle - start), ("clean", end - middle)):
                    parts[name] += seconds
                last = end
                if passes == 1:
                    counts["pages"] += 1
                    counts["html_bytes"] += len(page.html)
                    counts["images"] += found.num_images
                    counts["candidates"] += len(found.candidates)
                    counts["texts"] += sum(len(one.texts) for one in found.candidates)
                    counts["clean_texts"] += sum(map(len, cleaned))
                    counts["pairs"] += sum(map(bool, cleaned))
            parts["read"] += time.process_time() - last
    seconds = sum(parts.values()) / passes
    rates = {f"{name}_seconds": part / passes for name, part in parts.items()}
    return {
        **counts,
        **rates,
        "pages_per_second": counts["pages"] / seconds,
        "pairs_per_second": counts["pairs"] / seconds,
    }


def time_libraries(warcs: list[Path], folder: Path) -> dict[str, float]:
    """Seconds of processor time for the same pages by fastwarc, selectolax, pycld2 and fastText alone."""
    import fasttext
    import pycld2
    from fastwarc.warc import ArchiveIterator, WarcRecordType
    from selectolax.lexbor import LexborHTMLParser

    from crossgrain.collect.candidates import Page
    from crossgrain.collect.fetch import FetchConfig
    from crossgrain.collect.pages.html import PageConfig, find_candidates
    from crossgrain.collect.pages.inputs import Input, list_inputs, read_pages
    from crossgrain.collect.sentences import Cleaner, SentenceConfig
    from crossgrain.collect.sentences.language import model_path

    fetch, cleaner, texts, pages = FetchConfig(), Cleaner(SentenceConfig()), [], []
    for shard in list_inputs([Input(path=path) for path in warcs], folder):
        for page in read_pages(shard, fetch):
            if isinstance(page, Page):
                pages.append(page.html)
                for one in find_candidates(page, PageConfig()).candidates:
                    texts += [clean.text.lower() for clean in cleaner.clean(one.texts, one.page_language)[0]]
    predict = fasttext.load_model(str(model_path())).f.predict

    def read() -> None:
        for path in warcs:
            with path.open("rb") as file:
                for record in ArchiveIterator(file, record_types=WarcRecordType.response | WarcRecordType.resource):
                    record.reader.read()

    def parse() -> None:
        for html in pages:
            for image in LexborHTMLParser(html).css("img"):
                _ = image.attributes

    def tell() -> None:
        for text in texts:
            pycld2.detect(text, isPlainText=True, bestEffort=True)
            predict(f"{text}\n", 1, 0.0, "strict")

    seconds = {}
    for name, work in (("read", read), ("parse", parse), ("tell", tell)):
        start, passes = time.process_time(), 0
        while time.process_time() - start < MIN_SECONDS / 3:
            work()
            passes += 1
        seconds[f"{name}_seconds"] = (time.process_time() - start) / passes
    return {**seconds, "pages_per_second": len(pages) / sum(seconds.values())}


def archived(folder: Path, out: Path) -> Path:
    """The HTML files of a folder (.html, .html.gz) as one WARC file."""
    from crossgrain.data.scenes.web_archive import Resource, write_warc

    files = sorted(file for file in folder.rglob("*") if file.name.endswith((".html", ".htm", ".html.gz", ".htm.gz")))
    if not files:
        sys.exit(f"{folder} holds no .html, .htm, .html.gz or .htm.gz file")

    def resources() -> Iterator[Resource]:
        for number, file in enumerate(files):
            data = file.read_bytes()
            html = gzip.decompress(data) if file.suffix == ".gz" else data
            yield Resource(f"https://pages.example/{number}.html", html, "text/html")

    write_warc(out, resources())
    return out


def pictures(folder: Path | None, count: int) -> Iterator[bytes]:
    """JPEG files of a folder, at most `count`, or as many drawn photographs of 480 x 360 pixels."""
    if folder is not None:
        files = sorted(file for file in folder.rglob("*") if file.suffix.lower() in (".jpg", ".jpeg"))
        yield from (file.read_bytes() for file in files[:count])
        return
    from crossgrain.data.scenes import make_scene
    from crossgrain.data.scenes.web_images import jpeg, photograph

    for number in range(count):
        yield jpeg(photograph(make_scene(7, "train", number), 480).crop((0, 60, 480, 420)), 92)


def serve(folder: str, connection: Any) -> None:
    """A server of the files of a folder, from memory, with connections that are kept; sends its port."""
    files = {f"/{file.name}": file.read_bytes() for file in Path(folder).iterdir()}

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = 1 << 20  # one packet where headers and body fit

        def do_GET(self) -> None:
            body = files.get(self.path)
            self.send_response(404 if body is None else 200)
            self.send_header("Content-Type", "text/plain" if body is None else "image/jpeg")
            self.send_header("Content-Length", str(len(body or b"")))
            self.end_headers()
            self.wfile.write(body or b"")
            self.wfile.flush()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 512

    server = Server(("127.0.0.1", 0), Handler)
    connection.send(server.server_address[1])
    server.serve_forever()


def time_images(arguments: argparse.Namespace, work: Path) -> dict[str, Any]:
    """Images per second of wall time from the server into shards, ours and img2dataset's."""
    folder = work / "pictures"
    folder.mkdir()
    for number, data in enumerate(pictures(arguments.photos, arguments.images)):
        (folder / f"{number:06d}.jpg").write_bytes(data)
    files = sorted(folder.iterdir())
    sizes = [file.stat().st_size for file in files]
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    server = context.Process(target=serve, args=(str(folder), there), daemon=True)
    server.start()
    port = here.recv()
    table = {
        "url": [f"http://127.0.0.1:{port}/{file.name}" for file in files],
        "text": [f"A photo of what picture number {number} shows on the table" for number in range(len(files))],
    }
    pyarrow.parquet.write_table(pyarrow.table(table), work / "list.parquet")
    rows = {"crossgrain": time_ours(work, port, arguments.workers)}
    python = arguments.img2dataset or sys.executable
    if subprocess.run([python, "-c", "import img2dataset"], capture_output=True).returncode == 0:
        rows["img2dataset"] = time_theirs(work, python, arguments.workers)
        rows["crossgrain again"] = time_ours(work, port, arguments.workers)
    server.kill()
    return {"images": len(files), "mean_bytes": sum(sizes) // len(sizes), "workers": arguments.workers, **rows}


def time_ours(work: Path, port: int, workers: int) -> dict[str, Any]:
    """The images of list.parquet through this library's fetcher, image filter, hashes and shards."""
    from crossgrain.collect.pipeline import run_collect
    from crossgrain.collect.recipe import CollectRecipe
    from crossgrain.config import load_recipe
    from crossgrain.data.shards import Shards

    out = work / "ours"
    shutil.rmtree(out, ignore_errors=True)
    recipe = work / "recipe.yaml"
    recipe.write_text(json.dumps(images_recipe(work / "list.parquet", port, workers)))
    os.environ["CROSSGRAIN_TEST_ALLOW_LOOPBACK"] = "1"
    start = time.perf_counter()
    run_collect(load_recipe(CollectRecipe, recipe), out)
    seconds = time.perf_counter() - start
    written = len(Shards(out / "shards"))
    return {"seconds": seconds, "written": written, "images_per_second": written / seconds}


def images_recipe(table: Path, port: int, workers: int) -> dict[str, Any]:
    """Everything on that guards, nothing that waits: one server stands for the whole web here."""
    pace = {"domain_concurrency": 64 * workers, "domain_delay": 0.0, "address_concurrency": 64, "address_delay": 0.0}
    return {
        "inputs": [{"path": str(table), "kind": "pairs", "text_column": "text"}],
        "fetch": {"contact": "https://crossgrain.example", "ports": [port], **pace},
        "images": {"max_side": SIDE, "min_side": 64, "min_natural": 0.0},  # img2dataset keeps all: so do we here
        "num_workers": workers,
        "tasks_per_domain": 2 * workers,
        "num_buckets": 2 * workers,
        "vocab_size": 0,
    }


def time_theirs(work: Path, python: str, workers: int) -> dict[str, Any]:
    """The same list with img2dataset; what it wrote is counted in its tars."""
    import tarfile

    out = work / "theirs"
    command = [python, "-c", IMG2DATASET, str(work / "list.parquet"), str(out), str(workers)]
    environment = {**os.environ, "NO_ALBUMENTATIONS_UPDATE": "1"}
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    seconds = time.perf_counter() - start
    if done.returncode:
        sys.exit(f"img2dataset failed:\n{done.stderr[-2000:]}")
    written = 0
    for tar in sorted(out.glob("*.tar")):
        with tarfile.open(tar) as members:
            written += sum(name.endswith(".jpg") for name in members.getnames())
    return {"seconds": seconds, "written": written, "images_per_second": written / seconds}


def main() -> None:
    """Measure what the arguments ask for, print a table and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", choices=("pages", "images", []), default=[], help="both without")
    parser.add_argument("--warc", type=Path, nargs="+", default=[], help="WARC files with pages")
    parser.add_argument("--html", type=Path, help="a folder of HTML files")
    parser.add_argument("--photos", type=Path, help="a folder of JPEG files")
    parser.add_argument("--images", type=int, default=1000, help="images to fetch, at most")
    parser.add_argument("--workers", type=int, default=2, help="processes that fetch")
    parser.add_argument("--img2dataset", metavar="PYTHON", help="an interpreter that has img2dataset")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    arguments = parser.parse_args()
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        if "pages" in arguments.what or not arguments.what:
            warcs = [*arguments.warc]
            if arguments.html:
                warcs.append(archived(arguments.html, work / "pages.warc.gz"))
            if not warcs:
                from crossgrain.data.scenes.web import write_web

                write_web(work / "web", 250, 0)
                warcs = sorted((work / "web").glob("*.warc.gz"))
            figures["pages"] = row = time_pages(warcs, work / "inputs")
            figures["libraries alone"] = bare = time_libraries(warcs, work / "inputs")
            mean = row["html_bytes"] // max(1, row["pages"])
            print(f"{row['pages']:,} pages of {mean:,} bytes with {row['images']:,} images, one core")
            print(f"{'':12} {'pages/s':>10}")
            for part in ("read", "find", "clean"):
                print(f"{part:12} {row['pages'] / max(row[f'{part}_seconds'], 1e-9):10,.0f}")
            print(f"{'together':12} {row['pages_per_second']:10,.0f}   {row['pairs_per_second']:,.0f} clean pairs/s")
            for part in ("read", "parse", "tell"):
                print(f"  only {part:5} {row['pages'] / bare[f'{part}_seconds']:10,.0f}")
            print(f"{'libraries':12} {bare['pages_per_second']:10,.0f}")
        if "images" in arguments.what or not arguments.what:
            figures["images"] = row = time_images(arguments, work)
            print(f"{row['images']:,} images of {row['mean_bytes']:,} bytes, {row['workers']} processes")
            print(f"{'':18} {'seconds':>8} {'written':>8} {'images/s':>9}")
            for name in ("crossgrain", "img2dataset", "crossgrain again"):
                if name in row:
                    run = row[name]
                    print(f"{name:18} {run['seconds']:8.1f} {run['written']:8,} {run['images_per_second']:9.0f}")
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
