"""Images and texts encoded once, their nearest neighbours, and the matching scores of chosen pairs or of all.

Memory, for COCO's 5,000 images and 25,000 captions with X-VLM base at 384 px: similarities exist for 1,024 queries at a
time (100 MB); text tokens stay on the device (25,000 x 30 x 768 floats: 2.3 GB); image tokens wait on the host in the
precision of the model's pass (5,000 x 145 x 1,024 at 2 bytes: 1.5 GB), and only a batch of them is prepared at once.
Where all pairs are matched, their scores are kept besides (5,000 x 25,000 floats: 0.5 GB).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import count
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from crossgrain.data.records import Record
from crossgrain.models.interface import DualEncoder, Tokens
from crossgrain.tasks.interface import Track, Trained, untracked
from crossgrain.tasks.retrieval_heads import matcher

NOT_RANKED = -100.0  # the original's score of a candidate outside the top k
QUERIES_AT_ONCE = 1024  # rows of similarities in memory
CACHED_TOKENS = (
    1536  # of pairs that a CPU fuses at once; with more of them what a layer makes does not stay in its cache
)


@dataclass(frozen=True, kw_only=True)
class BatchSizes:
    """What bounds the memory of a retrieval: how much is encoded, prepared and fused at once."""

    images: int = 64
    texts: int = 256
    pairs: int = 256


@dataclass(frozen=True)
class Gallery:
    """I images and T texts, encoded."""

    keys: list[str]  # of the images
    texts: list[str]
    image_of_text: list[int]
    image_tokens: Tokens  # on the host
    text_tokens: Tokens  # on the device
    image_embeddings: Float[Tensor, "I E"] | None  # None where the model has no such space
    text_embeddings: Float[Tensor, "T E"] | None

    @cached_property
    def texts_of_image(self) -> list[list[int]]:
        """The texts of each image."""
        texts: list[list[int]] = [[] for _ in self.keys]
        for text, image in enumerate(self.image_of_text):
            texts[image].append(text)
        return texts

    @cached_property
    def asked(self) -> Int[np.ndarray, " Q"]:
        """The images that have a text; the others are candidates only."""
        return np.flatnonzero([len(texts) > 0 for texts in self.texts_of_image])

    @cached_property
    def truths(self) -> tuple[list[list[int]], list[list[int]]]:
        """The right candidates of each query: of each text, and of each image that is asked."""
        return [[image] for image in self.image_of_text], [self.texts_of_image[image] for image in self.asked]

    @cached_property
    def names(self) -> tuple[list[str], list[str]]:
        """What the candidates are called: images by their keys, texts KEY#N."""
        numbers = [count() for _ in self.keys]
        return self.keys, [f"{self.keys[image]}#{next(numbers[image])}" for image in self.image_of_text]


class Neighbours(NamedTuple):
    """The most similar candidates of each query, best first."""

    index: Int[Tensor, "Q K"]
    similarity: Float[Tensor, "Q K"]
    rank: Int[Tensor, " Q"]  # of the best right candidate among all candidates, from 0, behind wrong ones as similar


def encode_gallery(
    trained: Trained,
    records: Sequence[Record],
    captions_per_image: int | None,
    sizes: BatchSizes,
    track: Track = untracked,
) -> Gallery | None:
    """Encode every image, and its first captions (all of them for None), in batches; None where there is no caption."""
    model = trained.model
    keys: list[str] = []
    texts: list[str] = []
    image_of_text: list[int] = []
    image_tokens, image_embeddings = [], []
    for batch, image in trained.images(records, sizes.images, track):
        for record in batch:
            captions = record.captions[:captions_per_image]
            image_of_text.extend([len(keys)] * len(captions))
            texts.extend(captions)
            keys.append(record.key)
        with trained.autocast():
            tokens = model.encode_image(image)
            if isinstance(model, DualEncoder):
                image_embeddings.append(model.embed_image(tokens).float())
        # fusing computes with image tokens in this precision anyway: nothing is lost by waiting in it
        image_tokens.append(Tokens(tokens.x.to("cpu", trained.precision), tokens.mask.cpu()))
    if not texts:
        return None
    text_tokens, text_embeddings = [], []
    for start in track(range(0, len(texts), sizes.texts), "encode texts"):
        with trained.autocast():
            tokens = model.encode_text(trained.texts(texts[start : start + sizes.texts]))
            if isinstance(model, DualEncoder):
                text_embeddings.append(model.embed_text(tokens).float())
        text_tokens.append(tokens)
    return Gallery(
        keys,
        texts,
        image_of_text,
        _join(image_tokens),
        _join(text_tokens),
        torch.cat(image_embeddings) if image_embeddings else None,
        torch.cat(text_embeddings) if text_embeddings else None,
    )


