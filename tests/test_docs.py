"""What the pages name exists: `file.py::Class.method` is there, and so is every recipe."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "crossgrain"
PAGES = sorted((ROOT / "docs").glob("*.md"))


def names_in(file: Path) -> set[str]:
    """Every class, function and assigned name of a file, with the class it stands in."""
    found = set()

    def visit(node: ast.AST, above: str) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.ClassDef | ast.FunctionDef):
                found.add(above + child.name)
                visit(child, f"{above}{child.name}.")
            elif isinstance(child, ast.Assign | ast.AnnAssign):
                targets = child.targets if isinstance(child, ast.Assign) else [child.target]
                found.update(above + target.id for target in targets if isinstance(target, ast.Name))

    visit(ast.parse(file.read_text(encoding="utf-8")), "")
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_page_names_exists(page):
    text = page.read_text(encoding="utf-8")
    places = re.findall(r"`([\w/]+\.py)::([\w.]+)`", text)
    missing = [f"{file}::{name}" for file, name in places if name not in names_in(PACKAGE / file)]
    recipes = re.findall(r"`(recipes/[\w/]+\.yaml)`", text)
    assert missing + [recipe for recipe in recipes if not (ROOT / recipe).is_file()] == []


def test_a_name_that_is_not_there_is_found():
    names = names_in(PACKAGE / "objectives" / "mlm.py")
    assert {"MLM", "MLM.Config", "MLM.Config.weight", "MLM.logits"} <= names
    assert "MLM.logit" not in names
