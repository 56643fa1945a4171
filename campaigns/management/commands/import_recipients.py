"""manage.py import_recipients FILE --workspace SLUG --list NAME"""

from __future__ import annotations

import json
import sys
import time
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from campaigns import imports
from campaigns.imports import ImportRefused, Options, Report
from campaigns.models import List, UpdateMode
from deliverability.models import Workspace


class Command(BaseCommand):
    help = (
        "Import recipients from a CSV file into a list. Rows that cannot be used are set aside "
        "with their reason; people who unsubscribed stay unsubscribed. May be run again."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("file", type=Path, metavar="FILE")
        parser.add_argument("--workspace", required=True, metavar="SLUG")
        parser.add_argument("--list", required=True, metavar="NAME", help="made if it is missing")
        parser.add_argument(
            "--mode",
            choices=UpdateMode.values,
            default=UpdateMode.OVERWRITE,
            help="what happens to the fields of recipients that are there already",
        )
        parser.add_argument("--encoding", default="", help="default: found by looking at the file")
        parser.add_argument("--delimiter", default="", help="default: found among , ; | and tab")
        parser.add_argument(
            "--rejected", type=Path, metavar="FILE", help="write the rows set aside to FILE, as CSV"
        )
        parser.add_argument("--dry-run", action="store_true", help="say what would be done")
        parser.add_argument("--json", action="store_true", help="print one JSON object")

    def handle(self, *_: Any, **given: Any) -> None:
        started = time.monotonic()
        workspace = Workspace.objects.filter(slug=given["workspace"]).first()
        if workspace is None:
            raise CommandError(_no_workspace(given["workspace"]), returncode=2)
        into = List.objects.filter(workspace=workspace, name=given["list"]).first()
        is_new_list = into is None
        options = Options(
            given["encoding"],
            given["delimiter"],
            UpdateMode(given["mode"]),
            f"import of {given['file'].name}",
        )
        try:
            report = self._import(workspace, into, given, options)
        except ImportRefused as problem:
            raise CommandError(str(problem), returncode=2) from problem
        if given["json"]:
            said = {"list": given["list"], "is_new_list": is_new_list, "dry_run": given["dry_run"]}
            self.stdout.write(json.dumps({**report.to_json(), **said}, ensure_ascii=False))
        else:
            self._tell(report, given, is_new_list, time.monotonic() - started)

    def _import(
        self, workspace: Workspace, into: List | None, given: dict[str, Any], options: Options
    ) -> Report:
        progress = _Progress(self.stderr)
        to = {"rejected_to": given["rejected"], "on_progress": progress.show}
        try:
            if given["dry_run"]:
                return imports.dry_run(given["file"], workspace, into, options, **to)
            imports.examine(given["file"], options)  # a file that cannot be read makes no list
            into = into or List.objects.create(workspace=workspace, name=_list_name(given["list"]))
            return imports.import_file(given["file"], into, options, **to)
        finally:
            progress.end()

    def _tell(
        self, report: Report, given: dict[str, Any], is_new_list: bool, seconds: float
    ) -> None:
        would = "would be " if given["dry_run"] else ""
        if is_new_list:
            self.stdout.write(f"The list “{given['list']}” is new; it {would or 'was '}made.")
        for note in report.notes:
            self.stdout.write(note)
        rate = report.rows / seconds if seconds else 0
        self.stdout.write(
            f"{report.rows:,} rows read as {report.encoding}, separated by {report.delimiter}, "
            f"in {seconds:.1f} s ({rate:,.0f} a second)"
        )
        for name, count in (
            (f"{would}created", report.created),
            (f"{would}updated", report.updated),
            ("unchanged", report.unchanged),
            ("duplicates in the file", report.duplicates),
            ("set aside", report.rejected),
        ):
            self.stdout.write(f"  {count:>12,}  {name}")
        for reason, count in report.reasons.most_common(8):
            self.stdout.write(f"  {'':>12}  {count:,} × {reason}")
        if report.not_resubscribed:
            self.stdout.write(
                f"{report.not_resubscribed:,} had unsubscribed from this list before and stay so."
            )


class _Progress:
    """A line on the terminal that is written over; nothing where there is no terminal."""

    def __init__(self, out: Any) -> None:
        self._out, self._shown_at = out, 0.0
        self._is_on = bool(getattr(out, "isatty", sys.stderr.isatty)())

    def show(self, report: Report) -> None:
        if self._is_on and time.monotonic() - self._shown_at > 0.2:
            self._shown_at = time.monotonic()
            share = report.read_bytes / report.size_bytes if report.size_bytes else 1
            self._out.write(f"\r{min(share, 1):4.0%}  {report.rows:,} rows ", ending="")
            self._out.flush()

    def end(self) -> None:
        if self._is_on and self._shown_at:
            self._out.write("\r" + " " * 40 + "\r", ending="")


def _no_workspace(slug: str) -> str:
    known = ", ".join(Workspace.objects.order_by("slug").values_list("slug", flat=True)[:20])
    return f"There is no workspace “{slug}”; there are: {known or 'none yet'}."


def _list_name(name: str) -> str:
    longest = List._meta.get_field("name").max_length
    if not name.strip() or len(name) > longest:
        raise CommandError(f"Give the list a name of 1 to {longest} characters.", returncode=2)
    return name
