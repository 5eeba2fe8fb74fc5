"""What became of a network: a table for people."""

from collections.abc import Sequence
from dataclasses import dataclass

from neuralop_kit.convert.converter import Record


@dataclass(frozen=True)
class Report:
    """One row per part of the network that touches space; ``print`` shows the table.

    Args:
        records: path, rule, exact or changed at the reference, whether it has a limit, and which.
    """

    records: Sequence[Record]

    @property
    def is_exact(self) -> bool:
        """Whether every part equals the original at the reference resolution."""
        return all(record.exact for record in self.records)

    @property
    def is_convergent(self) -> bool:
        """Whether every part has a limit."""
        return all(record.convergent for record in self.records)

    @property
    def kept(self) -> list[Record]:
        """Parts that no rule converts, which run at the reference resolution between two changes of the grid."""
        return [record for record in self.records if record.rule == "kept at the reference"]

    def __str__(self) -> str:
        rows: list[tuple[str, ...]] = [("module", "rule", "at reference", "converges")]
        rows += [
            (r.path, r.rule, "exact" if r.exact else "changed", r.limit if r.convergent else f"no: {r.limit}")
            for r in self.records
        ]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        rows.insert(1, tuple("-" * width for width in widths))
        return "\n".join("  ".join(t.ljust(w) for t, w in zip(row, widths, strict=True)).rstrip() for row in rows)
