"""Imports recipients from a file into a list, however large and however broken the file.

Decides what happens to people who are there already: their fields are merged as the mode
says, and who unsubscribed from the list stays unsubscribed, always. Of several rows with the
same address the first one counts. A row that cannot be used is set aside with its line and
its reason. Constant memory: rows go to PostgreSQL in chunks by COPY, each chunk and the
progress in one transaction; an import that died is run again from the beginning, and what it
had done is found unchanged.
"""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from django.db import connection, transaction
from django.utils import timezone

from campaigns import import_sql as sql
from campaigns import uploads
from campaigns.core import recipient_rows
from campaigns.core.recipient_rows import Columns, NoAddressColumn, RecipientRow, RejectedRow
from campaigns.core.text_format import DELIMITER_NAMES
from campaigns.import_report import COUNTS, ImportRefused, Report, report_file
from campaigns.models import Import, ImportState, List, UpdateMode
from campaigns.models import RejectedRow as KeptRow
from campaigns.table_file import Record, TableFile, UnreadableFile, open_table, why_unreadable
from deliverability.models import Workspace

CHUNK_ROWS = 5_000
KEPT_REJECTED_ROWS = 10_000  #: per import, in the database; a report file has them all

_LOCK_CLASS = 0x706F_7374  # of advisory locks: one run per import
_OVERWRITE = UpdateMode("overwrite")


@dataclass(frozen=True, slots=True)
class Options:
    encoding: str = ""
    delimiter: str = ""
    mode: UpdateMode = _OVERWRITE
    origin: str = ""  #: where the consent came from, kept with each new subscription


OnProgress = Callable[[Report], None]


def import_file(
    path: Path,
    into: List,
    options: Options = Options(),
    *,
    run: Import | None = None,
    rejected_to: Path | None = None,
    on_progress: OnProgress = lambda _report: None,
) -> Report:
    """Import the file at `path` into a saved list, or raise `ImportRefused`.

    `run`, if given, is kept up to date with every chunk. `rejected_to` receives every row that
    was set aside, as CSV.
    """
    writer = _Writer(into.workspace_id, into.pk, options, run=run)
    return _import(path, options, writer, rejected_to, on_progress)


def dry_run(
    path: Path,
    workspace: Workspace,
    into: List | None,
    options: Options = Options(),
    *,
    rejected_to: Path | None = None,
    on_progress: OnProgress = lambda _report: None,
) -> Report:
    """Say what importing would do, changing nothing. `into` is None for a list yet to be made."""
    writer = _Writer(workspace.pk, into.pk if into else None, options, is_dry_run=True)
    return _import(path, options, writer, rejected_to, on_progress)


def examine(path: Path, options: Options = Options()) -> tuple[str, ...]:
    """The names of the file's columns as merge fields; raises `ImportRefused`."""
    return _opened(path, options)[1].names


def start(
    into: List,
    path: Path,
    *,
    file_name: str,
    options: Options = Options(),
    by: Any = None,
) -> Import:
    """Write down an import that `run_import` will carry out."""
    return Import.objects.create(
        workspace=into.workspace,
        list=into,
        file_name=file_name[:300],
        path=str(path),
        encoding=options.encoding,
        delimiter=options.delimiter,
        mode=options.mode,
        state=ImportState.WAITING,
        started_by=by if getattr(by, "pk", None) else None,
    )


def run_import(import_id: int, on_progress: OnProgress = lambda _report: None) -> Import:
    """Carry out an import that was written down; safe to run twice and to run again.

    What is wrong with the file ends up in `error`; anything else is raised, and leaves the
    import to be run again.
    """
    run = Import.objects.select_related("list__workspace").get(pk=import_id)
    with _alone(import_id) as is_alone:
        if not is_alone or run.state in (ImportState.FINISHED, ImportState.FAILED):
            return run
        _begin_again(run)
        options = Options(run.encoding, run.delimiter, UpdateMode(run.mode), _origin(run.file_name))
        try:
            import_file(Path(run.path), run.list, options, run=run, on_progress=on_progress)
        except ImportRefused as problem:
            run.error = str(problem).replace(run.path, run.file_name)[:1000]
            run.state = ImportState.FAILED
        else:
            run.state = ImportState.FINISHED
        run.finished_at = timezone.now()
        run.save()
    uploads.discard(Path(run.path))
    return run


