"""Pixel-BERT in miniature, and batches of pictures of different sizes as the collator makes them."""

import torch

from crossgrain.data.types import Batch, Hidden, Matched, Pixels, Text
from crossgrain.models.pixelbert import PixelBERT
from crossgrain.nn.cnn import CNN
from crossgrain.objectives.itm import ITM
from crossgrain.objectives.mlm import MLM
from crossgrain.training.learner import Learner
from tiny_models import CLS, MASK, PAD, WORDS

PAIRS, IMAGES, LENGTH = 6, 3, 8
CANVAS = (192, 256)  # 3 x 4 cells of 64 pixels
SIZES = ((192, 256), (100, 256), (30, 65))
VALID = (12, 8, 2)  # cells that hold some part of each


def cnn_config(**changes) -> CNN.Config:
    return CNN.Config(**{"name": "test_resnet", "frozen_norm": False, **changes})


def pixelbert_config(**changes) -> PixelBERT.Config:
    widths = {"dim": 16, "depth": 3, "num_heads": 2, "mlp_dim": 32, "cnn": cnn_config(), "sampled_pixels": 5}
    rest = {"vocab_size": WORDS, "max_length": 16, "dropout": 0.0, "attention_dropout": 0.0}
    return PixelBERT.Config(**{**widths, **rest, **changes})


def tiny_pixelbert(seed: int = 0, **changes) -> PixelBERT:
    """In evaluation mode, with layers four times as large as fresh ones: what it computes differs clearly."""
    torch.manual_seed(seed)
    model = PixelBERT(pixelbert_config(**changes)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1 and not name.startswith("cnn."):
                parameter.mul_(4)
    return model


def pixelbert_learner(seed: int = 0, **changes) -> Learner:
    """The tiny model with the two objectives of the paper on one pass, ready to be trained."""
    model = tiny_pixelbert(seed, **changes)
    matching = ITM.Config(negatives="swapped", text="masked", head="linear")
    return Learner(model, {"mlm": MLM(MLM.Config(), model), "itm": ITM(matching, model)}).train()


def pixel_batch(seed: int = 0) -> Batch:
    """Three pictures in the upper left of a canvas of noise; two texts each, the last two of other pictures."""
    draw = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (IMAGES, 3, *CANVAS), generator=draw, dtype=torch.uint8)
    ids = torch.randint(5, WORDS, (PAIRS, LENGTH), generator=draw)
    ids[:, 0] = CLS
    mask = torch.arange(LENGTH) < torch.randint(4, LENGTH + 1, (PAIRS, 1), generator=draw)
    ids = ids.where(mask, PAD)
    position = torch.tensor([[1, 3]]).repeat(PAIRS, 1)
    matched = torch.arange(PAIRS) < 4
    label = ids.gather(1, position).where(matched[:, None], -100)
    return Batch(
        image={
            "clean": Pixels(
                pixels=pixels,
                image=torch.arange(PAIRS) // 2,
                boxes=torch.tensor([[0.0, 0.0, 1.0, 1.0]]).repeat(PAIRS, 1),
                size=torch.tensor(SIZES),
            )
        },
        text={"clean": Text(ids=ids, mask=mask), "masked": Text(ids=ids.scatter(1, position, MASK), mask=mask)},
        targets={"mlm": Hidden(position=position, label=label), "itm": Matched(label=matched)},
        group=torch.arange(PAIRS),
    )
