"""The rules of the house, as tests; where a rule needs a checker, the checker is tried on a planted violation first."""

import argparse
import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import commands
import readme_tree
import repetition

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "crossgrain"
FILES = sorted(PACKAGE.rglob("*.py"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def source(file: Path) -> str:
    return file.read_text(encoding="utf-8")


def walk_package() -> Iterator[tuple[str, ast.AST]]:
    """Every syntax node of the package with its place, `path:line`."""
    for file in FILES:
        for node in ast.walk(ast.parse(source(file))):
            yield f"{file.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}", node


# The shape of the code.


def lint_imports(root: Path) -> subprocess.CompletedProcess[str]:
    """Run import-linter on the package under `root`/src, with the contracts of `root`/pyproject.toml."""
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    environment = {**os.environ, "PYTHONPATH": str(root / "src")}
    return subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)


def test_imports_point_down():
    result = lint_imports(ROOT)
    assert result.returncode == 0, result.stdout + result.stderr


def test_imports_that_point_up_or_are_too_heavy_are_found(tmp_path):
    shutil.copytree(PACKAGE, tmp_path / "src" / "crossgrain", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    planted = {"nn.boxes": "crossgrain.models", "config": "torch", "data.records": "torch"}
    for importer, imported in planted.items():
        file = tmp_path / "src" / "crossgrain" / f"{importer.replace('.', '/')}.py"
        file.write_text(f"{source(file)}\nimport {imported}\n", encoding="utf-8")
    result = lint_imports(tmp_path)
    reported = re.sub(r"\s+", " ", result.stdout)
    assert result.returncode == 1
    assert [line for line in planted.items() if "crossgrain.{} -> {}".format(*line) not in reported] == []


def test_only_the_distributed_module_names_torch_distributed():
    pattern = re.compile(r"torch\.distributed|from torch import .*\bdistributed\b")
    naming = {str(file.relative_to(PACKAGE)) for file in FILES if pattern.search(source(file))}
    assert naming <= {"training/distributed.py"}


def test_no_file_has_more_than_400_lines():
    lengths = {str(file.relative_to(ROOT)): len(source(file).splitlines()) for file in FILES}
    assert {file: length for file, length in lengths.items() if length > 400} == {}


def test_less_than_5_percent_of_the_code_is_said_twice():
    repeated = repetition.measure(FILES)
    worst = "\n".join("  ".join(places) for places in repeated.places[:20])
    assert repeated.share < 0.05, f"{repeated.share:.1%} of the windows of eight lines repeat, such as\n{worst}"


def test_repetition_counts_code_and_not_words(tmp_path):
    code = [f"value_{number} = compute({number})" for number in range(8)]
    (tmp_path / "one.py").write_text("\n".join(['"""One."""', "import os", *code, "end = 1"]), encoding="utf-8")
    (tmp_path / "two.py").write_text(
        "\n".join(["# Two.", *(f"{line}  # said again\n" for line in code)]), encoding="utf-8"
    )
    repeated = repetition.measure(tmp_path.glob("*.py"))
    assert repeated.share == 2 / 3  # one.py has two windows, two.py has one, and that one is in both
    assert repeated.places == [[f"{tmp_path / 'one.py'}:3", f"{tmp_path / 'two.py'}:2"]]


def test_the_package_does_not_print():
    calls = [place for place, node in walk_package() if isinstance(node, ast.Call) and _name(node.func) == "print"]
    assert calls == []


def test_the_package_has_no_stubs():
    stubs = [place for place, node in walk_package() if _name(node) == "NotImplementedError"]
    promises = [file.name for file in FILES if re.search(r"#.*\b(TODO|FIXME|XXX)\b", source(file))]
    assert stubs + promises == []


def _name(node: ast.AST) -> str | None:
    return node.id if isinstance(node, ast.Name) else None


def test_modules_are_named_for_what_they_are():
    vague = {"utils", "util", "helpers", "misc", "common", "base", "manager", "engine"}
    assert [str(file.relative_to(ROOT)) for file in FILES if vague & {file.stem, file.parent.name}] == []


def test_the_wheel_holds_every_file_of_the_package():
    declared = PROJECT["tool"]["setuptools"]["package-data"].items()
    named = {PACKAGE.parent / folder.replace(".", "/") / name for folder, names in declared for name in names}
    beside = (file for file in PACKAGE.rglob("*") if file.is_file() and "__pycache__" not in file.parts)
    assert {file for file in beside if file.suffix != ".py"} == named


# The command line.


def test_the_commands_are_frozen():
    from crossgrain.cli import build_parser

    frozen = source(ROOT / "tests" / "commands.txt")
    advice = "if the change is meant: .venv/bin/python tests/commands.py > tests/commands.txt"
    assert commands.describe(build_parser()) == frozen, advice


def test_the_description_of_the_commands_names_every_argument_and_flag():
    parser = argparse.ArgumentParser(prog="tool")
    parser.add_argument("--version", action="store_true")
    verbs = parser.add_subparsers(dest="verb")
    train = verbs.add_parser("train")
    train.add_argument("recipe")
    train.add_argument("overrides", nargs="*", metavar="key=value")
    train.add_argument("--out", "-o", required=True)
    kinds = verbs.add_parser("prepare").add_subparsers(dest="source")
    kinds.add_parser("coco").add_argument("--split", choices=["train", "val"])
    assert commands.describe(parser).splitlines() == [
        "tool [--version]",
        "tool prepare",
        "tool prepare coco [--split=<train|val>]",
        "tool train <recipe> <key=value>* --out|-o=<out>",
    ]


@pytest.mark.parametrize(
    "code", ["import crossgrain", "from crossgrain.cli import main; main(['--help'])"], ids=["import", "help"]
)
def test_the_start_is_light(code):
    """Under half a second of processor time, start of the interpreter included, and nothing heavy loaded."""
    heavy = {"torch", "torchvision", "timm", "matplotlib", "pyarrow", "PIL", "tensorboard"}
    report = f"print(time.process_time(), *{heavy} & set(sys.modules), file=sys.stderr)"
    program = f"import atexit, sys, time\natexit.register(lambda: {report})\n{code}\n"
    runs = [
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stderr.split()
        for _ in range(3)  # the first may compile bytecode
    ]
    assert {tuple(loaded) for _, *loaded in runs} == {()}
    assert min(float(seconds) for seconds, *_ in runs) < 0.5


# The repository.


def test_the_tree_in_the_readme_is_true():
    listed = readme_tree.listed_paths(source(ROOT / "README.md"))
    missing = [path for path in listed if not (ROOT / path).exists()]
    modules = [
        path.relative_to(ROOT).as_posix() + "/" * path.is_dir()
        for path in PACKAGE.iterdir()
        if (path.suffix == ".py" and path.name != "__init__.py") or (path / "__init__.py").exists()
    ]
    assert missing == []
    assert sorted(set(modules) - set(listed)) == []


def test_the_tree_is_read_with_its_folders():
    tree = "# Title\n```\ncrossgrain/   the house\n├── LICENSE Makefile\n├── src/package/\n│   ├── nn/   a b, c/\n"
    tree += "│   │   └── boxes.py\n│   └── cli.py\n└── docs/       pages\n```\n"
    package = ["src/package/", "src/package/nn/", "src/package/nn/boxes.py", "src/package/cli.py"]
    assert readme_tree.listed_paths(tree) == ["LICENSE", "Makefile", *package, "docs/"]


@pytest.mark.parametrize("page", ["docs/architecture.md", "CONTRIBUTING.md"])
def test_the_files_that_a_page_names_exist(page):
    named = re.findall(r"`([\w./-]+(?:\.(?:py|md|txt|toml|lock|yaml)|/))`", source(ROOT / page))
    assert named
    assert [name for name in named if not ((ROOT / name).exists() or (PACKAGE / name).exists())] == []


def locked() -> dict[str, str]:
    """Name -> version of every requirement of the lock."""
    return dict(re.findall(r"^([\w.-]+)==([^\s;]+)", source(ROOT / "requirements.lock"), re.MULTILINE))


def test_the_lock_names_hashes_and_no_place():
    text = source(ROOT / "requirements.lock")
    requirements = [entry for entry in re.split(r"\n(?=\S)", text) if not entry.startswith("#")]
    assert len(requirements) == len(locked()) > 0
    assert [entry for entry in requirements if not re.search(r"--hash=sha256:[0-9a-f]{64}\b", entry)] == []
    place = re.compile(r"://|--find-links|--index|--extra-index|\s@\s|^\s*[/.]|\bfile:")
    assert [line for line in text.splitlines() if place.search(line)] == []


def test_the_lock_holds_every_dependency_of_the_project():
    extras = PROJECT["project"].get("optional-dependencies", {}).values()
    build = PROJECT["build-system"]["requires"]
    wanted = map(Requirement, chain(PROJECT["project"]["dependencies"], *extras, build))
    versions = locked()
    stale = [str(need) for need in wanted if versions.get(_normal(need.name), "") not in need.specifier]
    assert stale == [], "requirements.lock is older than pyproject.toml: run `make lock`"


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_no_file_names_a_place_of_one_machine():
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout, so there is no list of the project's files")
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    place = re.compile(rb"(?<![\w.}~-])/(?:work|home|root|Users)/[\w.]")
    files = [ROOT / name for name in names if name and (ROOT / name).is_file()]
    assert len(files) > len(FILES)
    assert [str(file.relative_to(ROOT)) for file in files if place.search(file.read_bytes())] == []
