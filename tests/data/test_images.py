import io
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from pictures import encoded
from PIL import ExifTags, Image

from crossgrain.data.images import EncodedImage, ImageConfig, ImageError, Limits, eval_image, open_image
from crossgrain.data.records import Record

RAMP = np.linspace(0, 255, 40 * 20).reshape(20, 40)
LEFT_RED = np.zeros((20, 40, 3), np.uint8)
LEFT_RED[:, :20, 0] = 255


PEAK = """
import re, sys
from pathlib import Path
from crossgrain.data.images import open_image
def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
before = peak()
open_image(Path(sys.argv[1]))
print((peak() - before) * 1024)
"""


def saved(image: Image.Image, kind: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def test_sixteen_bit_grey_keeps_its_brightness():
    sixteen = np.round(RAMP * 257).astype(np.uint16)
    for kind in ("PNG", "TIFF"):
        pixels = np.asarray(open_image(encoded(sixteen, kind)))
        assert pixels.shape == (20, 40, 3)
        np.testing.assert_allclose(pixels[..., 1], RAMP, atol=0.51)


def test_floats_from_0_to_1_are_brightness():
    pixels = np.asarray(open_image(encoded((RAMP / 255).astype(np.float32), "TIFF")))
    np.testing.assert_allclose(pixels[..., 0], RAMP, atol=0.51)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
@pytest.mark.parametrize(("mode", "kind"), [("F", "TIFF"), ("I", "TIFF"), ("I;16", "PNG"), ("RGBA", "PNG")])
def test_wide_and_transparent_images_are_converted_without_a_copy(tmp_path, mode, kind):
    side = 4000
    options = {"compression": "tiff_adobe_deflate"} if kind == "TIFF" else {"compress_level": 1}
    Image.new(mode, (side, side)).save(tmp_path / "big", kind, **options)
    run = subprocess.run([sys.executable, "-c", PEAK, tmp_path / "big"], capture_output=True, text=True, check=True)
    assert int(run.stdout) < 2.75 * 4 * side**2  # what was decoded, and as RGB: 4 bytes a pixel each


@pytest.mark.parametrize("low", [0, -40])
def test_grey_values_have_one_range_over_all_strips(monkeypatch, low):
    monkeypatch.setattr("crossgrain.data.images._STRIP_PIXELS", 100)
    values = np.linspace(low, 7000, 40 * 20).reshape(20, 40).astype(np.float32)
    pixels = np.asarray(open_image(encoded(values, "TIFF")))
    np.testing.assert_array_equal(
        pixels[..., 0], np.round((values - low) * (255 / ((65535 if low == 0 else 7000) - low)))
    )


@pytest.mark.parametrize(
    ("mode", "kind"), [("RGBA", "PNG"), ("LA", "PNG"), ("P", "PNG"), ("RGBA", "WEBP"), ("RGBA", "GIF")]
)
def test_what_is_transparent_is_white(mode, kind):
    image = Image.new("RGBA", (20, 20), (0, 0, 0, 0))
    image.paste((0, 0, 0, 255), (0, 0, 10, 20))
    pixels = np.asarray(open_image(saved(image.convert(mode), kind, **({"lossless": True} if kind == "WEBP" else {}))))
    assert pixels[5, 5].tolist() == [0, 0, 0] and pixels[5, 15].tolist() == [255, 255, 255]


def test_palette_images_with_a_transparent_colour_are_over_white():
    image = Image.fromarray(LEFT_RED).quantize(2)
    transparent = image.getpixel((30, 5))
    pixels = np.asarray(open_image(saved(image, "PNG", transparency=transparent)))
    assert pixels[5, 5].tolist() == [255, 0, 0] and pixels[5, 30].tolist() == [255, 255, 255]


@pytest.mark.parametrize("mode", ["1", "L", "CMYK", "YCbCr", "RGB", "I", "F"])
def test_every_mode_becomes_rgb_of_the_same_brightness(mode):
    grey = Image.fromarray(LEFT_RED[..., 0])
    image = (
        Image.merge("CMYK", [grey.point(lambda v: 255 - v)] * 3 + [grey.point(lambda v: 0)]) if mode == "CMYK" else grey
    )
    kind = "JPEG" if mode in ("CMYK", "YCbCr") else "TIFF"
    pixels = np.asarray(open_image(saved(image.convert(mode), kind))).astype(int)
    np.testing.assert_allclose(pixels, LEFT_RED[..., :1].repeat(3, -1), atol=12)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_all_eight_orientations_stand_upright(kind):
    turns = {1: 0, 2: 0, 3: 2, 4: 2, 5: 1, 6: 1, 7: 3, 8: 3}  # quarter turns counter-clockwise that were applied
    for orientation, turn in turns.items():
        stored = np.rot90(LEFT_RED[:, ::-1] if orientation in (2, 4, 5, 7) else LEFT_RED, turn)
        exif = Image.Exif()
        exif[ExifTags.Base.Orientation] = orientation
        file = encoded(np.ascontiguousarray(stored), kind, exif=exif)
        assert EncodedImage(file).size == (40, 20)
        upright = np.asarray(open_image(file)).astype(int)
        assert upright.shape == (20, 40, 3)
        assert upright[10, 10, 0] > 200 and upright[10, 30, 0] < 50, orientation


def test_photos_of_all_orientations_give_one_image(shared: Path):
    images = [
        np.asarray(open_image(shared / "robustness/exif_orientation" / f"Landscape_{i}.jpg").resize((64, 48)))
        for i in range(9)
    ]
    assert max(np.abs(image.astype(int) - images[0]).mean() for image in images) < 2


def test_the_first_frame_of_an_animation_is_taken():
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "blue")]
    for kind in ("GIF", "WEBP", "PNG"):
        pixels = np.asarray(open_image(saved(frames[0], kind, save_all=True, append_images=frames[1:])))
        assert pixels[8, 8, 0] > 240 > 20 > pixels[8, 8, 2]


