"""X-VLM (Zeng et al., 2022, arXiv:2111.08276).

Three transformers: an image encoder, a text encoder, and a cross-modal encoder in which text attends to the image.
What is different here: a *visual concept* is an object, a region or the whole image, and all of them are sets of
patches of one encoded image. So one pass over the pixels serves every text that speaks about some part of them, and
alignment is learnt at every grain at once. The text and the cross-modal encoder are the two halves of one BERT.

An image's keys and values for every cross-attention layer are computed once (`prepare`) and shared by all that is
asked of the pair: matching with hard negatives, masked words, boxes.

Shape letters: B concepts (pairs), I images, L words, P patches, W width of the image encoder, D width of the text,
E embedding size, K rows that meet.
"""

from dataclasses import replace
from functools import partial
from typing import Annotated, Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor, nn

from crossgrain.config import Choice, Count, Share, config_owner, configclass
from crossgrain.data.types import Pixels, Text
from crossgrain.models.interface import DualEncoder, Fused, Grid, Tokens
from crossgrain.nn.decoding import Past, causal_mask
from crossgrain.nn.embeddings import BertEmbedding
from crossgrain.nn.lengths import Grouped, Last, groups_by_length, run_by_length
from crossgrain.nn.rows import take_rows
from crossgrain.nn.transformer import BertLayer, CrossAttention, LastLayer, initialise_bert, key_mask, run_layers
from crossgrain.nn.vision import VISION_ENCODERS, Concepts, Swin


class ImageMemory(NamedTuple):
    """What cross-attention reads of an image side: per layer, keys and values of summaries and of patches.

    Row k attends to [summary[own[k]]; patches[row[k]]]. The first `len(whole_cls)` summaries and patch encodings are
    those of the whole images; row k belongs to `image[k]` of them.
    """

    layers: tuple[tuple[Float[Tensor, "S 1 Z"], Float[Tensor, "U P Z"]], ...]
    own: Int[Tensor, " K"]
    row: Int[Tensor, " K"]
    image: Int[Tensor, " K"]
    concepts: Concepts

    def take(self, rows: Int[Tensor, " M"]) -> "ImageMemory":
        """The same memory, met by these rows."""
        own, row, image = (index.index_select(0, rows) for index in (self.own, self.row, self.image))
        return ImageMemory(self.layers, own, row, image, self.concepts)


