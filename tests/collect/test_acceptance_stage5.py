"""Over the pipeline: an image under many addresses keeps its best text, a text on too many images keeps none, and
what shows an image of a test set is left out, however it was edited."""

import io
from collections import Counter
from html import escape

import numpy as np
from found_images import edits
from PIL import Image, ImageOps
from planted_web import SMALL

from crossgrain.collect import hash_sets
from crossgrain.collect.pages.inputs import Input
from crossgrain.collect.pipeline import run_collect
from crossgrain.collect.recipe import AggregateConfig, CollectRecipe
from crossgrain.collect.scoring.interface import PairScorer
from crossgrain.config import configclass
from crossgrain.data.scenes import make_scene
from crossgrain.data.scenes.web_archive import Resource, write_warc
from crossgrain.data.scenes.web_images import jpeg, photograph
from crossgrain.data.shards import Shards

SITE = "https://one.example"


class CountsWords(PairScorer):
    """The more words, the better."""

    @configclass
    class Config:
        """Nothing to set."""

    def __init__(self, config):
        self.config = config

    def fingerprint(self):
        return "counts words"

    def image_features(self, images):
        return np.zeros((len(images), 1), np.float32)

    def text_features(self, texts):
        return np.array([[len(text.split())] for text in texts], np.float32)

    def score(self, images, texts):
        return texts[:, 0]


def collect(tmp_path, shown, scorer, test_sets=()):
    """Pairs of pages that show (image bytes by URL, texts by URL), each image on its own page."""
    resources = []
    for number, (name, body, text) in enumerate(shown):
        html = f'<html lang="en"><body><img src="/{name}" alt="{escape(text)}"></body></html>'
        resources.append(Resource(f"{SITE}/{number}.html", html.encode(), "text/html"))
        resources.append(Resource(f"{SITE}/{name}", body, "image/jpeg"))
    write_warc(tmp_path / "a.warc.gz", resources)
    recipe = CollectRecipe(
        **SMALL,
        inputs=(Input(path=tmp_path / "a.warc.gz"),),
        fetch_missing=False,
        scorer=CountsWords.Config() if scorer else None,
        aggregate=AggregateConfig(test_sets=test_sets),
    )
    result = run_collect(recipe, tmp_path / "run")
    if not result.num_pairs:
        return [], result
    return [(r.extra["provenance"]["image_url"], r.captions) for r in Shards(tmp_path / "run" / "shards")], result


def variants():
    """One photograph under five addresses: as it is, worse, smaller, brighter, stretched."""
    picture = photograph(make_scene(5, "train", 3), 400)
    brighter = Image.eval(picture, lambda value: min(255, int(value * 1.15)))
    png = io.BytesIO()
    picture.save(png, "PNG")
    return [
        ("a.jpg", jpeg(picture)),
        ("b.jpg", jpeg(picture, 45)),
        ("c.jpg", jpeg(picture.resize((330, 330)))),
        ("d.jpg", jpeg(brighter)),
        ("e.jpg", jpeg(picture.resize((400, 360)))),
    ]


TEXTS = (
    "A picture that we like",
    "A house and a tree in the snow by the sea",
    "The old house by the sea",
    "A tree stands beside the house",
    "A house and a tree in the snow",
    "The house that we saw last summer",
)


def test_one_image_under_five_addresses_with_six_texts_keeps_the_best(tmp_path):
    images = variants()
    shown = [(*images[i % 5], text) for i, text in enumerate(TEXTS)]
    kept, result = collect(tmp_path, shown, scorer=True)
    assert [captions for _, captions in kept] == [(TEXTS[1],)]
    assert sum(row.dropped.get("another pair of the same image is better", 0) for row in result.funnel) == 5


def test_ties_are_broken_the_same_way_whatever_the_order_of_pages(tmp_path):
    images = variants()
    shown = [(*images[i % 5], text) for i, text in enumerate(TEXTS)]
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    first, _ = collect(tmp_path / "a", shown, scorer=False)
    second, _ = collect(tmp_path / "b", shown[::-1], scorer=False)
    assert len(first) == 1 and first == second


def test_a_text_on_eleven_images_is_kept_with_none_of_them_and_on_ten_with_all(tmp_path):
    pictures = [jpeg(photograph(make_scene(6, "train", number), 320)) for number in range(21)]
    often, seldom = "A picture from the exhibition in the old town", "The best picture of the week for our readers"
    shown = [(f"{i}.jpg", body, often if i < 11 else seldom) for i, body in enumerate(pictures)]
    kept, result = collect(tmp_path, shown, scorer=True)
    assert sorted(captions for _, captions in kept) == [(seldom,)] * 10
    assert sum(row.dropped.get("its text stands on too many images", 0) for row in result.funnel) == 11


def test_edited_copies_of_a_test_set_are_left_out_and_nothing_else(tmp_path):
    originals = [photograph(make_scene(7, "test", number), 720) for number in range(20)]
    strangers = [photograph(make_scene(7, "train", number), 400) for number in range(20)]
    hash_sets.build([jpeg(picture) for picture in originals], "held_out", tmp_path / "held_out.hashes")
    copies = [(kind, body) for picture in originals for kind, body in edits(picture).items()]
    copies += [("mirrored", jpeg(ImageOps.mirror(picture))) for picture in originals]
    copies += [("stranger", jpeg(picture)) for picture in strangers]
    shown = [
        (
            f"{kind.replace(' ', '_').replace('%', 'percent')}/{i}.jpg",
            body,
            f"A house and a tree beside road number {i}",
        )
        for i, (kind, body) in enumerate(copies)
    ]
    kept, result = collect(tmp_path, shown, scorer=False, test_sets=(tmp_path / "held_out.hashes",))
    left = Counter(url.removeprefix(SITE).split("/")[1] for url, _ in kept)
    assert left.pop("stranger") == 20
    assert left.pop("4_percent_crop", 0) <= 12 and left.pop("brightness_x_1.3", 0) <= 2
    assert not left  # of what was recompressed, made smaller, stretched or mirrored, nothing is
    (reason,) = {reason for row in result.funnel for reason in row.dropped if "held_out" in reason}
    assert sum(row.dropped.get(reason, 0) for row in result.funnel) >= 100