def bomb(side: int) -> bytes:
    return saved(Image.new("1", (side, side)), "PNG")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty file"),
        (b"<html>no picture</html>", "not an image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image"),
        (Path("nowhere.png"), "missing file"),
        (Path(), "unreadable file"),
        (bomb(9500), "too many pixels"),
        (bomb(20000), "too many pixels"),
        (encoded(np.zeros((4, 30), np.uint8)), "too small"),
        (encoded(np.zeros((10, 400), np.uint8)), "extreme aspect ratio"),
        (encoded(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8), "JPEG")[:-900], "truncated"),
        (encoded(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8), "PNG")[:-900], "truncated"),
    ],
)
def test_unusable_files_are_refused_with_a_countable_reason(data, reason):
    with pytest.raises(ImageError) as caught:
        open_image(data)
    assert caught.value.reason == reason


def test_limits_can_be_moved():
    with pytest.raises(ImageError, match="too many bytes"):
        open_image(encoded(LEFT_RED), limits=Limits(max_bytes=10))


def test_broken_files_never_crash_warn_or_write_to_the_terminal(shared: Path, capfd):
    with ThreadPoolExecutor(4) as pool:

        def reason(path: Path) -> str:
            try:
                open_image(path)
            except ImageError as error:
                return error.reason
            return "kept"

        files = sorted((shared / "robustness/broken_images").iterdir())
        filters = list(warnings.filters)
        reasons = dict(zip((f.name for f in files), pool.map(reason, files), strict=True))
    assert warnings.filters == filters
    assert reasons["truncated_image.png"] == "truncated" and reasons["l2rgb_read.bmp"] == "too many pixels"
    assert capfd.readouterr() == ("", "")


def test_large_jpegs_may_be_decoded_smaller_but_never_below_the_wanted_size():
    file = encoded(np.asarray(Image.fromarray(LEFT_RED).resize((800, 400))), "JPEG")
    assert open_image(file, at_least=90).size == (200, 100)
    assert open_image(file, at_least=101).size == (400, 200)


def test_the_evaluation_view_is_the_whole_image():
    view = eval_image(Record(key="a", image=encoded(LEFT_RED)), ImageConfig(size=16))
    assert view.shape == (3, 16, 16) and view.dtype == np.uint8
    assert view[0, :, :6].min() > 250 and view[0, :, -6:].max() < 5


@pytest.mark.parametrize(
    ("size", "shown"),
    [((640, 480), (133, 100)), ((480, 640), (100, 133)), ((900, 100), (160, 18)), ((50, 50), (100, 100))],
)
def test_images_keep_their_shape_within_two_limits(size, shown):
    config = ImageConfig(size=100, long_side=160)
    assert config.shown_size(size) == shown
    width, height = shown
    picture = np.asarray(Image.fromarray(LEFT_RED).resize(size))
    assert eval_image(Record(key="a", image=encoded(picture)), config).shape == (3, height, width)


def test_the_canvas_follows_the_batch_or_holds_every_image():
    sizes = [(100, 133), (160, 100)]
    assert ImageConfig(size=100, long_side=160).canvas_size(sizes) == (192, 192)
    assert ImageConfig(size=100, long_side=160).canvas_size(sizes[:1]) == (128, 192)
    assert ImageConfig(size=100, long_side=160, canvas="largest").canvas_size(sizes[:1]) == (160, 160)
    with pytest.raises(ValueError, match="long_side 90 is shorter than size 100"):
        ImageConfig(size=100, long_side=90)
