"""What an import did, for people and programs, and the file of the rows that it set aside."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from campaigns.core.recipient_rows import RejectedRow

#: How many rows there were, and what became of each: rows is the sum of the next five.
COUNTS = (
    "rows",
    "created",
    "updated",
    "unchanged",
    "duplicates",
    "rejected",
    "not_resubscribed",
)


class ImportRefused(ValueError):
    """The file cannot be imported at all; the text is one sentence for the person."""


@dataclass(slots=True)
class Report:
    """What an import did, or would do."""

    file: str
    encoding: str
    delimiter: str
    size_bytes: int
    columns: tuple[str, ...]
    read_bytes: int = 0
    rows: int = 0
    created: int = 0
    updated: int = 0
    unchanged: int = 0
    duplicates: int = 0
    rejected: int = 0
    not_resubscribed: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        names = ("file", "encoding", "delimiter", "columns", *COUNTS, "notes")
        shown = {name: getattr(self, name) for name in names}
        return {**shown, "reasons": dict(self.reasons.most_common())}


def report_file(
    path: Path | None,
) -> AbstractContextManager[Callable[[Sequence[RejectedRow]], None]]:
    return _rejected_file(path) if path else nullcontext(lambda _rows: None)


@contextmanager
def _rejected_file(path: Path) -> Iterator[Callable[[Sequence[RejectedRow]], None]]:
    try:
        file = path.open("w", encoding="utf-8", newline="")
    except OSError as problem:
        raise ImportRefused(
            f"The rejected rows cannot be written to {path}: {problem.strerror}."
        ) from problem
    with file:
        writer = csv.writer(file)
        writer.writerow(["line", "reason", "row"])

        def write(rows: Sequence[RejectedRow]) -> None:
            try:
                writer.writerows((row.line, row.reason, row.raw) for row in rows)
            except OSError as problem:
                raise ImportRefused(
                    f"The rejected rows cannot be written to {path}: {problem.strerror}."
                ) from problem

        yield write
