"""`crossgrain collect RECIPE`, and what is done to data that were collected: `crossgrain collect ACTION`."""

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crossgrain.commands.terminal import make_console, say, write
from crossgrain.config import UserError, read_yaml

if TYPE_CHECKING:
    from rich.console import Console

Verb = Callable[[str, Callable[[argparse.Namespace], int], str], argparse.ArgumentParser]

ACTIONS = ("retry", "remove", "report", "hash-set", "train-scorer")
OVERRIDES = "change values of the recipe, e.g. engine=ray sentences.preset=coyo; all of them in docs/collect.md"


def joined(argv: Sequence[str]) -> list[str]:
    """`collect remove ...` as one verb: what follows `collect` is a recipe, unless it names an action."""
    words = list(argv)
    if words[:1] == ["collect"] and words[1:2] and words[1] in ACTIONS:
        return [f"collect {words[1]}", *words[2:]]
    return words


def add_verbs(verb: Verb) -> None:
    """The verb and its actions."""
    told = f"turn web pages into clean image-text shards, with an account of every drop; or {', '.join(ACTIONS)}"
    command = verb("collect", collect, told)
    command.add_argument("recipe", metavar="RECIPE", help="a YAML file, or the name of one of the library's recipes")
    command.add_argument("overrides", nargs="*", metavar="key=value", help=OVERRIDES)
    command.add_argument("--out", type=Path, metavar="DIR", help="where all goes (default: data/ and its name)")
    command.add_argument("--json", action="store_true", help="print the account as JSON")

    command = verb("collect retry", retry, "fetch again what failed for a passing reason, then finish the shards anew")
    command.add_argument("run_folder", type=Path, metavar="DIR", help="what `crossgrain collect` wrote")
    command.add_argument("--json", action="store_true", help="print the account as JSON")

    command = verb("collect remove", remove, "take pictures out of the shards, and keep them out of later runs")
    command.add_argument("data", type=Path, metavar="DIR", help="what `crossgrain collect` wrote, or shards")
    command.add_argument("--url", action="extend", nargs="+", default=[], metavar="URL", help="of images or of pages")
    told = "of images: sha256, md5 or the 64-bit perceptual hash, in hexadecimal"
    command.add_argument("--hash", action="extend", nargs="+", default=[], metavar="HASH", help=told)
    command.add_argument(
        "--domain", action="extend", nargs="+", default=[], metavar="NAME", help="all of a site and its subdomains"
    )
    command.add_argument("--list", type=Path, metavar="FILE", help="a text file with one URL, hash or domain a line")
    command.add_argument("--dry-run", action="store_true", help="say what would be removed, and change nothing")
    command.add_argument("--json", action="store_true", help="print what was removed as JSON")

    command = verb("collect report", report, "write report.html and datasheet.md of a finished collection anew")
    command.add_argument("run_folder", type=Path, metavar="DIR", help="what `crossgrain collect` wrote")

    command = verb("collect hash-set", hash_set, "hash the images of a test set, so that a collection leaves them out")
    command.add_argument("images", type=Path, nargs="+", metavar="PATH", help="images, folders, or prepared data")
    command.add_argument("--name", help="what the report calls it (default: the name of the first PATH)")
    command.add_argument("--out", type=Path, required=True, metavar="FILE", help="where the hashes go")

    command = verb("collect train-scorer", train_scorer, "train the light scorer on a small set of good pairs")
    command.add_argument("data", type=Path, metavar="DATA", help="a folder that `crossgrain prepare` wrote")
    command.add_argument("overrides", nargs="*", metavar="key=value", help="change values of its training")
    command.add_argument("--out", type=Path, required=True, metavar="DIR", help="where the scorer goes")
    command.add_argument("--json", action="store_true", help="print how good it is as JSON")


def is_collection(recipe: Path) -> bool:
    """Whether a recipe is one of collecting: it names inputs, or a web of scenes."""
    try:
        tree = read_yaml(recipe.read_text(encoding="utf-8", errors="replace"), str(recipe))
    except UserError:  # whoever reads it next says what is wrong
        return False
    return isinstance(tree, dict) and not tree.keys().isdisjoint({"inputs", "scenes_web"})


def complete(recipe: Path, overrides: Sequence[str]) -> Any:
    """A recipe of collecting with every value it stands for."""
    return _command().load(recipe, overrides)


def collect(arguments: argparse.Namespace) -> int:
    """Handle `crossgrain collect RECIPE`: 0 where all was done, 1 where parts were given up or nothing was kept."""
    from crossgrain.config import find_recipe

    path = find_recipe(arguments.recipe)
    console = make_console(stderr=arguments.json)
    out = arguments.out or Path("data") / path.stem
    result = _command().collect(path, arguments.overrides, out, console)
    return _tell(result, arguments.json, console)


def retry(arguments: argparse.Namespace) -> int:
    """Handle `crossgrain collect retry`."""
    console = make_console(stderr=arguments.json)
    return _tell(_command().retry(arguments.run_folder, console), arguments.json, console)


def remove(arguments: argparse.Namespace) -> int:
    """Handle `crossgrain collect remove`."""
    console = make_console(stderr=arguments.json)
    wanted = {"urls": arguments.url, "hashes": arguments.hash, "domains": arguments.domain}
    removal = _command().remove(arguments.data, **wanted, listed=arguments.list, dry_run=arguments.dry_run)
    return _tell(removal, arguments.json, console)


def report(arguments: argparse.Namespace) -> int:
    """Handle `crossgrain collect report`."""
    say(make_console(), *(f"wrote {file}" for file in _command().report(arguments.run_folder)))
    return 0


def hash_set(arguments: argparse.Namespace) -> int:
    """Handle `crossgrain collect hash-set`."""
    name = arguments.name or arguments.images[0].stem
    say(make_console(), *_command().hash_set(arguments.images, name, arguments.out))
    return 0


def train_scorer(arguments: argparse.Namespace) -> int:
    """Handle `crossgrain collect train-scorer`."""
    console = make_console(stderr=arguments.json)
    result = _command().train_scorer(arguments.data, arguments.out, arguments.overrides, console)
    return _tell(result, arguments.json, console)


def _command() -> Any:
    """The module that does it; UserError where the extra is not installed."""
    try:
        from crossgrain.collect import command
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing == "crossgrain":
            raise
        told = f"`crossgrain collect` needs {missing}: install the extra, pip install 'crossgrain[collect]'"
        raise UserError(told) from None
    return command


def _tell(result: Any, as_json: bool, console: "Console") -> int:
    """Say what came of it, to people or programs; the exit status, 1 where a part was given up or all was dropped."""
    if as_json:
        write(json.dumps(result.to_json(), indent=1, ensure_ascii=False))
    else:
        say(console, *result.lines())
    return int(bool(getattr(result, "partial", False) or getattr(result, "nothing", "")))
