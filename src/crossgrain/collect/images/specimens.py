"""Drawn examples of images that no caption teaches anything from, and of photo-like ones: what `natural` learns from.

Every specimen is a function of (kind, seed). The photo-like ones are dead leaves: objects of power-law sizes hiding one
another, each with a texture whose spectrum falls as 1/f, under uneven light, blurred and with grain. That model has the
statistics of real photos (Lee, Mumford and Huang, IJCV 41, 2001), which the cartoons of `data.scenes` lack.
"""

import io
from collections.abc import Callable
from itertools import pairwise

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from crossgrain.data.scenes import draw_scene, make_scene

Size = tuple[int, int]
Colour = tuple[int, int, int]
_LETTERS = np.array(list("eeeetttaaooiinnsshhrrddllcumwfgypbvkETASNIB0123456789,.-"))


def draw(kind: str, seed: int) -> Image.Image:
    """One specimen of a kind in `UNNATURAL` or `NATURAL`, RGB, as varied as its kind is on web pages."""
    names = [*UNNATURAL, *NATURAL]
    rng = np.random.default_rng((seed, names.index(kind)))
    return {**UNNATURAL, **NATURAL}[kind](rng).convert("RGB")


def encode_as_found(image: Image.Image, seed: int) -> bytes:
    """The image as a web page might serve it: resized, then JPEG of some quality, PNG or WEBP."""
    rng = np.random.default_rng((seed, 99))
    scale = rng.uniform(0.6, 1.2)
    image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)
    buffer, choice = io.BytesIO(), rng.random()
    if choice < 0.8:
        image.save(buffer, "JPEG", quality=int(rng.integers(40, 96)), subsampling=int(rng.choice([0, 2])))
    elif choice < 0.95:
        image.save(buffer, "PNG", compress_level=1)
    else:
        image.save(buffer, "WEBP", quality=int(rng.integers(50, 95)), method=0)
    return buffer.getvalue()


def _size(rng: np.random.Generator, low: float = 0.6, high: float = 1.7) -> Size:
    area, aspect = rng.uniform(320, 640) ** 2, np.exp(rng.uniform(np.log(low), np.log(high)))
    return round((area * aspect) ** 0.5), round((area / aspect) ** 0.5)


def _colour(rng: np.random.Generator, low: int = 0, high: int = 256) -> Colour:
    red, green, blue = rng.integers(low, high, 3).tolist()
    return red, green, blue


def _paper(rng: np.random.Generator) -> Colour:
    """A page's colour: mostly white or pale, at times dark."""
    choice = rng.random()
    return (255, 255, 255) if choice < 0.5 else _colour(rng, 225) if choice < 0.8 else _colour(rng, 0, 70)


def _ink(rng: np.random.Generator, paper: Colour) -> Colour:
    return _colour(rng, 0, 90) if sum(paper) > 380 else _colour(rng, 190)


def _words(rng: np.random.Generator, num_words: int) -> str:
    return " ".join("".join(rng.choice(_LETTERS, rng.integers(2, 10))) for _ in range(num_words))


def _write(pen: ImageDraw.ImageDraw, rng: np.random.Generator, at: tuple[float, float], text: str, size: float | int,
           fill: Colour) -> None:  # fmt: skip
    if rng.random() < 0.97:
        pen.text(at, text, fill=fill, font=ImageFont.load_default(max(8, size)))


def _canvas(size: Size, colour: Colour) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    image = Image.new("RGB", size, colour)
    return image, ImageDraw.Draw(image)


def _text_page(rng: np.random.Generator) -> Image.Image:
    paper = _paper(rng)
    (width, height), ink = _size(rng), _ink(rng, paper)
    image, pen = _canvas((width, height), paper)
    size, y = rng.uniform(11, 26), rng.uniform(8, 40)
    margin = rng.uniform(8, 50)
    while y < height * rng.uniform(0.8, 1.0):
        heading = rng.random() < 0.1
        text = _words(rng, 4 if heading else round(width / size / 2.6 * rng.uniform(0.5, 1)))
        _write(pen, rng, (margin, y), text, size * (1.7 if heading else 1), ink)
        y += size * (2.4 if heading else rng.choice([1.3, 1.3, 1.3, 2.2]))
    return image


