"""Read a recipe: YAML plus `key.path=value` overrides into checked, frozen dataclasses.

A recipe is a value. It is read strictly (an unknown key or a wrong type is an error that names its path), it is
complete once read (defaults live in the dataclasses), and it is written back whole beside the weights it made.
This module imports no torch, so that commands can check their input before anything heavy is loaded.
"""

import importlib
import re
import sys
from collections.abc import Callable, Hashable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, TypeVar, dataclass_transform

import yaml
from pydantic import Field, GetCoreSchemaHandler, TypeAdapter, ValidationError
from pydantic_core import PydanticCustomError, core_schema

T = TypeVar("T")
Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, lt=1)]  # such as a dropout: all of it would leave nothing


class UserError(ValueError):
    """A mistake of the user's, said in one line: the command line prints it and exits with status 2."""


class RecipeError(UserError):
    """A recipe that does not fit its schema, said in the recipe's own terms."""


@dataclass_transform(frozen_default=True, kw_only_default=True)
def configclass(cls: type[T]) -> type[T]:
    """A frozen, keyword-only dataclass that refuses unknown keys when it is read from a recipe."""
    cls.__pydantic_config__ = {"extra": "forbid"}  # pyright: ignore[reportAttributeAccessIssue]
    return dataclass(frozen=True, kw_only=True)(cls)


class _StrictLoader(yaml.SafeLoader):
    """YAML that refuses a key written twice, and reads `1e-4` as the number that it is meant to be."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, Hashable):
                raise yaml.constructor.ConstructorError(None, None, f"{key!r} cannot be a key", key_node.start_mark)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} stands twice", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


_FLOAT = r"^[-+]?(?:[0-9][0-9_]*(?:\.[0-9_]*)?(?:[eE][-+]?[0-9]+)|\.[0-9_]+(?:[eE][-+]?[0-9]+)?|[0-9][0-9_]*\.[0-9_]*)$"
_StrictLoader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(_FLOAT), list("-+0123456789."))


def read_yaml(text: str, where: str) -> Any:
    """Parse YAML safely; a syntax error becomes one line with its position in `where`."""
    try:
        return yaml.load(text, Loader=_StrictLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        raise RecipeError(f"{where}{line}: not valid YAML: {getattr(error, 'problem', error)}") from None


def find_recipe(name: str) -> Path:
    """A recipe by its path, or by its name below the library's own `recipes/` folder."""
    given = Path(name)
    if given.is_file():
        return given
    folders = [Path(__file__).parents[2] / "recipes", Path(sys.prefix) / "share" / "crossgrain" / "recipes"]
    for folder in folders:
        candidates = [
            folder / name,
            folder / f"{name}.yaml",
            *(folder / kind / f"{name}.yaml" for kind in ("pretrain", "finetune", "collect")),
        ]
        if found := next((candidate for candidate in candidates if candidate.is_file()), None):
            return found
    shipped = sorted(str(p.relative_to(f).with_suffix("")) for f in folders if f.is_dir() for p in f.rglob("*.yaml"))
    raise RecipeError(f"no recipe at {name}; the library has {', '.join(shipped) or 'none here'}")


def load_recipe(
    schema: type[T], path: Path, overrides: Sequence[str] = (), complete: Callable[[Any, Any], Any] | None = None
) -> T:
    """Read `path` as a `schema`, with `key.path=value` overrides; RecipeError names each mistake by its path.

    `complete(tree, overridden)` fills in what the file leaves out, before the overrides.
    """
    path = Path(path)
    if not path.is_file():
        raise RecipeError(f"no recipe at {path}")
    try:
        tree = read_yaml(path.read_text(encoding="utf-8"), str(path))
    except UnicodeDecodeError as error:
        raise RecipeError(f"{path} is not a text file in UTF-8: {error}") from None
    if not isinstance(tree, dict):
        raise RecipeError(f"{path}: a recipe is a mapping of keys to values, not {type(tree).__name__}")
    if complete is not None:
        tree = complete(tree, with_overrides(deepcopy(tree), overrides))
    return read_config(schema, with_overrides(tree, overrides), str(path))


