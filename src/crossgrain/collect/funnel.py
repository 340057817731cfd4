"""The account of a run: what went into each stage, what came out, and why the rest did not. It always adds up."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from crossgrain.config import UserError
from crossgrain.documents.writing import write_whole

FUNNEL, GIVEN_UP = "funnel.json", "given_up.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class FunnelRow:
    """One stage's account in one unit ("pages", "texts", "images", "pairs"): `num_in` = `num_out` + all of `dropped`.

    ValueError where it does not add up, or a number is negative; a reason that nothing was dropped for is left out.
    """

    stage: str
    unit: str
    num_in: int
    num_out: int
    dropped: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "dropped", {reason: int(n) for reason, n in self.dropped.items() if n})
        numbers = (self.num_in, self.num_out, *self.dropped.values())
        if min(numbers) < 0 or self.num_in != self.num_out + self.num_dropped:
            account = f"{self.num_in} in, {self.num_out} out, {self.num_dropped} dropped ({dict(self.dropped)})"
            raise ValueError(f"the funnel does not add up at {self.stage}, {self.unit}: {account}")

    @property
    def num_dropped(self) -> int:
        """How many were dropped, for whatever reason."""
        return sum(self.dropped.values())

    def sorted_drops(self) -> list[tuple[str, int]]:
        """Reasons with their counts, the most frequent first; equal counts by name."""
        return sorted(self.dropped.items(), key=lambda item: (-item[1], item[0]))

    def to_json(self) -> dict[str, Any]:
        """{stage, unit, in, out, dropped: {reason: n}}, the most frequent reason first."""
        return {
            "stage": self.stage,
            "unit": self.unit,
            "in": self.num_in,
            "out": self.num_out,
            "dropped": dict(self.sorted_drops()),
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "FunnelRow":
        """The inverse of `to_json`; ValueError, KeyError or TypeError where `values` are no row."""
        dropped = {str(reason): int(number) for reason, number in values["dropped"].items()}
        counts = {"num_in": int(values["in"]), "num_out": int(values["out"])}
        return cls(stage=values["stage"], unit=values["unit"], dropped=dropped, **counts)


def merge_rows(rows: Iterable[FunnelRow]) -> list[FunnelRow]:
    """Rows of parts (shards, buckets) added up by stage and unit, in the order that each was first met."""
    numbers: dict[tuple[str, str], list[int]] = {}
    dropped: dict[tuple[str, str], Counter[str]] = {}
    for row in rows:
        key = (row.stage, row.unit)
        total = numbers.setdefault(key, [0, 0])
        total[0] += row.num_in
        total[1] += row.num_out
        dropped.setdefault(key, Counter()).update(row.dropped)
    return [
        FunnelRow(stage=stage, unit=unit, num_in=total[0], num_out=total[1], dropped=dropped[stage, unit])
        for (stage, unit), total in numbers.items()
    ]


def write_funnel(path: Path, rows: Sequence[FunnelRow]) -> None:
    """Write rows as a JSON list, whole or not at all; the same rows are the same bytes."""
    write_whole(path, [json.dumps([row.to_json() for row in rows], indent=1), "\n"])


def read_funnel(path: Path) -> list[FunnelRow]:
    """Rows of a file that `write_funnel` wrote. UserError where there is none or it does not add up."""
    try:
        return [FunnelRow.from_json(values) for values in json.loads(path.read_text(encoding="utf-8"))]
    except FileNotFoundError:
        raise UserError(f"{path} does not exist: `crossgrain collect` writes it when it has finished") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is not a funnel: {error}") from None


def write_given_up(run: Path, given_up: Sequence[Mapping[str, str]]) -> None:
    """Say in the folder of a run which parts (stage, part, reason) were given up; no file where none was."""
    if given_up:
        write_whole(run / GIVEN_UP, [json.dumps([*given_up], indent=1), "\n"])
    else:
        (run / GIVEN_UP).unlink(missing_ok=True)


def read_given_up(run: Path) -> list[dict[str, str]]:
    """What `write_given_up` wrote. UserError where it is something else."""
    try:
        told = json.loads((run / GIVEN_UP).read_text(encoding="utf-8"))
        return [{name: str(one[name]) for name in ("stage", "part", "reason")} for one in told]
    except FileNotFoundError:
        return []
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{run / GIVEN_UP} does not say what was given up: {error}") from None


def given_up_lines(given_up: Iterable[Mapping[str, str]]) -> list[str]:
    """A line for every part that was given up."""
    return [f"given up: {one['stage']} {one['part']}: {one['reason']}" for one in given_up]


def funnel_lines(rows: Sequence[FunnelRow], most: int = 6) -> list[str]:
    """Rows for the terminal: a line a stage, and under it the `most` frequent reasons."""
    lines = []
    for row in rows:
        share = f" ({row.num_out / row.num_in:.1%})" if row.num_in else ""
        lines.append(f"{row.stage}: {row.num_in:,} {row.unit} in, {row.num_out:,} out{share}")
        drops = row.sorted_drops()
        shown = most if len(drops) > most + 1 else len(drops)  # a line for one more is no longer than one for the rest
        lines += [f"  {number:,} x {reason}" for reason, number in drops[:shown]]
        if rest := drops[shown:]:
            lines.append(f"  {sum(n for _, n in rest):,} x {len(rest)} other reasons")
    return lines


def why_nothing(rows: Sequence[FunnelRow], most: int = 3) -> str:
    """For an account at whose end there is nothing: where the last went, and the `most` frequent reasons there."""
    if not any(row.num_in for row in rows):
        return "nothing came in"
    row = next((row for row in rows if row.num_in and not row.num_out), max(rows, key=lambda row: row.num_dropped))
    drops = row.sorted_drops()
    told = [f"{number:,} x {reason}" for reason, number in drops[:most]]
    told += [f"{sum(number for _, number in drops[most:]):,} x other reasons"] if drops[most:] else []
    return f"of {row.num_in:,} {row.unit} {row.num_out or 'none'} passed the stage {row.stage}: {', '.join(told)}"