def _screenshot(rng: np.random.Generator) -> Image.Image:
    paper = _paper(rng)
    width, height = _size(rng)
    image, pen = _canvas((width, height), paper)
    bar, ink = _colour(rng), _ink(rng, paper)
    pen.rectangle((0, 0, width, rng.uniform(20, 60)), fill=bar)
    left = rng.uniform(0, 0.3) * width
    pen.rectangle((0, 60, left, height), fill=_colour(rng, 190) if sum(paper) > 380 else _colour(rng, 20, 90))
    for _ in range(rng.integers(4, 22)):
        x, y = rng.uniform(0, width * 0.8), rng.uniform(60, height)
        choice = rng.random()
        if choice < 0.3:
            box = (x, y, x + rng.uniform(30, 220), y + rng.uniform(16, 120))
            pen.rounded_rectangle(box, int(rng.integers(0, 9)), fill=_colour(rng), outline=_colour(rng))
        else:
            for line in range(rng.integers(1, 6)):
                _write(pen, rng, (x, y + 17 * line), _words(rng, int(rng.integers(2, 9))), rng.uniform(10, 16), ink)
    return image


def _table(rng: np.random.Generator) -> Image.Image:
    width, height = _size(rng)
    paper = _paper(rng)
    image, pen = _canvas((width, height), paper)
    columns, rows, ink = rng.integers(2, 8), rng.integers(3, 18), _ink(rng, paper)
    shade, ruled = rng.random() < 0.5, rng.random() < 0.7
    band = _colour(rng, 200) if sum(paper) > 380 else _colour(rng, 40, 100)
    for row in range(rows):
        top = row * height / rows
        if row == 0 or (shade and row % 2):
            pen.rectangle((0, top, width, top + height / rows), fill=_colour(rng) if row == 0 else band)
        for column in range(columns):
            size = min(20, height / rows * 0.6)
            _write(pen, rng, (column * width / columns + 5, top + 3), _words(rng, int(rng.integers(1, 3))), size, ink)
    for line in range(columns * ruled):
        pen.line((line * width / columns, 0, line * width / columns, height), fill=ink)
    return image


def _chart(rng: np.random.Generator) -> Image.Image:
    width, height = _size(rng)
    paper = _paper(rng)
    image, pen = _canvas((width, height), paper)
    ink, left, bottom = _ink(rng, paper), 0.1 * width, 0.88 * height
    kind, num = rng.choice(["bars", "lines", "pie", "dots"]), int(rng.integers(3, 14))
    if kind == "pie":
        cuts = np.sort(np.concatenate([[0, 360], rng.uniform(0, 360, num - 1)]))
        radius = 0.4 * min(width, height)
        box = (width / 2 - radius, height / 2 - radius, width / 2 + radius, height / 2 + radius)
        for start, end in pairwise(cuts):
            pen.pieslice(box, start, end, fill=_colour(rng), outline=paper)
    else:
        for line in range(rng.integers(0, 9)):
            y = bottom * (line + 1) / 9
            pen.line((left, y, width, y), fill=_ink(rng, ink) if rng.random() < 0.2 else (200, 200, 200))
        x = np.linspace(left, 0.95 * width, num)
        for _ in range(rng.integers(1, 5)):
            y = bottom - np.abs(np.cumsum(rng.normal(0, 1, num))) / (num**0.5) * rng.uniform(0.2, 0.6) * height
            colour = _colour(rng)
            if kind == "bars":
                for at, top in zip(x, y, strict=True):
                    pen.rectangle((at, min(top, bottom), at + 0.6 * width / num, bottom), fill=colour)
            elif kind == "lines":
                pen.line(list(zip(x, y, strict=True)), fill=colour, width=int(rng.integers(1, 6)))
            else:
                for at, top in zip(rng.uniform(left, width, 60), rng.uniform(0, bottom, 60), strict=True):
                    pen.ellipse((at - 3, top - 3, at + 3, top + 3), fill=colour)
        pen.line((left, 0, left, bottom, width, bottom), fill=ink, width=2)
    _write(pen, rng, (0.3 * width, 4.0), _words(rng, 3), 18, ink)
    return image


