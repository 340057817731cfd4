"""VL-BERT in miniature, and batches as its data side makes them: region 0 is the whole image, some texts are alone."""

from dataclasses import replace

import torch

from crossgrain.data.types import Batch
from crossgrain.models.vlbert import VLBERT
from crossgrain.objectives.mlm import MLM
from crossgrain.objectives.region_class import RegionClass
from crossgrain.training.learner import Learner
from tiny_models import WORDS
from tiny_regions import CLASSES, FEATURE, PAIRS, region_batch

ALONE = 2  # rows of text alone, the last ones


def vlbert_config(**changes) -> VLBERT.Config:
    widths = {"dim": 16, "depth": 3, "num_heads": 2, "mlp_dim": 32, "feature_dim": FEATURE, "geometry_dim": 32}
    rest = {"vocab_size": WORDS, "max_length": 16, "dropout": 0.0, "attention_dropout": 0.0, "visual_scale": 1.0}
    return VLBERT.Config(**{**widths, **rest, **changes})


def tiny_vlbert(seed: int = 0, **changes) -> VLBERT:
    """In evaluation mode, with larger weights than fresh ones: what it computes differs clearly."""
    torch.manual_seed(seed)
    model = VLBERT(vlbert_config(**changes)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if not name.startswith("fast_rcnn.") and parameter.dim() > 1:
                parameter.mul_(4)
            elif parameter.shape == (model.dim,) and "norm" not in name:
                parameter.normal_(std=0.3)
    return model


def vlbert_learner(seed: int = 0, **changes) -> Learner:
    """The tiny model with both objectives of the paper on one pass, ready to be trained."""
    model = tiny_vlbert(seed, **changes)
    classes = RegionClass.Config(num_classes=CLASSES, soft=True, head="transform")
    objectives = {"mlm": MLM(MLM.Config(image="masked"), model), "region_class": RegionClass(classes, model)}
    return Learner(model, objectives).train()


def vlbert_batch(seed: int = 0) -> Batch:
    """Four pairs, in which words and regions are hidden together, and two texts without an image."""
    batch = region_batch(seed)
    words, regions = batch.targets["mlm"], batch.targets["regions"]
    image = torch.arange(PAIRS).where(torch.arange(PAIRS) < PAIRS - ALONE, -1)
    label = batch.text["clean"].ids.gather(1, words.position)
    hidden = batch.text["clean"].ids.scatter(1, words.position, 4)
    return replace(
        batch,
        image={name: replace(side, image=image) for name, side in batch.image.items()},
        text=batch.text | {"masked": replace(batch.text["clean"], ids=hidden)},
        targets={"mlm": replace(words, label=label), "regions": regions},
        paired=image >= 0,
    )
