"""The recipes for collecting are read, and survive saving."""

import re
from dataclasses import fields
from pathlib import Path

import pytest

from crossgrain.collect.recipe import CollectRecipe
from crossgrain.config import UserError, load_recipe, save_recipe

FOLDER = Path(__file__).parents[2] / "recipes" / "collect"
PAGE = (FOLDER.parents[1] / "docs" / "collect.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_shipped_recipe_is_read_and_survives_saving(path, tmp_path):
    recipe = load_recipe(CollectRecipe, path)
    save_recipe(recipe, tmp_path / "saved.yaml")
    assert load_recipe(CollectRecipe, tmp_path / "saved.yaml") == recipe
    assert (
        path.read_text(encoding="utf-8").startswith("# ") and "crossgrain collect recipes/collect/" in path.read_text()
    )


def test_the_planted_web_is_asked_for_with_its_scorer_and_nothing_is_fetched():
    recipe = load_recipe(CollectRecipe, FOLDER / "scenes_web.yaml")
    assert recipe.scenes_web.pages == 2000 and not recipe.fetch_missing and recipe.threshold.value is not None


def test_the_template_asks_nobody_before_a_contact_is_named():
    recipe = load_recipe(CollectRecipe, FOLDER / "web.yaml")
    with pytest.raises(UserError, match="contact"):
        recipe.fetch.check_contact()


def test_the_recipe_of_the_page_is_read(tmp_path):
    (tmp_path / "page.yaml").write_text(re.search(r"```yaml\n(.*?)```", PAGE, re.DOTALL)[1], encoding="utf-8")
    recipe = load_recipe(CollectRecipe, tmp_path / "page.yaml")
    assert len(recipe.inputs) == 5 and recipe.scorer.path == Path("scorer")
    recipe.fetch.check_contact()


def test_the_page_names_every_key_of_a_recipe():
    table = re.search(r"^\| key \| what \|\n(.*?)\n\n", PAGE, re.DOTALL | re.MULTILINE)[1]
    named = re.findall(r"`(\w+)`", "".join(re.findall(r"^\|(.*?)\|", table, re.MULTILINE)))
    assert sorted(named) == sorted(field.name for field in fields(CollectRecipe))
