"""Texts find images and images find texts: similarity picks the nearest k, matching re-ranks them (X-VLM section 4.4).

What the original does query by query (Retrieval.py:70-149), in large batches: every image and every text is encoded
once, a pair that both directions ask for meets once, and pairs stand in the order of their images, so that what
`prepare` computes of an image is computed once (tasks/gallery.py, which also says what fits in memory).

A model without an embedding space has no similarity that could pick: all pairs are matched, as ImageBERT, VL-BERT and
Pixel-BERT are evaluated.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from crossgrain.config import configclass
from crossgrain.data.records import Record
from crossgrain.metrics.retrieval import CUTOFFS, chance_recall, recall, recall_interval
from crossgrain.models.interface import DualEncoder
from crossgrain.tasks.gallery import (
    NOT_RANKED,
    BatchSizes,
    Gallery,
    Neighbours,
    encode_gallery,
    match_all,
    nearest,
    rerank,
)
from crossgrain.tasks.interface import Line, Task, Track, Trained, per_cent, per_cent_range, untracked

KEPT = max(CUTOFFS)  # candidates that a line lists
DIRECTIONS = ("text_to_image", "image_to_text")
BOTH = "matching and similarity"  # what re-ranks in place of matching alone where a run asks for the sum
ALL_PAIRS = "all pairs"  # the protocol in which no similarity picks the candidates

Answers = tuple[Iterator[Line], Iterator[Line]]  # of texts that find images, and of images that find texts


class Retrieval(Task):
    """Recall at 1, 5 and 10 in both directions, with and without re-ranking.

    A line is one query: `ranked` names the ten best candidates, `scores` what they were re-ranked by (-100 where a
    candidate was not among the k re-ranked ones; these follow in the order of similarity), `truth` the right ones,
    `rank` the place of the best right one in the whole gallery, from 1. `..._without_rerank` holds the same by
    similarity alone.
    A text is named KEY#N. Without a matching objective, the similarity gives `ranked`, and there is nothing else;
    without an embedding space, the matching logits of all pairs do, and the line says so: {"protocol": "all pairs"}.
    With `rerank: sum` it says {"reranked_by": "matching and similarity"}.
    """

    name = "retrieval"

    @configclass
    class Config:
        """`k` nearest candidates are re-ranked (X-VLM: 256 for COCO, 128 for Flickr30k); it is clamped to the gallery.
        Where all pairs are matched, `k` means nothing.

        `captions_per_image: 1` takes the first caption of each image only. The batch sizes bound the memory.
        """

        k: int = 128
        # What orders the k: "matching" its logit alone, as the original does; "sum" that and similarity / temperature,
        # the logit that the contrastive objective was trained on. The sum is better where matching has learnt little.
        rerank: Literal["matching", "sum"] = "matching"
        captions_per_image: Literal[1, "all"] = "all"
        images_per_batch: int = 64
        texts_per_batch: int = 256
        pairs_per_batch: int = 256

    config: Config

    def missing(self, trained: Trained) -> str | None:
        if isinstance(trained.model, DualEncoder) or "itm" in trained.objectives:
            return None
        return "a model that embeds images and texts in one space, or a matching objective (itm)"

    def predict(self, trained: Trained, records: Sequence[Record], track: Track = untracked) -> Iterator[Line]:
        config = self.config
        sizes = BatchSizes(images=config.images_per_batch, texts=config.texts_per_batch, pairs=config.pairs_per_batch)
        captions = None if config.captions_per_image == "all" else config.captions_per_image
        with trained.answering():
            gallery = encode_gallery(trained, records, captions, sizes, track)
            if gallery is None:
                return
            search = self._by_similarity if isinstance(trained.model, DualEncoder) else _over_all_pairs
            to_image, to_text = search(trained, gallery, sizes, track)
        summed = self.config.rerank == "sum" and isinstance(trained.model, DualEncoder) and "itm" in trained.objectives
        how = {"reranked_by": BOTH} if summed else {}
        for name, text, answer in zip(gallery.names[1], gallery.texts, to_image, strict=True):
            yield {"direction": DIRECTIONS[0], "query": name, "text": text, **answer, **how}
        for image, answer in zip(gallery.asked, to_text, strict=True):
            yield {"direction": DIRECTIONS[1], "query": gallery.keys[image], **answer, **how}

    def _by_similarity(self, trained: Trained, gallery: Gallery, sizes: BatchSizes, track: Track) -> Answers:
        """The nearest candidates, re-ranked where the model can match."""
        images, texts, k = gallery.image_embeddings, gallery.text_embeddings, self.config.k
        assert images is not None and texts is not None
        asked, truths, kept = gallery.asked, gallery.truths, max(k, KEPT)
        found = nearest(texts, images, truths[0], kept), nearest(images[asked], texts, truths[1], kept)
        matched: tuple[Any, Any] = (None, None)
        if "itm" in trained.objectives:
            images_of_text, texts_of_image = (neighbours.index[:, :k].numpy() for neighbours in found)
            tokens = gallery.image_tokens, gallery.text_tokens
            matched = rerank(trained, *tokens, images_of_text, texts_of_image, asked, sizes, track)
            if self.config.rerank == "sum":
                temperature = trained.model.temperature.item()  # type: ignore[union-attr]
                matched = tuple(
                    logits + neighbours.similarity[:, :k].numpy() / temperature
                    for logits, neighbours in zip(matched, found, strict=True)
                )
        to_image, to_text = map(_answers, found, matched, truths, gallery.names)
        return to_image, to_text

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
        protocol = {key: lines[0][key] for key in ("protocol", "reranked_by") if key in lines[0]}
        return {**scores, **protocol, "gallery": gallery, "confidence_95": intervals, "chance": chance}


def _over_all_pairs(trained: Trained, gallery: Gallery, sizes: BatchSizes, track: Track) -> Answers:
    """Candidates by the matching logit of every pair."""
    scores = match_all(trained, gallery.image_tokens, gallery.text_tokens, sizes, track)
    to_image, to_text = map(_matched_answers, (scores.T, scores[gallery.asked]), gallery.truths, gallery.names)
    return to_image, to_text


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


def _matched_answers(
    scores: Float[np.ndarray, "Q C"], truths: Sequence[Sequence[int]], names: Sequence[str]
) -> Iterator[Line]:
    """What the lines of one direction say where every candidate was matched."""
    for row, truth in zip(scores, truths, strict=True):
        order = np.argsort(-row, kind="stable")
        found = _ranking(order, row[order], truth, len(order), names)
        yield {**found, "truth": [names[right] for right in truth], "gallery": len(names), "protocol": ALL_PAIRS}


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
