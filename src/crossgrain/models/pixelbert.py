"""Pixel-BERT (Huang et al., 2020, arXiv:2004.00849).

One BERT over [CLS] words [SEP] pixels. A pixel is a cell of the last feature map of a CNN that is trained with the
rest, from images alone: no detector, no boxes. All words see all pixels and all pixels all words.

In pre-training each image shows a hundred of its pixels, drawn anew each time; afterwards all of them
(`sampled_pixels`). What one pass is asked for: hidden words (objectives/mlm.py) and whether text and image belong
together (objectives/itm.py). The paper has no public code. Where it is silent: docs/pixelbert.md.

Shape letters: B pairs, I images, L words, R x K cells, P pixels that are seen, D width.
"""

from dataclasses import replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from crossgrain.config import Count, configclass
from crossgrain.data.types import Pixels
from crossgrain.models.interface import Grid, Tokens
from crossgrain.models.single_stream import StreamConfig, StreamModel, rows_of_images
from crossgrain.nn.cnn import CNN
from crossgrain.nn.transformer import take_positions


class PixelBERT(StreamModel):
    """The body: words and pixels as tokens of one sequence."""

    reads = "pixels"

    @configclass
    class Config(StreamConfig):
        cnn: CNN.Config = CNN.Config()
        sampled_pixels: Count | None = 100  # drawn of each image in training mode; null for fine-tuning: all of them
        # Learned positions of rows and columns, as ClipBERT adds them; the paper's pixels have none.
        pixel_positions: bool = False
        max_cells: Count = 32  # rows and columns that have a position
        # LayerNorm over each pixel, as in SOHO and ClipBERT; the paper's sum has none.
        normalised_pixels: bool = False

        def from_scratch(self) -> "PixelBERT.Config":
            """The same architecture without published weights to read, for a checkpoint that brings its own."""
            return replace(self, bert=None, cnn=replace(self.cnn, weights=None))

    def __init__(self, config: Config):
        super().__init__(config)
        c = config
        self.config = c
        self.cnn = CNN(c.cnn)
        self.projection = nn.Linear(self.cnn.num_channels, c.dim, bias=False)
        self.semantic = nn.Embedding(1, c.dim)  # the one vector that tells pixels from words, and the projection's bias
        self.row = nn.Embedding(c.max_cells, c.dim) if c.pixel_positions else None
        self.column = nn.Embedding(c.max_cells, c.dim) if c.pixel_positions else None
        self.norm = nn.LayerNorm(c.dim, eps=1e-12) if c.normalised_pixels else nn.Identity()
        self.dropout = nn.Dropout(c.dropout)
        new = (self.projection, self.semantic, self.row, self.column, self.norm)
        self.initialise(c, *(part for part in new if part is not None))

    def new_parameters(self) -> set[str]:
        """What neither BERT nor a published CNN has: all between the last feature map and the first layer."""
        parts = ("projection.", "semantic.", "row.", "column.", "norm.")
        return {name for name, _ in self.named_parameters() if name.startswith(parts)}

    def enable_activation_checkpointing(self) -> None:
        """Keep only the inputs of layers and of the CNN's blocks, and compute the rest again in the backward pass."""
        super().enable_activation_checkpointing()
        self.cnn.enable_activation_checkpointing()

    def encode_image(self, image: Pixels) -> Tokens:
        """(B, P, D): the pixels of each pair's image, which is encoded once however many texts speak about it."""
        cells = self.cnn(image)
        _, rows, columns, _ = cells.x.shape
        x, mask = cells.x.flatten(1, 2), cells.mask.flatten(1)
        at = None
        if self.training and self.config.sampled_pixels is not None and self.config.sampled_pixels < rows * columns:
            at = draw_pixels(mask, self.config.sampled_pixels)
            x, mask = take_positions(x, at), mask.gather(1, at)
        x = self.projection(x) + self.semantic.weight[0]
        if self.row is not None and self.column is not None:
            x = x + self.positions(rows, columns, at)
        return rows_of_images(self.dropout(self.norm(x)), mask, image.image)

    def grid(self, image: Pixels) -> Grid:
        """The cells of the last feature map."""
        return Grid.of(image, self.cnn.stride)

    def positions(self, rows: int, columns: int, at: Int[Tensor, "I P"] | None) -> Float[Tensor, "... P D"]:
        """The vectors of a cell's row and column, for all cells or for those at `at` (row by row)."""
        assert self.row is not None and self.column is not None
        if max(rows, columns) > self.config.max_cells:
            raise ValueError(f"{rows} x {columns} cells, but model.max_cells is {self.config.max_cells}")
        table = self.row.weight[:rows, None] + self.column.weight[None, :columns]
        table = table.flatten(0, 1)
        return table if at is None else table[at]


def draw_pixels(mask: Bool[Tensor, "I P"], count: int) -> Int[Tensor, "I {count}"]:
    """`count` different cells of each image, evenly drawn from those that hold some of it.

    An image with fewer gets cells of the empty canvas for the rest, whose mask is False: shapes are fixed.
    """
    scores = torch.rand(mask.shape, device=mask.device).masked_fill(~mask, -1.0)
    return scores.topk(count, dim=1).indices
