"""The command line: VERB RECIPE key.path=value; what the verbs do is in `commands`.

A user's mistake is one clear line and exit status 2, and so is what the system refuses (a full disk, a folder that
cannot be written to); Ctrl-C leaves a state that the same command continues from.
"""

import argparse
import errno
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from crossgrain import __version__
from crossgrain.commands import bench, collect, convert, data, evaluation, training
from crossgrain.config import UserError
from crossgrain.data.sets import arguments as prepare_arguments
from crossgrain.models import MODELS

BENCHES = {
    "families": "the four families on the same scenes, with as many steps and about as many parameters",
    "ablations": "one family, whole and with parts of it left out, as its paper's own tables",
}
TASK_NAMES = (
    *("retrieval", "vqa", "nlvr2", "vcr", "grounding", "captioning"),
    *("masked_regions", "masked_words"),
)

FAMILIES = "model=xvlm (the default), imagebert, vlbert or pixelbert"
DETECT = (
    "detector=torchvision (the default), vg, scenes or package.module:Class; detector.weights=FILE, max_boxes=36, "
    "score_threshold=0.2, processes=4 and so on; or features=FORMAT path=FILE; all of them in docs/detection.md"
)
ASKED = "change how it is asked, e.g. 'evaluation.tasks=[{type: grounding, method: gradcam}]'"
_REFUSALS = {  # by the file system, whose text says enough; any other error is the program's own
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EMFILE, errno.ENFILE),
    *(errno.ENOENT, errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENOTEMPTY, errno.ENAMETOOLONG, errno.ELOOP),
}
OVERRIDES = "change values of the recipe, e.g. stages.0.lr=1e-4 train.precision=float32"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit status."""
    # Threads that wait long for work in a loop take the cores from those that have some: beside other busy processes a
    # training step took fifteen times as long. OpenMP reads it when torch is loaded.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    arguments = _parse(sys.argv[1:] if argv is None else argv)
    try:
        return arguments.run(arguments)
    except UserError as error:
        sys.stderr.write(f"crossgrain: {error}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write("crossgrain: interrupted; the same command continues\n")
        return 130
    except BrokenPipeError:  # the reader of our output has gone (`| head`)
        with suppress(OSError):
            sys.stdout.close()
        return 141
    except OSError as error:
        if error.errno not in _REFUSALS:
            raise
        names = [str(name) for name in (error.filename, error.filename2) if name is not None]
        sys.stderr.write(f"crossgrain: {': '.join([error.strerror or str(error), *names])}\n")
        return 2


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    """Arguments with `key=value` overrides on either side of the flags (argparse alone takes them on one side only)."""
    parser = build_parser()
    arguments, rest = parser.parse_known_args(collect.joined(argv))
    strangers = [
        word for word in rest if "=" not in word or word.startswith("-") or not hasattr(arguments, "overrides")
    ]
    if strangers:
        parser.error(f"unrecognized arguments: {' '.join(strangers)}")
    if rest:
        arguments.overrides = [*arguments.overrides, *rest]
    return arguments


def build_parser() -> argparse.ArgumentParser:
    """The verbs and their flags."""
    parser = argparse.ArgumentParser(
        prog="crossgrain", description="Pre-train, fine-tune, evaluate and serve vision-language models."
    )
    parser.add_argument("--version", action="version", version=f"crossgrain {__version__}")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)

    def verb(name: str, run: Callable[[argparse.Namespace], int], help_text: str) -> argparse.ArgumentParser:
        command = verbs.add_parser(name, help=help_text, description=help_text[0].upper() + help_text[1:] + ".")
        command.set_defaults(run=run)
        return command

    command = verb(
        "quickstart", training.quickstart, "draw the embedded scenes, pre-train on them, evaluate and report"
    )
    command.add_argument("--recipe", metavar="RECIPE", help="a recipe of your own with a scenes block")
    command.add_argument("overrides", nargs="*", metavar="key=value", help=f"{FAMILIES}; {OVERRIDES}")
    command.add_argument(
        "--out", type=Path, metavar="DIR", help="the run folder (default: runs/ and the recipe's name)"
    )

    command = verb("prepare", data.prepare, "convert a data set in a known layout to shards, with a validation report")
    prepare_arguments.add_arguments(command)

    command = verb(
        "detect", data.detect, "give a data set the regions of its images: by a detector, or from a feature file"
    )
    command.add_argument("data", type=Path, metavar="DATA", help="a folder that `crossgrain prepare` wrote")
    command.add_argument("overrides", nargs="*", metavar="key=value", help=DETECT)

    collect.add_verbs(verb)

    for name, run, help_text, more in (
        ("pretrain", training.pretrain, "pre-train a model", ""),
        ("finetune", training.finetune, "fine-tune a pre-trained model for a task", "initial_weights=RUN; "),
    ):
        command = verb(name, run, f"{help_text}; on an existing run folder, continue")
        command.add_argument(
            "recipe", metavar="RECIPE", help="a YAML file, or the name of one of the library's recipes"
        )
        command.add_argument("overrides", nargs="*", metavar="key=value", help=more + OVERRIDES)
        command.add_argument(
            "--out", type=Path, metavar="DIR", help="the run folder (default: runs/ and the recipe's name)"
        )

    command = verb("convert", convert.convert, "turn a published checkpoint of X-VLM or VL-BERT into a run")
    command.add_argument("format", choices=convert.FORMATS, metavar="FORMAT", help=", ".join(convert.FORMATS))
    command.add_argument(
        "checkpoint", type=Path, metavar="FILE", help="the checkpoint: .th, .pth, .model, .safetensors"
    )
    command.add_argument(
        "overrides", nargs="*", metavar="key=value", help=f"text.vocab=FILE, answers=FILE; {OVERRIDES}"
    )
    command.add_argument("--out", type=Path, metavar="DIR", help="the run folder (default: runs/ and the file's name)")

    told = "score a run, or anybody's predictions, on held-out data and write a report"
    command = verb("evaluate", evaluation.evaluate, told)
    command.add_argument("run_folder", type=Path, nargs="?", metavar="RUN", help="a run folder")
    command.add_argument("overrides", nargs="*", metavar="key=value", help=ASKED)
    command.add_argument(
        "--predictions", type=Path, metavar="FILE", help="score this file in place of a run; needs --data"
    )
    command.add_argument("--data", type=Path, metavar="DIR", help="prepared data (default: what the run trained on)")
    command.add_argument("--task", choices=TASK_NAMES, help="this one only (default: all that fit)")
    command.add_argument("--split", help="this split only (default: those of the recipe)")
    command.add_argument("--checkpoint", choices=("latest", "best"), default="latest", help="which weights")
    command.add_argument("--limit", type=int, metavar="N", help="the first N images of each split")
    command.add_argument("--out", type=Path, metavar="DIR", help="where the results go (default: RUN/evaluation)")
    command.add_argument("--json", action="store_true", help="print the scores as JSON")

    command = verb(
        "bench", bench.bench, "compare the families, or one with parts of it left out, on the embedded scenes"
    )
    benches = command.add_subparsers(dest="what", metavar="WHAT", required=True)
    for name, help_text in BENCHES.items():
        kind = benches.add_parser(name, help=help_text, description=help_text[0].upper() + help_text[1:] + ".")
        kind.add_argument("overrides", nargs="*", metavar="key=value", help="change values of every variant's recipe")
        chosen = kind.add_mutually_exclusive_group(required=name == "ablations")
        if name == "ablations":
            chosen.add_argument("--family", choices=tuple(MODELS), help="recipes/ablations/FAMILY.yaml")
        chosen.add_argument("--recipe", metavar="RECIPE", help="a comparison of your own, written like the library's")
        kind.add_argument("--variants", nargs="+", metavar="NAME", help="these only (default: all)")
        kind.add_argument("--steps", type=int, metavar="N", help="steps of each variant, over all its stages")
        kind.add_argument("--limit", type=int, metavar="N", help="ask about the first N held-out images")
        kind.add_argument("--out", type=Path, metavar="DIR", help="where all goes (default: runs/bench/ and the name)")
        kind.add_argument("--json", action="store_true", help="print the results as JSON")

    tasks_help = "every family at every task on the embedded scenes, beside the same models without images"
    kind = benches.add_parser("tasks", help=tasks_help, description=tasks_help[0].upper() + tasks_help[1:] + ".")
    kind.set_defaults(run=bench.bench_tasks)
    kind.add_argument("overrides", nargs="*", metavar="key=value", help="change values of every cell's recipe")
    kind.add_argument("--recipe", default="tasks", metavar="RECIPE", help="a comparison of your own")
    kind.add_argument("--runs", type=Path, default=Path("runs"), metavar="DIR", help="where the quickstarts' runs are")
    kind.add_argument("--families", nargs="+", metavar="NAME", help="these only (default: all)")
    kind.add_argument("--tasks", nargs="+", metavar="NAME", help="these only (default: all)")
    kind.add_argument("--jobs", type=int, metavar="N", help="cells at once, a thread each (default: one for each core)")
    kind.add_argument("--limit", type=int, metavar="N", help="ask about the first N held-out images")
    kind.add_argument("--out", type=Path, metavar="DIR", help="where all goes (default: runs/bench/tasks)")
    kind.add_argument("--json", action="store_true", help="print the results as JSON")

    command = verb("show", training.show, "print a recipe with every value it stands for")
    command.add_argument("recipe", metavar="RECIPE", help="a YAML file, or the name of one of the library's recipes")
    command.add_argument("overrides", nargs="*", metavar="key=value", help=OVERRIDES)
    return parser


if __name__ == "__main__":
    sys.exit(main())
