"""Stage 2 as a whole: kept images are small, upright and say nothing about their makers; every other has its reason."""

import hashlib
import io
import json
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest
from found_images import png_bomb, saved, scene, with_place
from PIL import Image, ImageOps

from crossgrain.collect.hashes import SAME_IMAGE, phash
from crossgrain.collect.images.blocklist import Blocklist, BlocklistConfig
from crossgrain.collect.images.filter import UNNATURAL, UNSAFE, ImageFilter, ImageFilterConfig, KeptImage
from crossgrain.collect.images.natural import DEFAULT_WEIGHTS
from crossgrain.config import UserError, read_config
from crossgrain.data.images import open_image
from crossgrain.data.records import Dropped


class Redness:
    """A classifier of unsafe content, for tests: how red the picture is."""

    def score(self, image: Image.Image) -> float:
        assert image.mode == "RGB" and min(image.size) >= 224
        return float(np.asarray(image)[..., 0].mean() / 255)


class Unsure:
    """One whose arithmetic fails."""

    def score(self, image: Image.Image) -> float:
        return float("nan")


class Unready:
    """One whose weights are not there."""

    def __init__(self) -> None:
        raise FileNotFoundError("/nowhere/model.onnx")


def kept(data: bytes, **settings) -> KeptImage:
    result = ImageFilter(ImageFilterConfig(**settings)).check(data)
    assert isinstance(result, KeptImage), result
    return result


def dropped(data: bytes, **settings) -> Dropped:
    result = ImageFilter(ImageFilterConfig(**settings)).check(data, "there")
    assert isinstance(result, Dropped), result
    return result


def difference(one: Image.Image, other: Image.Image) -> float:
    return float(np.abs(np.asarray(one, dtype=np.int16) - np.asarray(other, dtype=np.int16)).mean())


def test_an_ordinary_file_is_kept_byte_for_byte():
    data = saved(scene(0), quality=90)
    image = kept(data)
    without_header = open_image(image.data)
    assert (image.extension, image.width, image.height, image.source_size) == ("jpg", 360, 360, (360, 360))
    assert difference(without_header, open_image(data)) == 0
    assert image.sha256 == hashlib.sha256(data).hexdigest() and image.md5 == hashlib.md5(data).hexdigest()
    assert (image.phash ^ phash(scene(0))).bit_count() <= SAME_IMAGE
    assert (image.mirrored_phash ^ phash(ImageOps.mirror(scene(0)))).bit_count() <= SAME_IMAGE
    assert image.natural > 0.5 and image.unsafe is None


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_no_place_leaves_and_no_pixel_changes(kind):
    options = {"comment": b"SECRET-PLACE"} if kind == "JPEG" else {}
    data = saved(scene(3, 320), kind, exif=with_place(), xmp=b"<x>SECRET-PLACE</x>", **options)
    assert data.count(b"SECRET-PLACE") >= (1 if kind == "PNG" else 2)
    image = kept(data + b"a film of SECRET-PLACE")
    assert b"SECRET" not in image.data and b"camera" not in image.data
    assert image.extension == {"JPEG": "jpg", "PNG": "png", "WEBP": "webp"}[kind]
    assert difference(open_image(image.data), open_image(data)) == 0
    assert not dict(Image.open(io.BytesIO(image.data)).getexif())


def test_colour_profiles_stay():
    image = kept(saved(scene(3, 320), icc_profile=b"profile" * 40, exif=with_place()))
    assert b"profileprofile" in image.data


@pytest.mark.parametrize("orientation", range(2, 9))
def test_turned_images_are_stored_upright(orientation):
    data = saved(scene(1).resize((400, 320)), quality=95, exif=with_place(orientation))
    image = kept(data)
    assert (image.width, image.height) == ((320, 400) if orientation >= 5 else (400, 320)) == image.source_size
    stored = Image.open(io.BytesIO(image.data))
    assert not dict(stored.getexif()) and b"SECRET" not in image.data
    assert difference(stored.convert("RGB"), open_image(data)) < 5


