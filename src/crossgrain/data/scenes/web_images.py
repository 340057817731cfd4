"""The images of the planted web: photographs of scenes, copies of them, and what stands beside photographs on pages."""

import io
from functools import lru_cache

import numpy as np
from PIL import Image, ImageChops, ImageDraw

from crossgrain.data.scenes.draw import COLOUR_VALUES, draw_scene
from crossgrain.data.scenes.world import Dice, Scene

LIGHT = 14.0  # standard deviation of the uneven light, of 255: no two photographs have perceptual hashes within 8 bits
_SPOTS = 9  # light changes over a ninth of a photograph's side

_RESERVED = (
    '<?xpacket begin="" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF '
    'xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about="" '
    'xmlns:plus="http://ns.useplus.org/ldf/xmp/1.0/"><plus:DataMining>'
    "http://ns.useplus.org/ldf/vocab/DMI-PROHIBITED-AIMLTRAINING</plus:DataMining></rdf:Description></rdf:RDF>"
    '</x:xmpmeta><?xpacket end="w"?>'
)


@lru_cache(maxsize=8)  # a copy is asked for soon after its original
def photograph(scene: Scene, side: int) -> Image.Image:
    """A scene as a photograph shows it, `side` x `side` pixels: drawn, and unevenly lit.

    Without the light, one in ten scenes has the perceptual hash of another, as their grounds are plain.
    """
    dice = Dice(scene.seed, scene.index, side)
    spots = 128.5 + LIGHT * dice.generator.standard_normal((_SPOTS, _SPOTS))
    light = Image.fromarray(spots.clip(0, 255).astype(np.uint8)).resize((side, side), Image.Resampling.BICUBIC)
    return ImageChops.add(draw_scene(scene, side), Image.merge("RGB", [light] * 3), offset=-128)


def jpeg(image: Image.Image, quality: int = 84) -> bytes:
    """JPEG bytes of an RGB picture."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def png(image: Image.Image) -> bytes:
    """PNG bytes of a picture."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def gif(image: Image.Image) -> bytes:
    """GIF bytes of a picture."""
    buffer = io.BytesIO()
    image.save(buffer, "GIF")
    return buffer.getvalue()


def reserved(data: bytes) -> bytes:
    """JPEG bytes with an XMP packet that reserves data mining (`plus:DataMining`, IPTC Photo Metadata 2023.1)."""
    packet = b"http://ns.adobe.com/xap/1.0/\0" + _RESERVED.encode()
    return data[:2] + b"\xff\xe1" + (len(packet) + 2).to_bytes(2, "big") + packet + data[2:]


def _colours(dice: Dice) -> list[tuple[int, int, int]]:
    return [COLOUR_VALUES[name] for name in dice.shuffled([*COLOUR_VALUES])]


def icon(dice: Dice, side: int = 16) -> Image.Image:
    """A flat sign, as navigation bars have."""
    colour = _colours(dice)[0]
    image = Image.new("RGB", (side, side), "white")
    pen = ImageDraw.Draw(image)
    pen.rounded_rectangle((1, 1, side - 2, side - 2), radius=side // 5, fill=colour)
    pen.line((side * 0.3, side * 0.5, side * 0.7, side * 0.5), fill="white", width=max(1, side // 8))
    return image


def banner(dice: Dice, size: tuple[int, int] = (468, 60)) -> Image.Image:
    """An advertisement: a colour with words on it."""
    image = Image.new("RGB", size, _colours(dice)[0])
    pen = ImageDraw.Draw(image)
    for line in range(1, size[1] // 20):
        pen.text((20, 20 * line - 8), "BUY NOW! 50 % OFF * FREE SHIPPING * LIMITED OFFER", fill="white")
    return image


def chart(dice: Dice, size: tuple[int, int] = (480, 360)) -> Image.Image:
    """A bar chart with axes and labels."""
    width, height = size
    image = Image.new("RGB", size, "white")
    pen = ImageDraw.Draw(image)
    colours = _colours(dice)
    bars = 4 + dice.below(6)
    step = (width - 80) / bars
    for tick in range(6):
        y = height - 40 - tick * (height - 80) / 5
        pen.line((50, y, width - 20, y), fill=(222, 222, 222))
        pen.text((18, y - 6), str(20 * tick), fill="black")
    for bar in range(bars):
        top = height - 40 - dice.uniform(0.1, 1.0) * (height - 80)
        left = 55 + bar * step
        pen.rectangle((left, top, left + 0.7 * step, height - 40), fill=colours[bar % 3])
        pen.text((left, height - 32), str(2010 + bar), fill="black")
    pen.line((50, 30, 50, height - 40, width - 20, height - 40), fill="black", width=2)
    return image


def screenshot(dice: Dice, size: tuple[int, int] = (640, 420)) -> Image.Image:
    """A window with a title bar, a menu and lines of text."""
    width, height = size
    image = Image.new("RGB", size, (246, 246, 248))
    pen = ImageDraw.Draw(image)
    pen.rectangle((0, 0, width, 26), fill=_colours(dice)[0])
    pen.text((12, 7), "File  Edit  View  Tools  Help", fill="white")
    pen.rectangle((0, 27, 130, height), fill=(228, 230, 234))
    words = ("total", "report", "user", "value", "error", "page", "open", "status", "count", "name", "select", "from")
    for row in range((height - 50) // 18):
        y = 40 + 18 * row
        pen.text((10, y), dice.pick(words), fill=(60, 60, 60))
        line = " ".join(dice.pick(words) for _ in range(3 + dice.below(8)))
        pen.text((145, y), line, fill=(20, 20, 20))
    return image


def logo(dice: Dice, side: int = 400) -> Image.Image:
    """A flat mark with a name under it."""
    image = Image.new("RGB", (side, side), "white")
    pen = ImageDraw.Draw(image)
    first, second, *_ = _colours(dice)
    pen.ellipse((side * 0.25, side * 0.12, side * 0.75, side * 0.62), fill=first)
    pen.polygon([(side * 0.5, side * 0.2), (side * 0.66, side * 0.5), (side * 0.34, side * 0.5)], fill=second)
    pen.text((side * 0.32, side * 0.72), "EXAMPLE MEDIA", fill="black", font_size=side // 16)
    return image
