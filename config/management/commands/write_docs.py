from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from config.pages import pages


class Command(BaseCommand):
    help = "Write the pages of docs/ that are made from the code."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--check", action="store_true", help="Only say which are out of step.")

    def handle(self, *args: Any, **options: Any) -> None:
        folder = settings.BASE_DIR / "docs"
        stale = [
            name
            for name, text in pages().items()
            if not (folder / name).exists() or (folder / name).read_text(encoding="utf-8") != text
        ]
        if options["check"]:
            if stale:
                raise CommandError(f"out of step: {', '.join(stale)}. Run bin/manage write_docs.")
            return
        for name in stale:
            (folder / name).write_text(pages()[name], encoding="utf-8")
            self.stdout.write(f"wrote docs/{name}")