def with_overrides(tree: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """`tree` after `key.path=value` overrides, changed in place."""
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals or not key:
            raise RecipeError(f"{override!r} is no override: write key.path=value")
        _set(tree, key, read_yaml(value, f"override {override!r}"))
    return tree


def read_config(schema: type[T], tree: Any, where: str) -> T:
    """Check plain values against a config class; `where` opens the error message."""
    try:
        return TypeAdapter(schema).validate_python(tree)
    except ValidationError as error:
        lines = [_explain(e, schema) for e in error.errors()]
        raise RecipeError(f"{where}: " + "; ".join(lines)) from None


def dump_config(config: Any) -> Any:
    """A config as plain YAML values, every default written out."""
    return TypeAdapter(type(config)).dump_python(config, mode="json")


def dump_recipe(recipe: Any) -> str:
    """A recipe as YAML, every default written out; `load_recipe` reads it back to an equal value."""
    return yaml.safe_dump(dump_config(recipe), sort_keys=False, allow_unicode=True, width=120)


def save_recipe(recipe: Any, path: Path) -> None:
    """Write every value that was used, defaults included."""
    path.write_text(dump_recipe(recipe), encoding="utf-8")


class Choice:
    """A recipe field whose `type:` key picks a class from a table, or names one as `package.module:Class`.

    The rest of the keys fill the dataclass `Class.Config`. The table maps a name to a class or, to keep heavy imports
    out of the recipe reader, to `package.module:Class`. Use: `model: Annotated[Any, Choice(MODELS)]`.
    """

    def __init__(self, table: Mapping[str, type | str]):
        self.table = table

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        return core_schema.no_info_plain_validator_function(
            self._read, serialization=core_schema.plain_serializer_function_ser_schema(self._write)
        )

    def _read(self, tree: Any) -> Any:
        if not isinstance(tree, dict):
            if hasattr(tree, "__pydantic_config__"):
                return tree
            raise PydanticCustomError("choice", "write {type: NAME, ...} with NAME one of {names}", self._names())
        keys = dict(tree)
        config_class = find_class(keys.pop("type", None), self.table).Config
        return TypeAdapter(config_class).validate_python(keys)

    def _write(self, config: Any) -> dict[str, Any]:
        owner = f"{type(config).__module__}:{type(config).__qualname__.removesuffix('.Config')}"
        name = next((n for n in self.table if _config_owner(self.table[n]) == owner), owner)
        return {"type": name, **dump_config(config)}

    def _names(self) -> dict[str, Any]:
        return {"names": ", ".join(sorted(self.table))}


def find_class(name: Any, table: Mapping[str, type | str]) -> Any:
    """The class that `name` stands for in `table`, or the outsider that `package.module:Class` names.

    Raises ValueError with the known names.
    """
    entry = table.get(name, name) if isinstance(name, str) else None
    if isinstance(entry, type):
        return entry
    choices = f"choose from {', '.join(sorted(table))}, or write package.module:Class"
    if not isinstance(entry, str) or ":" not in entry:
        guess = get_close_matches(name, table, n=1) if isinstance(name, str) else []
        hint = f" (did you mean {guess[0]!r}?)" if guess else ""
        raise ValueError(f"unknown type {name!r}{hint}: {choices}")
    module, _, attribute = entry.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"type {name!r} cannot be imported ({error}): {choices}") from None
    if not hasattr(found, "Config"):
        raise ValueError(f"type {name!r} has no nested Config class")
    return found


def config_owner(config: Any) -> Any:
    """The class whose nested `Config` this is: `config_owner(XVLM.Config()) is XVLM`."""
    owner: Any = importlib.import_module(type(config).__module__)
    for part in type(config).__qualname__.split(".")[:-1]:
        owner = getattr(owner, part)
    return owner


def _config_owner(entry: type | str) -> str:
    return entry if isinstance(entry, str) else f"{entry.__module__}:{entry.__qualname__}"


def _explain(error: Mapping[str, Any], schema: type) -> str:
    path = ".".join(str(part) for part in error["loc"])
    if error["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        return f"{path}: unknown key"
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] in ("missing", "missing_argument", "missing_keyword_only_argument"):
        return f"{path}: is missing"
    return f"{path}: {message}" + ("" if "unknown type" in message else f" (got {_short(error['input'])})")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _set(tree: Any, path: str, value: Any) -> None:
    """Set one value in nested mappings and lists; every step is checked so that a typing slip is named."""
    *parents, last = path.split(".")
    node = tree
    for depth, key in enumerate(parents):
        here = ".".join(parents[: depth + 1])
        node = _at(node, key, here, lambda mapping, k: mapping.setdefault(k, {}))
        if not isinstance(node, dict | list):
            raise RecipeError(f"override {path}: {here} is {_short(node)}, which has no keys")
    if isinstance(node, list):
        _at(node, last, path, lambda mapping, k: None)
        node[int(last)] = value
    else:
        node[last] = value


def _at(node: Any, key: str, here: str, from_mapping: Callable[[Any, str], Any]) -> Any:
    if not isinstance(node, list):
        return from_mapping(node, key)
    if not key.isdigit() or int(key) >= len(node):
        names = [item.get("name", item.get("type")) if isinstance(item, dict) else None for item in node]
        raise RecipeError(f"override {here}: the list has entries 0 to {len(node) - 1} ({names}), not {key!r}")
    return node[int(key)]
