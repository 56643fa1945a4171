"""manage.py submit: send one transactional message, once per dedup key."""

from __future__ import annotations

import re
import sys
import time
from argparse import ArgumentParser
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import idna
import orjson
from django.core.management.base import BaseCommand, CommandError

from deliverability.models import Pool, Workspace
from mailer import compiling, outbox, tasks
from mailer.core.content import InvalidTemplate
from mailer.core.envelope import UnsafeAddress, checked
from mailer.core.headers import InvalidHeader
from mailer.core.priority import Priority
from mailer.core.retry import InvalidRetryPolicy
from mailer.models import Content
from mailer.trace import trace

_LOOK_EVERY_SECONDS = 0.02
_LONGEST_KEY = 200
#: RFC 5321 section 4.1.2, a dot-string; other alphabets as RFC 6531 allows them.
_LOCAL_PART = re.compile(r"[^\s.\"(),:;<>@\[\]\\]+(?:\.[^\s.\"(),:;<>@\[\]\\]+)*")


class Command(BaseCommand):
    help = (
        "Send one transactional message. The same --dedup-key again, that day or the next, sends "
        "nothing and answers with the same message. With --wait the exit status is 0 only if it "
        "was delivered."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        add = parser.add_argument
        add("--workspace", required=True, metavar="SLUG")
        add("--pool", required=True, metavar="NAME", help="of the workspace, or a shared one")
        add("--to", required=True, metavar="ADDRESS")
        add("--from", required=True, dest="from_header", metavar='"NAME <ADDRESS>"')
        add("--reply-to", default="", metavar="ADDRESS")
        add("--subject", required=True)
        add("--text", default="", metavar="TEXT")
        add("--text-file", type=Path, metavar="FILE", help="- reads standard input")
        add("--html-file", type=Path, metavar="FILE", help="- reads standard input")
        add("--field", action="append", default=[], metavar="NAME=VALUE", help="a merge field")
        add("--dedup-key", required=True, metavar="KEY", help="names the request, not the person")
        names = [priority.name.lower() for priority in reversed(Priority)]
        add("--priority", choices=names, default="urgent")
        add("--retry", default="exponential", metavar="POLICY", help="see docs/retry.md")
        add("--wait", action="store_true", help="until it was delivered, or will never be")
        add("--timeout", type=float, default=600.0, metavar="SECONDS", help="of --wait; 600")
        add("--json", action="store_true", help="print one JSON object")

    def handle(self, *_: Any, **given: Any) -> None:
        try:
            request = _request(given)
            accepted = outbox.submit(request, now=datetime.now(UTC))
        except (InvalidTemplate, InvalidHeader, InvalidRetryPolicy, UnsafeAddress) as error:
            raise CommandError(str(error), returncode=2) from None
        told = {
            "message_id": accepted.message_id,
            "mailing_id": accepted.mailing_id,
            "is_new": accepted.is_new,
            "status": "accepted" if accepted.is_new else "already accepted",
        }
        if not given["json"]:
            self.stdout.write(f"message {accepted.message_id}: {told['status']}")
        self._publish(accepted)
        outcome = _followed(accepted.message_id, given["timeout"]) if given["wait"] else {}
        if given["json"]:
            self.stdout.write(orjson.dumps(told | outcome).decode())
        elif outcome:
            self.stdout.write(_sentence(outcome))
        if outcome and outcome["state"] != "delivered":
            sys.exit(1)

    def _publish(self, accepted: outbox.Accepted) -> None:
        try:
            tasks.publish(accepted.publications)
        except Exception as error:
            # Whatever the broker's client raises: the message is in the database, and goes out.
            self.stderr.write(f"The queue does not answer ({error}); the next dispatch sends it.")


def _request(given: dict[str, Any]) -> outbox.Request:
    workspace = _found(Workspace, "workspace", "slug", given["workspace"])
    if not 0 < len(given["dedup_key"]) <= _LONGEST_KEY:
        raise CommandError(f"--dedup-key: give 1 to {_LONGEST_KEY} characters.", returncode=2)
    content, context = _content(workspace, given), _fields(given["field"])
    if missing := compiling.missing_fields(content, context):
        raise CommandError(
            f"The content names “{missing[0]}”, which no --field gives: add --field "
            f'{missing[0]}=…, or a stand-in: {{{{ {missing[0]} | default("…") }}}}.',
            returncode=2,
        )
    return outbox.Request(
        workspace_id=workspace.pk,
        pool_id=_pool(workspace, given["pool"]).pk,
        content_id=content.pk,
        dedup_key=given["dedup_key"],
        address=_address(given["to"]),
        context=context,
        priority=Priority[given["priority"].upper()],
        retry=orjson.loads(given["retry"]) if given["retry"].startswith("{") else given["retry"],
    )


def _pool(workspace: Workspace, name: str) -> Pool:
    """A pool of the workspace, or else a shared one."""
    own, shared = Pool.objects.filter(workspace=workspace), Pool.objects.filter(workspace=None)
    pool: Pool | None = own.filter(name=name).first() or shared.filter(name=name).first()
    if pool is None:
        raise _unknown("pool", name, (own | shared).values_list("name", flat=True))
    return pool


def _found(model: Any, what: str, field: str, value: str) -> Any:
    row = model.objects.filter(**{field: value}).first()
    if row is None:
        raise _unknown(what, value, model.objects.values_list(field, flat=True))
    return row


def _unknown(what: str, name: str, known: Any) -> CommandError:
    listed = ", ".join(f"“{one}”" for one in known.order_by("pk")[:20]) or "none yet"
    return CommandError(f"There is no {what} “{name}”; there are: {listed}.", returncode=2)


def _content(workspace: Workspace, given: dict[str, Any]) -> Content:
    if given["text"] and given["text_file"]:
        raise CommandError("Give --text or --text-file, not both.", returncode=2)
    text = given["text"] or _read(given["text_file"])
    html = _read(given["html_file"])
    if not (text or html):
        raise CommandError("Give --text, --text-file or --html-file.", returncode=2)
    return outbox.freeze_content(
        workspace,
        subject=given["subject"],
        html=html,
        text=text,
        from_header=given["from_header"],
        reply_to=given["reply_to"],
    )


def _read(path: Path | None) -> str:
    if path is None:
        return ""
    try:
        return sys.stdin.read() if str(path) == "-" else path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as problem:
        raise CommandError(f"{path} cannot be read: {problem}", returncode=2) from None


def _address(text: str) -> str:
    """The address as it is sent to: the domain in ASCII (RFC 5891)."""
    local, _, domain = checked(text.strip()).rpartition("@")
    if not _LOCAL_PART.fullmatch(local) or "." not in domain:
        raise CommandError(f"--to {text!r} is not an address such as ann@b.example.", returncode=2)
    try:
        return checked(f"{local}@{idna.encode(domain, uts46=True).decode('ascii').lower()}")
    except (idna.IDNAError, UnicodeError) as problem:
        raise CommandError(f"--to: {domain!r} is no domain name: {problem}", returncode=2) from None


def _fields(given: list[str]) -> dict[str, str]:
    fields = {}
    for one in given:
        name, equals, value = one.partition("=")
        if not (name and equals):
            raise CommandError(f"--field {one!r}: write it as NAME=VALUE.", returncode=2)
        fields[name] = value
    return fields


def _followed(message_id: int, timeout_seconds: float) -> dict[str, Any]:
    """Follow the message until it left `waiting`; what became of it."""
    until = time.monotonic() + timeout_seconds
    while True:
        told = trace(message_id)
        if told["state"] != "waiting" or time.monotonic() >= until:
            return _outcome(told)
        time.sleep(_LOOK_EVERY_SECONDS)


def _outcome(told: dict[str, Any]) -> dict[str, Any]:
    last = told["life"][-1] if told["life"] else None
    took = (last["at"] - told["queued_at"]).total_seconds() * 1000 if last else None
    reply = (
        [str(last[key]) for key in ("reply_code", "enhanced", "reply") if last[key]] if last else []
    )
    return {
        "state": told["state"],
        "reason": told["reason"],
        "attempts": told["attempts"],
        "ms": None if took is None else round(took, 1),
        "source": last["source"] if last else None,
        "mx_host": last["mx_host"] if last else None,
        "reply": " ".join(reply),
        "waits": told["waits"],
    }


def _sentence(outcome: dict[str, Any]) -> str:
    if outcome["state"] == "waiting":
        return f"still waiting for {outcome['waits']}"
    said = f"{outcome['state']}" + (f" ({outcome['reason']})" if outcome["reason"] else "")
    if outcome["ms"] is None:
        return said
    return f"{said} after {outcome['ms']:g} ms, by {outcome['mx_host'] or '-'}: {outcome['reply']}"
