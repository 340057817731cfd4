"""Stage 2: which images are kept. The header gate, then one decode that everything else looks at.

gate -> decode (JPEG at 1/2, 1/4 or 1/8 where that is enough) -> naturalness, unsafe score,
perceptual hash -> the file itself without its metadata, or encoded anew where it is too large or unusual
"""

import contextlib
import io
import resource
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import md5, sha256
from math import inf
from pathlib import Path
from typing import Annotated, Literal

from PIL import Image
from pydantic import Field

from crossgrain.collect import hashes
from crossgrain.collect.images.blocklist import BlocklistConfig
from crossgrain.collect.images.gate import EXTENSIONS, Gate, Header, pass_gate
from crossgrain.collect.images.metadata import without_metadata
from crossgrain.collect.images.natural import DEFAULT_WEIGHTS, SIDE, NaturalClassifier
from crossgrain.collect.images.unsafe import MIN_SIDE, load_unsafe
from crossgrain.config import Count, configclass
from crossgrain.data.images import EncodedImage, ImageError, Limits
from crossgrain.data.records import Dropped

UNNATURAL, UNSAFE = "unnatural image", "unsafe image"

# The published rules: LAIT (ImageBERT, section 3; its aspect is our choice), CC12M (section 2.1), COYO-700M and
# LAION-400M (their data cards).
GATES = {
    "lait": Gate(min_side=301, max_aspect=3.0),
    "cc12m": Gate(min_side=401, max_aspect=2.5),
    "coyo": Gate(min_side=200, max_aspect=3.0, min_bytes=5000),
    "laion": Gate(min_side=8, max_aspect=inf, max_pixels=89_500_000, min_bytes=5000),
}


@configclass
class ImageFilterConfig:
    """Which images are kept, and how. What is None is as the preset has it."""

    preset: Literal["lait", "cc12m", "coyo", "laion"] = "lait"
    min_side: Count | None = None  # pixels, both sides
    max_aspect: Annotated[float, Field(ge=1)] | None = None  # longer side over shorter side
    max_pixels: Count | None = None
    min_bytes: int | None = None
    max_bytes: Count | None = None
    animated: bool = False  # keep the first frame of what moves
    min_natural: Annotated[float, Field(ge=0, le=1)] = 0.5  # 0: all are kept, the score is stored
    natural_weights: Path | None = None  # a file of `train`; None: the shipped one
    unsafe: str = ""  # a classifier as package.module:Class; none is shipped
    max_unsafe: Annotated[float, Field(ge=0, le=1)] = 0.5
    blocklist: BlocklistConfig = BlocklistConfig()
    max_side: Count = 512  # pixels of the longer side of what is stored; larger images are made smaller
    max_kept_bytes: Count = 512 * 2**10  # a larger file is encoded anew
    quality: Annotated[int, Field(ge=1, le=100)] = 90  # of a JPEG that is encoded anew

    def gate(self) -> Gate:
        """The preset's gate with what this configuration says otherwise."""
        preset = GATES[self.preset]
        names = ("min_side", "max_aspect", "max_pixels", "min_bytes", "max_bytes")
        said = {name: getattr(self, name) for name in names}
        return Gate(
            animated=self.animated,
            **{name: getattr(preset, name) if value is None else value for name, value in said.items()},
        )

    def files(self) -> tuple[Path, ...]:
        """What is read besides the recipe: a change of their content is a change of the configuration."""
        weights = () if self.natural_weights is None else (self.natural_weights,)
        return weights + self.blocklist.url_hashes + self.blocklist.file_hashes


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptImage:
    """An image that passed: what is stored of it, and what is known about the file as it came."""

    data: bytes  # to be stored: upright, no metadata, at most `max_side` pixels a side
    extension: str  # jpg, png or webp
    width: int  # of `data`
    height: int
    sha256: str  # of the file as it came, as are the two below
    md5: str
    source_size: tuple[int, int]  # upright width and height
    phash: int  # 64 bits
    mirrored_phash: int
    natural: float  # 0 to 1
    unsafe: float | None  # None: no classifier was named


