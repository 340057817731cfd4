"""WARC and ARC files: pages and images come out, broken records are counted and passed over, nothing grows endless."""

import gzip
import io
import resource
import time
import zlib
from collections import Counter
from pathlib import Path

import pytest

from crossgrain.collect.candidates import ArchivedImage, Page
from crossgrain.collect.pages.bodies import BodyError, decoded_body, split_head, whole_number
from crossgrain.collect.pages.html import PageConfig, find_candidates
from crossgrain.collect.pages.warc import MAX_PAGE_BYTES, read_archive, read_archived
from crossgrain.data.records import Dropped

HTML = b"<html><body><p><img src=/a.jpg alt='A red house'></p></body></html>"
JPEG = b"\xff\xd8\xff\xe0" + bytes(range(256)) * 20


def response(url, body, content_type="text/html", status="200 OK", fields="", kind="response", warc_fields=""):
    http = f"HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\n{fields}\r\n".encode() + body
    head = (
        f"WARC/1.0\r\nWARC-Type: {kind}\r\nWARC-Target-URI: {url}\r\nWARC-Date: 2024-01-01T00:00:00Z\r\n"
        f"WARC-Record-ID: <urn:uuid:12345678-1234-1234-1234-123456789abc>\r\n{warc_fields}"
        f"Content-Type: application/http; msgtype=response\r\nContent-Length: {len(http)}\r\n\r\n"
    )
    return head.encode() + http + b"\r\n\r\n"


def arc(url, body, content_type="text/html", length=None):
    http = b"HTTP/1.0 200 OK\r\nContent-Type: " + content_type.encode() + b"\r\n\r\n" + body
    return f"{url} 1.2.3.4 20080101000000 {content_type} {length or len(http)}\n".encode() + http + b"\n"


ARC_FIELDS = b"1 0 Test\nURL IP-address Archive-date Content-type Archive-length\n"
ARC_HEAD = f"filedesc://x.arc 0.0.0.0 20080101000000 text/plain {len(ARC_FIELDS)}\n".encode() + ARC_FIELDS + b"\n"


def written(path, records, packed):
    path.write_bytes(b"".join(gzip.compress(record) if packed else record for record in records))
    return path


def kinds(found):
    return Counter(one.reason if isinstance(one, Dropped) else type(one).__name__ for one in found)


RECORDS = (
    response("http://example.com/", HTML),
    response("http://example.com/a.jpg", JPEG, "image/jpeg"),
    response("http://example.com/old", b"moved", status="301 Moved"),
    response("http://example.com/s.css", b"p {}", "text/css"),
    response("http://example.com/b.jpg", JPEG[:-1], "application/octet-stream"),
    response("http://example.com/c.jpg", JPEG, "image/jpeg", warc_fields="WARC-Truncated: length\r\n"),
    response("<http://example.com/sp ace>", HTML, "text/html; charset=utf-8"),
    response("file:///srv/page.html", HTML),
)
EXPECTED = {
    "Page": 2,
    "ArchivedImage": 2,
    "answered with an error or a redirect": 1,
    "neither page nor image": 1,
    "image cut off by the crawler": 1,
    "address is not of the web": 1,
}


@pytest.mark.parametrize("packed", [True, False])
def test_pages_and_images_of_a_warc(tmp_path, packed):
    path = written(tmp_path / "x.warc", RECORDS, packed)
    found = list(read_archive(path))
    assert kinds(found) == EXPECTED
    pages = [one for one in found if isinstance(one, Page)]
    assert [page.html for page in pages] == [HTML, HTML]
    assert [page.url for page in pages] == ["http://example.com/", "http://example.com/sp%20ace"]
    assert pages[0].headers["content-type"] == "text/html" and pages[0].source == "x.warc@0"
    images = [one for one in found if isinstance(one, ArchivedImage)]
    assert [(one.url[-5:], one.size, one.content_type) for one in images] == [
        ("a.jpg", len(JPEG), "image/jpeg"),
        ("b.jpg", len(JPEG) - 1, "image/jpeg"),
    ]
    assert [read_archived(path, one.offset, 10**6) for one in images] == [JPEG, JPEG[:-1]]
    (candidate,) = find_candidates(pages[0], PageConfig()).candidates
    assert candidate.image_url == images[0].url


