"""VL-BERT (Su et al., ICLR 2020, arXiv:1908.08530).

One BERT over [CLS] words [SEP] regions [END], where every element carries a visual feature: a region its own, a word
that of the whole image, which is the first region. A region's visual feature says what it looks like and where it is;
its word is [IMG]. A text without an image carries a learned stand-in.

The original packs words, regions and [END] of each sample without a gap. Here they keep their places and a mask leaves
out the padding between them: attention does not know the order, and positions count as if there were no gap.

A word that names a region carries that region's feature instead of the whole image's, where a text says which one it
names (`Text.tags`; VCR).

Hidden words and hidden regions are predicted from one pass (objectives/mlm.py, objectives/region_class.py). Differences
between the paper and its code: docs/vlbert.md.

Shape letters: B pairs, I images, L words, N regions (the first of them the whole image), F size of a region's feature,
D width.
"""

from dataclasses import replace
from typing import Annotated, Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor, nn

from crossgrain.config import Count, configclass
from crossgrain.data.types import RawRegions, Regions, Text
from crossgrain.models.interface import Fused, Reads, Tokens
from crossgrain.models.single_stream import StreamConfig, StreamModel, rows_of_images
from crossgrain.nn.embeddings import VisualFeatureEmbedding, mean_where
from crossgrain.nn.fast_rcnn import FastRCNN

SEGMENT_C = 2  # of regions and [END]; texts are A (0) and B (1)
WRITTEN = 20  # words of a text that is being written; pre-training has texts of that length, and longer ones seldom


class Looks(NamedTuple):
    """What words that name a region read of the image side: the visual features of I images, and which is whose."""

    visual: Float[Tensor, "I N D"]  # before their normalisation, which words and regions have each their own
    image: Int[Tensor, " B"]

    def take(self, rows: Int[Tensor, " K"]) -> "Looks":
        """The same images, met by these rows."""
        return Looks(self.visual, self.image.index_select(0, rows))

    def of(self, tags: Int[Tensor, "B L"]) -> Float[Tensor, "B L D"]:
        """The feature of the region that each word names; the whole image's for -1."""
        return self.visual[self.image.clamp(min=0)[:, None], tags.clamp(min=0)]


class Tags(NamedTuple):
    """Which region each word of the text side names, -1 for none."""

    tags: Int[Tensor, "B L"]

    def take(self, rows: Int[Tensor, " K"]) -> "Tags":
        """Those of these rows."""
        return Tags(self.tags.index_select(0, rows))


