from __future__ import annotations

from typing import Any

import orjson
from django.core.management.base import BaseCommand, CommandError, CommandParser

from mailer.trace import NoSuchMessage, trace


class Command(BaseCommand):
    help = "Tell the whole life of one message."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("message_id", type=int)
        parser.add_argument("--json", action="store_true")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            told = trace(options["message_id"])
        except NoSuchMessage as error:
            raise CommandError(str(error), returncode=2) from None
        if options["json"]:
            self.stdout.write(orjson.dumps(told, default=str).decode())
            return
        self.stdout.write(
            f"message {told['message_id']} to {told['address']}: {told['state']}"
            + (f" ({told['reason']})" if told["reason"] else "")
        )
        self.stdout.write(f"  mailing {told['mailing_id']} “{told['mailing']}” {told['reference']}")
        self.stdout.write(f"  queued {told['queued_at']:%Y-%m-%d %H:%M:%S}, {told['provider']}")
        for one in told["life"]:
            self.stdout.write(
                f"  {one['at']:%H:%M:%S.%f} attempt {one['attempt_no']} from {one['source']} at "
                f"{one['mx_host'] or one['provider']}: {one['outcome']}, {one['reason']}"
            )
            reply = " ".join(str(one[k]) for k in ("reply_code", "enhanced", "reply") if one[k])
            self.stdout.write(f"      {one['phase']}: {reply}   [rule {one['rule']}]")
        if told["waits"]:
            self.stdout.write(f"  waits for {told['waits']}")