def test_large_images_are_made_smaller_in_shape():
    image = kept(saved(scene(5, 700).resize((1400, 700)), quality=90), max_side=512)
    assert (image.width, image.height, image.source_size) == (512, 256, (1400, 700))
    assert open_image(image.data).size == (512, 256)
    assert difference(open_image(image.data), scene(5, 700).resize((512, 256), Image.Resampling.BICUBIC)) < 4
    odd = kept(saved(scene(5, 700).resize((1201, 801)), "PNG"), max_side=333)
    assert (odd.extension, odd.width, odd.height) == ("jpg", 333, 222)


def test_heavy_and_unusual_files_are_encoded_anew():
    data = saved(scene(6), "PNG")
    assert kept(data, max_kept_bytes=len(data)).extension == "png"
    assert kept(data, max_kept_bytes=len(data) - 1).extension == "jpg"
    for unusual in (saved(scene(6).convert("CMYK")), saved(scene(6).convert("RGBA"), "PNG")):
        again = open_image(kept(unusual).data)
        assert difference(again, open_image(unusual)) < 5 and again.size == (360, 360)


@pytest.mark.parametrize(
    ("preset", "size", "reason"),
    [
        ("lait", (300, 400), "too small"), ("lait", (301, 301), ""), ("lait", (904, 301), "extreme aspect ratio"),
        ("cc12m", (400, 500), "too small"), ("cc12m", (401, 1002), ""), ("cc12m", (401, 1003), "extreme aspect ratio"),
        ("coyo", (199, 400), "too small"), ("coyo", (200, 600), ""), ("coyo", (200, 601), "extreme aspect ratio"),
        ("laion", (90, 700), ""),
    ],
)  # fmt: skip
def test_presets_have_their_published_sizes(preset, size, reason):
    data = saved(scene(7).resize(size), quality=98, subsampling=0)
    assert len(data) > 5000
    result = ImageFilter(ImageFilterConfig(preset=preset, min_natural=0.0)).check(data)
    assert (result.reason if isinstance(result, Dropped) else "") == reason


def test_presets_want_five_thousand_bytes_and_can_be_overridden():
    small = saved(scene(8, 210), quality=5)
    assert dropped(small, preset="laion").reason == dropped(small, preset="coyo").reason == "too few bytes"
    assert kept(small, preset="coyo", min_bytes=0, min_natural=0.0).width == 210
    assert dropped(small, preset="coyo", min_bytes=0, min_side=211).detail == "210 x 210"
    with pytest.raises(UserError, match="preset"):
        read_config(ImageFilterConfig, {"preset": "cc3m"}, "recipe")


def test_drops_say_what_and_where():
    drop = dropped(saved(scene(9))[:-400])
    assert (drop.reason, drop.where) == ("truncated", "there")
    broken = bytearray(saved(scene(9), "PNG"))
    broken[200:260] = bytes(60)
    assert dropped(bytes(broken)).reason in {"decoder error", "truncated"}
    icon = Image.new("RGB", (400, 400), (255, 255, 255))
    icon.paste((200, 30, 60), (100, 100, 300, 300))
    assert dropped(saved(icon, "PNG")).reason == UNNATURAL
    assert dropped(png_bomb(8000)).reason == "too many pixels"


def test_the_unsafe_classifier_is_the_users():
    red = Image.blend(scene(2, 320), Image.new("RGB", (320, 320), (255, 0, 0)), 0.7)
    name = f"{__name__}:Redness"
    fine = kept(saved(scene(1, 320)), unsafe=name, max_unsafe=0.95)
    assert fine.unsafe is not None and 0.3 < fine.unsafe < 0.95
    assert dropped(saved(red, quality=95), unsafe=name, max_unsafe=0.7, min_natural=0.0).reason == UNSAFE


def test_a_score_that_is_no_number_keeps_nothing(tmp_path):
    assert dropped(saved(scene(1)), unsafe=f"{__name__}:Unsure", max_unsafe=1.0).reason == UNSAFE
    weights = json.loads(DEFAULT_WEIGHTS.read_text())
    weights["output"][-1] = float("nan")
    (tmp_path / "natural.json").write_text(json.dumps(weights))
    assert dropped(saved(scene(1)), natural_weights=tmp_path / "natural.json", min_natural=0.0).reason == UNNATURAL


