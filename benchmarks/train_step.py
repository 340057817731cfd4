"""Time one training step of each family at base size: forward, backward, clipping, optimizer.

    python benchmarks/train_step.py [--cases vlbert imagebert ...] [--precisions float32 bfloat16] [--device cpu|cuda]
                                    [--batch 4] [--repeats 5] [--json FILE]

A case is a model with the objectives that it is published with and a batch of its shapes. X-VLM has two for each image
encoder, as the original has two steps: an image-text step (contrastive, matching with hard negatives, masked words) and
a region step (the same and boxes; half as many images, several regions each). Beside the seconds stands the share of
the rate at which this machine multiplies large matrices in the same precision: what a perfect step would take is
seconds x share. Inputs are random; nothing is loaded or decoded.
"""

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch.utils.flop_counter import FlopCounterMode

from crossgrain.data.types import Batch, BoxTarget, Hidden, HiddenRegions, Matched, Pixels, Regions, Text
from crossgrain.models.imagebert import ImageBERT
from crossgrain.models.interface import VisionLanguageModel
from crossgrain.models.pixelbert import PixelBERT
from crossgrain.models.vlbert import VLBERT
from crossgrain.models.xvlm import XVLM
from crossgrain.nn.vision import Swin, ViT
from crossgrain.objectives.box import Box
from crossgrain.objectives.itc import ITC
from crossgrain.objectives.itm import ITM
from crossgrain.objectives.mlm import MLM
from crossgrain.objectives.region_class import RegionClass
from crossgrain.objectives.region_feature import RegionFeature
from crossgrain.training.learner import Learner
from crossgrain.training.optimizer import OptimizerConfig, build_optimizer, set_rate
from crossgrain.training.precision import autocast

VOCABULARY, CLASSES, FEATURE = 30522, 1600, 2048
HIDDEN_WORDS, HIDDEN_REGIONS = 8, 15  # places for them; as many are filled


class Case(NamedTuple):
    """A model with its objectives by name, and a batch for them."""

    model: VisionLanguageModel
    objectives: dict[str, torch.nn.Module]
    batch: Batch


