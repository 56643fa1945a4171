"""manage.py doctor: check the whole installation and say what to do."""

from __future__ import annotations

import json
import shutil
import sys
import textwrap
import time
from argparse import ArgumentParser
from collections import Counter
from typing import Any, ClassVar

from django.core.management.base import BaseCommand

from config import doctor
from config.doctor import Finding, Level

_STYLE = {Level.OK: "SUCCESS", Level.WARNING: "WARNING", Level.ERROR: "ERROR"}
_NARROWEST, _WIDEST = 60, 110


class Command(BaseCommand):
    help = (
        "Check the whole installation and say what to do about what is wrong. Changes nothing. "
        "The exit status is 0 when there is no error; warnings do not count."
    )
    # It tells what is wrong with these too, instead of stopping at them.
    requires_system_checks: ClassVar[list[str]] = []
    requires_migrations_checks = False

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--json", action="store_true", help="print one JSON object")

    def handle(self, *_: Any, **given: Any) -> None:
        began = time.monotonic()
        found = doctor.examine(doctor.CHECKS)
        counts = Counter(one.level for one in found)
        if given["json"]:
            told = {level.value: counts[level] for level in Level}
            told_json = {"checks": [one.to_json() for one in found], **told}
            self.stdout.write(json.dumps(told_json, ensure_ascii=False))
        else:
            self._tell(found)
            self.stdout.write(_sum_up(found, time.monotonic() - began))
        if counts[Level.ERROR]:
            sys.exit(1)

    def _tell(self, found: list[Finding]) -> None:
        """One line for each finding, what to do below it."""
        width = max(_NARROWEST, min(_WIDEST, shutil.get_terminal_size().columns))
        names = max(len(one.name) for one in found)
        indent = " " * (names + 11)
        for one in _gathered(found):
            level = getattr(self.style, _STYLE[one.level])(f"{one.level.value:7}")
            lines = textwrap.wrap(one.found, width - len(indent)) or [""]
            if one.level is not Level.OK and one.is_looked_at:
                lines += textwrap.wrap(f"→ {one.advice}", width - len(indent))
            self.stdout.write(f"{level}  {one.name:{names}}  {lines[0]}")
            for line in lines[1:]:
                self.stdout.write(f"{indent}{line}")


def _gathered(found: list[Finding]) -> list[Finding]:
    """What could not be looked at in one line for each reason, at the end."""
    skipped: dict[str, list[str]] = {}
    for one in found:
        if not one.is_looked_at:
            skipped.setdefault(one.found, []).append(one.name)
    return [
        *(one for one in found if one.is_looked_at),
        *(
            Finding("not looked at", Level.WARNING, f"{', '.join(names)}: {why}", "", False)
            for why, names in skipped.items()
        ),
    ]


def _sum_up(found: list[Finding], seconds: float) -> str:
    looked = f"{len(found)} findings in {seconds:.1f} s"
    errors = sum(one.level is Level.ERROR for one in found)
    skipped = sum(not one.is_looked_at for one in found)
    warnings = sum(one.level is Level.WARNING for one in found) - skipped
    if not errors and not warnings:
        return f"\nEverything is in order: {looked}."
    parts = [
        _counted(errors, "error"),
        _counted(warnings, "warning"),
        f"{skipped} not looked at" if skipped else "",
    ]
    what = "Begin with the first error: others may follow it." if errors else "Mail goes out."
    return f"\n{', '.join(filter(None, parts))}; {looked}. {what}"


def _counted(count: int, word: str) -> str:
    return f"{count} {word}{'' if count == 1 else 's'}" if count else ""
