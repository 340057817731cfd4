"""How well a collection told the good pairs of the planted web (`data.scenes.web`) from the bad ones, kind by kind."""

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crossgrain.config import UserError
from crossgrain.data.manifest import read_manifest
from crossgrain.data.scenes.web import TRUTH
from crossgrain.data.shards import Shards

GOOD = "good"
_WORD = re.compile(r"[a-z0-9]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class KindRow:
    """One kind: how many images of it the web holds, and how many pairs with one of them were kept."""

    kind: str
    num_planted: int
    num_kept: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What of the planted web was kept.

    A good photograph counts as found when one pair with it, or with a copy of it, has a caption that is true of it.
    Every other pair is one too many, also a second pair of the same photograph.
    """

    num_good: int  # photographs with a true caption, as planted
    num_found: int  # of these
    num_kept: int  # pairs in the shards
    bad: tuple[KindRow, ...]  # kept pairs are those that should not be there
    places: tuple[KindRow, ...]  # good photographs by the place of their caption
    forms: tuple[KindRow, ...]  # and by the way in which they are shown

    @property
    def recall(self) -> float:
        """Share of the good photographs that were found."""
        return self.num_found / self.num_good

    @property
    def precision(self) -> float:
        """Share of the kept pairs that are good."""
        return self.num_found / self.num_kept if self.num_kept else 0.0

    def to_json(self) -> dict[str, Any]:
        """Everything as plain values."""
        tables = {"bad": self.bad, "places": self.places, "forms": self.forms}
        return {
            "recall": self.recall,
            "precision": self.precision,
            "good": self.num_good,
            "found": self.num_found,
            "kept": self.num_kept,
            **{
                name: {row.kind: {"planted": row.num_planted, "kept": row.num_kept} for row in rows}
                for name, rows in tables.items()
            },
        }

    def lines(self) -> list[str]:
        """The two figures and the tables for people."""
        lines = [
            f"recall {self.recall:.1%}: {self.num_found:,} of {self.num_good:,} good photographs were found",
            f"precision {self.precision:.1%}: {self.num_found:,} of {self.num_kept:,} kept pairs are good",
            "",
            *_table("planted bad", self.bad),
            "",
            *_table("good, caption in", self.places),
            "",
            *_table("good, shown as", self.forms),
        ]
        return lines


def _table(title: str, rows: Sequence[KindRow]) -> list[str]:
    width = max(map(len, (title, *(row.kind for row in rows))))
    lines = [f"{title:<{width}}  planted    kept  share"]
    for row in rows:
        share = f"{row.num_kept / row.num_planted:6.1%}" if row.num_planted else "     -"
        lines.append(f"{row.kind:<{width}}  {row.num_planted:7,} {row.num_kept:7,} {share}")
    return lines


def read_truth(path: Path) -> dict[str, Any]:
    """The contents of truth.json, at `path` or in the folder `path`; UserError where there is none."""
    file = path / TRUTH if path.is_dir() else path
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{file} does not exist: the planted web has one beside its WARC files") from None


def is_true(text: str, captions: Sequence[str]) -> bool:
    """Whether a text is one or several of the captions and nothing else; case and punctuation do not count."""
    rest = f" {' '.join(_WORD.findall(text.lower()))} "
    found = False
    for caption in sorted(captions, key=len, reverse=True):
        words = f" {' '.join(_WORD.findall(caption.lower()))} "
        found |= words in rest
        rest = rest.replace(words, " ")
    return found and not rest.strip()


def judge(shards: Path, truth: Path) -> Judgement:
    """Hold a collection (the folder of its shards) against the truth.json of the planted web, or the folder with it."""
    told = read_truth(truth)
    planted = told["planted"]
    by_url = {url: row for row in planted for url in row["images"]}
    good = {row["scene"]: row for row in planted if row["kind"] == GOOD}
    found: set[str] = set()
    wrong: Counter[str] = Counter()
    num_kept = sum(read_manifest(shards)["splits"].values())
    records = Shards(shards, images=False) if num_kept else None  # which reads nothing that is empty
    for record in map(records.texts, range(num_kept)) if records else ():
        row = by_url.get(record.extra["provenance"]["image_url"], {"kind": "unknown image"})
        scene = row.get("scene", "")
        true = is_true(" ".join(record.captions), told["captions"].get(scene, ()))
        if row["kind"] not in (GOOD, "near-duplicate") or scene not in good:
            wrong[row["kind"]] += 1
        elif not true:
            wrong["good photograph, other text" if row["kind"] == GOOD else row["kind"]] += 1
        elif scene in found:
            wrong["kept twice"] += 1
        else:
            found.add(scene)
    kinds = Counter(row["kind"] for row in planted if row["kind"] != GOOD)
    return Judgement(
        num_good=len(good),
        num_found=len(found),
        num_kept=num_kept,
        bad=tuple(
            KindRow(kind=kind, num_planted=kinds[kind], num_kept=wrong[kind])
            for kind in [*sorted(kinds), *sorted(wrong.keys() - kinds.keys())]
        ),
        places=_shares(good, found, "place"),
        forms=_shares(good, found, "form"),
    )


def _shares(good: dict[str, dict[str, Any]], found: set[str], what: str) -> tuple[KindRow, ...]:
    planted = Counter(row[what] for row in good.values())
    kept = Counter(row[what] for scene, row in good.items() if scene in found)
    return tuple(KindRow(kind=kind, num_planted=planted[kind], num_kept=kept[kind]) for kind in planted)