class XVLM(DualEncoder):
    """The body: three encoders, two projections, a temperature. Heads belong to the objectives."""

    @configclass
    class Config:
        vision: Annotated[Any, Choice(VISION_ENCODERS)] = Swin.Config()
        dim: Count = 768
        num_heads: Count = 12
        mlp_dim: Count = 3072
        text_depth: Count = 6
        cross_depth: Count = 6
        vocab_size: Count | None = None  # None: as many as the vocabulary of the recipe has
        max_length: Count = 512  # positions that the text encoder has
        embedding_dim: Count = 256
        temperature: Annotated[float, Field(gt=0)] = 0.07  # initial value, learned
        dropout: Share = 0.1
        attention_dropout: Share = 0.1
        # Standard deviation of the first weights. BERT's 0.02 is for its width of 768. A narrow text encoder that
        # starts with about 1 / sqrt(width) tells texts apart from the first step on, and learns to compare sooner.
        text_initializer_range: Annotated[float, Field(gt=0)] = 0.02
        cross_initializer_range: Annotated[float, Field(gt=0)] = 0.02
        bert: str | None = None  # initialise both text halves from a BERT folder, file or hub name

        def __post_init__(self) -> None:
            if self.dim % self.num_heads:
                raise ValueError(f"dim {self.dim} is not a multiple of num_heads {self.num_heads}")

        def from_scratch(self) -> "XVLM.Config":
            """The same architecture without published weights to read, for a checkpoint that brings its own."""
            return replace(self, bert=None, vision=replace(self.vision, weights=None))

    def __init__(self, config: Config):
        super().__init__()
        c = config
        if c.vocab_size is None:
            raise ValueError("vocab_size is not set: give the number of words of the vocabulary")
        self.config = c
        self.dim = c.dim
        self.checkpointing = False

        self.vision = config_owner(c.vision)(c.vision)
        self.text_embedding = BertEmbedding(c.dim, vocab_size=c.vocab_size, max_length=c.max_length, dropout=c.dropout)
        layer = partial(
            BertLayer, c.dim, c.num_heads, c.mlp_dim, dropout=c.dropout, attention_dropout=c.attention_dropout
        )
        self.text_layers = nn.ModuleList(layer() for _ in range(c.text_depth))
        self.cross_layers = nn.ModuleList(layer(context_dim=self.vision.dim) for _ in range(c.cross_depth))
        self.image_projection = nn.Linear(self.vision.dim, c.embedding_dim)
        self.text_projection = nn.Linear(c.dim, c.embedding_dim)
        self.temperature = nn.Parameter(torch.tensor(c.temperature))
        self.initialise()

    def initialise(self) -> None:
        """Give every parameter its first value; the only place where that happens.

        | part                                     | from scratch                     | from `bert` / `vision.weights` |
        |------------------------------------------|----------------------------------|--------------------------------|
        | image encoder                            | Xavier (timm's `jax`)            | published Swin, DeiT or CLIP   |
        | text embedding, text and cross layers    | normal, biases 0, norms 1        | BERT layer i -> layer i        |
        | cross-attention of the cross layers      | normal, biases 0, norms 1        | the same: BERT has none        |
        | image and text projection                | torch's Linear default           | the same                       |
        | temperature                              | `temperature`                    | the same                       |
        """
        self.text_embedding.apply(initialise_bert)
        self.text_layers.apply(partial(initialise_bert, std=self.config.text_initializer_range))
        self.cross_layers.apply(partial(initialise_bert, std=self.config.cross_initializer_range))
        if self.config.bert is not None:
            from crossgrain.models.bert import load_bert

            load_bert(self.config.bert, self.text_embedding, [*self.text_layers, *self.cross_layers])

    @property
    def token_embedding(self) -> nn.Embedding:
        """The words' vectors."""
        return self.text_embedding.token

    @property
    def image_attention(self) -> list[CrossAttention]:
        """That of the cross layers."""
        return [layer.cross_attention for layer in self.cross_layers]  # type: ignore[misc]

    def grid(self, image: Pixels) -> Grid:
        """The patches, after Swin's merging."""
        return Grid.of(image, image.pixels.shape[2] / self.vision.grid[0])

    def new_parameters(self) -> set[str]:
        """What no pre-trained part covers: cross-attention, projections, temperature (xvlm.py, `init_params`)."""
        fresh = ("image_projection.", "text_projection.", "temperature")
        return {name for name, _ in self.named_parameters() if name.startswith(fresh) or ".cross_attention" in name}

    def enable_activation_checkpointing(self) -> None:
        """Keep only the inputs of layers in memory and compute the rest again in the backward pass."""
        self.checkpointing = self.vision.checkpointing = True

    def encode_image(self, image: Pixels) -> Tokens:
        """(B, 1 + P, W): each concept's summary and the patches of its image, those outside its box masked."""
        concepts = self.vision(image)
        x = torch.cat([concepts.cls[:, None], take_rows(concepts.patches, concepts.row)], dim=1)
        return Tokens(x, concepts.mask, concepts)

    def encode_text(self, text: Text) -> Tokens:
        """The words in their own context: (B, L, D)."""

        def run(x: Tensor, mask: Tensor) -> Tensor:
            return run_layers(self.text_layers, x, key_mask(mask), checkpoint=self.checkpointing)

        return Tokens(run_by_length(self.text_embedding(text), text.mask, run), text.mask)

    def prepare(self, image: Tokens) -> Tokens:
        """Project each image, and each concept's summary, to keys and values once for every layer."""
        concepts = image.memory if isinstance(image.memory, Concepts) else unshared(image)
        num_images = len(concepts.cls_whole)
        summaries = torch.cat([concepts.cls_whole, concepts.cls])[:, None]
        projections = [layer.cross_attention for layer in self.cross_layers]
        layers = tuple((p.memory(summaries), p.memory(concepts.patches)) for p in projections)  # type: ignore[union-attr]
        own = torch.arange(num_images, len(summaries), device=image.x.device)
        return Tokens(image.x, image.mask, ImageMemory(layers, own, concepts.row, concepts.image, concepts))

    def whole_image(self, image: Tokens, rows: Int[Tensor, " K"]) -> Tokens:
        """The whole images that the concepts of these rows are part of."""
        memory = image.memory
        assert isinstance(memory, ImageMemory), "call prepare first"
        whole, concepts = memory.image.index_select(0, rows), memory.concepts
        x = torch.cat([concepts.cls_whole[:, None], concepts.patches[: len(concepts.cls_whole)]], dim=1)
        mask = image.mask.new_ones(len(rows), image.mask.shape[1])
        return Tokens(x.index_select(0, whole), mask, ImageMemory(memory.layers, whole, whole, whole, concepts))

    def fuse(self, image: Tokens, text: Tokens) -> Fused:
        """Row k of the text attends to row k of the image; the image itself stays as it was encoded."""
        if not isinstance(image.memory, ImageMemory):
            image = self.prepare(image)
        groups = groups_by_length(text.mask)
        if groups is None:
            return Fused(self._meet(image, text), text.x.shape[1])
        lasts: list[Last] = []
        for rows, length in groups:
            few = text.take(rows)
            here = Tokens(image.x, image.mask.index_select(0, rows), image.memory.take(rows))  # x is not read any more
            lasts.append(self._meet(here, Tokens(few.x[:, :length], few.mask[:, :length])))
        return Fused(Grouped(lasts, groups, text.x.shape[1]), text.x.shape[1])

    def _meet(self, image: Tokens, text: Tokens) -> LastLayer:
        """All cross layers but the last, which waits for who looks at it."""
        memory: ImageMemory = image.memory
        text_mask, image_mask = key_mask(text.mask), key_mask(image.mask)
        contexts = _contexts(memory)
        *layers, last = self.cross_layers
        x = text.x
        for layer, context in zip(layers, contexts, strict=False):
            x = run_layers([layer], x, text_mask, context, image_mask, checkpoint=self.checkpointing)
        return LastLayer(last, x, text_mask, contexts[-1], image_mask, checkpoint=self.checkpointing)  # type: ignore[arg-type]

    def begin(self, image: Tokens) -> Past:
        """The image's keys and values of every cross layer."""
        if not isinstance(image.memory, ImageMemory):
            image = self.prepare(image)
        return Past(tuple(_contexts(image.memory)), image.mask)

    def extend(self, past: Past, text: Text) -> tuple[Float[Tensor, "B L D"], Past]:
        """More words, through the text layers and then the cross layers: the whole BERT as a decoder (section 4.4).

        As in the original's captioning (model_captioning.py; xbert.py:883-940).
        """
        mask, image_mask = causal_mask(text.mask, past.num_words), key_mask(past.image_mask)
        x, words = self.text_embedding.finished(self.text_embedding.summed(text, past.num_words)), []
        for number, layer in enumerate([*self.text_layers, *self.cross_layers]):
            words.append(past.joined(number, layer.attention.memory(x)))  # type: ignore[union-attr]
            crossed = number >= len(self.text_layers)
            context = (past.image[number - len(self.text_layers)], image_mask) if crossed else (None, None)
            x = run_layers([layer], x, mask, *context, words[-1], checkpoint=self.checkpointing)
        return x, past._replace(words=tuple(words))

    def embed_image(self, image: Tokens) -> Float[Tensor, "B E"]:
        """Unit vectors of the concepts, in float32."""
        # the same values as x[:, 0], whose backward pass would go through the patches too
        cls = image.memory.cls if isinstance(image.memory, Concepts) else image.x[:, 0]
        return F.normalize(self.image_projection(cls).float(), dim=-1)

    def embed_text(self, text: Tokens) -> Float[Tensor, "B E"]:
        """Unit vectors of the texts' [CLS], in float32."""
        return F.normalize(self.text_projection(text.x[:, 0]).float(), dim=-1)


def _contexts(memory: ImageMemory) -> list[Float[Tensor, "K N Z"]]:
    """What each row attends to in each cross layer."""
    return [
        torch.cat([take_rows(summaries, memory.own), take_rows(patches, memory.row)], dim=1)
        for summaries, patches in memory.layers
    ]


def unshared(image: Tokens) -> Concepts:
    """Tokens without memory (from a store, or from another encoder) as concepts that share nothing."""
    rows = torch.arange(len(image.x), device=image.x.device)
    cls = image.x[:, 0]
    return Concepts(cls, image.x[:, 1:], rows, image.mask, rows, cls)
