"""Pictures made small enough to stand inside a page."""

import base64
import io
from pathlib import Path

from crossgrain.data.images import open_image

MAX_SIDE = 224  # pixels; about 10 kB a photo


def small_jpeg(image: bytes | Path, side: int = MAX_SIDE) -> tuple[bytes, int, int]:
    """A JPEG of at most `side` pixels a side, with its width and height. ImageError for what cannot be decoded."""
    picture = open_image(image, at_least=side)
    picture.thumbnail((side, side))
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=82, optimize=True)
    return file.getvalue(), picture.width, picture.height


def data_uri(data: bytes, kind: str = "image/jpeg") -> str:
    """Bytes as the address of a picture that needs no file."""
    return f"data:{kind};base64," + base64.b64encode(data).decode()
