"""ImageBERT in miniature, and batches of regions as the collator makes them."""

from dataclasses import replace

import torch

from crossgrain.data.types import Batch, Hidden, HiddenRegions, Matched, Regions, Text
from crossgrain.models.imagebert import ImageBERT
from crossgrain.objectives.itm import ITM
from crossgrain.objectives.mlm import MLM
from crossgrain.objectives.region_class import RegionClass
from crossgrain.objectives.region_feature import RegionFeature
from crossgrain.training.learner import Learner
from tiny_models import CLS, MASK, PAD, WORDS

PAIRS, REGIONS, FEATURE, CLASSES, LENGTH = 6, 5, 7, 9, 8


def imagebert_config(**changes) -> ImageBERT.Config:
    widths = {"dim": 16, "depth": 3, "num_heads": 2, "mlp_dim": 32, "feature_dim": FEATURE}
    rest = {"vocab_size": WORDS, "max_length": 16, "dropout": 0.0, "attention_dropout": 0.0}
    return ImageBERT.Config(**{**widths, **rest, **changes})


def tiny_imagebert(seed: int = 0, **changes) -> ImageBERT:
    """In evaluation mode, with weights four times as large as fresh ones: what it computes differs clearly."""
    torch.manual_seed(seed)
    model = ImageBERT(imagebert_config(**changes)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(4)
    return model


def imagebert_learner(seed: int = 0, **changes) -> Learner:
    """The tiny model with the four objectives of the paper, all on one pass, ready to be trained."""
    model = tiny_imagebert(seed, **changes)
    objectives = {
        "mlm": MLM(MLM.Config(image="masked"), model),
        "region_class": RegionClass(RegionClass.Config(num_classes=CLASSES), model),
        "region_feature": RegionFeature(RegionFeature.Config(), model),
        "itm": ITM(ITM.Config(negatives="swapped", image="masked", text="masked", head="linear"), model),
    }
    return Learner(model, objectives).train()


def region_batch(seed: int = 0) -> Batch:
    """Six pairs: 0 and 1 hide words, 2 and 3 regions, 4 and 5 have another image's text and predict nothing else.

    Some words and regions are padding. A chosen region of pair 3 is not hidden: it is predicted in plain sight.
    """
    draw = torch.Generator().manual_seed(seed)
    ids = torch.randint(5, WORDS, (PAIRS, LENGTH), generator=draw)
    ids[:, 0] = CLS
    words = torch.arange(LENGTH) < torch.tensor([8, 5, 6, 8, 4, 7])[:, None]
    ids = ids.where(words, PAD)
    low = torch.rand(PAIRS, REGIONS, 2, generator=draw) / 2
    boxes = torch.cat([low, low + 0.1 + torch.rand(PAIRS, REGIONS, 2, generator=draw) / 3], -1)
    mask = torch.arange(REGIONS) < torch.tensor([5, 3, 5, 4, 5, 2])[:, None]
    features = torch.randn(PAIRS, REGIONS, FEATURE, generator=draw).half()
    labels = torch.randint(0, CLASSES, (PAIRS, 2), generator=draw)

    position = torch.tensor([[1, 3]]).repeat(PAIRS, 1)
    words_masked = torch.tensor([True, True, False, False, False, False])[:, None]
    regions_masked = torch.tensor([False, False, True, True, False, False])[:, None]
    hidden = torch.zeros(PAIRS, REGIONS, dtype=torch.bool)
    hidden[2, 1] = hidden[2, 3] = hidden[3, 1] = True
    regions = Regions(features=features, boxes=boxes, mask=mask, image=torch.arange(PAIRS))
    logits = torch.randn(PAIRS, 2, CLASSES, generator=draw)
    return Batch(
        image={"clean": regions, "masked": replace(regions, hidden=hidden)},
        text={
            "clean": Text(ids=ids, mask=words),
            "masked": Text(ids=ids.scatter(1, position, MASK).where(words_masked, ids), mask=words),
        },
        targets={
            "mlm": Hidden(position=position, label=ids.gather(1, position).where(words_masked, -100)),
            "regions": HiddenRegions(
                position=position, label=labels.where(regions_masked, -100), probs=logits.softmax(-1)
            ),
            "itm": Matched(label=torch.tensor([True, True, True, True, False, False])),
        },
        group=torch.arange(PAIRS),
    )