@pytest.mark.parametrize("packed", [True, False])
def test_pages_and_images_of_an_arc(tmp_path, packed):
    records = (ARC_HEAD, arc("http://example.com/a b", HTML), arc("http://example.com/a.jpg", JPEG * 30, "image/jpeg"))
    path = written(tmp_path / "x.arc", (*records, arc("http://example.com/c", HTML)), packed)
    page, image, last = read_archive(path)
    assert isinstance(page, Page) and page.html == HTML and page.url == "http://example.com/a%20b"
    assert isinstance(image, ArchivedImage) and read_archived(path, image.offset, 10**6) == JPEG * 30
    assert isinstance(last, Page) and last.html == HTML


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        ("X-Robots-Tag: noai", "opted out: X-Robots-Tag noai"),
        ("x-robots-tag: examplebot: noimageai", "opted out: X-Robots-Tag noimageai"),
        ("X-Robots-Tag: otherbot: noai", "ArchivedImage"),
        ("TDM-Reservation: 1", "opted out: header tdm-reservation"),
        ("TDM-Reservation: 0", "ArchivedImage"),
        ("Content-Usage: train-ai=n", "opted out: header Content-Usage"),
    ],
)
@pytest.mark.parametrize("content_type", ["image/jpeg", "application/octet-stream"])
def test_an_archived_image_whose_answer_opts_out_is_dropped(tmp_path, header, reason, content_type):
    record = response("http://example.com/a.jpg", JPEG, content_type, fields=f"{header}\r\n")
    path = written(tmp_path / "x.warc", [RECORDS[0], record], packed=True)
    assert kinds(read_archive(path, ("examplebot",))) == {"Page": 1, reason: 1}


def test_images_inside_one_compressed_stream_are_left_to_the_web(tmp_path):
    path = tmp_path / "x.warc.gz"
    path.write_bytes(gzip.compress(b"".join(RECORDS[:2])))
    assert kinds(read_archive(path)) == {"Page": 1, "image inside one long compressed stream": 1}


@pytest.mark.parametrize("packed", [True, False])
def test_a_broken_record_does_not_lose_the_others(tmp_path, packed):
    good = [response(f"http://example.com/{number}", HTML + bytes(str(number), "ascii") * 500) for number in range(6)]
    parts = [gzip.compress(record) if packed else record for record in good]
    if packed:
        parts[2] = parts[2][:40] + bytes(20) + parts[2][60:]
    else:
        parts[2] = parts[2].replace(b"WARC/1.0", b"WORC/1.0").replace(b"Content-Length", b"Content-Lemgth")
    path = tmp_path / "x.warc"
    path.write_bytes(b"".join(parts))
    found = list(read_archive(path))
    assert [one.url[-1] for one in found if isinstance(one, Page)] == ["0", "1", "3", "4", "5"]
    assert sum(isinstance(one, Dropped) for one in found) == 1


@pytest.mark.parametrize("packed", [True, False])
def test_a_file_that_ends_in_the_middle_of_a_record(tmp_path, packed):
    whole = written(
        tmp_path / "x.warc", (RECORDS[0], response("http://example.com/2", zlib.compress(HTML) * 50)), packed
    )
    whole.write_bytes(whole.read_bytes()[:-60])
    found = kinds(read_archive(whole))
    assert found["Page"] == 1 and found.total() - 1 in (1, 2)


@pytest.mark.parametrize("packed", [True, False])
def test_a_length_beyond_the_end_does_not_hide_the_records_behind_it(tmp_path, packed):
    records = [response(f"http://example.com/{number}", HTML) for number in range(4)]
    records[0] = records[0].replace(b"Content-Length: ", b"Content-Length: 99")
    path = written(tmp_path / "x.warc", records, packed)
    assert kinds(read_archive(path)) == {"page: record cut off": 1, "Page": 3}


def test_revisits_are_counted(tmp_path):
    again = response("http://example.com/again", b"", kind="revisit")
    path = written(tmp_path / "x.warc", (RECORDS[0], again), packed=True)
    assert kinds(read_archive(path)) == {"Page": 1, REVISIT: 1}


