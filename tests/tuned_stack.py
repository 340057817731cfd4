"""Everything that test_finetuning.py needs processes of its own for, in one interpreter: torch is imported once.

Usage: python tests/tuned_stack.py FOLDER
"""

import json
import sys
from pathlib import Path

import torch

from crossgrain import cli
from full_stack import FEW, forked, killed_in_update, pretrain
from tiny_runs import STAGED, draw_scenes, invent_regions, write_recipe

RECIPE = """
title: {task} in miniature
initial_weights: {start}
task: {{type: {task}}}
stages:
  - {{steps: {steps}, lr: 3e-3, schedule: {{warmup_steps: 2}}, sources: [{{path: {data}, batch_size: 8}}]}}
train: {{precision: float32, log_every: 1, save_every: 4, keep: 9, num_workers: 0, tensorboard: false}}
min_answer_count: 1
evaluation: {{splits: [test]}}
"""
STARTS = {"xvlm": "first", "imagebert": "staged"}
TASKS = ("retrieval", "vqa", "nlvr2", "vcr", "grounding", "captioning")
STEPS = 24


def finetune(folder: Path, task: str, family: str, run: str, *overrides: str):
    """The command as a function without arguments, and an evaluation behind it."""
    recipe = folder / f"{run}.yaml"
    filled = RECIPE.format(task=task, start=folder / STARTS[family], data=folder / "data", steps=STEPS)
    recipe.write_text(filled, encoding="utf-8")

    def both() -> int:
        out = str(folder / run)
        tuned = cli.main(["finetune", str(recipe), "--out", out, *overrides])
        return tuned or cli.main(["evaluate", out])

    return both


def main(folder: Path) -> None:
    """Leaves the runs in `folder`, and how each process ended in ends.json."""
    torch.set_num_threads(1)
    data = invent_regions(draw_scenes(folder / "data"))
    write_recipe(folder / "tiny.yaml", data, *FEW, "text.max_tokens=24", "model.dropout=0")
    write_recipe(folder / "staged.yaml", data, "text.max_tokens=24", recipe=STAGED)
    ends = {
        "first": forked(pretrain(folder, "tiny.yaml", "first")),
        "staged": forked(pretrain(folder, "staged.yaml", "staged")),
    }
    for family in STARTS:
        for task in TASKS:
            ends[f"{task}_{family}"] = forked(finetune(folder, task, family, f"{task}_{family}"))
    noisy = ("model.dropout=0.1", "train.num_workers=1")
    ends["noisy"] = forked(finetune(folder, "vqa", "xvlm", "noisy", *noisy))
    ends["killed"] = forked(killed_in_update(7, finetune(folder, "vqa", "xvlm", "broken", *noisy)))
    ends["resumed"] = forked(finetune(folder, "vqa", "xvlm", "broken", *noisy))
    ends["blind"] = forked(finetune(folder, "vqa", "xvlm", "blind", "blind=true"))
    (folder / "ends.json").write_text(json.dumps(ends), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