def waiting_imports() -> tuple[int, ...]:
    """Uploaded imports that are not done and that no process is working on.

    Their task is on its way, or was lost with the broker or the worker that had it.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT i.id FROM campaigns_import i
            WHERE i.state IN ('waiting', 'running') AND i.path <> ''
              AND i.started_at < now() - interval '30 seconds'
              AND NOT EXISTS (
                SELECT 1 FROM pg_locks l
                WHERE l.locktype = 'advisory' AND l.objsubid = 2
                  AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
                  AND l.classid = %s AND l.objid = i.id %% 2147483648)
            ORDER BY i.id
            """,
            [_LOCK_CLASS],
        )
        return tuple(row[0] for row in cursor.fetchall())


def _origin(file_name: str) -> str:
    return f"import of {file_name}"[:200]


def _import(
    path: Path,
    options: Options,
    writer: _Writer,
    rejected_to: Path | None,
    on_progress: OnProgress,
) -> Report:
    table, columns = _opened(path, options)
    report = _new_report(table, columns)
    with report_file(rejected_to) as rejected_rows, _scratch_tables():
        records = _with_io_errors_named(path, table.records())
        while batch := list(itertools.islice(records, CHUNK_ROWS)):
            good, bad = _sorted_out(columns, batch, report)
            with transaction.atomic():
                writer.write(good, bad, report)
            rejected_rows(bad)
            on_progress(report)
    return report


def _opened(path: Path, options: Options) -> tuple[TableFile, Columns]:
    try:
        table = open_table(path, encoding=options.encoding, delimiter=options.delimiter)
        return table, recipient_rows.columns_from(table.header)
    except (UnreadableFile, NoAddressColumn) as problem:
        raise ImportRefused(str(problem)) from problem


def _new_report(table: TableFile, columns: Columns) -> Report:
    report = Report(
        file=str(table.path),
        encoding=table.encoding.name,
        delimiter=DELIMITER_NAMES.get(table.delimiter, table.delimiter),
        size_bytes=table.size_bytes,
        columns=columns.names,
    )
    if table.encoding.note:
        report.notes.append(table.encoding.note)
    return report


def _with_io_errors_named(path: Path, records: Iterator[Record]) -> Iterator[Record]:
    try:
        yield from records
    except OSError as problem:
        raise ImportRefused(why_unreadable(path, problem)) from problem


def _sorted_out(
    columns: Columns, batch: Sequence[Record], report: Report
) -> tuple[dict[str, RecipientRow], list[RejectedRow]]:
    """Good rows by address key, the first of each address; and those to set aside."""
    good: dict[str, RecipientRow] = {}
    bad: list[RejectedRow] = []
    for record in batch:
        row = (
            recipient_rows.rejected(record.line, record.problem, record.raw)
            if record.problem
            else recipient_rows.row_from(columns, record.cells, line=record.line, raw=record.raw)
        )
        if isinstance(row, RejectedRow):
            bad.append(row)
        elif good.setdefault(row.address.key, row) is not row:
            report.duplicates += 1
    report.rows += len(batch)
    report.read_bytes = batch[-1].end_bytes
    report.rejected += len(bad)
    report.reasons.update(row.reason for row in bad)
    _forget_rare(report.reasons)
    return good, bad


def _forget_rare(reasons: Counter[str], *, keep: int = 1_000) -> None:
    """Reasons may quote what they found: bound how many different ones are counted."""
    if len(reasons) > keep:
        for reason, _ in reasons.most_common()[keep:]:
            del reasons[reason]