@pytest.mark.parametrize("compression", ["zstd", "lz4"])
def test_images_of_an_archive_that_is_no_gzip_are_left_to_the_web(tmp_path, compression):
    from fastwarc.stream_io import Lz4Writer, ZstdWriter

    packed = io.BytesIO()
    with (ZstdWriter if compression == "zstd" else Lz4Writer)(packed) as writer:
        writer.write(b"".join(RECORDS[:2]))
    path = tmp_path / "x.warc.zst"
    path.write_bytes(packed.getvalue())
    assert kinds(read_archive(path)) == {"Page": 1, "image inside one long compressed stream": 1}


@pytest.mark.parametrize("number", ["²", "9" * 5000, "-1", "1_0"])
def test_a_length_that_is_no_number_breaks_its_record_alone(tmp_path, number):
    records = (ARC_HEAD, arc("http://example.com/a", HTML, length=number), arc("http://example.com/b", HTML))
    found = list(read_archive(written(tmp_path / "x.arc", records, packed=False)))
    assert [one.url for one in found if isinstance(one, Page)] == ["http://example.com/b"]
    assert whole_number(number) is None
    assert split_head(f"HTTP/1.1 {number} OK\r\n\r\n".encode("latin-1"))[0] == 0


def test_every_cut_and_flip_is_survived(tmp_path):
    data = gzip.compress(RECORDS[0]) + gzip.compress(RECORDS[1]) + gzip.compress(RECORDS[6])
    path = tmp_path / "x.warc.gz"
    for at in range(0, len(data), 13):
        for broken in (data[:at], data[:at] + bytes([data[at] ^ 0x55]) + data[at + 1 :]):
            path.write_bytes(broken)
            found = list(read_archive(path))
            assert len(found) <= 6 and found
            intact = all(one.html == HTML for one in found if isinstance(one, Page))
            assert intact or any(isinstance(one, Dropped) for one in found)


@pytest.mark.parametrize("content", [b"", b"\x1f\x8b", b"\x1f\x8b\x08" + bytes(50), b"no archive at all", bytes(5000)])
def test_what_is_no_archive_is_refused_with_a_reason(tmp_path, content):
    path = tmp_path / "x.warc.gz"
    path.write_bytes(content)
    found = list(read_archive(path))
    assert found and all(isinstance(one, Dropped) for one in found)


def test_no_record_at_an_offset(tmp_path):
    path = written(tmp_path / "x.warc.gz", RECORDS[:2], True)
    for offset in (5, 10**6):
        with pytest.raises(BodyError, match="no record"):
            read_archived(path, offset, 1000)
    with pytest.raises(BodyError, match="unreadable"):
        read_archived(tmp_path / "none", 0, 1000)
    with pytest.raises(BodyError, match="too large"):
        read_archived(path, len(gzip.compress(RECORDS[0])), 1000)


def test_bombs_are_bounded(tmp_path):
    bomb = gzip.compress(bytes(200 * 2**20), 1)
    nested = response("http://example.com/bomb", bomb, fields="Content-Encoding: gzip\r\n")
    large = response("http://example.com/large", b"<html>" + bytes(2 * MAX_PAGE_BYTES))
    path = written(tmp_path / "x.warc.gz", (nested, large, RECORDS[0]), True)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert kinds(read_archive(path)) == {"page: too large": 2, "Page": 1}
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 150 * 2**10  # KiB


@pytest.mark.parametrize(
    ("raw", "headers"),
    [
        (b"5\r\nhello\r\n6; x=1\r\n world\r\n0\r\n\r\n", {"transfer-encoding": "chunked"}),
        (b"00000b\nhello world\n0\n\n", {"transfer-encoding": "Chunked"}),
        (b"hello world", {"transfer-encoding": "chunked", "content-encoding": "gzip, br"}),
        (gzip.compress(b"hello world", mtime=0), {"content-encoding": "gzip"}),
        (zlib.compress(b"hello world"), {"content-encoding": "deflate"}),
        (zlib.compress(b"hello world")[2:-4], {"content-encoding": "deflate"}),
        (gzip.compress(gzip.compress(b"hello world", mtime=0), mtime=0), {"content-encoding": "gzip, gzip"}),
        (b"hello world", {"content-encoding": "gzip"}),
        (gzip.compress(b"hello ", mtime=0) + gzip.compress(b"world", mtime=0), {"content-encoding": "gzip"}),
        (gzip.compress(b"hello world", mtime=0) + bytes(9), {"content-encoding": "gzip"}),
        (b"hello world", {"content-encoding": "identity"}),
    ],
)
def test_bodies_are_decoded_as_they_were_sent_or_stored(raw, headers):
    headers = {**headers, "content-encoding": headers.get("content-encoding", "").replace(", br", "")}
    assert decoded_body(raw, headers, 100) == b"hello world"
    with pytest.raises(BodyError, match="too large"):
        decoded_body(raw, headers, 5)


