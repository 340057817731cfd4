"""Texts find images and images find texts: similarity picks the nearest k, matching re-ranks them (X-VLM section 4.4).

What the original does query by query (Retrieval.py:70-149), in large batches: every image and every text is encoded
once, a pair that both directions ask for meets once, and pairs stand in the order of their images, so that what
`prepare` computes of an image is computed once (tasks/gallery.py, which also says what fits in memory).

A model without an embedding space has no similarity that could pick: all pairs are matched, as ImageBERT, VL-BERT and
Pixel-BERT are evaluated, or those that another run has picked (`prefilter`, tasks/candidates.py).

COCO's 5K protocol asks the whole test split, its 1K protocol five folds of it, each a gallery of its own (`folds: 5`).
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from operator import add
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from jaxtyping import Float
from pydantic import Field
from torch import nn

from crossgrain.config import Choice, Count, config_owner, configclass
from crossgrain.data.records import Record
from crossgrain.data.text import Tokenizer
from crossgrain.metrics.retrieval import CUTOFFS, chance_recall, recall, recall_interval
from crossgrain.models.interface import DualEncoder, VisionLanguageModel
from crossgrain.tasks.candidates import Listed, read_candidates
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
from crossgrain.tasks.retrieval_heads import HEADS, matcher, published_head

KEPT = max(CUTOFFS)  # candidates that a line lists at least
DIRECTIONS = ("text_to_image", "image_to_text")
BOTH = "matching and similarity"  # what re-ranks in place of matching alone where a run asks for the sum
ALL_PAIRS = "all pairs"  # the protocol in which no similarity picks the candidates
PREFILTERED = "pre-filtered"  # the one in which another run does

Answers = tuple[Iterator[Line], Iterator[Line]]  # of texts that find images, and of images that find texts


class Retrieval(Task):
    """Recall at 1, 5 and 10 in both directions, with and without re-ranking.

    A line is one query: `ranked` names the ten best candidates, `scores` what they were re-ranked by (-100 where a
    candidate was not among the k re-ranked ones; these follow in the order of similarity), `truth` the right ones,
    `rank` the place of the best right one in the whole gallery, from 1. `..._without_rerank` holds the same by
    similarity alone.
    A text is named KEY#N. Without a matching objective, the similarity gives `ranked`, and there is nothing else;
    without an embedding space, the matching logits of all pairs do, and the line says so: {"protocol": "all pairs"}.
    With `rerank: sum` it says {"reranked_by": "matching and similarity"}. With `folds`, it has the number of its fold.
    """

    name = "retrieval"
    texts = "captions"

    @configclass
    class Config:
        """`k` nearest candidates are re-ranked (X-VLM: 256 for COCO, 128 for Flickr30k); it is clamped to the gallery.
        Where all pairs are matched, `k` means nothing.

        `captions_per_image: 1` takes the first caption of each image only. The batch sizes bound the memory.
        """

        # What fine-tuning trains (tasks/retrieval_heads.py); null: as published for the model.
        head: Annotated[Any, Choice(HEADS)] | None = None
        k: Count = 128
        # What orders the k: "matching" its logit alone, as the original does; "sum" that and similarity / temperature,
        # the logit that the contrastive objective was trained on. The sum is better where matching has learnt little.
        rerank: Literal["matching", "sum"] = "matching"
        captions_per_image: Literal[1, "all"] = "all"
        folds: Annotated[int, Field(ge=2)] | None = None  # equal parts of the split, asked one by one; scores are means
        # A run that was evaluated on the same data, or its predictions.jsonl: a model without an embedding space
        # matches only the k best candidates of each query in it. That run lists 10 of them, or `listed`.
        prefilter: str | None = None
        listed: Annotated[int, Field(ge=KEPT)] = KEPT  # candidates that a line names
        images_per_batch: Count = 64
        texts_per_batch: Count = 256
        pairs_per_batch: Count = 256

    config: Config

    def head(self, model: VisionLanguageModel, tokenizer: Tokenizer) -> nn.Module:
        config = self.config.head or published_head(model)
        return config_owner(config)(config, model)

    def missing(self, trained: Trained) -> str | None:
        if isinstance(trained.model, DualEncoder) or matcher(trained.objectives) is not None:
            return None
        return "a model that embeds images and texts in one space, or a matching objective (itm, ranking)"

    def predict(self, trained: Trained, records: Sequence[Record], track: Track = untracked) -> Iterator[Line]:
        if self.config.folds is None:
            yield from self._predict(trained, records, track)
            return
        ends = [len(records) * number // self.config.folds for number in range(self.config.folds + 1)]
        for number, (start, stop) in enumerate(pairwise(ends)):
            for line in self._predict(trained, _Part(records, range(start, stop)), track):
                yield {**line, "fold": number}

    def _predict(self, trained: Trained, records: Sequence[Record], track: Track) -> Iterator[Line]:
        """The answers over one gallery."""
        config = self.config
        sizes = BatchSizes(images=config.images_per_batch, texts=config.texts_per_batch, pairs=config.pairs_per_batch)
        captions = None if config.captions_per_image == "all" else config.captions_per_image
        with trained.answering():
            gallery = encode_gallery(trained, records, captions, sizes, track)
            if gallery is None:
                return
            search = self._by_similarity if isinstance(trained.model, DualEncoder) else self._by_matching
            to_image, to_text = search(trained, gallery, sizes, track)
        can_match = matcher(trained.objectives) is not None
        summed = self.config.rerank == "sum" and isinstance(trained.model, DualEncoder) and can_match
        how = {"reranked_by": BOTH} if summed else {}
        for name, text, answer in zip(gallery.names[1], gallery.texts, to_image, strict=True):
            yield {"direction": DIRECTIONS[0], "query": name, "text": text, **answer, **how}
        for image, answer in zip(gallery.asked, to_text, strict=True):
            yield {"direction": DIRECTIONS[1], "query": gallery.keys[image], **answer, **how}

    def _by_similarity(self, trained: Trained, gallery: Gallery, sizes: BatchSizes, track: Track) -> Answers:
        """The nearest candidates, re-ranked where the model can match."""
        images, texts, k = gallery.image_embeddings, gallery.text_embeddings, self.config.k
        assert images is not None and texts is not None
        asked, truths, kept = gallery.asked, gallery.truths, max(k, self.config.listed)
        found = nearest(texts, images, truths[0], kept), nearest(images[asked], texts, truths[1], kept)
        matched: tuple[Any, Any] = (None, None)
        if matcher(trained.objectives) is not None:
            images_of_text, texts_of_image = (list(neighbours.index[:, :k].numpy()) for neighbours in found)
            tokens = gallery.image_tokens, gallery.text_tokens
            matched = rerank(trained, *tokens, images_of_text, texts_of_image, asked, sizes, track)
            if self.config.rerank == "sum":
                temperature = trained.model.temperature.item()  # type: ignore[union-attr]
                similar = [list(neighbours.similarity[:, :k].numpy() / temperature) for neighbours in found]
                matched = list(map(add, matched[0], similar[0])), list(map(add, matched[1], similar[1]))
        to_image, to_text = map(self._answers, found, matched, truths, gallery.names)
        return to_image, to_text

    def _by_matching(self, trained: Trained, gallery: Gallery, sizes: BatchSizes, track: Track) -> Answers:
        """Candidates by the matching logit of every pair, or of those that another run has picked."""
        tokens, truths, names = (gallery.image_tokens, gallery.text_tokens), gallery.truths, gallery.names
        if self.config.prefilter is None:
            scores = match_all(trained, *tokens, sizes, track)
            to_image, to_text = map(self._matched, (list(scores.T), list(scores[gallery.asked])), truths, names)
            return to_image, to_text
        listed = read_candidates(Path(self.config.prefilter), gallery, self.config.k)
        images_of_text, texts_of_image = (queries.candidates for queries in listed)
        matched = rerank(trained, *tokens, images_of_text, texts_of_image, gallery.asked, sizes, track)
        to_image, to_text = map(self._matched, matched, truths, names, listed)
        return to_image, to_text

    def _answers(
        self,
        found: Neighbours,
        matched: Sequence[Float[np.ndarray, " _"]] | None,
        truths: Sequence[Sequence[int]],
        names: Sequence[str],
    ) -> Iterator[Line]:
        """What the lines of one direction say about their candidates."""
        for query, truth in enumerate(truths):
            candidates, similarity = found.index[query].numpy(), found.similarity[query].numpy()
            shared = {"truth": [names[right] for right in truth], "gallery": len(names)}
            rank = int(found.rank[query])
            by_similarity = self._ranking(candidates, similarity, truth, rank, names)
            if matched is None:
                yield {**by_similarity, **shared}
                continue
            order = np.argsort(-matched[query], kind="stable")  # equal logits keep the order of similarity
            rest = candidates[len(order) :]
            scores = np.concatenate([matched[query][order], np.full(len(rest), NOT_RANKED, dtype=np.float32)])
            best = self._ranking(np.concatenate([candidates[order], rest]), scores, truth, rank, names)
            yield {**best, **shared, **{f"{name}_without_rerank": value for name, value in by_similarity.items()}}

    def _matched(
        self,
        scores: Sequence[Float[np.ndarray, " _"]],
        truths: Sequence[Sequence[int]],
        names: Sequence[str],
        listed: Listed | None = None,
    ) -> Iterator[Line]:
        """What the lines of one direction say where every candidate was matched, or those that are listed."""
        protocol = ALL_PAIRS if listed is None else PREFILTERED
        for query, (row, truth) in enumerate(zip(scores, truths, strict=True)):
            order = np.argsort(-row, kind="stable")
            candidates = order if listed is None else listed.candidates[query][order]
            rank = len(order) if listed is None else listed.rank[query]
            found = self._ranking(candidates, row[order], truth, rank, names)
            yield {**found, "truth": [names[right] for right in truth], "gallery": len(names), "protocol": protocol}

    def _ranking(
        self,
        candidates: np.ndarray,
        scores: np.ndarray,
        truth: Sequence[int],
        rank_among_all: int,
        names: Sequence[str],
    ) -> Line:
        """The best candidates; a right one that is not among all the ordered ones has its rank by similarity."""
        right, listed = np.flatnonzero(np.isin(candidates, truth)), self.config.listed
        return {
            "ranked": [names[candidate] for candidate in candidates[:listed]],
            "scores": [round(float(score), 6) for score in scores[:listed]],
            "rank": 1 + (int(right[0]) if len(right) else rank_among_all),
        }

    @staticmethod
    def score(lines: Sequence[Line]) -> dict[str, Any]:
        folds = _grouped(lines, "fold")
        directions = [_grouped(fold, "direction") for fold in folds.values()]
        scores, intervals = _recalls(directions, "ranked")
        if "ranked_without_rerank" in lines[0]:
            scores["without_rerank"], intervals["without_rerank"] = _recalls(directions, "ranked_without_rerank")
        chance = {name: per_cent(_mean([_chance(groups[name]) for groups in directions])) for name in DIRECTIONS}
        sizes = {name: float(np.mean([groups[name][0]["gallery"] for groups in directions])) for name in DIRECTIONS}
        gallery = {"images": round(sizes["text_to_image"]), "texts": round(sizes["image_to_text"])}
        protocol = {key: lines[0][key] for key in ("protocol", "reranked_by") if key in lines[0]}
        parts = {"folds": len(folds)} if "fold" in lines[0] else {}
        return {**scores, **protocol, **parts, "gallery": gallery, "confidence_95": intervals, "chance": chance}


class _Part(Sequence[Record]):
    """Some records in a row, still read one at a time."""

    def __init__(self, records: Sequence[Record], places: range):
        self.records, self.places = records, places

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> Record:  # pyright: ignore[reportIncompatibleMethodOverride] - no slices
        return self.records[self.places[index]]


def _grouped(lines: Sequence[Line], key: str) -> dict[Any, list[Line]]:
    """The lines by what they say under `key`."""
    groups: dict[Any, list[Line]] = {}
    for line in lines:
        groups.setdefault(line.get(key), []).append(line)
    return groups


def _chance(lines: Sequence[Line]) -> dict[str, float]:
    return chance_recall(lines[0]["gallery"], [len(line["truth"]) for line in lines])


def _mean(shares: Sequence[dict[str, float]]) -> dict[str, float]:
    return {name: float(np.mean([share[name] for share in shares])) for name in shares[0]}


def _recalls(folds: Sequence[dict[str, list[Line]]], ranking: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Recall of each direction as a mean over the folds, from the lists of candidates, and its interval."""
    scores, intervals = {}, {}
    for name in DIRECTIONS:
        ranks = [np.array([_place(line[ranking], line["truth"]) for line in fold[name]]) for fold in folds]
        scores[name] = per_cent(_mean([recall(fold) for fold in ranks]))
        intervals[name] = per_cent_range(recall_interval(np.concatenate(ranks)))
    return scores, intervals


def _place(ranked: Sequence[str], truth: Sequence[str]) -> int:
    """Where the first right candidate stands, from 0; past the end where none of the listed ones is right."""
    right = set(truth)
    return next((place for place, name in enumerate(ranked) if name in right), max(KEPT, len(ranked)))
