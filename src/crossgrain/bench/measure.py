"""Train one variant, ask it about held-out scenes, and write down what it took: in a process of its own.

OUT/VARIANT/                  a run folder, with recipe.yaml, log.jsonl, checkpoints/ and evaluation/
OUT/VARIANT/training.json     what training took, written when it is done
OUT/VARIANT/result.json       everything the table shows; a variant with it is not run again
"""

import json
import re
import sys
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from statistics import fmean, median
from typing import Any

import torch
from rich.console import Console

from crossgrain.config import UserError
from crossgrain.data.loader import Source
from crossgrain.documents.writing import write_whole
from crossgrain.evaluation.predict import evaluate
from crossgrain.evaluation.report import write_report
from crossgrain.recipes import PretrainRecipe, load_run, pretrain
from crossgrain.training.interrupt import STOPPED
from crossgrain.training.log import read_log

RESULT, TRAINING = "result.json", "training.json"


def measure_variant(
    recipe: PretrainRecipe,
    folder: Path,
    stderr: bool = False,
    data: Path | None = None,
    console: Console | None = None,
) -> None:
    """Train in `folder`, evaluate on `data` (on what was learnt from last, without) and write result.json.

    A user's mistake is a result too, a signal exits with 130.
    """
    try:
        result = {"status": "finished", **_measured(recipe, folder, data, console or Console(stderr=stderr))}
    except UserError as error:
        result = {"status": "failed", "reason": str(error)}
        folder.mkdir(parents=True, exist_ok=True)
    except KeyboardInterrupt:
        sys.exit(STOPPED)
    write_json(folder / RESULT, result)


def write_json(path: Path, values: Any) -> None:
    """A JSON file that is whole or not there."""
    write_whole(path, [json.dumps(values, indent=1, ensure_ascii=False) + "\n"])


def _measured(recipe: PretrainRecipe, folder: Path, data: Path | None, console: Console) -> dict[str, Any]:
    if pretrain(recipe, folder, console=console).status != "finished":
        raise KeyboardInterrupt
    if not (folder / TRAINING).is_file():  # else only the evaluation was broken off
        write_json(folder / TRAINING, {"peak_memory": peak_memory(), "date": date.today().isoformat()})
    run = load_run(folder)
    data = data or run.data()
    scores = evaluate(run.trained(), data, recipe.evaluation, folder / "evaluation", console)
    write_report(folder, data, run.facts(), folder / "evaluation")
    log = read_log(folder / "log.jsonl")
    return {
        "parameters": sum(parameter.numel() for parameter in run.learner.parameters()),
        "precision": run.state.precision,
        "steps": run.state.step,
        "losses": last_losses(log),
        **speed(recipe, log),
        **json.loads((folder / TRAINING).read_text(encoding="utf-8")),
        "scores": scores,
    }


def last_losses(log: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """The mean of each objective's loss over the last tenth of the lines that have it."""
    series: dict[str, list[float]] = {}
    for line in log:
        for key, value in line.items():
            if key.endswith("/loss"):
                series.setdefault(key.removesuffix("/loss"), []).append(value)
    return {name: fmean(values[-max(1, len(values) // 10) :]) for name, values in series.items()}


def speed(recipe: PretrainRecipe, log: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Seconds of a step (of each stage the median, then their mean), images and texts a second.

    A stage shorter than `train.log_every` may have no line of its own, and is left out.
    """
    times = {
        stage.name: [line["seconds_per_step"] for line in log if line["stage"] == stage.name] for stage in recipe.stages
    }
    stages = [stage for stage in recipe.stages if times[stage.name]]
    if not stages:
        return {}
    seconds = images = texts = 0.0
    for stage in stages:
        seconds += stage.steps * median(times[stage.name])
        images += stage.steps * sum(_images(source) for source in stage.sources if source.texts != "corpus")
        texts += stage.steps * sum(_images(source) * source.texts_per_image for source in stage.sources)
    steps = sum(stage.steps for stage in stages)
    return {
        "seconds_per_step": seconds / steps,
        "images_per_second": images / seconds,
        "texts_per_second": texts / seconds,
    }


def _images(source: Source) -> float:
    """A source's images in a step, as an expectation."""
    return source.batch_size * (1.0 if source.extra_step is None else source.extra_step)


def peak_memory() -> int | None:
    """The most bytes that this process ever held: on a GPU where it used one, else in memory. None where unknown."""
    if torch.cuda.is_initialized():
        return torch.cuda.max_memory_allocated()
    status = Path("/proc/self/status")  # getrusage would also count what the parent held when it started this process
    if status.is_file() and (found := re.search(r"VmHWM:\s*(\d+) kB", status.read_text(encoding="utf-8"))):
        return int(found[1]) * 1024
    return None
