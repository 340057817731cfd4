"""ITM, image-text matching: tell a pair from the same text or concept with a wrong partner."""

from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from pydantic import Field
from torch import Tensor, nn

from crossgrain.config import Share, configclass
from crossgrain.data.types import Pixels
from crossgrain.models.interface import DualEncoder, VisionLanguageModel
from crossgrain.nn.transformer import mlp_head
from crossgrain.objectives.interface import Loss, Variant, Views, accuracy, drawn_rows, mean_where
from crossgrain.objectives.itc import embeddings, same_concept, similarities

# X-VLM's two layers, one as in ImageBERT and Pixel-BERT, or BERT's pooler (Linear, tanh) before that one, as in
# VL-BERT's sentence-image relationship.
HeadForm = Literal["mlp", "linear", "pooler"]


def matching_head(form: HeadForm, dim: int) -> nn.Module:
    """Logits of (wrong, matched) from a fused [CLS]."""
    if form == "mlp":
        return mlp_head(dim, 2)
    linear = nn.Linear(dim, 2)
    return linear if form == "linear" else nn.Sequential(nn.Linear(dim, dim), nn.Tanh(), linear)


class ITM(nn.Module):
    """Binary matching on the fused [CLS], in one of three ways.

    "hard" and "random": each pair, each text with a wrong concept, each concept with a wrong text. Hard negatives are
    drawn among this process's rows in proportion to softmax(similarity / temperature) + 1e-5, wrong images first
    (X-VLM, section 3.3; xvlm.py:400-456); rows that speak about the same concept are never negatives.

    "swapped": some rows came with the text of another image already (`pairs.swapped` in a recipe), so that one pass
    over the batch serves matching and all that is hidden in it. Rows of text alone are not asked.

    "balanced": each pair as it is, which shares the pass of what is hidden, and each image with the text of the pair
    half a batch further. Every image and every text is asked once right and once wrong, so that neither alone tells
    anything: from scratch this is learnt where half of the rows "swapped" at random is noise for a thousand steps
    (docs/pixelbert.md).
    """

    @configclass
    class Config:
        weight: float = 1.0
        negatives: Literal["hard", "random", "swapped", "balanced"] = "hard"
        image: Variant = "clean"  # which variant of each side is matched; "masked" shares the pass of hidden tokens
        text: Variant = "clean"
        head: HeadForm = "mlp"
        # Of the hard negatives, the share that is drawn evenly instead. None as published, from pre-trained encoders;
        # from scratch, nothing but near misses teaches a matching head nothing at first.
        random_share: Share = 0.0
        # Negatives of the same grain only: images for an image's text, regions for a region's. In a batch of both, a
        # short phrase beside a whole picture gives itself away. The original keeps the grains in batches of their own.
        same_grain: bool = False
        # The share of a batch's pairs that is asked, with negatives from all of it: matching reads three texts for
        # every pair, as many as all other objectives together. 1 as published.
        asked: Annotated[float, Field(gt=0, le=1)] = 1.0

    def __init__(self, config: Config, model: VisionLanguageModel):
        super().__init__()
        if config.negatives == "hard" and not isinstance(model, DualEncoder):
            raise ValueError(
                f"itm draws hard negatives by similarity, which {type(model).__name__} does not have: "
                "write negatives: random, swapped or balanced"
            )
        self.config = config
        self.head = matching_head(config.head, model.dim)

    def match(self, cls: Float[Tensor, "B D"]) -> Float[Tensor, "B 2"]:
        """Logits of (wrong, matched), in float32."""
        return self.head(cls).float()

    def forward(self, views: Views) -> Loss:
        if self.config.negatives == "swapped":
            return self.forward_swapped(views)
        if self.config.negatives == "balanced":
            return self.forward_balanced(views)
        image, text = views.image(self.config.image), views.text(self.config.text)
        wrong_image, wrong_text = self.draw_negatives(views)
        rows = drawn_rows(len(text.x), self.config.asked, text.x.device)
        if rows is None:
            rows = torch.arange(len(text.x), device=text.x.device)
        else:
            wrong_image, wrong_text = wrong_image[rows], wrong_text[rows]
        images = image.take(torch.cat([rows, wrong_image, rows]))
        texts = text.take(torch.cat([rows, rows, wrong_text]))
        logits = self.match(views.model.fuse(images, texts).cls)  # (3B, 2)
        label = torch.zeros(len(logits), dtype=torch.long, device=logits.device)
        label[: len(rows)] = 1
        right = (logits.argmax(1) == label).float().mean()
        return Loss(F.cross_entropy(logits, label), {"accuracy": right.detach()})

    def forward_swapped(self, views: Views) -> Loss:
        """The loss of the rows as they came."""
        matched = views.batch.targets["itm"].label
        asked = torch.ones_like(matched) if views.batch.paired is None else views.batch.paired
        return self.judge(views.fused(self.config.image, self.config.text).cls, matched, asked)

    def forward_balanced(self, views: Views) -> Loss:
        """The loss of the pairs, and of each image with the text of another; twins of its own text are not asked.

        Nor are rows of text alone.
        """
        group, ids = views.batch.group, views.batch.text["clean"].ids
        other = torch.arange(len(group), device=group.device).roll(len(group) // 2)
        wrong = (group != group[other]) & (ids != ids[other]).any(1)
        right = views.fused(self.config.image, self.config.text)
        text = views.text(self.config.text).take(other)
        mixed = views.model.fuse(views.image(self.config.image), text)
        matched = torch.cat([torch.ones_like(wrong), torch.zeros_like(wrong)])
        paired = torch.ones_like(wrong) if views.batch.paired is None else views.batch.paired
        asked = torch.cat([paired, wrong & paired & paired[other]])
        return self.judge(torch.cat([right.cls, mixed.cls]), matched, asked)

    def judge(self, cls: Float[Tensor, "B D"], matched: Bool[Tensor, " B"], asked: Bool[Tensor, " B"]) -> Loss:
        """The mean over the rows that are asked."""
        logits, label = self.match(cls), matched.long()
        loss = F.cross_entropy(logits, label, reduction="none")
        return Loss(mean_where(loss, asked), {"accuracy": accuracy(logits, label, asked)})

    @torch.no_grad()
    def draw_negatives(self, views: Views) -> tuple[Int[Tensor, " B"], Int[Tensor, " B"]]:
        """For each text a wrong image row, and for each image a wrong text row."""
        same = same_concept(views.batch.group)
        if self.config.same_grain:
            image = views.batch.image["clean"]
            assert isinstance(image, Pixels), "only pixels have grains"
            whole = image.whole_rows()
            same = same | (whole[:, None] != whole[None, :])
        if self.config.negatives == "random":
            flat = torch.zeros(same.shape, device=same.device)
            return draw(flat, same), draw(flat, same)
        image, text = (x.detach() for x in embeddings(views))
        similarity = similarities(image, text, views.dual_encoder.temperature)
        share = self.config.random_share
        return draw(similarity.T, same, share), draw(similarity, same, share)


def draw(similarity: Float[Tensor, "B B"], same: Bool[Tensor, "B B"], random_share: float = 0.0) -> Int[Tensor, " B"]:
    """For each row another column, with probability as `negative_weights` says."""
    return negative_weights(similarity, same, random_share).multinomial(1).squeeze(1)


def negative_weights(
    similarity: Float[Tensor, "B B"], same: Bool[Tensor, "B B"], random_share: float = 0.0
) -> Float[Tensor, "B B"]:
    """Softmax over each row, plus 1e-5, without the columns of the same concept; `random_share` of it spread evenly.

    A row that is alone with its own concept keeps them: a batch of one concept has nothing else to offer.
    """
    even = random_share / similarity.shape[1] + 1e-5
    weights = ((1 - random_share) * similarity.float().softmax(1) + even).masked_fill(same, 0.0)
    alone = (weights.sum(1, keepdim=True) == 0).expand_as(weights)
    return weights.masked_fill(alone, 1.0)
