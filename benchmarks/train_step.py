"""Time one training step of X-VLM base: forward, backward, clipping, optimizer.

    python benchmarks/train_step.py [--encoders swin_b vit_b16] [--precisions float32 bfloat16] [--device cpu|cuda]
                                    [--batch 4] [--repeats 5] [--json FILE]

Two steps are timed, as the original has two: an image-text step (contrastive, matching with hard negatives, masked
words) and a region step (the same and boxes; half as many images, several regions each). Beside the seconds stands the
share of the rate at which this machine multiplies large matrices in the same precision: what a perfect step would
take is seconds x share. Inputs are random; nothing is loaded or decoded.
"""

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from crossgrain.data.types import Batch, BoxTarget, Hidden, Pixels, Text
from crossgrain.models.xvlm import XVLM
from crossgrain.nn.vision import Swin, ViT
from crossgrain.objectives.box import Box
from crossgrain.objectives.itc import ITC
from crossgrain.objectives.itm import ITM
from crossgrain.objectives.mlm import MLM
from crossgrain.training.learner import Learner
from crossgrain.training.optimizer import OptimizerConfig, build_optimizer, set_rate
from crossgrain.training.precision import autocast

ENCODERS = {"swin_b": Swin.Config(), "vit_b16": ViT.Config(form="clip")}
LENGTH, HIDDEN = 30, 8


def main() -> None:
    """Measure what the arguments ask for, print a table and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoders", nargs="+", choices=ENCODERS, default=list(ENCODERS))
    parser.add_argument("--precisions", nargs="+", choices=("float32", "bfloat16"), default=["float32", "bfloat16"])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--batch", type=int, default=4, help="pairs in a step")
    parser.add_argument("--repeats", type=int, default=5, help="timed steps; the median is printed")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    machine = torch.cuda.get_device_name() if device.type == "cuda" else f"{torch.get_num_threads()} CPU threads"
    print(f"X-VLM base, batch {arguments.batch}, 224 px, {LENGTH} tokens; {machine}, torch {torch.__version__}")
    print(f"{'encoder':9} {'precision':9} {'step':10} {'seconds':>8} {'samples/s':>10} {'of matmul rate':>15}")
    rows = []
    for precision in arguments.precisions:
        rate = matmul_rate(device, precision)
        for encoder in arguments.encoders:
            for kind in ("image-text", "region"):
                row = measure(encoder, kind, precision, device, arguments.batch, arguments.repeats)
                row["share_of_matmul_rate"] = row["flops"] / row["seconds"] / rate
                rows.append(row)
                print(
                    f"{encoder:9} {precision:9} {kind:10} {row['seconds']:8.3f} {row['samples_per_second']:10.2f}"
                    f" {row['share_of_matmul_rate']:14.0%}",
                    flush=True,
                )
    if arguments.json:
        facts = {"machine": machine, "platform": platform.platform(), "torch": torch.__version__, "rows": rows}
        arguments.json.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


def measure(encoder: str, kind: str, precision: str, device: torch.device, batch_size: int, repeats: int) -> dict:
    """Median seconds of a step, and its floating-point operations (matrix products, forward and backward)."""
    torch.manual_seed(0)
    model = XVLM(XVLM.Config(vision=ENCODERS[encoder], vocab_size=30522))
    heads = {"itc": ITC(ITC.Config(), model), "itm": ITM(ITM.Config(), model), "mlm": MLM(MLM.Config(), model)}
    if kind == "region":
        heads["box"] = Box(Box.Config(), model)
    learner = Learner(model, heads).to(device).train()
    config = OptimizerConfig()
    optimizer = build_optimizer(learner, config)
    set_rate(optimizer, 1e-4)
    batch = make_batch(batch_size, kind == "region").to(device)

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
        "encoder": encoder,
        "step": kind,
        "precision": precision,
        "seconds": seconds,
        "samples_per_second": batch_size / seconds,
        "flops": counter.get_total_flops(),
    }


def make_batch(pairs: int, regions: bool) -> Batch:
    """Random pairs: each its own image, or regions two to an image."""
    images = max(1, pairs // 2) if regions else pairs
    low = torch.rand(pairs, 2) * 0.5
    boxes = torch.cat([low, low + 0.4], dim=1) if regions else torch.tensor([0.0, 0.0, 1.0, 1.0]).expand(pairs, 4)
    rows = torch.arange(pairs) if regions else torch.arange(0)
    text = Text(ids=torch.randint(1000, 30000, (pairs, LENGTH)), mask=torch.ones(pairs, LENGTH, dtype=torch.bool))
    hidden = Hidden(position=torch.arange(1, HIDDEN + 1).expand(pairs, -1), label=text.ids[:, 1 : HIDDEN + 1].clone())
    pixels = Pixels(
        pixels=torch.randint(0, 256, (images, 3, 224, 224), dtype=torch.uint8),
        image=torch.arange(pairs) % images,
        boxes=boxes,
        regions=rows,
    )
    box = BoxTarget(rows=rows, boxes=boxes[rows], valid=torch.ones(len(rows), dtype=torch.bool))
    return Batch(
        image={"clean": pixels},
        text={"clean": text, "masked": text},
        group=torch.arange(pairs),
        targets={"mlm": hidden, "box": box},
    )


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