def _shape(pen: ImageDraw.ImageDraw, rng: np.random.Generator, box: tuple[float, ...], fill: Colour | int) -> None:
    x1, y1, x2, y2 = box
    choice = rng.integers(0, 4)
    if choice == 0:
        pen.ellipse((x1, y1, x2, y2), fill=fill)
    elif choice == 1:
        pen.rounded_rectangle((x1, y1, x2, y2), 0.2 * min(x2 - x1, y2 - y1), fill=fill)
    else:
        angle = np.sort(rng.uniform(0, 2 * np.pi, rng.integers(3, 9)))
        points = [((x1 + x2 + (x2 - x1) * np.cos(a)) / 2, (y1 + y2 + (y2 - y1) * np.sin(a)) / 2) for a in angle]
        pen.polygon(points, fill=fill)


def _icon(rng: np.random.Generator) -> Image.Image:
    side = int(rng.integers(320, 600))
    paper = _paper(rng)
    image, pen = _canvas((side, side), paper)
    palette = [_colour(rng) for _ in range(rng.integers(1, 4))]
    for number in range(rng.integers(1, 5)):
        half = side * rng.uniform(0.3, 0.48) / (1 + 0.6 * number)
        x, y = side / 2 + rng.normal(0, 0.05 * number * side, 2)
        _shape(pen, rng, (x - half, y - half, x + half, y + half), palette[number % len(palette)])
    return image


def _logo(rng: np.random.Generator) -> Image.Image:
    width, height = _size(rng, 1.0, 3.0)
    paper = _paper(rng)
    image, pen = _canvas((width, height), paper)
    colour, side = _colour(rng), rng.uniform(0.2, 0.4) * height
    x, y = rng.uniform(0.05, 0.5) * width, rng.uniform(0.2, 0.5) * height
    _shape(pen, rng, (x, y, x + side, y + side), colour)
    _write(pen, rng, (x * 0.3, y + side), _words(rng, 1).upper(), height * rng.uniform(0.1, 0.3), colour)
    return image


def _gradient(rng: np.random.Generator) -> Image.Image:
    size = _size(rng, 0.5, 3.0)
    corners = rng.integers(0, 256, (rng.integers(1, 3), 2, 3)).astype(np.uint8)
    return Image.fromarray(corners).resize(size, Image.Resampling.BILINEAR)


def _banner(rng: np.random.Generator) -> Image.Image:
    width, height = _size(rng, 1.5, 3.0)
    image = (
        _gradient(rng).resize((width, height))
        if rng.random() < 0.6
        else Image.new("RGB", (width, height), _colour(rng))
    )
    pen = ImageDraw.Draw(image)
    for _ in range(rng.integers(1, 5)):
        x, y = rng.uniform(0, 0.8) * width, rng.uniform(0, 0.7) * height
        _shape(pen, rng, (x, y, x + rng.uniform(20, width / 2), y + rng.uniform(20, height / 2)), _colour(rng))
    for line in range(rng.integers(1, 4)):
        at = (rng.uniform(0, 0.3) * width, (0.1 + 0.3 * line) * height)
        _write(
            pen,
            rng,
            at,
            _words(rng, int(rng.integers(1, 4))).upper(),
            height * rng.uniform(0.08, 0.25),
            _colour(rng, 180),
        )
    return image


def _map(rng: np.random.Generator) -> Image.Image:
    width, height = _size(rng)
    image, pen = _canvas((width, height), _colour(rng, 200))
    for _ in range(rng.integers(2, 8)):
        centre, radius = rng.uniform(0, 1, 2) * (width, height), rng.uniform(40, 240)
        angle = np.linspace(0, 2 * np.pi, 24)
        reach = radius * (1 + 0.2 * np.cumsum(rng.normal(0, 0.4, 24)) / 3)
        outline = np.stack([np.cos(angle), np.sin(angle)], 1) * reach[:, None] + centre
        pen.polygon([tuple(point) for point in outline], fill=_colour(rng, 150), outline=_colour(rng, 80, 200))
    for _ in range(rng.integers(4, 20)):
        steps = np.cumsum(rng.normal(0, 60, (12, 2)), 0) + rng.uniform(0, 1, 2) * (width, height)
        pen.line([tuple(point) for point in steps], fill=_colour(rng, 90), width=int(rng.integers(1, 8)))
        _write(pen, rng, tuple(steps[4].tolist()), _words(rng, 1), rng.uniform(10, 18), (60, 60, 60))
    return image


