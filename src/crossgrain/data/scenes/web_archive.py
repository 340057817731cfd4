"""What a web serves, and WARC 1.0 files (ISO 28500) of it: a gzip member a record, the same bytes for the same web."""

import gzip
import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

_DATE = "2019-06-01T00:00:00Z"
_PHRASES = {200: "OK", 404: "Not Found"}


class Resource(NamedTuple):
    """One answer of a server."""

    url: str
    body: bytes
    content_type: str
    status: int = 200
    headers: Mapping[str, str] = {}

    def http_headers(self) -> dict[str, str]:
        """All headers of the answer."""
        return {"Content-Type": self.content_type, "Content-Length": str(len(self.body)), **self.headers}


def _record(kind: str, block: bytes, content_type: str, url: str, name: str, level: int) -> bytes:
    fields = {
        "WARC-Type": kind,
        "WARC-Record-ID": f"<urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, f'{name} {kind} {url}')}>",
        "WARC-Date": _DATE,
        **({"WARC-Target-URI": url} if url else {"WARC-Filename": name}),
        "Content-Type": content_type,
        "Content-Length": str(len(block)),
    }
    head = "".join(f"{field}: {value}\r\n" for field, value in fields.items())
    return gzip.compress(f"WARC/1.0\r\n{head}\r\n".encode() + block + b"\r\n\r\n", level, mtime=0)


def write_warc(path: Path, resources: Iterable[Resource]) -> None:
    """A .warc.gz file with a warcinfo record and a response record for every resource."""
    with path.open("wb") as file:
        info = b"software: crossgrain scenes\r\nformat: WARC File Format 1.0\r\n"
        file.write(_record("warcinfo", info, "application/warc-fields", "", path.name, 6))
        for resource in resources:
            headers = "".join(f"{name}: {value}\r\n" for name, value in resource.http_headers().items())
            status = f"HTTP/1.1 {resource.status} {_PHRASES[resource.status]}\r\n"
            block = f"{status}{headers}\r\n".encode() + resource.body
            level = 6 if resource.content_type.startswith("text/") else 1  # images are compressed already
            file.write(_record("response", block, "application/http; msgtype=response", resource.url, path.name, level))
