"""The manifest of a prepared data set: what stands in its folder, written last, so that its presence says "whole"."""

import json
import re
from pathlib import Path
from typing import Any

from crossgrain.config import UserError

FORMAT_VERSION = 1
MANIFEST = "manifest.json"
_SHARD_NAME = re.compile(r"\d{6,}")


def read_manifest(path: Path) -> dict[str, Any]:
    """The manifest of a finished data set; UserError where there is none or it is of another format."""
    file = path / MANIFEST
    if not file.is_file():
        raise UserError(f"no data set in {path}: it has no {MANIFEST} (`crossgrain prepare` makes one)")
    try:
        manifest = json.loads(file.read_text(encoding="utf-8"))
        version, shards = manifest["format_version"], manifest["shards"]
        named = all(_SHARD_NAME.fullmatch(shard["name"]) for shard in shards)
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{file} is no manifest of a data set: {error}") from None
    if version != FORMAT_VERSION or not named:
        raise UserError(f"{file} has format version {version!r}; this version of crossgrain reads {FORMAT_VERSION}")
    return manifest


def shard_names(manifest: dict[str, Any]) -> list[str]:
    """The names of the shards in their order: "000000", "000001", ..."""
    return [shard["name"] for shard in manifest["shards"]]