def _blank(rng: np.random.Generator) -> Image.Image:
    """A placeholder: one colour, sometimes framed or with a few letters in the middle."""
    paper = _paper(rng) if rng.random() < 0.5 else _colour(rng)
    width, height = _size(rng, 0.5, 3.0)
    image, pen = _canvas((width, height), paper)
    if rng.random() < 0.3:
        pen.rectangle((2, 2, width - 3, height - 3), outline=_ink(rng, paper))
    if rng.random() < 0.3:
        _write(pen, rng, (0.3 * width, 0.45 * height), _words(rng, 2), 24, _ink(rng, paper))
    return image


def _texture(rng: np.random.Generator, side: int) -> np.ndarray:
    """Random brightness whose spectrum falls as a power of frequency: (side, side), mean 0, deviation 1."""
    frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None, :])
    frequency[0, 0] = 1.0
    spectrum = np.fft.rfft2(rng.standard_normal((side, side))) / frequency ** rng.uniform(0.7, 1.6)
    spectrum[0, 0] = 0
    values = np.fft.irfft2(spectrum, (side, side))
    return (values / values.std()).astype(np.float32)


def _photo_like(rng: np.random.Generator) -> Image.Image:
    size = _size(rng)
    side = 192
    light = 1 + rng.uniform(0.05, 0.3) * _texture(rng, side)[..., None]
    canvas = np.full((side, side, 3), rng.uniform(20, 235, 3), dtype=np.float32)
    layers = [_texture(rng, side) for _ in range(3)]
    mood = rng.uniform(10, 245, 3)
    for _ in range(rng.integers(3, 60)):
        radius = min(side * 0.9, rng.uniform(2, 7) / (1 - rng.random()) ** 0.7)
        mask = Image.new("L", (side, side))
        x, y = rng.uniform(0, side, 2)
        stretch = rng.uniform(0.3, 1.0)
        _shape(ImageDraw.Draw(mask), rng, (x - radius, y - radius * stretch, x + radius, y + radius * stretch), 255)
        if rng.random() < 0.6:
            mask = mask.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 2.5)))
        share = np.asarray(mask, dtype=np.float32)[..., None] / 255
        texture = np.roll(layers[rng.integers(3)], tuple(rng.integers(0, side, 2)), (0, 1))[..., None]
        colour = (0.5 * mood + 0.5 * rng.uniform(0, 255, 3)).astype(np.float32)
        strength = rng.uniform(3, 45) * rng.uniform(0.7, 1.0, 3).astype(np.float32)
        canvas += share * (colour + strength * texture - canvas)
    canvas = canvas * light + rng.uniform(0.5, 8) * rng.standard_normal((side, side, 1))
    if rng.random() < 0.12:  # black and white
        canvas = np.repeat(canvas.mean(-1, keepdims=True), 3, -1) * rng.uniform(0.95, 1.0, 3)
    canvas = (canvas - 128) * rng.uniform(0.5, 1.5) + 128 + rng.normal(0, 25)
    image = Image.fromarray(np.clip(canvas, 0, 255).astype(np.uint8))
    if rng.random() < 0.5:
        image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0.2, 1.5)))
    return image.resize(size, Image.Resampling.BICUBIC)


def _scene(rng: np.random.Generator) -> Image.Image:
    return draw_scene(make_scene(int(rng.integers(0, 2**31)), "train", 0), int(rng.integers(300, 520)))


UNNATURAL: dict[str, Callable[[np.random.Generator], Image.Image]] = {
    "text": _text_page, "screenshot": _screenshot, "table": _table, "chart": _chart, "icon": _icon, "logo": _logo,
    "gradient": _gradient, "banner": _banner, "map": _map, "blank": _blank,
}  # fmt: skip
NATURAL: dict[str, Callable[[np.random.Generator], Image.Image]] = {"scene": _scene, "photo-like": _photo_like}
