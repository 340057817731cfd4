"""From a scene to pixels, with Pillow: drawn at twice the size and averaged, then a little noise.

Each object is first drawn as a small map of labels (nothing, body, second colour of the filling, outline, dark, light),
which a palette turns into colours: one paste for an object however many parts it has.
"""

import io
from functools import cache

import numpy as np
from PIL import Image, ImageChops, ImageDraw

from crossgrain.data.scenes.shapes import shape
from crossgrain.data.scenes.world import OUTLINE, SPLITS, Dice, Scene, Thing

RGB = tuple[int, int, int]
COLOUR_VALUES: dict[str, RGB] = {
    "red": (214, 32, 38), "orange": (245, 134, 20), "yellow": (250, 216, 30), "green": (38, 150, 62),
    "blue": (32, 84, 214), "purple": (126, 44, 168), "pink": (250, 132, 186), "brown": (124, 76, 38),
    "black": (26, 26, 28), "white": (252, 252, 252),
}  # fmt: skip
SUPERSAMPLING = 2
BODY, SECOND, LINE, DARK, LIGHT = 1, 2, 3, 4, 5
TONES = {"body": BODY, "dark": DARK, "light": LIGHT, "hole": 0}
_BODY_ONLY = [0, 255, *[0] * 254]
PERIODS = {"small": 3.4, "medium": 4.2, "large": 5.5}  # of the filling's pattern, across an object
_TILE = 32  # pixels of one period in the master pattern
_MASTER = 16 * _TILE


def _varied(dice: Dice, colour: RGB, spread: int = 14) -> RGB:
    """The colour with each channel moved by up to `spread`."""
    red, green, blue = (min(255, max(0, value + dice.below(2 * spread + 1) - spread)) for value in colour)
    return red, green, blue


def _mix(a: RGB, b: RGB, share: float) -> RGB:
    red, green, blue = (round(x + (y - x) * share) for x, y in zip(a, b, strict=True))
    return red, green, blue


@cache
def _pattern(filling: str, variant: int) -> Image.Image:
    """The master of a filling, a square mask (255: second colour); `variant` turns stripes and shifts dots."""
    y, x = np.mgrid[:_MASTER, :_MASTER] / _TILE
    if filling == "striped":
        across = (y, x, x + y, x - y)[variant] % 1.0
        mask = across < 0.45
    elif filling == "dotted":
        shifted = x + 0.5 * (np.floor(y) % 2) * (variant % 2)
        mask = (shifted % 1.0 - 0.5) ** 2 + (y % 1.0 - 0.5) ** 2 < 0.31**2
    else:
        mask = (np.floor(x * 1.5) + np.floor(y * 1.5)) % 2 < 1
    return Image.fromarray(np.where(mask, 255, 0).astype(np.uint8))


def label_map(thing: Thing, width: int, origin: tuple[int, int], extent: tuple[int, int]) -> Image.Image:
    """The labels of one object, in the window `extent` at `origin` of a picture `width` pixels wide."""
    labels = Image.new("L", extent)
    pen = ImageDraw.Draw(labels)
    line = max(1, round(thing.side * OUTLINE * width))
    points = (thing.points * width - origin).tolist()
    for tone, start, end in shape(thing.kind).spans:
        outline = [tuple(point) for point in points[start:end]]
        pen.polygon(outline, fill=TONES[tone])
        if tone in ("body", "hole"):
            pen.line([*outline, *outline[:2]], fill=LINE, width=line, joint="curve" if line > 2 else None)
    return labels


def _palette(thing: Thing, dice: Dice) -> list[int]:
    """RGBA of the six labels: nothing, a slightly varied body colour and shades of it."""
    red, green, blue = COLOUR_VALUES[thing.colour]
    body = _varied(dice, (red, green, blue), 10)
    bright = 0.3 * red + 0.59 * green + 0.11 * blue > 150
    black, white = (0, 0, 0), (255, 255, 255)
    dark = (96, 96, 100) if thing.colour == "black" else _mix(body, black, 0.62)
    light = (224, 226, 230) if thing.colour == "white" else _mix(body, white, 0.72)
    second = _mix(body, black, 0.36) if bright else _mix(body, white, 0.6)
    line = (8, 8, 8) if thing.colour == "black" else _mix(body, black, 0.55)
    seen = (value for colour in (body, second, line, dark, light) for value in (*colour, 255))
    return [0, 0, 0, 0, *seen]


