"""Recipes are read strictly, and every mistake is named by its path."""

from dataclasses import FrozenInstanceError
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from crossgrain.config import (
    Choice,
    RecipeError,
    UserError,
    config_owner,
    configclass,
    dump_config,
    find_class,
    load_recipe,
    read_yaml,
    save_recipe,
)


class Dog:
    @configclass
    class Config:
        legs: int = 4
        name: str | None = None


class Bird:
    @configclass
    class Config:
        wings: Annotated[int, Field(ge=0)] = 2
        speed: float = 1.0

        def __post_init__(self) -> None:
            if self.wings % 2:
                raise ValueError(f"wings come in pairs, not {self.wings}")


class Cage:
    """No config."""


ANIMALS: dict[str, type | str] = {"dog": Dog, "bird": f"{__name__}:Bird"}


@configclass
class Food:
    kind: Literal["hay", "corn"] = "hay"
    amounts: tuple[float, ...] = (1.0, 2.0)


@configclass
class Farm:
    size: int
    animal: Annotated[Any, Choice(ANIMALS)] = Dog.Config()
    herd: tuple[Annotated[Any, Choice(ANIMALS)], ...] = ()
    food: Food = Food()
    rate: float = 0.5


@pytest.fixture
def read(tmp_path):
    def read(text, *overrides):
        path = tmp_path / "farm.yaml"
        path.write_text(text, encoding="utf-8")
        return load_recipe(Farm, path, overrides)

    return read


def test_a_recipe_is_complete_once_read(read):
    assert read("size: 3") == Farm(size=3, animal=Dog.Config(legs=4, name=None), food=Food(), rate=0.5)
    farm = read("{size: 3, animal: {type: bird, speed: 2}, herd: [{type: dog, legs: 3}, {type: bird}]}")
    assert farm.animal == Bird.Config(speed=2.0)
    assert farm.herd == (Dog.Config(legs=3), Bird.Config())
    assert config_owner(farm.animal) is Bird


def test_a_recipe_is_a_value(read):
    farm = read("size: 3")
    with pytest.raises(FrozenInstanceError):
        farm.size = 4
    assert hash(farm) == hash(read("size: 3"))


@pytest.mark.parametrize("text", ["1e-4", "1.0e-4", "1E-4", "0.0001", ".0001", "+1e-4"])
def test_a_number_is_read_however_it_is_written(read, text):
    assert read(f"{{size: 1, rate: {text}}}").rate == 1e-4
    assert read("size: 1", f"rate={text}").rate == 1e-4


def test_words_and_whole_numbers_stay_what_they_are():
    assert read_yaml("[e4, 1.2.3, 12, 0x10, -3, 1e, 4_bit, -, 2026-01-02x]", "") == [
        "e4", "1.2.3", 12, 16, -3, "1e", "4_bit", "-", "2026-01-02x",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("size: 3\nsise: 4", "sise: unknown key"),
        ("rate: 1.0", "size: is missing"),
        ("size: three", r"size: Input should be a valid integer.* \(got 'three'\)"),
        ("size: 1.5", r"size: Input should be a valid integer.* \(got 1.5\)"),
        ("{size: 1, food: {kind: oats}}", r"food.kind: Input should be 'hay' or 'corn' \(got 'oats'\)"),
        ("{size: 1, food: {amount: 1}}", "food.amount: unknown key"),
        ("{size: 1, food: {amounts: [1, x]}}", r"food.amounts.1: .*valid number.* \(got 'x'\)"),
        ("{size: 1, animal: {type: bird, wings: -2}}", r"animal.wings: .*greater than or equal to 0 \(got -2\)"),
        ("{size: 1, animal: {type: bird, wings: 3}}", "animal: wings come in pairs, not 3"),
        ("{size: 1, animal: {type: bird, legs: 3}}", "animal.legs: unknown key"),
        ("{size: 1, herd: [{type: dog}, {type: dog, wings: 2}]}", "herd.1.wings: unknown key"),
        (
            "{size: 1, animal: {type: dgo}}",
            r"animal: unknown type 'dgo' \(did you mean 'dog'\?\): choose from bird, dog, or write package",
        ),
        ("{size: 1, animal: {type: whale}}", "animal: unknown type 'whale': choose from bird, dog"),
        ("{size: 1, animal: {legs: 3}}", "animal: unknown type None: choose from bird, dog"),
        ("{size: 1, animal: {type: [dog]}}", r"animal: unknown type \['dog'\]: choose from bird, dog"),
        ("{size: 1, animal: dog}", "animal: write {type: NAME, ...} with NAME one of bird, dog"),
        ("{size: 1, animal: {type: 'no_such.module:Bird'}}", "animal: type 'no_such.module:Bird' cannot be imported"),
        (f"{{size: 1, animal: {{type: '{__name__}:Fox'}}}}", "cannot be imported .*Fox"),
        (f"{{size: 1, animal: {{type: '{__name__}:Cage'}}}}", "Cage' has no nested Config class"),
        ("[1, 2]", "a recipe is a mapping of keys to values, not list"),
        ("", "a recipe is a mapping of keys to values, not NoneType"),
        ("size: 3\nrate: 1\nsize: 4", "farm.yaml, line 3: not valid YAML: key 'size' stands twice"),
        ("{size: 3, food: {kind: hay, kind: corn}}", "line 1: not valid YAML: key 'kind' stands twice"),
        ("size: [3", "farm.yaml, line 1: not valid YAML"),
        ("size: !!python/object/apply:os.getcwd []", "not valid YAML: could not determine a constructor"),
        ("{[1]: 2, size: 3}", "not valid YAML"),
    ],
)
def test_a_mistake_is_named_by_its_path(read, text, told):
    with pytest.raises(RecipeError, match=told) as caught:
        read(text)
    assert "\n" not in str(caught.value)
    assert "farm.yaml" in str(caught.value)