def test_brotli_and_zstandard():
    from fastwarc.stream_io import BrotliWriter, ZstdWriter

    for name, writer_class in (("br", BrotliWriter), ("zstd", ZstdWriter)):
        packed = io.BytesIO()
        with writer_class(packed) as writer:
            writer.write(b"hello world" * 1000)
        assert decoded_body(packed.getvalue(), {"content-encoding": name}, 20_000) == b"hello world" * 1000
        with pytest.raises(BodyError, match="too large"):
            decoded_body(packed.getvalue(), {"content-encoding": name}, 2_000)
        with pytest.raises(BodyError, match="broken"):
            decoded_body(packed.getvalue()[:8], {"content-encoding": name}, 20_000)


@pytest.mark.parametrize("body", [JPEG, b"\xef\xbb\xbf" + HTML])
def test_a_brotli_that_the_archive_has_undone_is_taken_as_it_is(body):
    assert decoded_body(body, {"content-encoding": "br"}, 10_000) == body


def test_many_small_members_end_soon():
    begin = time.process_time()
    assert decoded_body(gzip.compress(b"", mtime=0) * 50_000, {"content-encoding": "gzip"}, 100) == b""
    assert time.process_time() - begin < 3


REVISIT = "a revisit: its body was stored earlier"
EDGE_CASES = {
    "bad.arc": {"broken record": 2, "neither page nor image": 1},
    "example-bad-non-chunked.warc.gz": {"Page": 1, REVISIT: 1},
    "example-bad.warc.gz.bad": {"Page": 1, REVISIT: 1, "answered with an error or a redirect": 1},
    "example-digest.warc": {"archive without responses": 1},
    "example-iana.org-chunked.warc": {"Page": 1},
    "example-resource.warc.gz": {"Page": 1},
    "example-space-in-target-uri.warc.gz": {"address is not of the web": 1},
    "example-space-in-url.arc": {"Page": 1},
    "example-trunc.warc": {"page: compression broken": 1, "broken record": 1},
    "example-wget-bad-target-uri.warc.gz": {"Page": 1, "address is not of the web": 2},
    "example-wrong-chunks.warc.gz": {"Page": 1},
    "example.arc": {"Page": 1},
    "example.arc.gz": {"Page": 1},
    "example.warc": {"Page": 1, REVISIT: 1},
    "example.warc.gz": {"Page": 1, REVISIT: 1},
    "post-test.warc.gz": {"neither page nor image": 3},
}


def test_every_edge_case_is_read_or_refused(shared: Path):
    folder = shared / "web" / "edge_cases"
    if not folder.is_dir():
        pytest.skip("no WARC edge cases")
    assert {path.name: kinds(read_archive(path)) for path in folder.iterdir()} == EDGE_CASES


def test_a_real_warc_gives_pairs_from_within_itself(shared: Path):
    path = shared / "web" / "archiveorg2008.warc.gz"
    if not path.is_file():
        pytest.skip("no real WARC")
    found = list(read_archive(path))
    images = {one.url: one for one in found if isinstance(one, ArchivedImage)}
    pages = [one for one in found if isinstance(one, Page)]
    assert len(images) > 40 and len(pages) > 90
    assert all(len(read_archived(path, one.offset, 2**24)) == one.size for one in images.values())
    config = PageConfig(min_declared_side=0, min_dominance=0.0)
    findings = [find_candidates(page, config) for page in pages]
    assert all(one.num_images == len(one.candidates) + one.dropped.total() for one in findings)
    pairs = {candidate.image_url for one in findings for candidate in one.candidates} & set(images)
    assert len(pairs) >= 10