class VLBERT(StreamModel):
    """The body. Base is the default; large has dim 1024, depth 24, num_heads 16 and mlp_dim 4096."""

    whole_image_first = True

    @configclass
    class Config(StreamConfig):
        feature_dim: Count = 2048  # of stored features; a backbone has its own
        geometry_dim: Annotated[int, Field(ge=8, multiple_of=8)] = 2048  # of the geometry embedding
        # Which four numbers of a box are embedded: "official" centre and sides, "paper" two corners.
        geometry: Literal["official", "paper"] = "official"
        visual_scale: float = 0.0  # first weight of the visual LayerNorms: training starts from BERT as it was
        # The whole image's feature where regions are hidden: the "mean" of those that are not (what the original does
        # with stored features), or as it is "given" (by a detector that looked at the whole image).
        whole_image: Literal["mean", "given"] = "mean"
        fast_rcnn: FastRCNN.Config | None = None  # make the features from pixels, and train what makes them along

        @property
        def reads(self) -> Reads:
            """Stored regions, or pixels with boxes where the backbone is trained along."""
            return "regions" if self.fast_rcnn is None else "raw_regions"

        def from_scratch(self) -> "VLBERT.Config":
            """The same architecture without published weights to read, for a checkpoint that brings its own."""
            backbone = None if self.fast_rcnn is None else replace(self.fast_rcnn, weights=None)
            return replace(self, bert=None, fast_rcnn=backbone)

    def __init__(self, config: Config):
        super().__init__(config, num_segments=3)
        c = config
        self.config = c
        self.reads = c.reads
        self.fast_rcnn = None if c.fast_rcnn is None else FastRCNN(c.fast_rcnn)
        self.feature_dim = c.feature_dim if self.fast_rcnn is None else self.fast_rcnn.feature_dim
        self.visual_embedding = VisualFeatureEmbedding(
            c.dim,
            feature_dim=self.feature_dim,
            geometry_dim=c.geometry_dim,
            form="centre" if c.geometry == "official" else "corners",
            dropout=c.dropout,
        )
        self.word_visual_norm = nn.LayerNorm(c.dim, eps=1e-12)
        self.region_visual_norm = nn.LayerNorm(c.dim, eps=1e-12)
        self.region_word = nn.Parameter(torch.empty(c.dim))  # [IMG]
        self.hidden_region_word = nn.Parameter(torch.empty(c.dim))
        # from pixels, a region is hidden in the image itself
        self.hidden_feature = nn.Parameter(torch.zeros(c.feature_dim)) if self.fast_rcnn is None else None
        self.visual_of_text_alone = nn.Parameter(torch.empty(c.dim))
        self.end = nn.Parameter(torch.empty(c.dim))  # [END]
        self.initialise_all()

    def initialise_all(self) -> None:
        """Give every parameter its first value; the only place where that happens.

        | part                                       | from scratch              | from `bert`                        |
        |--------------------------------------------|---------------------------|------------------------------------|
        | words, positions, layers, their norms      | normal, biases 0, norms 1 | BERT's                             |
        | segments A, B                              | normal                    | BERT's                             |
        | segment C, [IMG], [END], hidden region's   | normal                    | the same: BERT has none            |
        | word, visual feature of text alone         |                           |                                    |
        | weights of the visual norms                | `visual_scale`, 0         | the same                           |
        | hidden region's feature                    | 0                         | the same                           |
        | visual feature embedding                   | torch's Linear default    | the same                           |
        | backbone                                   | FastRCNN's own            | `fast_rcnn.weights`                |
        """
        c = self.config
        self.initialise(c)
        segment_c = self.text_embedding.segment.weight[SEGMENT_C]
        for vector in (segment_c, self.region_word, self.hidden_region_word, self.visual_of_text_alone, self.end):
            nn.init.normal_(vector.data, std=c.initializer_range)
        for norm in (self.word_visual_norm, self.region_visual_norm):
            nn.init.constant_(norm.weight, c.visual_scale)

    def new_parameters(self) -> set[str]:
        """What neither BERT nor the backbone covers."""
        covered = ("text_embedding.", "stream.", "fast_rcnn.")
        return {name for name, _ in self.named_parameters() if not name.startswith(covered)}

    def encode_image(self, image: Regions | RawRegions) -> Tokens:
        """(B, 1 + N, D): what the image adds to every word of its text, then the regions up to their position."""
        regions = self.described(image)
        visual = self.visual_embedding(self.features(regions), regions.boxes)
        hidden = regions.mask.new_zeros(regions.mask.shape) if regions.hidden is None else regions.hidden
        word = torch.where(hidden[..., None], self.hidden_region_word, self.region_word)
        x = self.region_visual_norm(visual) + word + self.text_embedding.segment.weight[SEGMENT_C]
        tokens = rows_of_images(x, regions.mask, regions.image)
        whole = visual[:, 0].index_select(0, regions.image.clamp(min=0))
        whole = torch.where((regions.image >= 0)[:, None], whole, self.visual_of_text_alone)
        on_words = self.word_visual_norm(whole)[:, None]
        always = tokens.mask.new_ones(len(tokens.mask), 1)
        x, mask = torch.cat([on_words, tokens.x], dim=1), torch.cat([always, tokens.mask], dim=1)
        return Tokens(x, mask, Looks(visual, regions.image))

    def described(self, image: Regions | RawRegions) -> Regions:
        """Regions with their features; from pixels these are computed here."""
        if isinstance(image, Regions):
            return image
        assert self.fast_rcnn is not None, "pixels need model.fast_rcnn"
        return self.fast_rcnn(image)

    def features(self, regions: Regions) -> Float[Tensor, "I N F"]:
        """Appearance features, with a learned vector where a region is hidden; its pixels are hidden already.

        The whole image, the mean of stored features, would give hidden regions away: it is the mean of the others
        (conceptual_captions.py:182-190).
        """
        features, hidden = regions.features.float(), regions.hidden  # they are stored in half precision
        if hidden is None or self.hidden_feature is None:
            return features
        if self.config.whole_image == "mean":
            whole = mean_where(features[:, 1:], (regions.mask & ~hidden)[:, 1:])
            features = torch.cat([whole[:, None], features[:, 1:]], dim=1)
        return torch.where(hidden[..., None], self.hidden_feature, features)

    def encode_text(self, text: Text) -> Tokens:
        """(B, L, D): word, position and segment, summed. What the image adds comes before they are normalised."""
        num_words = text.ids.shape[1]
        if num_words + 2 > self.config.max_length:
            raise ValueError(f"{num_words} words need max_length {num_words + 2}, it is {self.config.max_length}")
        return Tokens(self.text_embedding.summed(text), text.mask, None if text.tags is None else Tags(text.tags))

    def on_words(self, image: Tokens, text: Tokens) -> Float[Tensor, "B #L D"]:
        """What the image adds to each word: the whole image, or the region that the word names.

        In the original too, every piece of a name has the feature (resnet_vlbert_for_vcr.py:149-163, 304-306).
        """
        whole = image.x[:, :1]
        if not isinstance(text.memory, Tags):
            return whole
        assert isinstance(image.memory, Looks), "words that name regions need the image as it was encoded"
        tags = text.memory.tags
        return torch.where(tags[..., None] >= 0, self.word_visual_norm(image.memory.of(tags)), whole)

    def fuse(self, image: Tokens, text: Tokens) -> Fused:
        """One pass over words, regions and [END]; `Fused.image` holds the regions and, as the last one, [END].

        All regions share one position, the number of words; [END] has the next one (visual_linguistic_bert.py:221-227).
        """
        words = text.x + self.on_words(image, text)
        behind = self.behind(image, text.mask.sum(1))
        x = self.text_embedding.finished(torch.cat([words, behind.x], dim=1))
        return self.stream(x, torch.cat([text.mask, behind.mask], dim=1), text.x.shape[1])

    def behind(self, image: Tokens, num_words: Int[Tensor, " B"]) -> Tokens:
        """The regions and [END] behind this many words, before they are normalised."""
        position = self.text_embedding.position
        regions = image.x[:, 1:] + position(num_words)[:, None]
        end = self.end + self.text_embedding.segment.weight[SEGMENT_C] + position(num_words + 1)
        there = image.mask.new_ones(len(image.mask), 1)
        return Tokens(torch.cat([regions, end[:, None]], dim=1), torch.cat([image.mask[:, 1:], there], dim=1))

    def apart(self, image: Tokens) -> tuple[Float[Tensor, "B 1 D"], Tokens]:
        """The regions and [END] of a text that is still to be written: behind the longest, as far as the model knows.

        Where they stand in a text that is read tells its length, which a text that is written must not know.
        """
        last = min(WRITTEN, self.config.max_length - 2)
        behind = self.behind(image, torch.full_like(image.mask[:, 0], last, dtype=torch.long))
        return image.x[:, :1], behind._replace(x=self.text_embedding.finished(behind.x))

    def enable_activation_checkpointing(self) -> None:
        """Keep only the inputs of layers in memory and compute the rest again in the backward pass."""
        super().enable_activation_checkpointing()
        if self.fast_rcnn is not None:
            self.fast_rcnn.enable_activation_checkpointing()