def test_all_mistakes_are_said_at_once(read):
    with pytest.raises(RecipeError, match="size: is missing") as caught:
        read("{sise: 3, rate: fast}")
    assert "sise: unknown key" in str(caught.value)
    assert "rate: " in str(caught.value)


def test_overrides_reach_every_place(read):
    text = "{size: 1, herd: [{type: dog}, {type: bird}]}"
    farm = read(
        text, "size=2", "herd.1.speed=3", "food.kind=corn", "food.amounts=[5]", "animal.type=dog", "animal.name=Rex"
    )
    assert (farm.size, farm.herd[1].speed, farm.food) == (2, 3.0, Food(kind="corn", amounts=(5.0,)))
    assert farm.animal.name == "Rex"
    assert read("{size: 1, animal: {type: dog, name: Rex}}", "animal.name=null").animal.name is None


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("size", "'size' is no override: write key.path=value"),
        ("=3", "'=3' is no override"),
        ("size.x=3", "override size.x: size is 1, which has no keys"),
        ("herd.3.legs=3", r"override herd.3: the list has entries 0 to 0 \(\['dog'\]\), not '3'"),
        ("herd.dog.legs=3", "override herd.dog: the list has entries 0 to 0"),
        ("herd.dog=3", "override herd.dog: the list has entries 0 to 0"),
        ("herd.0.wings=3", "herd.0.wings: unknown key"),
        ("foot.kind=corn", "foot: unknown key"),
        ("food=[1", r"override 'food=\[1', line 1: not valid YAML"),
    ],
)
def test_a_mistake_in_an_override_is_named(read, override, told):
    with pytest.raises(RecipeError, match=told) as caught:
        read("{size: 1, herd: [{type: dog}]}", override)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(RecipeError, match=r"no recipe at .*gone.yaml"):
        load_recipe(Farm, tmp_path / "gone.yaml")


def test_a_file_that_is_no_text_is_a_users_mistake(tmp_path):
    (tmp_path / "farm.yaml").write_bytes(b"\xff\xfe\x00size: 3")
    with pytest.raises(UserError, match=r"farm.yaml is not a text file"):
        load_recipe(Farm, tmp_path / "farm.yaml")


def test_an_outsider_is_named_by_package_and_class(read, tmp_path, monkeypatch):
    (tmp_path / "outsider.py").write_text(
        "from crossgrain.config import configclass\n"
        "class Cow:\n    @configclass\n    class Config:\n        milk: float = 3.5\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    farm = read("{size: 1, animal: {type: 'outsider:Cow', milk: 2}}")
    assert (farm.animal.milk, config_owner(farm.animal).__name__) == (2.0, "Cow")
    save_recipe(farm, tmp_path / "saved.yaml")
    assert load_recipe(Farm, tmp_path / "saved.yaml") == farm
    assert dump_config(farm)["animal"] == {"type": "outsider:Cow", "milk": 2.0}


def test_a_class_is_found_by_name_by_table_and_by_place():
    assert find_class("dog", ANIMALS) is Dog
    assert find_class("bird", ANIMALS) is Bird
    assert find_class(f"{__name__}:Dog", {}) is Dog


animals = st.one_of(
    st.builds(Dog.Config, legs=st.integers(), name=st.none() | st.text(max_size=8)),
    st.builds(
        Bird.Config,
        wings=st.integers(0, 9).map(lambda n: 2 * n),
        speed=st.floats(allow_nan=False, allow_infinity=False),
    ),
)
farms = st.builds(
    Farm,
    size=st.integers(),
    animal=animals,
    herd=st.lists(animals, max_size=3).map(tuple),
    food=st.builds(Food, kind=st.sampled_from(["hay", "corn"]), amounts=st.lists(st.floats(-1e9, 1e9)).map(tuple)),
    rate=st.floats(allow_nan=False),
)


@given(farms)
def test_what_is_saved_is_complete_and_loads_back_equal(tmp_path_factory, farm):
    path = tmp_path_factory.getbasetemp() / "farm.yaml"
    save_recipe(farm, path)
    assert load_recipe(Farm, path) == farm
    assert list(read_yaml(path.read_text(encoding="utf-8"), "")) == ["size", "animal", "herd", "food", "rate"]
