"""Decode any picture file to an upright RGB image; every decode in the library goes through here.

Files are hostile until decoded: only the usual formats are tried (no PostScript, no video), and limits are enforced on
the header, before a pixel is decoded. What cannot be used raises `ImageError` with a reason that readers count. No
torch.
"""

import contextlib
import io
import logging
import os
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import (
    AvifImagePlugin,  # noqa: F401 - registers its format, like the three below
    ExifTags,
    Image,
    Jpeg2KImagePlugin,  # noqa: F401
    TiffImagePlugin,  # noqa: F401
    UnidentifiedImageError,
    WebPImagePlugin,  # noqa: F401
)

from crossgrain.config import configclass
from crossgrain.data.records import Record

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "JPEG2000", "PPM", "AVIF")

# Pillow reports oddities of broken files to its logger; without a handler Python prints them to the terminal.
logging.getLogger("PIL").addHandler(logging.NullHandler())

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SWAPS_SIDES = (5, 6, 7, 8)
_STRIP_PIXELS = 2**20  # that are converted at a time where whole copies would take gigabytes
_CANVAS_STEP = 64  # pixels; the coarsest stride of the image encoders


@configclass
class ImageConfig:
    """What becomes of an image on its way into a batch."""

    size: int = 224  # pixels a side of the square that the model sees
    # With it images keep their shape: the shorter side has `size` pixels, unless the longer would have more than
    # these. The whole image is seen then, and nothing is cropped. None: squares.
    long_side: int | None = None
    # Where images keep their shape: they stand in the upper left of a canvas as large as the batch needs (in steps of
    # 64 pixels), or as the largest possible image, so that all batches have one shape.
    canvas: Literal["batch", "largest"] = "batch"
    crop_scale: tuple[float, float] = (0.2, 1.0)  # share of the area that a random crop keeps
    # What is cropped where regions are learnt. "around_region": anything that holds one of them, as the original does;
    # "scale": what is cropped where captions are, so that a region keeps its size and its place in the whole.
    region_crop: Literal["around_region", "scale"] = "around_region"
    flip: float = 0.5  # probability
    rand_augment: tuple[int, int] | None = (2, 7)  # number of colour operations and their strength, 0 to 10
    left_right: Literal["swap_words", "keep_image", "ignore"] = "swap_words"  # when a flipped image's text says "left"

    def __post_init__(self) -> None:
        low, high = self.crop_scale
        if not 0 < low <= high <= 1:
            raise ValueError(f"crop_scale must be 0 < low <= high <= 1, not {self.crop_scale}")
        if self.size < 8:
            raise ValueError(f"size must be at least 8 pixels, not {self.size}")
        if self.long_side is not None and self.long_side < self.size:
            raise ValueError(f"long_side {self.long_side} is shorter than size {self.size}, the shorter side")
        if not 0 <= self.flip <= 1:
            raise ValueError(f"flip is a probability between 0 and 1, not {self.flip}")
        if self.rand_augment and not (self.rand_augment[0] >= 0 and 0 <= self.rand_augment[1] <= 10):
            raise ValueError(f"rand_augment is (operations, strength from 0 to 10), not {self.rand_augment}")

    def shown_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """(width, height) that an image of this (width, height) has for the model."""
        if self.long_side is None:
            return self.size, self.size
        scale = min(self.size / min(size), self.long_side / max(size))
        return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))

    def canvas_size(self, sizes: Sequence[tuple[int, int]]) -> tuple[int, int]:
        """(height, width) of the canvas of a batch whose images have these sizes (height, width)."""
        if self.long_side is None:
            return self.size, self.size
        if self.canvas == "largest":
            return self.long_side, self.long_side
        height, width = (-(-max(sides) // _CANVAS_STEP) * _CANVAS_STEP for sides in zip(*sizes, strict=True))
        return height, width


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a file may cost before it is decoded."""

    max_bytes: int = 256 * 2**20
    max_pixels: int = 89_478_485  # where Pillow warns of a decompression bomb; 360 MB as RGB in its memory layout
    min_side: int = 8
    max_aspect: float = 20.0  # longer side over shorter side


LIMITS = Limits()


class _Shared:
    """One process-wide context for all threads that are inside at the same time: the first enters it, the last leaves.

    What it changes belongs to the process; entered and left by each thread, the last to leave would restore what
    another had changed.
    """

    def __init__(self, context: Callable[[], contextlib.AbstractContextManager]):
        self._make = context
        self._lock = threading.Lock()
        self._inside = 0

    def __enter__(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._context = self._make()
                self._context.__enter__()
            self._inside += 1

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                self._context.__exit__(None, None, None)


@contextlib.contextmanager
def _no_terminal() -> Iterator[None]:
    terminal = os.dup(2)
    try:
        with Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(terminal, 2)
        os.close(terminal)


_quiet = _Shared(lambda: warnings.catch_warnings(action="ignore"))
# libtiff writes whatever it finds wrong with a file to the terminal, from C; the exception says it already.
_quiet_libtiff = _Shared(_no_terminal)


class ImageError(ValueError):
    """A file that is no usable image: `reason` in few fixed words, so that equal ones are counted; `detail` varies."""

    def __init__(self, reason: str, detail: str = ""):
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.reason} ({self.detail})" if self.detail else self.reason


class EncodedImage:
    """A file whose header is read: its upright `size` (width, height) is known, its pixels are not yet decoded.

    `turned` says that it is stored otherwise than upright.
    """

    def __init__(self, data: bytes | Path, limits: Limits = LIMITS):
        content = _read(data, limits.max_bytes)
        try:
            with _quiet:
                self._image = Image.open(io.BytesIO(content), formats=FORMATS)
                self.format = self._image.format
                _check_size(*self._image.size, limits)  # first: to ask a PNG for its EXIF decodes it
                stored = self._image.getexif().get(ExifTags.Base.Orientation, 1)
                self.turned = stored in _UPRIGHT
                self._orientation = 1 if self.format == "TIFF" else stored  # Pillow's TIFF decoder turns it itself
        except Image.DecompressionBombError as error:
            raise ImageError("too many pixels", str(error)) from None
        except UnidentifiedImageError:
            raise ImageError("not an image" if content else "empty file", f"{len(content)} bytes") from None
        except Exception as error:  # a decoder of a hostile file raises anything
            raise _decoder_error(error) from None
        width, height = self._image.size
        self.size = (height, width) if self._orientation in _SWAPS_SIDES else (width, height)

    @property
    def plain(self) -> bool:
        """Whether every decoder shows the file alike: RGB or grey, nothing transparent, not turned by EXIF."""
        opaque = self._image.mode in ("RGB", "L") and "transparency" not in self._image.info
        return opaque and not self.turned

    def decode(self, at_least: int | None = None) -> Image.Image:
        """The upright RGB image.

        With `at_least`, a large JPEG may come at 1/2, 1/4 or 1/8 of its size, both sides `at_least` pixels or more:
        the decoder then skips most of the work.
        """
        try:
            with _quiet, _quiet_libtiff if self.format == "TIFF" else contextlib.nullcontext():
                if at_least:
                    self._image.draft(self._image.mode, (at_least, at_least))  # pyright: ignore[reportCallIssue]
                self._image.load()
                image = _to_rgb(self._image)
        except Exception as error:  # see above
            raise _decoder_error(error) from None
        turn = _UPRIGHT.get(self._orientation)
        return image if turn is None else image.transpose(turn)


def open_image(data: bytes | Path, *, at_least: int | None = None, limits: Limits = LIMITS) -> Image.Image:
    """Decode a file to an upright RGB image: the first frame, over white where it is transparent.

    Colour profiles are not applied. `at_least`: see `EncodedImage.decode`. Raises `ImageError`; no warning leaks.
    """
    return EncodedImage(data, limits).decode(at_least)


def eval_image(record: Record, config: ImageConfig) -> np.ndarray:
    """The whole image, only its size changed (bicubic): uint8 (3, height, width), square unless it keeps its shape."""
    encoded = EncodedImage(record.image)
    size = config.shown_size(encoded.size)
    image = encoded.decode(at_least=2 * min(size)).resize(size, Image.Resampling.BICUBIC)
    return np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1))


def _read(data: bytes | Path, max_bytes: int) -> bytes:
    try:
        num_bytes = len(data) if isinstance(data, bytes) else data.stat().st_size
        if num_bytes > max_bytes:
            raise ImageError("too many bytes", f"{num_bytes} of at most {max_bytes}")
        return data if isinstance(data, bytes) else data.read_bytes()
    except FileNotFoundError:
        raise ImageError("missing file", str(data)) from None
    except OSError as error:
        raise ImageError("unreadable file", str(error)) from None


def _check_size(width: int, height: int, limits: Limits) -> None:
    detail = f"{width} x {height}"
    if width * height > limits.max_pixels:
        raise ImageError("too many pixels", detail)
    if min(width, height) < limits.min_side:
        raise ImageError("too small", detail)
    if max(width, height) > limits.max_aspect * min(width, height):
        raise ImageError("extreme aspect ratio", detail)


def _decoder_error(error: Exception) -> ImageError:
    text = str(error) or type(error).__name__
    if isinstance(error, ImageError):
        return error
    cut = isinstance(error, EOFError) or any(w in text.lower() for w in ("truncated", "unexpected end", "eof"))
    return ImageError("truncated" if cut else "decoder error", text.splitlines()[0][:200])


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode[0] in "IF":
        return _to_8_bit(image)
    if "transparency" in image.info or image.mode in ("RGBA", "RGBa", "LA", "La", "PA"):
        over_white = Image.new("RGB", image.size, (255, 255, 255))
        for top, strip in _strips(image):
            rgba = strip.convert("RGBA")
            over_white.paste(rgba, (0, top), rgba)
        return over_white
    if image.mode == "LAB":
        raise ImageError("unsupported colours", "CIELAB")
    return image.convert("RGB")


def _strips(image: Image.Image) -> Iterator[tuple[int, Image.Image]]:
    """The image in pieces of few rows, each with its first row: a copy of the whole would double its memory."""
    width, height = image.size
    rows = max(1, _STRIP_PIXELS // width)
    return ((top, image.crop((0, top, width, min(top + rows, height)))) for top in range(0, height, rows))


def _to_8_bit(image: Image.Image) -> Image.Image:
    """Grey values of more than 8 bits: 16-bit ones by their type, wider integers and floats by their range."""
    low, high = (0.0, 65535.0) if image.mode.startswith("I;16") else _value_range(image)
    grey = Image.new("RGB", image.size)
    for top, strip in _strips(image):
        values = np.round((_numbers(strip) - low) * (255 / max(high - low, 1e-12)))
        grey.paste(Image.fromarray(values.astype(np.uint8)), (0, top))
    return grey


def _value_range(image: Image.Image) -> tuple[float, float]:
    """What is black and what is white: the usual ranges, told from the values as the file does not say."""
    ends = np.array([(values.min(), values.max()) for values in (_numbers(strip) for _, strip in _strips(image))])
    low, high = float(ends[:, 0].min()), float(ends[:, 1].max())
    return (low, high) if low < 0 else (0.0, next((float(top) for top in (1, 255, 65535) if high <= top), high))


def _numbers(image: Image.Image) -> np.ndarray:
    return np.nan_to_num(np.asarray(image).astype(np.float64), posinf=0.0, neginf=0.0)
