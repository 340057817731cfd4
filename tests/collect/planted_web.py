"""The planted web, served on loopback by a thread that counts what it is asked for; and recipes that collect it."""

import threading
from collections import Counter
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np

from crossgrain.collect.fetch import FetchConfig
from crossgrain.collect.pages.inputs import Input
from crossgrain.collect.recipe import CollectRecipe, ScenesWeb
from crossgrain.collect.scoring.interface import PairScorer
from crossgrain.config import configclass
from crossgrain.data.scenes.web import write_truth
from crossgrain.data.scenes.web_archive import Resource, write_warc
from crossgrain.data.scenes.web_pages import Planted, Web
from crossgrain.data.scenes.words import COLOUR_WORDS, KIND_WORDS

LOOPBACK = "CROSSGRAIN_TEST_ALLOW_LOOPBACK"
SMALL = {"num_workers": 0, "num_buckets": 3, "vocab_size": 0, "records_per_shard": 40}
NAMED = {word for words in (*KIND_WORDS.values(), *COLOUR_WORDS.values()) for name in words for word in name.split()}
QUICK = {"domain_delay": 0.0, "address_delay": 0.0, "domain_concurrency": 16, "address_concurrency": 16}


class NamesThings(PairScorer):
    """Knows nothing of images, only how many words of a text name a thing or a colour: captions, not chatter."""

    @configclass
    class Config:
        """Nothing to set."""

    def __init__(self, config):
        self.config = config

    def fingerprint(self):
        return "names things"

    def image_features(self, images):
        return np.zeros((len(images), 1), np.float32)

    def text_features(self, texts):
        words = [text.lower().replace(",", " ").replace(".", " ").split() for text in texts]
        return np.array([[sum(word.rstrip("s") in NAMED for word in found)] for found in words], np.float32)

    def score(self, images, texts):
        return texts[:, 0] / 10


class ServedWeb:
    """The pages of a planted web at `origins` (http://127.0.0.1:PORT, one port per site); use as a context manager.

    `requests` counts answers by URL. `robots` is what /robots.txt says (404 without); as long as `busy` is set, every
    image is answered with a 503.
    """

    def __init__(self, num_sites: int = 2, robots: str = "", busy: bool = False):
        self.requests: Counter[str] = Counter()
        self.robots, self.busy = robots, busy
        self.resources: dict[str, Resource] = {}
        self._lock = threading.Lock()
        self._servers = [self._server() for _ in range(num_sites)]
        self.origins = tuple(f"http://127.0.0.1:{server.server_address[1]}" for server in self._servers)

    def plant(self, pages: int, seed: int) -> tuple[Web, list[Planted]]:
        """Draw a web for these origins and serve it; what to write beside as its truth."""
        web = Web(pages, seed, self.origins)
        planted = []
        for resource, row in web.furniture():
            self.resources[resource.url] = resource
            planted.append(row)
        for i in range(pages):
            resources, rows = web.page(i)
            self.resources.update((resource.url, resource) for resource in resources)
            planted.extend(rows)
        return web, planted

    def write_pages(self, folder: Path, web: Web, planted: list[Planted]) -> Path:
        """A WARC file of the pages alone, so that images must be fetched; with the truth beside it."""
        folder.mkdir(parents=True, exist_ok=True)
        pages = [resource for resource in self.resources.values() if resource.content_type.startswith("text/html;")]
        write_warc(folder / "pages.warc.gz", pages)
        write_truth(folder, web, planted)
        return folder / "pages.warc.gz"

    def num_asked(self, *kinds: str, planted: list[Planted]) -> int:
        """Requests for images of these kinds."""
        return sum(self.requests[url] for row in planted if row.kind in kinds for url in row.images)

    def recipe(self, warc: Path, fetch: dict | None = None, **changes) -> CollectRecipe:
        """Pages from an archive, images from this server, without pauses."""
        ports = tuple(int(origin.rpartition(":")[2]) for origin in self.origins)
        fetch = {"contact": "https://crossgrain.example/why", "ports": ports, **QUICK, **(fetch or {})}
        inputs = (Input(path=warc, kind="warc"),)
        return CollectRecipe(**{**SMALL, "inputs": inputs, "fetch": FetchConfig(**fetch), **changes})

    def __enter__(self):
        for server in self._servers:
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_):
        for server in self._servers:
            server.shutdown()
            server.server_close()

    def _server(self) -> ThreadingHTTPServer:
        web = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                web._answer(self)

            def log_message(self, *_):
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 1024  # with the usual 5, connections made at once wait seconds or are reset

            def handle_error(self, request, client_address):
                """Clients are killed here, or hang up: nothing to tell."""

        return Server(("127.0.0.1", 0), Handler)

    def _answer(self, handler: BaseHTTPRequestHandler) -> None:
        url = f"http://127.0.0.1:{handler.server.server_address[1]}{handler.path}"
        with self._lock:
            self.requests[url] += 1
        resource = self.resources.get(url, Resource(url, b"not found", "text/plain", 404))
        if handler.path == "/robots.txt" and self.robots:
            resource = Resource(url, self.robots.encode(), "text/plain")
        if self.busy and resource.content_type.startswith("image/"):
            resource = Resource(url, b"busy", "text/plain", 503)
        handler.send_response(resource.status)
        for name, value in resource.http_headers().items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(resource.body)


@contextmanager
def served(pages: int, seed: int = 0, **options):
    """A planted web of `pages` pages on loopback; (the server, the web, what is planted)."""
    with ServedWeb(**options) as server:
        yield server, *server.plant(pages, seed)


def archived(pages: int, seed: int = 0, **changes) -> CollectRecipe:
    """All from archives, nothing fetched."""
    return CollectRecipe(
        **{**SMALL, "scenes_web": ScenesWeb(pages=pages, seed=seed), "fetch_missing": False, **changes}
    )