@pytest.mark.parametrize(
    "name", ["nsfw", "no.such.module:Class", f"{__name__}:Nothing", f"{__name__}:KeptImage", f"{__name__}:Unready"]
)
def test_mistaken_classifiers_are_refused_with_the_form(name):
    with pytest.raises(UserError, match=r"package\.module:Class"):
        ImageFilter(ImageFilterConfig(unsafe=name))


@pytest.mark.parametrize("hash_name", ["md5", "sha1", "sha256"])
def test_listed_files_are_told_by_digest(hash_name, tmp_path):
    data, other = saved(scene(0)), saved(scene(1))
    digest = hashlib.new(hash_name, data).hexdigest()
    (tmp_path / "list.txt").write_text(f"# list\n\n{'0' * len(digest)}\n{digest.upper()} extra words\n")
    lists = Blocklist(BlocklistConfig(file_hashes=(tmp_path / "list.txt",)))
    assert lists.blocks_file(data) == f"{hash_name} {digest}"
    assert lists.blocks_file(other) == ""


def test_listed_urls_are_told(tmp_path):
    url = "https://example.org/ä.jpg"
    lines = [hashlib.sha256(url.encode()).hexdigest(), hashlib.md5(b"https://example.org/b.jpg").hexdigest()]
    (tmp_path / "urls.txt").write_text("\n".join(lines))
    blocklist = Blocklist(BlocklistConfig(url_hashes=(tmp_path / "urls.txt",)))
    assert blocklist.blocks_url(url) == f"sha256 {lines[0]}"
    assert blocklist.blocks_url("https://example.org/b.jpg") == f"md5 {lines[1]}"
    assert blocklist.blocks_url("https://example.org/c.jpg") == ""


def test_broken_lists_are_refused_not_passed_over(tmp_path):
    (tmp_path / "list.txt").write_text("d41d8cd98f00b204e9800998ecf8427e\nnot a digest\n")
    for path, complaint in ((tmp_path / "list.txt", r"list\.txt:2"), (tmp_path / "nowhere.txt", "cannot be read")):
        with pytest.raises(UserError, match=complaint):
            Blocklist(BlocklistConfig(file_hashes=(path,)))


def test_broken_files_have_reasons_and_nothing_hangs(shared):
    image_filter = ImageFilter(ImageFilterConfig(preset="laion", min_bytes=0, min_natural=0.0))
    for path in sorted((shared / "robustness").glob("*/*")):
        start = time.process_time()
        result = image_filter.check(path.read_bytes(), path.name)
        assert isinstance(result, KeptImage) or result.reason
        if isinstance(result, KeptImage):
            assert open_image(result.data).size == (result.width, result.height)
        assert time.process_time() - start < 5, path.name


def test_real_photos_are_natural(shared):
    photos = sorted((shared / "photos").glob("*/images/*.jpg"))[::4]
    image_filter = ImageFilter(ImageFilterConfig(min_side=1, max_aspect=20.0))
    results = [image_filter.check(path.read_bytes()) for path in photos]
    assert len(photos) > 200
    assert {result.reason for result in results if isinstance(result, Dropped)} <= {UNNATURAL}
    assert sum(isinstance(result, KeptImage) for result in results) >= 0.97 * len(photos)


def test_bounded_memory_ends_a_decode_and_not_the_worker(tmp_path):
    (tmp_path / "bomb.png").write_bytes(png_bomb(4000))
    program = """
        import resource
        from pathlib import Path
        from crossgrain.collect.images.filter import ImageFilter, ImageFilterConfig, bounded_memory
        image_filter = ImageFilter(ImageFilterConfig(min_natural=0.0))
        used = int(Path("/proc/self/statm").read_text().split()[0]) * 4096
        with bounded_memory(used + 30 * 2**20):
            result = image_filter.check(Path("bomb.png").read_bytes())
        assert result.reason == "decoder error" and "MemoryError" in result.detail, result
        assert resource.getrlimit(resource.RLIMIT_AS)[0] == resource.RLIM_INFINITY
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
