"""The header gate: what files say of themselves, without a decoder, and which go no further."""

import time
from math import inf

import pytest
from found_images import chunk, png_bomb, saved, scene, with_place
from PIL import Image

from crossgrain.collect.images.gate import Gate, pass_gate, read_header
from crossgrain.data.images import ImageError


def refusal(data: bytes, **rules) -> str:
    with pytest.raises(ImageError) as caught:
        pass_gate(data, Gate(**rules))
    return caught.value.reason


PLAIN = Image.new("RGB", (37, 20), (200, 30, 30))


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("JPEG", {}),
        ("JPEG", {"progressive": True}),
        ("JPEG", {"exif": with_place(6), "comment": b"\xff\xd9"}),
        ("PNG", {}),
        ("WEBP", {}),
        ("WEBP", {"lossless": True}),
        ("WEBP", {"exif": with_place()}),
    ],
)
def test_size_and_end_are_read_from_the_bytes(kind, options):
    data = saved(PLAIN, kind, **options)
    header = read_header(data + b"appended film")
    assert (header.format, header.width, header.height, header.animated) == (kind, 37, 20, False)
    assert header.end == len(data)


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_number_of_channels_of_a_jpeg(mode):
    assert read_header(saved(PLAIN.convert(mode))).num_channels == len(mode)


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_moving_images_are_told(kind):
    data = saved(PLAIN, kind, save_all=True, append_images=[Image.new("RGB", (37, 20))])
    assert refusal(data) == "animated"
    assert pass_gate(data, Gate(animated=True)).width == 37


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty file"),
        (b"<html><body>404", "format not wanted"),
        (b"\xef\xbb\xbf\n <svg xmlns='http://www.w3.org/2000/svg'/>", "format not wanted"),
        (saved(PLAIN, "GIF"), "format not wanted"),
        (saved(PLAIN, "BMP"), "format not wanted"),
        (saved(PLAIN, "TIFF"), "format not wanted"),
        (saved(PLAIN, "AVIF"), "format not wanted"),
        (b"{}" * 50, "not an image"),
        (b"\xff\xd8\xff\xd9", "broken header"),
        (b"\xff\xd8\xff\xe0\x00\x00" + bytes(90), "broken header"),
        (b"\xff\xd8\xff", "truncated"),
        (b"\x89PNG\r\n\x1a\n", "broken header"),
        (b"\x89PNG\r\n\x1a\n" + chunk(b"IDAT", b"x") + chunk(b"IEND", b""), "broken header"),
        (b"RIFF\x04\0\0\0WEBP", "broken header"),
        (b"RIFF\x20\0\0\0WEBPVP8 \xff\xff\xff\x7f" + bytes(40), "truncated"),
    ],
)
def test_what_is_no_image_is_named(data, reason):
    assert refusal(data) == reason


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_any_cut_of_a_file_is_refused_or_read_and_never_crashes(kind):
    data = saved(scene(1, 64), kind)
    for length in range(len(data) - 1):
        try:
            assert read_header(data[:length]).width == 64
        except ImageError as error:
            assert error.reason in {"truncated", "broken header", "not an image", "empty file"}


def test_rules_are_applied_in_order_and_named():
    data = saved(PLAIN)
    assert refusal(data, max_bytes=100) == "too many bytes"
    assert refusal(data, min_bytes=5000) == "too few bytes"
    assert refusal(data, max_pixels=739) == "too many pixels"
    assert refusal(data, min_side=21) == "too small"
    assert refusal(data, max_aspect=1.84) == "extreme aspect ratio"
    assert pass_gate(data, Gate(min_side=20, max_aspect=1.85, max_pixels=740, max_bytes=len(data))).height == 20
    assert pass_gate(saved(Image.new("RGB", (900, 10))), Gate(max_aspect=inf)).width == 900


def test_a_bomb_is_refused_at_once():
    bomb = png_bomb(8000)
    start = time.process_time()
    assert len(bomb) < 200_000
    assert refusal(bomb) == "too many pixels"
    assert time.process_time() - start < 0.1


def test_endless_scans_and_segments_are_refused_in_bounded_time():
    data = saved(scene(2, 64), progressive=True)
    last = data.rindex(b"\xff\xda")
    scans = data[:last] + data[last:-2] * 200 + b"\xff\xd9"
    segments = data[:2] + b"\xff\xfe\x00\x02" * 50_000 + data[2:]
    chunks = saved(PLAIN, "PNG")[:33] + chunk(b"tEXt", b"") * 20_000
    start = time.process_time()
    assert refusal(scans) == "too many scans"
    assert refusal(segments) == "broken header"
    assert refusal(chunks) == "broken header"
    assert time.process_time() - start < 2
