"""A trained run of this library as the scorer of collected pairs: similarity of a dual encoder, or a matching head.

It lives outside `crossgrain.collect`, which is free of torch and finds it by name.
"""

import hashlib
import io
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import PIL.Image
import torch
from jaxtyping import Float
from torch import Tensor

from crossgrain.collect.scoring.interface import PairScorer
from crossgrain.config import Count, UserError, configclass
from crossgrain.data.collate import pad_texts
from crossgrain.data.images import ImageError
from crossgrain.data.records import Record
from crossgrain.models.interface import DualEncoder, Tokens
from crossgrain.recipes import Run, load_run
from crossgrain.tasks.retrieval_heads import matcher

Method = Literal["similarity", "matching"]


class CheckpointScorer(PairScorer):
    """A run folder asked about pairs; each image and each text is encoded once.

    "similarity" keeps the embedding of each side and scores their cosine, -1 to 1. "matching" keeps each side's tokens
    (for X-VLM base at 384 px 600 kB an image), and scores the probability that the matching head gives to the pair;
    every family that reads pixels and was trained with such a head has it.
    """

    @configclass
    class Config:
        """`run` is a folder that pre-training or fine-tuning has written; without `method`, similarity where it can."""

        run: Path
        which: Literal["latest", "best"] = "latest"
        method: Method | None = None
        device: str | None = None  # a GPU where there is one
        images_per_batch: Count = 64
        texts_per_batch: Count = 256
        pairs_per_batch: Count = 256

    def __init__(self, config: "CheckpointScorer.Config"):
        self.config = config
        run = load_run(Path(config.run), config.which, config.device)
        self.method: Method = _method(run, config)
        self.lowest = -1.0 if self.method == "similarity" else 0.0
        # every image has a canvas of one shape, whatever stands beside it
        image = replace(run.recipe.image, canvas="largest")
        self._trained = replace(run, recipe=replace(run.recipe, image=image)).trained()
        self._length = run.recipe.text.max_tokens
        self._run = run

    def fingerprint(self) -> str:
        """Of the checkpoint's weights, the vocabulary and what is asked of them."""
        run, recipe, digest = self._run, self._run.recipe, hashlib.sha256()
        digest.update(repr((self.method, recipe.image, replace(recipe.text, vocab=""), recipe.model)).encode())
        digest.update("\n".join(run.tokenizer.tokens).encode())
        for name, value in sorted(run.learner.state_dict().items()):
            digest.update(name.encode())
            digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()

    def image_features(self, images: Sequence[bytes]) -> Float[np.ndarray, "N F"]:
        """Float32 embeddings, or the tokens of each image with their mask."""
        rows: list[Float[np.ndarray, " F"] | None] = []
        with self._trained.answering():
            for start in range(0, len(images), self.config.images_per_batch):
                rows += self._encode_images(images[start : start + self.config.images_per_batch])
        size = next((len(row) for row in rows if row is not None), 1)
        unusable = np.full(size, np.nan, dtype=np.float32)
        return np.stack([unusable if row is None else row for row in rows]) if rows else np.zeros((0, 1), np.float32)

    def text_features(self, texts: Sequence[str]) -> Float[np.ndarray, "M G"]:
        """Float32 embeddings, or the tokens of each text with their mask."""
        trained, rows = self._trained, []
        with trained.answering():
            for start in range(0, len(texts), self.config.texts_per_batch):
                ids = [trained.tokenize(text) for text in texts[start : start + self.config.texts_per_batch]]
                with trained.autocast():
                    tokens = trained.model.encode_text(pad_texts(ids, self._length, trained.pad).to(trained.device))
                    rows.append(self._kept(tokens, "text"))
        return np.concatenate(rows) if rows else np.zeros((0, 1), np.float32)

    def score(self, images: Float[np.ndarray, "K F"], texts: Float[np.ndarray, "K G"]) -> Float[np.ndarray, " K"]:
        scores = np.full(len(images), self.lowest, dtype=np.float32)
        usable = np.flatnonzero(~np.isnan(images[:, 0])) if len(images) else np.zeros(0, dtype=np.int64)
        if self.method == "similarity":
            scores[usable] = np.einsum("kf,kf->k", images[usable], texts[usable])
            return scores
        with self._trained.answering():
            for start in range(0, len(usable), self.config.pairs_per_batch):
                rows = usable[start : start + self.config.pairs_per_batch]
                scores[rows] = self._match(images[rows], texts[rows])
        return scores

    def _encode_images(self, images: Sequence[bytes]) -> list[Float[np.ndarray, " F"] | None]:
        """Rows of a batch; where a file of it is no usable image, the others are encoded one by one."""
        trained = self._trained
        try:
            read = trained.read_images([Record(key=str(n), image=data) for n, data in enumerate(images)])
        except ImageError:
            if len(images) == 1:
                return [None]
            return [row for data in images for row in self._encode_images([data])]
        with trained.autocast():
            tokens = trained.model.encode_image(read.to(trained.device))
            return list(self._kept(tokens, "image"))

    def _kept(self, tokens: Tokens, side: Literal["image", "text"]) -> Float[np.ndarray, "B F"]:
        """What is kept of a side: its embedding, or its tokens and then their mask."""
        model = self._trained.model
        if self.method == "similarity":
            assert isinstance(model, DualEncoder)
            return _numpy((model.embed_image if side == "image" else model.embed_text)(tokens))
        return np.concatenate([_numpy(tokens.x.flatten(1)), _numpy(tokens.mask)], axis=1)

    def _match(self, images: Float[np.ndarray, "K F"], texts: Float[np.ndarray, "K G"]) -> Float[np.ndarray, " K"]:
        trained = self._trained
        head = matcher(trained.objectives)
        assert head is not None
        with trained.autocast():
            seen = trained.model.prepare(self._tokens(images, self._num_image_tokens))
            cls = trained.model.fuse(seen, self._tokens(texts, self._length)).cls
        return _numpy(head.match(cls.float()).softmax(dim=1)[:, 1])

    def _tokens(self, rows: Float[np.ndarray, "K F"], num_tokens: int) -> Tokens:
        """The inverse of what `_kept` writes."""
        table = torch.from_numpy(np.ascontiguousarray(rows)).to(self._trained.device)
        x, mask = table.split([rows.shape[1] - num_tokens, num_tokens], dim=1)
        return Tokens(x.reshape(len(rows), num_tokens, -1), mask > 0.5)

    @cached_property
    def _num_image_tokens(self) -> int:
        """Of the canvas that all images have: learnt from a grey picture."""
        picture = io.BytesIO()
        PIL.Image.new("RGB", (64, 64), (128, 128, 128)).save(picture, "PNG")
        read = self._trained.read_images([Record(key="grey", image=picture.getvalue())])
        return self._trained.model.encode_image(read.to(self._trained.device)).x.shape[1]


def _method(run: Run, config: CheckpointScorer.Config) -> Method:
    """What the run can be asked; UserError with the reason where it cannot be."""
    model, where = run.learner.model, f"{config.run} cannot score pairs"
    if model.reads != "pixels":
        name = type(model).__name__
        raise UserError(f"{where}: {name} reads a detector's regions, which collected images do not have")
    if run.recipe.blind:
        raise UserError(f"{where}: its images show nothing (a blind baseline)")
    able: dict[Method, bool] = {
        "similarity": isinstance(model, DualEncoder),
        "matching": matcher(run.trained().objectives) is not None,
    }
    choices: list[Method] = [name for name, can in able.items() if can]
    if not choices:
        raise UserError(f"{where}: it has no embedding space and no matching head (objectives itm, ranking)")
    if config.method is not None and not able[config.method]:
        raise UserError(f"{where} by {config.method}: it can by {choices[0]}")
    return config.method or choices[0]


def _numpy(values: Tensor) -> np.ndarray:
    return values.float().cpu().numpy()
