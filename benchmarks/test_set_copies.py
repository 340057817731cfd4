"""How many edited copies of a test set are found by its hashes, and how many other images are taken for copies.

    python benchmarks/test_set_copies.py [--photos FOLDER] [--originals 500] [--strangers 100000]

Half of the photos (or of drawn photographs, without a folder) make the test set, at most `--originals` of them. Each is
edited as copies on the web are; the strangers are random pieces of the other photos, no two at the same place. Figures
of a run stand in docs/collect.md.
"""

import argparse
import io
import random
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance, ImageOps
from rich.progress import track

from crossgrain.collect.hash_sets import HashSet
from crossgrain.collect.hashes import SAME_IMAGE, mirrored_phashes, phash
from crossgrain.data.images import ImageError, open_image
from crossgrain.data.scenes import make_scene
from crossgrain.data.scenes.web_images import photograph

SEED = 0
DRAWN = 1000  # photographs that are drawn where there are none
LEAST = 0.4  # of a side, that a piece has


def recompressed(image: Image.Image, quality: int) -> Image.Image:
    """The image as JPEG leaves it."""
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return Image.open(file).convert("RGB")


def edits(image: Image.Image) -> dict[str, Image.Image]:
    """The image as other sites show it."""
    width, height = image.size

    def without(share: float) -> Image.Image:
        x, y = round(share / 2 * width), round(share / 2 * height)
        return image.crop((x, y, width - x, height - y))

    return {
        "JPEG quality 40": recompressed(image, 40),
        "half size, quality 75": recompressed(image.resize((width // 2, height // 2)), 75),
        "1.3 times as bright": recompressed(ImageEnhance.Brightness(image).enhance(1.3), 90),
        "stretched by 10 %": recompressed(image.resize((width * 11 // 10, height)), 90),
        "mirrored": recompressed(ImageOps.mirror(image), 90),
        "4 % cut off": recompressed(without(0.04), 90),
        "10 % cut off": recompressed(without(0.1), 90),
    }


def pictures(folder: Path | None) -> Iterator[Image.Image]:
    """The photos of a folder, or drawn ones."""
    if folder is None:
        yield from (photograph(make_scene(SEED, "train", number), 480) for number in range(DRAWN))
        return
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in (".jpg", ".jpeg", ".png"):
            try:
                yield open_image(path)
            except ImageError as error:
                print(f"{path}: {error.reason}")


def pieces(images: list[Image.Image], count: int) -> Iterator[Image.Image]:
    """Random rectangles of the images, in turn."""
    rng = random.Random(SEED)
    for number in range(count):
        image = images[number % len(images)]
        width, height = (round(side * rng.uniform(LEAST, 1)) for side in image.size)
        x, y = rng.randint(0, image.width - width), rng.randint(0, image.height - height)
        yield image.crop((x, y, x + width, y + height))


def main() -> None:
    """Print the two tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, help="a folder of photos; without: drawn ones")
    parser.add_argument("--originals", type=int, default=500, help="images of the test set, at most")
    parser.add_argument("--strangers", type=int, default=100_000, help="images that are none of it")
    arguments = parser.parse_args()
    images = list(pictures(arguments.photos))
    originals, others = images[::2][: arguments.originals], images[1::2]
    hashes = np.array([mirrored_phashes(image) for image in originals], dtype=np.uint64).T
    held_out = HashSet("held_out", *hashes)
    copies: dict[str, list[int]] = {}
    for image in track(originals, "editing"):
        for name, edited in edits(image).items():
            copies.setdefault(name, []).append(phash(edited))
    print(f"test set of {len(originals):,} images; copies found within {SAME_IMAGE} bits of 64")
    for name, found in copies.items():
        print(f"  {name:24} {held_out.contains(np.array(found, np.uint64)).mean():6.1%}")
    cut = pieces(others, arguments.strangers)
    strangers = [phash(piece) for piece in track(cut, "cutting strangers", total=arguments.strangers)]
    start = time.process_time()
    wrong = held_out.contains(np.array(strangers, np.uint64)).sum()
    seconds = time.process_time() - start
    print(f"{wrong:,} of {len(strangers):,} other images taken for copies ({len(strangers) / seconds:,.0f} asked/s)")


if __name__ == "__main__":
    main()