def _join(parts: list[Tokens]) -> Tokens:
    """One table of rows, padded to the longest part."""
    longest = max(part.x.shape[1] for part in parts)
    pad = nn.functional.pad
    x = torch.cat([pad(part.x, (0, 0, 0, longest - part.x.shape[1])) for part in parts])
    return Tokens(x, torch.cat([pad(part.mask, (0, longest - part.mask.shape[1])) for part in parts]))


def nearest(
    queries: Float[Tensor, "Q E"], candidates: Float[Tensor, "C E"], truth: Sequence[Sequence[int]], count: int
) -> Neighbours:
    """The `count` most similar candidates of each query (all of a smaller gallery), and how far down the truth is."""
    longest = max(map(len, truth))
    padded = torch.tensor([[*right, *[right[0]] * (longest - len(right))] for right in truth], device=queries.device)
    real = torch.tensor([[place < len(right) for place in range(longest)] for right in truth], device=queries.device)
    parts = []
    for rows in torch.arange(len(queries), device=queries.device).split(QUERIES_AT_ONCE):
        similarity = queries[rows] @ candidates.T
        right = similarity.gather(1, padded[rows])
        best = right.amax(1, keepdim=True)
        before = (similarity >= best).sum(1) - ((right == best) & real[rows]).sum(1)
        top = similarity.topk(min(count, len(candidates)), dim=1)
        parts.append((top.indices.cpu(), top.values.cpu(), before.cpu()))
    return Neighbours(*(torch.cat(column) for column in zip(*parts, strict=True)))


def match_pairs(
    trained: Trained,
    image_tokens: Tokens,
    text_tokens: Tokens,
    pairs: Int[np.ndarray, "P 2"],
    sizes: BatchSizes,
    track: Track = untracked,
) -> Float[np.ndarray, " P"]:
    """The raw logit of "matched" for pairs of (image row, text row), which must be sorted by image.

    The model's body runs in the precision of training, the head in float32: bfloat16 logits would tie where the order
    matters most.
    """
    image, text = pairs.T
    lengths = text_tokens.mask.sum(1).cpu().numpy()
    scores = np.empty(len(pairs), dtype=np.float32)
    for start in track(range(0, len(image_tokens.x), sizes.images), "match pairs"):
        here = slice(*np.searchsorted(image, (start, start + sizes.images)))
        if here.start < here.stop:
            few = _rows(image_tokens, np.arange(start, min(start + sizes.images, len(image_tokens.x))))
            scores[here] = _match(trained, few, text_tokens, image[here] - start, text[here], lengths, sizes.pairs)
    return scores


def match_all(
    trained: Trained, image_tokens: Tokens, text_tokens: Tokens, sizes: BatchSizes, track: Track = untracked
) -> Float[np.ndarray, "I T"]:
    """The raw logit of "matched" for every image with every text; computed as by `match_pairs`.

    Images with as many tokens as each other are taken together, so that few of their batches' tokens are padding.
    """
    num_images, num_texts = len(image_tokens.x), len(text_tokens.x)
    lengths = text_tokens.mask.sum(1).cpu().numpy()
    by_length = np.argsort(_ends(image_tokens.mask).numpy(), kind="stable")
    scores = np.empty((num_images, num_texts), dtype=np.float32)
    for start in track(range(0, num_images, sizes.images), "match all pairs"):
        rows = by_length[start : start + sizes.images]
        image, text = np.divmod(np.arange(len(rows) * num_texts), num_texts)
        matched = _match(trained, _rows(image_tokens, rows), text_tokens, image, text, lengths, sizes.pairs)
        scores[rows] = matched.reshape(-1, num_texts)
    return scores


def _ends(mask: Bool[Tensor, "I N"]) -> Int[Tensor, " I"]:
    """Where the last real token of each image is, or its first where none is real."""
    return (mask * torch.arange(mask.shape[1])).amax(1)


def _rows(tokens: Tokens, rows: Int[np.ndarray, " K"]) -> Tokens:
    """Some rows without the padding that all of them share; one token is left of images in which there is none."""
    few = tokens.take(torch.from_numpy(rows))
    return _cut(few, 1 + int(_ends(few.mask).max()))


