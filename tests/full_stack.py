"""Everything that test_run.py needs processes of its own for, in one interpreter: torch is imported once, then forked.

Usage: python tests/full_stack.py FOLDER            all of it
       python tests/full_stack.py FOLDER golden     only the run whose losses are golden; prints them
"""

import json
import os
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from crossgrain import cli
from crossgrain.data.loader import batches
from crossgrain.data.text import Tokenizer
from crossgrain.recipes import build_learner, load_run_recipe, sample_recipe, with_vocabulary
from crossgrain.training.log import read_log
from tiny_runs import STAGED, draw_scenes, invent_regions, write_recipe

FEW = ("train.num_workers=0", "validation=null")
STILL = ("model.dropout=0", "model.attention_dropout=0")
# Losses that are means over a rank's own rows equal those of one process only if every rank counts as many rows: one
# hidden word in every text, one box and one caption for every image. ITM is left out, because hard negatives are drawn
# among a rank's own rows, by design. The large eps keeps Adam from blowing up the rounding of gradients near zero.
RANKS = (
    *FEW, *STILL, "objectives=[{type: itc}, {type: mlm}, {type: box}]", "text.masking.probability=0",
    "stages.0.steps=3", "stages.0.schedule.warmup_steps=0", "optimizer.eps=1e-3",
)  # fmt: skip
LOSSES = ("loss", "itc/loss", "itm/loss", "mlm/loss", "box/loss")
GOLDEN = (*FEW, *STILL, "stages.0.steps=10", "train.save_every=10")


def forked(work: Callable[[], int | None]) -> int:
    """How `work` ended in a process of its own: its status, or minus the signal."""
    process = os.fork()
    if process == 0:
        os._exit(work() or 0)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def killed_in_update(number: int, work: Callable[[], int]) -> Callable[[], int]:
    """`work`, whose process is killed by SIGKILL when the optimizer has made that many updates."""

    def run() -> int:
        update, calls = torch.optim.AdamW.step, iter(range(number - 1, -1, -1))

        def step(*arguments, **keywords):
            result = update(*arguments, **keywords)
            if next(calls) == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        torch.optim.AdamW.step = step
        return work()

    return run


def as_ranks(size: int, work: Callable[[], int]) -> list[int]:
    """How `work` ended in each of `size` processes with the environment that torchrun gives them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": str(size)}
    processes = []
    for rank in range(size):
        processes.append(os.fork())
        if processes[-1] == 0:
            os.environ.update(place, RANK=str(rank), LOCAL_RANK=str(rank))
            os._exit(work())
    return [os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) for process in processes]


def save_graphs(folder: Path) -> int:
    """How many graphs torch.compile makes of a training step's forward pass, and why where it is not one."""
    recipe = load_run_recipe(folder / "golden.yaml")
    tokenizer = Tokenizer.load(recipe.text.vocab)
    numbers: Any = {"seed": 0, "first_step": 0, "last_step": 1, "num_workers": 0}
    stage = recipe.stages[0]
    ((update,),) = [s[-1:] for s in batches(stage.sources, sample_recipe(recipe, stage, tokenizer), **numbers)]
    learner = build_learner(with_vocabulary(recipe, len(tokenizer))).train()
    found = torch._dynamo.explain(learner)(update[0])
    reasons = [str(reason.reason) for reason in found.break_reasons]
    told = {"graphs": found.graph_count, "breaks": found.graph_break_count, "reasons": reasons}
    (folder / "graphs.json").write_text(json.dumps(told), encoding="utf-8")
    return 0


def pretrain(folder: Path, recipe: str, run: str) -> Callable[[], int]:
    return lambda: cli.main(["pretrain", str(folder / recipe), "--out", str(folder / run)])


def main(folder: Path, only_golden: bool = False) -> None:
    """Leaves the runs in `folder`, and how each process ended in ends.json."""
    torch.set_num_threads(1)
    data = draw_scenes(folder / "data")
    for name, overrides in {"tiny.yaml": (), "ranks.yaml": RANKS, "golden.yaml": GOLDEN}.items():
        write_recipe(folder / name, data, *overrides)
    ends: dict[str, int | list[int]] = {"golden": forked(pretrain(folder, "golden.yaml", "golden"))}
    if only_golden:
        lines = read_log(folder / "golden" / "log.jsonl")
        sys.stdout.writelines("  ".join(f"{line[key]:.7g}" for key in LOSSES) + "\n" for line in lines)
        return
    ends["unbroken"] = forked(pretrain(folder, "tiny.yaml", "unbroken"))
    ends["killed"] = forked(killed_in_update(7, pretrain(folder, "tiny.yaml", "broken")))
    ends["resumed"] = forked(pretrain(folder, "tiny.yaml", "broken"))
    ends["evaluated"] = forked(lambda: cli.main(["evaluate", str(folder / "unbroken")]))
    ends["alone"] = forked(pretrain(folder, "ranks.yaml", "alone"))
    ends["ranks"] = as_ranks(2, pretrain(folder, "ranks.yaml", "together"))
    write_recipe(folder / "staged.yaml", invent_regions(data), recipe=STAGED)
    ends["staged"] = forked(pretrain(folder, "staged.yaml", "staged"))
    moments = (
        3,
        4,
        3,
    )  # in step 3 of the first stage; from step 2 on in step 6; from step 4 on, where one begins, in 7
    halted = [forked(killed_in_update(number, pretrain(folder, "staged.yaml", "halted"))) for number in moments]
    ends["staged_killed"] = halted
    ends["staged_resumed"] = forked(pretrain(folder, "staged.yaml", "halted"))
    ends["graphs"] = forked(lambda: save_graphs(folder))
    (folder / "ends.json").write_text(json.dumps(ends), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:] == ["golden"])