def _paint(canvas: Image.Image, thing: Thing, dice: Dice) -> None:
    """Draw one object into the picture."""
    width = canvas.width
    left, top = (int(value * width) - 2 for value in thing.box[:2])
    right, bottom = (int(value * width) + 3 for value in thing.box[2:])
    extent = (right - left, bottom - top)
    labels = label_map(thing, width, (left, top), extent)
    if thing.filling != "plain":
        pattern = _pattern(thing.filling, dice.below(4))
        scale = _TILE * PERIODS[thing.size] / (thing.side * width)
        x, y = _TILE * dice.random(), _TILE * dice.random()
        window = (x, y, x + extent[0] * scale, y + extent[1] * scale)
        spots = pattern.resize(extent, Image.Resampling.NEAREST, box=window)
        labels.paste(SECOND, (0, 0), ImageChops.multiply(labels.point(_BODY_ONLY), spots))
    labels.putpalette(_palette(thing, dice), "RGBA")
    painted = labels.convert("RGBA")
    canvas.paste(painted, (left, top), painted)


def _bands(width: int, horizon: float, upper: RGB, lower: RGB) -> Image.Image:
    """A picture of two colours that meet at the height `horizon`."""
    canvas = Image.new("RGB", (width, width), upper)
    canvas.paste(lower, (0, round(horizon * width), width, width))
    return canvas


def _lines(canvas: Image.Image, colour: RGB, step: float, *, bricks: bool) -> None:
    pen, width = ImageDraw.Draw(canvas), canvas.width
    line, rows = max(1, round(0.008 * width)), round(1 / step)
    for row in range(rows + 1):
        y = row * step * width
        pen.line((0, y, width, y), fill=colour, width=line)
        if not bricks:
            pen.line((y, 0, y, width), fill=colour, width=line)
            continue
        for column in range(rows // 2 + 1):
            x = (2 * column + row % 2) * step * width
            pen.line((x, y, x, y + step * width), fill=colour, width=line)


def _background(name: str, width: int, dice: Dice) -> Image.Image:
    """What the things stand on: pale, so that every colour shows."""
    sky, horizon = _varied(dice, (200, 220, 236)), dice.uniform(0.35, 0.65)
    ground = {"meadow": (176, 208, 150), "sea": (150, 192, 212), "desert": (232, 210, 164), "snow": (238, 241, 246)}
    if name in ground:
        return _bands(width, horizon, sky, _varied(dice, ground[name], 8))
    if name == "room":
        wall, floor = _varied(dice, (222, 206, 200)), _varied(dice, (184, 158, 138))
        return _bands(width, 0.6 + 0.2 * horizon, wall, floor)
    if name == "paper":
        canvas = Image.new("RGB", (width, width), _varied(dice, (242, 240, 230), 6))
        _lines(canvas, _varied(dice, (190, 206, 224), 8), 0.1, bricks=False)
        return canvas
    if name == "bricks":
        canvas = Image.new("RGB", (width, width), _varied(dice, (206, 164, 146), 10))
        _lines(canvas, (226, 216, 208), 1 / 8, bricks=True)
        return canvas
    if name == "mist":
        corners = Image.new("RGB", (2, 2))
        for corner in ((0, 0), (1, 0), (0, 1), (1, 1)):
            corners.putpixel(corner, _varied(dice, (206, 206, 210), 36))
        return corners.resize((width, width), Image.Resampling.BILINEAR)
    return Image.new("RGB", (width, width), _varied(dice, (208, 208, 208), 30))


def draw_scene(scene: Scene, image_size: int = 128) -> Image.Image:
    """The scene as an RGB picture of `image_size` x `image_size` pixels."""
    dice = Dice(scene.seed, SPLITS.index(scene.split), scene.index, 1)
    canvas = _background(scene.background, SUPERSAMPLING * image_size, dice)
    for thing in scene.things:
        _paint(canvas, thing, dice)
    noise = dice.generator.standard_normal((image_size, image_size), dtype=np.float32)
    grain = Image.fromarray((128.5 + dice.uniform(2.0, 7.0) * noise).astype(np.uint8))
    return ImageChops.add(canvas.reduce(SUPERSAMPLING), Image.merge("RGB", [grain] * 3), offset=-128)


def encode(image: Image.Image) -> bytes:
    """JPEG bytes of a picture; colours keep their full resolution, as objects are small and coloured."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=92, subsampling=0)
    return buffer.getvalue()
