"""Image files as they are found on the web, made for the tests of stage 2."""

import io
import struct
import zlib

from PIL import ExifTags, Image, ImageEnhance

from crossgrain.data.scenes import draw_scene, make_scene


def scene(index: int, size: int = 360) -> Image.Image:
    return draw_scene(make_scene(11, "train", index), size)


def saved(image: Image.Image, kind: str = "JPEG", **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def with_place(orientation: int = 1) -> bytes:
    """EXIF that says where a photo was taken."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    exif[ExifTags.Base.Make] = "A camera"
    exif.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSMapDatum] = "SECRET-PLACE"
    return exif.tobytes()


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png_bomb(side: int) -> bytes:
    """A PNG of one colour, side x side, whose file is a thousandth of its pixels."""
    row = zlib.compressobj(9)
    body = b"".join(row.compress(bytes(side + 1)) for _ in range(side)) + row.flush()
    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def edits(image: Image.Image) -> dict[str, bytes]:
    """What happens to an image as it is copied from site to site."""
    width, height = image.size
    inner = (round(0.02 * width), round(0.02 * height), round(0.98 * width), round(0.98 * height))
    return {
        "JPEG q40": saved(image, quality=40),
        "half size": saved(image.resize((width // 2, height // 2), Image.Resampling.BICUBIC), quality=75),
        "brightness x 1.3": saved(ImageEnhance.Brightness(image).enhance(1.3), quality=90),
        "10 % stretch": saved(image.resize((width * 11 // 10, height), Image.Resampling.BICUBIC), quality=90),
        "4 % crop": saved(image.crop(inner), quality=90),
    }
