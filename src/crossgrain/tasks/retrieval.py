"""Texts find images and images find texts: similarity picks the nearest k, matching re-ranks them (X-VLM section 4.4).

What the original does query by query (Retrieval.py:70-149), in large batches: every image and every text is encoded
once, a pair that both directions ask for meets once, and pairs stand in the order of their images, so that what
`prepare` computes of an image is computed once (tasks/gallery.py, which also says what fits in memory).
"""

from collections.abc import Iterator, Sequence
from itertools import count
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from crossgrain.config import configclass
from crossgrain.data.records import Record
from crossgrain.metrics.retrieval import CUTOFFS, chance_recall, recall, recall_interval
from crossgrain.models.interface import DualEncoder
from crossgrain.tasks.gallery import NOT_RANKED, BatchSizes, Neighbours, encode_gallery, nearest, rerank
from crossgrain.tasks.interface import Line, Task, Track, Trained, per_cent, per_cent_range, untracked

KEPT = max(CUTOFFS)  # candidates that a line lists
DIRECTIONS = ("text_to_image", "image_to_text")


class Retrieval(Task):
    """Recall at 1, 5 and 10 in both directions, with and without re-ranking.

    A line is one query: `ranked` names the ten best candidates, `scores` their matching logits (-100 where a candidate
    was not among the k re-ranked ones; these follow in the order of similarity), `truth` the right ones, `rank` the
    place of the best right one in the whole gallery, from 1. `..._without_rerank` holds the same by similarity alone.
    A text is named KEY#N. Without a matching objective, the similarity gives `ranked`, and there is nothing else.
    """

    name = "retrieval"

    @configclass
    class Config:
        """`k` nearest candidates are re-ranked (X-VLM: 256 for COCO, 128 for Flickr30k); it is clamped to the gallery.

        `captions_per_image: 1` takes the first caption of each image only. The batch sizes bound the memory.
        """

        k: int = 128
        captions_per_image: Literal[1, "all"] = "all"
        images_per_batch: int = 64
        texts_per_batch: int = 256
        pairs_per_batch: int = 256

    config: Config

    def missing(self, trained: Trained) -> str | None:
        return None if isinstance(trained.model, DualEncoder) else "a model that embeds images and texts in one space"

    def predict(self, trained: Trained, records: Sequence[Record], track: Track = untracked) -> Iterator[Line]:
        config = self.config
        sizes = BatchSizes(images=config.images_per_batch, texts=config.texts_per_batch, pairs=config.pairs_per_batch)
        captions = None if config.captions_per_image == "all" else config.captions_per_image
        with trained.answering():
            gallery = encode_gallery(trained, records, captions, sizes, track)
            if gallery is None:
                return
            texts_of_image: list[list[int]] = [[] for _ in gallery.keys]
            for text, image in enumerate(gallery.image_of_text):
                texts_of_image[image].append(text)
            asked = np.flatnonzero([len(texts) > 0 for texts in texts_of_image])  # the others are candidates only
            truths = [[image] for image in gallery.image_of_text], [texts_of_image[image] for image in asked]
            images, texts = gallery.image_embeddings, gallery.text_embeddings
            kept = max(config.k, KEPT)
            found = nearest(texts, images, truths[0], kept), nearest(images[asked], texts, truths[1], kept)
            matched: tuple[Any, Any] = (None, None)
            if "itm" in trained.objectives:
                images_of_text, nearest_texts = (neighbours.index[:, : config.k].numpy() for neighbours in found)
                tokens = gallery.image_tokens, gallery.text_tokens
                matched = rerank(trained, *tokens, images_of_text, nearest_texts, asked, sizes, track)
        numbers = [count() for _ in gallery.keys]
        text_names = [f"{gallery.keys[image]}#{next(numbers[image])}" for image in gallery.image_of_text]
        to_image = _answers(found[0], matched[0], truths[0], gallery.keys)
        for name, text, answer in zip(text_names, gallery.texts, to_image, strict=True):
            yield {"direction": DIRECTIONS[0], "query": name, "text": text, **answer}
        for image, answer in zip(asked, _answers(found[1], matched[1], truths[1], text_names), strict=True):
            yield {"direction": DIRECTIONS[1], "query": gallery.keys[image], **answer}

    @staticmethod
    def score(lines: Sequence[Line]) -> dict[str, Any]:
        groups = {name: [line for line in lines if line["direction"] == name] for name in DIRECTIONS}
        scores, intervals = _recalls(groups, "ranked")
        if "ranked_without_rerank" in lines[0]:
            scores["without_rerank"], intervals["without_rerank"] = _recalls(groups, "ranked_without_rerank")
        candidates = {name: group[0]["gallery"] for name, group in groups.items()}
        chance = {
            name: per_cent(chance_recall(candidates[name], [len(line["truth"]) for line in group]))
            for name, group in groups.items()
        }
        gallery = {"images": candidates["text_to_image"], "texts": candidates["image_to_text"]}
        return {**scores, "gallery": gallery, "confidence_95": intervals, "chance": chance}


def _answers(
    found: Neighbours, matched: Float[np.ndarray, "Q K"] | None, truths: Sequence[Sequence[int]], names: Sequence[str]
) -> Iterator[Line]:
    """What the lines of one direction say about their candidates."""
    for query, truth in enumerate(truths):
        candidates, similarity = found.index[query].numpy(), found.similarity[query].numpy()
        shared = {"truth": [names[right] for right in truth], "gallery": len(names)}
        by_similarity = _ranking(candidates, similarity, truth, int(found.rank[query]), names)
        if matched is None:
            yield {**by_similarity, **shared}
            continue
        order = np.argsort(-matched[query], kind="stable")  # equal logits keep the order of similarity
        rest = candidates[len(order) :]
        scores = np.concatenate([matched[query][order], np.full(len(rest), NOT_RANKED, dtype=np.float32)])
        reranked = np.concatenate([candidates[order], rest])
        best = _ranking(reranked, scores, truth, int(found.rank[query]), names)
        yield {**best, **shared, **{f"{name}_without_rerank": value for name, value in by_similarity.items()}}


def _ranking(
    candidates: np.ndarray, scores: np.ndarray, truth: Sequence[int], rank_among_all: int, names: Sequence[str]
) -> Line:
    """The best candidates; a right one that is not among all the ordered ones has its rank by similarity."""
    right = np.flatnonzero(np.isin(candidates, truth))
    return {
        "ranked": [names[candidate] for candidate in candidates[:KEPT]],
        "scores": [round(float(score), 6) for score in scores[:KEPT]],
        "rank": 1 + (int(right[0]) if len(right) else rank_among_all),
    }


def _recalls(groups: dict[str, list[Line]], ranking: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Recall of each direction and its interval, from the lists of candidates."""
    scores, intervals = {}, {}
    for name, lines in groups.items():
        ranks = np.array([_place(line[ranking], line["truth"]) for line in lines])
        scores[name] = per_cent(recall(ranks))
        intervals[name] = per_cent_range(recall_interval(ranks))
    return scores, intervals


def _place(ranked: Sequence[str], truth: Sequence[str]) -> int:
    """Where the first right candidate stands, from 0; past the end where none of the listed ones is right."""
    right = set(truth)
    return next((place for place, name in enumerate(ranked) if name in right), len(ranked))