class ImageFilter:
    """Stage 2 of one worker process; its models and lists are loaded once."""

    def __init__(self, config: ImageFilterConfig):
        self.config = config
        self._gate = config.gate()
        # The gate has judged already; what is left to Pillow's check are files whose header lied to one of the two.
        self._limits = Limits(
            max_bytes=self._gate.max_bytes, max_pixels=self._gate.max_pixels, min_side=1, max_aspect=inf
        )
        self._natural = NaturalClassifier.load(config.natural_weights or DEFAULT_WEIGHTS)
        self._unsafe = load_unsafe(config.unsafe)

    def check(self, data: bytes, where: str = "") -> KeptImage | Dropped:
        """What is kept of an image file, or the rule that it breaks; `where` says in the latter what it was."""
        try:
            header = pass_gate(data, self._gate)
            encoded = EncodedImage(data[: header.end], self._limits)
            image = encoded.decode(at_least=self._decode_side(encoded.size))
        except ImageError as error:
            return Dropped(reason=error.reason, where=where, detail=error.detail)
        # Averages by whole numbers cost next to nothing, and the two that look at the small image ask for no more.
        small = image.reduce(max(1, min(image.size) // max(SIDE, hashes.DECODE_SIDE)))
        natural = self._natural.score(small)
        if not natural >= self.config.min_natural:  # a score that is no number keeps nothing
            return Dropped(reason=UNNATURAL, where=where, detail=f"score {natural:.2f}")
        unsafe = None if self._unsafe is None else float(self._unsafe.score(image))
        if unsafe is not None and not unsafe <= self.config.max_unsafe:
            return Dropped(reason=UNSAFE, where=where, detail=f"score {unsafe:.2f}")
        phash, mirrored = hashes.mirrored_phashes(small)
        stored, extension, (width, height) = self._stored(data, header, encoded, image)
        return KeptImage(
            data=stored, extension=extension, width=width, height=height, sha256=sha256(data).hexdigest(),
            md5=md5(data, usedforsecurity=False).hexdigest(), source_size=encoded.size,
            phash=phash, mirrored_phash=mirrored, natural=natural, unsafe=unsafe,
        )  # fmt: skip

    def _shown_size(self, size: tuple[int, int]) -> tuple[int, int]:
        scale = min(1.0, self.config.max_side / max(size))
        return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))

    def _decode_side(self, size: tuple[int, int]) -> int:
        """Pixels that each side of the decoded image must keep: enough for whoever looks at it, and for storing it."""
        needed = max(SIDE, hashes.DECODE_SIDE, MIN_SIDE if self._unsafe else 0)
        shown = self._shown_size(size)
        return needed if shown == size else max(needed, min(shown))

    def _stored(
        self, data: bytes, header: Header, encoded: EncodedImage, image: Image.Image
    ) -> tuple[bytes, str, tuple[int, int]]:
        """(file, extension, size): the file itself where it is small enough and every decoder shows it alike."""
        size = self._shown_size(encoded.size)
        if size == encoded.size and encoded.plain and not header.animated:
            kept = without_metadata(data, header)
            if len(kept) <= self.config.max_kept_bytes:
                return kept, EXTENSIONS[header.format], size
        if image.size[0] < size[0]:  # it was decoded at a part of its size, as a look at it needed no more
            image = EncodedImage(data[: header.end], self._limits).decode()
        if image.size != size:
            image = image.resize(size, Image.Resampling.BICUBIC, reducing_gap=3.0)
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=self.config.quality)
        return buffer.getvalue(), "jpg", size


@contextlib.contextmanager
def bounded_memory(num_bytes: int) -> Iterator[None]:
    """Cap the address space of this process meanwhile, unless it has a cap: a decoder that wants more fails alone."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    if before[0] == resource.RLIM_INFINITY:
        resource.setrlimit(resource.RLIMIT_AS, (num_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
