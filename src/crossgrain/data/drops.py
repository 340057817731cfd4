"""Count what was dropped, by reason, with the first case of each: a report that a person can act on."""

from collections import Counter
from dataclasses import dataclass, field

from crossgrain.data.records import Dropped


@dataclass(kw_only=True)
class Drops:
    """How often each rule was broken."""

    dropped: Counter[str] = field(default_factory=Counter)
    first_dropped: dict[str, dict[str, str]] = field(default_factory=dict)  # by reason: {where, detail}

    def drop(self, dropped: Dropped) -> None:
        """Count a drop; the first of each reason is kept whole."""
        self.dropped[dropped.reason] += 1
        if dropped.reason not in self.first_dropped:
            where, detail = (_printable(text) for text in (dropped.where, dropped.detail))
            self.first_dropped[dropped.reason] = {"where": where, "detail": detail}

    def sorted_drops(self) -> dict[str, int]:
        """Count by reason, the most frequent first."""
        return dict(sorted(self.dropped.items(), key=lambda item: (-item[1], item[0])))

    def drop_lines(self) -> list[str]:
        """One line for people for every reason, with its count and first case."""
        lines = []
        for reason, count in self.sorted_drops().items():
            first = self.first_dropped[reason]
            detail = f" ({first['detail']})" if first["detail"] else ""
            lines.append(f"  {count:,} x {reason}; first at {first['where']}{detail}")
        return lines


def _printable(text: str, length: int = 240) -> str:
    shown = "".join(c if c.isprintable() else "?" for c in text)
    return shown if len(shown) <= length else f"{shown[: length - 3]}..."