def xvlm(vision: Swin.Config | ViT.Config, regions: bool, pairs: int) -> Case:
    """X-VLM at 224 pixels and 30 tokens; with `regions`, two of them to an image, and boxes."""
    model = XVLM(XVLM.Config(vision=vision, vocab_size=VOCABULARY))
    objectives = {"itc": ITC(ITC.Config(), model), "itm": ITM(ITM.Config(), model), "mlm": MLM(MLM.Config(), model)}
    low = torch.rand(pairs, 2) * 0.5
    boxes = torch.cat([low, low + 0.4], dim=1) if regions else torch.tensor([0.0, 0.0, 1.0, 1.0]).expand(pairs, 4)
    rows = torch.arange(pairs) if regions else torch.arange(0)
    images = max(1, pairs // 2) if regions else pairs
    pixels = Pixels(pixels=noise(images, 224), image=torch.arange(pairs) % images, boxes=boxes, regions=rows)
    targets = {}
    if regions:
        objectives["box"] = Box(Box.Config(), model)
        valid = torch.ones(len(rows), dtype=torch.bool)
        targets["box"] = BoxTarget(rows=rows, boxes=boxes[rows], valid=valid)
    return Case(model, objectives, batch_of(pairs, 30, {"clean": pixels}, targets))


def imagebert(pairs: int) -> Case:
    """ImageBERT with 100 regions and 44 tokens, its four objectives on one pass."""
    model = ImageBERT(ImageBERT.Config(vocab_size=VOCABULARY))
    objectives = {
        "mlm": MLM(MLM.Config(image="masked"), model),
        "region_class": RegionClass(RegionClass.Config(num_classes=CLASSES), model),
        "region_feature": RegionFeature(RegionFeature.Config(), model),
        "itm": ITM(ITM.Config(negatives="swapped", image="masked", text="masked", head="linear"), model),
    }
    images, target = regions_of(pairs, 100, first=0)
    matched = Matched(label=torch.arange(pairs) % 2 == 0)
    return Case(model, objectives, batch_of(pairs, 44, images, {"regions": target, "itm": matched}))


def vlbert(pairs: int) -> Case:
    """VL-BERT with the whole image, 100 regions of stored features and 30 tokens; both objectives on one pass."""
    model = VLBERT(VLBERT.Config(vocab_size=VOCABULARY))
    classes = RegionClass.Config(num_classes=CLASSES, soft=True, head="transform")
    objectives = {"mlm": MLM(MLM.Config(image="masked"), model), "region_class": RegionClass(classes, model)}
    images, target = regions_of(pairs, 101, first=1)
    return Case(model, objectives, batch_of(pairs, 30, images, {"regions": target}))


def pixelbert(pairs: int) -> Case:
    """Pixel-BERT with ResNet-50, 100 of 144 pixels of a square of 768, and 30 tokens; both objectives on one pass."""
    model = PixelBERT(PixelBERT.Config(vocab_size=VOCABULARY))
    objectives = {
        "mlm": MLM(MLM.Config(), model),
        "itm": ITM(ITM.Config(negatives="swapped", text="masked", head="linear"), model),
    }
    matched = Matched(label=torch.arange(pairs) % 2 == 0)
    return Case(model, objectives, batch_of(pairs, 30, {"clean": Pixels.whole(noise(pairs, 768))}, {"itm": matched}))


SWIN_B, VIT_B16 = Swin.Config(), ViT.Config(form="clip")
CASES: dict[str, Callable[[int], Case]] = {
    "xvlm swin_b": partial(xvlm, SWIN_B, False),
    "xvlm swin_b regions": partial(xvlm, SWIN_B, True),
    "xvlm vit_b16": partial(xvlm, VIT_B16, False),
    "xvlm vit_b16 regions": partial(xvlm, VIT_B16, True),
    "imagebert": imagebert,
    "vlbert": vlbert,
    "pixelbert r50": pixelbert,
}


def main() -> None:
    """Measure what the arguments ask for, print a table and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES), metavar="CASE", help="some of these")
    parser.add_argument("--precisions", nargs="+", choices=("float32", "bfloat16"), default=["float32", "bfloat16"])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--batch", type=int, default=4, help="pairs in a step")
    parser.add_argument("--repeats", type=int, default=5, help="timed steps; the median is printed")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    machine = torch.cuda.get_device_name() if device.type == "cuda" else f"{torch.get_num_threads()} CPU threads"
    print(f"base size, batch {arguments.batch}; {machine}, torch {torch.__version__}")
    print(f"{'case':21} {'precision':9} {'seconds':>8} {'samples/s':>10} {'of matmul rate':>15}")
    rows = []
    for precision in arguments.precisions:
        rate = matmul_rate(device, precision)
        for case in arguments.cases:
            row = measure(case, precision, device, arguments.batch, arguments.repeats)
            row["share_of_matmul_rate"] = row["flops"] / row["seconds"] / rate
            rows.append(row)
            print(
                f"{case:21} {precision:9} {row['seconds']:8.3f} {row['samples_per_second']:10.2f}"
                f" {row['share_of_matmul_rate']:14.0%}",
                flush=True,
            )
    if arguments.json:
        facts = {"machine": machine, "platform": platform.platform(), "torch": torch.__version__, "rows": rows}
        arguments.json.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


def measure(name: str, precision: str, device: torch.device, pairs: int, repeats: int) -> dict:
    """Median seconds of a step, and its floating-point operations (matrix products, forward and backward)."""
    torch.manual_seed(0)
    case = CASES[name](pairs)
    learner = Learner(case.model, case.objectives).to(device).train()
    config = OptimizerConfig()
    optimizer = build_optimizer(learner, config)
    set_rate(optimizer, 1e-4)
    batch = case.batch.to(device)

    def step() -> None:
        with autocast(precision, device):
            loss, _ = learner(batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learner.parameters(), config.clip_norm or 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    step()
    with FlopCounterMode(display=False) as counter:
        step()
    seconds = statistics.median(timed(step, device) for _ in range(repeats))
    return {
        "case": name,
        "precision": precision,
        "seconds": seconds,
        "samples_per_second": pairs / seconds,
        "flops": counter.get_total_flops(),
    }


def batch_of(pairs: int, length: int, images: dict, targets: dict) -> Batch:
    """Random texts of `length` tokens, some of them hidden, beside these images."""
    text = Text(ids=torch.randint(1000, 30000, (pairs, length)), mask=torch.ones(pairs, length, dtype=torch.bool))
    position = torch.arange(1, HIDDEN_WORDS + 1).expand(pairs, -1)
    words = Hidden(position=position, label=text.ids.gather(1, position))
    texts, group = {"clean": text, "masked": text}, torch.arange(pairs)
    return Batch(image=images, text=texts, group=group, targets={"mlm": words, **targets})


def noise(images: int, side: int) -> torch.Tensor:
    """Random pictures."""
    return torch.randint(0, 256, (images, 3, side, side), dtype=torch.uint8)


def regions_of(pairs: int, count: int, first: int) -> tuple[dict, HiddenRegions]:
    """Random regions in both variants, and those that are hidden, from number `first` on."""
    low = torch.rand(pairs, count, 2) * 0.5
    mask = torch.ones(pairs, count, dtype=torch.bool)
    position = torch.arange(first, first + HIDDEN_REGIONS).expand(pairs, -1)
    hidden = torch.zeros_like(mask).scatter(1, position, True)
    probs = torch.randn(pairs, HIDDEN_REGIONS, CLASSES).softmax(-1)
    regions = Regions(
        features=torch.randn(pairs, count, FEATURE).half(),
        boxes=torch.cat([low, low + 0.4], dim=-1),
        mask=mask,
        image=torch.arange(pairs),
    )
    target = HiddenRegions(position=position, label=probs.argmax(-1), probs=probs)
    return {"clean": regions, "masked": replace(regions, hidden=hidden)}, target


def matmul_rate(device: torch.device, precision: str, size: int = 4096) -> float:
    """Floating-point operations per second of a large matrix product."""
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    a @ b
    return 2 * size**3 / min(timed(lambda: a @ b, device) for _ in range(5))


def timed(function: Callable[[], object], device: torch.device) -> float:
    """Seconds of one call, work on the device included."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    function()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
