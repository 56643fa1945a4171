from __future__ import annotations

from typing import Any

import orjson
from django.core.management.base import BaseCommand, CommandError, CommandParser

from mailer import conservation
from mailer.models import Mailing


class Command(BaseCommand):
    help = "Recount mailings and check the conservation law; exit code 1 where it does not hold."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("mailing_id", type=int, nargs="*", help="None: those changed lately.")
        parser.add_argument("--all", action="store_true", help="Every mailing there is.")
        parser.add_argument("--json", action="store_true", help="One JSON object per mailing.")

    def handle(self, *args: Any, **options: Any) -> None:
        recounts = conservation.check(self._ids(options))
        for one in recounts:
            told = {**one.account.to_json(), "rows": one.rows, "holds": one.holds}
            if options["json"]:
                self.stdout.write(orjson.dumps(told | {"broken": one.broken}).decode())
                continue
            states = ", ".join(f"{n} {state}" for state, n in one.account.states.items() if n)
            self.stdout.write(
                f"mailing {one.account.mailing_id}: {one.account.matched} matched, "
                f"{one.account.audience} audience ({states or 'empty'}): "
                + ("holds" if one.holds else "; ".join(one.broken))
            )
        broken = sum(not one.holds for one in recounts)
        if broken:
            raise CommandError(f"the conservation law is broken in {broken} mailings", returncode=1)

    def _ids(self, options: dict[str, Any]) -> list[int]:
        wanted = options["mailing_id"]
        if options["all"]:
            return list(Mailing.objects.order_by("id").values_list("id", flat=True))
        known = set(Mailing.objects.filter(pk__in=wanted).values_list("id", flat=True))
        if unknown := sorted(set(wanted) - known):
            raise CommandError(f"there is no mailing {unknown[0]}", returncode=2)
        return wanted or conservation.changed_lately()
