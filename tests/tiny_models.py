"""X-VLM in miniature with each of its image encoders, and batches for it."""

import torch

from crossgrain.data.types import Batch, BoxTarget, Hidden, Pixels, Text
from crossgrain.models.xvlm import XVLM
from crossgrain.nn.vision import Swin, ViT
from crossgrain.objectives.box import Box
from crossgrain.objectives.itc import ITC
from crossgrain.objectives.itm import ITM
from crossgrain.objectives.mlm import MLM
from crossgrain.training.learner import Learner

WORDS, SIZE, GRID = 40, 32, (4, 4)
PAD, CLS, MASK = 0, 2, 4
_VIT = {"image_size": SIZE, "patch_size": 8, "dim": 16, "num_heads": 2}

VISION = {
    "swin": Swin.Config(image_size=SIZE, embed_dim=8, depths=(2, 2), num_heads=(1, 2), window_size=4, drop_path=0.0),
    "deit": ViT.Config(**_VIT, depth=3, local_attention_depth=1),
    "clip": ViT.Config(**_VIT, depth=2, local_attention_depth=1, form="clip"),
}


def tiny_config(kind: str = "deit", **changes) -> XVLM.Config:
    widths = {"dim": 16, "num_heads": 2, "mlp_dim": 32, "text_depth": 1, "cross_depth": 2, "embedding_dim": 8}
    rest = {"vocab_size": WORDS, "max_length": 16, "dropout": 0.0, "attention_dropout": 0.0}
    return XVLM.Config(**{"vision": VISION[kind], **widths, **rest, **changes})


def tiny_model(kind: str = "deit", seed: int = 0, **changes) -> XVLM:
    """In evaluation mode, with weights four times as large as fresh ones: what it computes differs clearly."""
    torch.manual_seed(seed)
    model = XVLM(tiny_config(kind, **changes)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(4)
    return model


def tiny_learner(kind: str = "deit", seed: int = 0, **changes) -> Learner:
    """The tiny model with all four objectives, ready to be trained."""
    model = tiny_model(kind, seed, **changes)
    heads = {"itc": ITC, "itm": ITM, "mlm": MLM, "box": Box}
    return Learner(model, {name: head(head.Config(), model) for name, head in heads.items()}).train()


def make_batch(seed: int = 0, num_images: int = 3) -> Batch:
    """Each image with a text about the whole of it and one about its region; 8 tokens, some of them padding."""
    draw = torch.Generator().manual_seed(seed)
    num_pairs = 2 * num_images
    boxes = torch.tensor([[0.0, 0.0, 1.0, 1.0]]).repeat(num_pairs, 1)
    low = torch.rand(num_images, 2, generator=draw) / 2
    boxes[1::2] = torch.cat([low, low + 0.3 + torch.rand(num_images, 2, generator=draw) / 5], 1)
    ids = torch.randint(5, WORDS, (num_pairs, 8), generator=draw)
    ids[:, 0] = CLS
    mask = torch.arange(8) < torch.randint(4, 9, (num_pairs, 1), generator=draw)
    ids = ids.where(mask, PAD)
    position = torch.tensor([[1, 3]]).repeat(num_pairs, 1)
    label = ids.gather(1, position)
    label[0, 1] = -100  # a row with one hidden word
    hidden = ids.scatter(1, position, MASK)
    hidden[0, 3] = ids[0, 3]
    regions = torch.arange(1, num_pairs, 2)
    pixels = torch.randint(0, 256, (num_images, 3, SIZE, SIZE), generator=draw, dtype=torch.uint8)
    return Batch(
        image={"clean": Pixels(pixels=pixels, image=torch.arange(num_pairs) // 2, boxes=boxes)},
        text={"clean": Text(ids=ids, mask=mask), "masked": Text(ids=hidden, mask=mask)},
        targets={
            "mlm": Hidden(position=position, label=label),
            "box": BoxTarget(rows=regions, boxes=boxes[regions], valid=torch.ones(num_images, dtype=torch.bool)),
        },
        group=torch.arange(num_pairs),
    )