class _Writer:
    """Writes one chunk after another; or, in a dry run, finds out what writing would do."""

    def __init__(
        self,
        workspace_id: int,
        list_id: int | None,
        options: Options,
        *,
        run: Import | None = None,
        is_dry_run: bool = False,
    ) -> None:
        self._given = {"workspace": workspace_id, "list": list_id, "origin": options.origin[:200]}
        self._mode = options.mode
        self._run = run
        self._is_dry_run = is_dry_run
        self._chunks = 0

    def write(
        self, good: dict[str, RecipientRow], bad: Sequence[RejectedRow], report: Report
    ) -> None:
        with connection.cursor() as cursor:
            report.duplicates += _load(cursor, good.values())
            if self._is_dry_run:
                cursor.execute(sql.would_change(self._mode), self._given)
            else:
                cursor.execute(sql.upsert_recipients(self._mode), self._given)
                cursor.execute(sql.SUBSCRIBE, self._given)
                self._look_at_sizes(cursor)
            cursor.execute(sql.OUTCOMES)
            outcomes = dict(cursor.fetchall())
            cursor.execute(sql.NOT_RESUBSCRIBED, self._given)
            report.not_resubscribed += cursor.fetchone()[0]
        report.created += outcomes.get("created", 0)
        report.updated += outcomes.get("updated", 0)
        report.unchanged += outcomes.get("unchanged", 0)
        if self._run is not None:
            _keep(self._run, bad, report)

    def _look_at_sizes(self, cursor: Any) -> None:
        """Whenever the import has doubled, have the planner look again. The check of foreign keys
        at the commit would go on with a plan made for an almost empty table: a walk through all
        of it for each row."""
        self._chunks += 1
        if self._chunks.bit_count() == 1:
            cursor.execute("ANALYZE campaigns_recipient")


def _load(cursor: Any, rows: Any) -> int:
    """Put the rows into the scratch table; return how many an earlier chunk had already."""
    cursor.execute(sql.EMPTY_ROWS)
    with cursor.copy(sql.COPY_ROWS) as copy:
        for row in rows:
            address = row.address
            attributes = json.dumps(row.attributes, ensure_ascii=False)
            copy.write_row((address.address, address.key, address.domain, attributes))
    cursor.execute(sql.DROP_SEEN)
    repeated: int = cursor.rowcount
    cursor.execute(sql.REMEMBER_SEEN)
    return repeated


def _keep(run: Import, bad: Sequence[RejectedRow], report: Report) -> None:
    """Save the progress, and the rows that were set aside, with the chunk itself."""
    before = run.rejected
    names = (*COUNTS, "size_bytes", "read_bytes")
    for name in names:
        setattr(run, name, getattr(report, name))
    run.notes = "\n".join(report.notes)
    run.save(update_fields=[*names, "notes"])
    room = max(KEPT_REJECTED_ROWS - before, 0)
    KeptRow.objects.bulk_create(
        KeptRow(import_run=run, line=row.line, reason=row.reason, raw=row.raw) for row in bad[:room]
    )


def _begin_again(run: Import) -> None:
    with transaction.atomic():
        run.rejected_rows.all().delete()
        run.state, run.error, run.finished_at = ImportState.RUNNING, "", None
        run.rejected = run.rows = run.read_bytes = 0
        run.save()


@contextmanager
def _scratch_tables() -> Iterator[None]:
    with connection.cursor() as cursor:
        cursor.execute(sql.SCRATCH)
    try:
        yield
    finally:
        # A broken connection takes its temporary tables along.
        if not connection.needs_rollback and connection.is_usable():
            with connection.cursor() as cursor:
                cursor.execute(sql.DROP_SCRATCH)


@contextmanager
def _alone(import_id: int) -> Iterator[bool]:
    """Hold the import's lock; it ends with the connection, so a dead run never keeps it."""
    key = [_LOCK_CLASS, import_id % 2**31]
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_lock(%s, %s)", key)
        held = cursor.fetchone()[0]
    try:
        yield held
    finally:
        if held and not connection.needs_rollback and connection.is_usable():
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_advisory_unlock(%s, %s)", key)