def _cut(tokens: Tokens, length: int) -> Tokens:
    return Tokens(tokens.x[:, :length], tokens.mask[:, :length], tokens.memory)


def _match(
    trained: Trained,
    images: Tokens,
    text_tokens: Tokens,
    image: Int[np.ndarray, " P"],
    text: Int[np.ndarray, " P"],
    lengths: Int[np.ndarray, " T"],
    pairs_at_once: int,
) -> Float[np.ndarray, " P"]:
    """The logits of pairs of (row of `images`, row of `text_tokens`).

    What is prepared of an image is prepared once. Pairs are ordered by the length of their texts and cut to the
    longest of their batch.
    """
    model, match, device = trained.model, matcher(trained.objectives).match, trained.device  # type: ignore[union-attr]
    scores = np.empty(len(text), dtype=np.float32)
    with trained.autocast():
        prepared = model.prepare(Tokens(images.x.to(device), images.mask.to(device)))
    image_ends = _ends(images.mask).numpy()
    if device.type == "cpu":
        pairs_at_once = min(pairs_at_once, max(1, CACHED_TOKENS // (images.x.shape[1] + int(lengths.mean()))))
    by_length = np.argsort(lengths[text], kind="stable")
    for rows in np.split(by_length, range(pairs_at_once, len(by_length), pairs_at_once)):
        words = torch.from_numpy(text[rows]).to(device)
        texts = _cut(Tokens(text_tokens.x[words], text_tokens.mask[words]), int(lengths[text[rows]].max()))
        seen = prepared.take(torch.from_numpy(image[rows]).to(device))
        if seen.memory is None:
            seen = _cut(seen, 1 + int(image_ends[image[rows]].max()))
        with trained.autocast():
            cls = model.fuse(seen, texts).cls
        scores[rows] = match(cls.float())[:, 1].cpu().numpy()
    return scores


def rerank(
    trained: Trained,
    image_tokens: Tokens,
    text_tokens: Tokens,
    images_of_text: Sequence[Int[np.ndarray, " _"]],
    texts_of_image: Sequence[Int[np.ndarray, " _"]],
    queried_images: Int[np.ndarray, " Q"],
    sizes: BatchSizes,
    track: Track = untracked,
) -> tuple[list[Float[np.ndarray, " _"]], list[Float[np.ndarray, " _"]]]:
    """Matching scores of each text with its nearest images, and of each queried image with its nearest texts.

    A pair that stands in both lists is computed once.
    """
    num_texts = len(text_tokens.x)
    # a pair as one number: image first
    lists = [images * num_texts + text for text, images in enumerate(images_of_text)]
    lists += [image * num_texts + texts for image, texts in zip(queried_images, texts_of_image, strict=True)]
    numbers, place = np.unique(np.concatenate(lists), return_inverse=True)
    pairs = np.stack(np.divmod(numbers, num_texts), axis=1)
    scores = match_pairs(trained, image_tokens, text_tokens, pairs, sizes, track)[place]
    found = np.split(scores, np.cumsum([len(pairs) for pairs in lists])[:-1])
    return found[:num_texts], found[num_texts:]


def score_matrices(
    trained: Trained,
    image_tokens: Tokens,
    text_tokens: Tokens,
    similarity: Float[Tensor, "I T"],
    k: int,
    sizes: BatchSizes = BatchSizes(),
) -> tuple[Float[np.ndarray, "I T"], Float[np.ndarray, "T I"]]:
    """(score_i2t, score_t2i) as Retrieval.evaluation returns them: -100 outside each query's top k.

    For small galleries and for comparison with the original; `Retrieval` never makes these matrices.
    """
    num_images, num_texts = similarity.shape
    images_of_text = similarity.T.topk(min(k, num_images), dim=1).indices.cpu().numpy()
    texts_of_image = similarity.topk(min(k, num_texts), dim=1).indices.cpu().numpy()
    t2i, i2t = (np.full(shape, NOT_RANKED, dtype=np.float32) for shape in ((num_texts, num_images), similarity.shape))
    with trained.answering():
        to_image, to_text = rerank(
            trained, image_tokens, text_tokens, list(images_of_text), list(texts_of_image), np.arange(num_images), sizes
        )
    np.put_along_axis(t2i, images_of_text, np.stack(to_image), axis=1)
    np.put_along_axis(i2t, texts_of_image, np.stack(to_text), axis=1)
    return i2t, t2i
