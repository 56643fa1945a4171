"""manage.py campaign create|launch|pause|resume|cancel|status"""

from __future__ import annotations

import json
import sys
import time
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import InterfaceError, OperationalError, connection, transaction
from django.db.models import F, Q, QuerySet
from django.utils import timezone

from campaigns import launch, preflight, progress, tasks
from campaigns.core.lifecycle import IllegalMove
from campaigns.core.retry_choice import retry_from
from campaigns.launch import LaunchRefused, Next
from campaigns.models import Campaign, CampaignPriority, List, Template
from campaigns.progress import Progress
from deliverability.models import Pool, Workspace
from mailer.core.headers import InvalidHeader
from mailer.core.mailboxes import parse_mailbox
from mailer.core.retry import InvalidRetryPolicy

ACTOR = "manage.py campaign"
_FOLLOW_EVERY_SECONDS = 1.0
_DATABASE_PATIENCE_SECONDS = 120.0
_CLEAR = "Nothing stands against a launch."
MAX_NAME_CHARS = 200  #: of a campaign, and of the template that is named after it


class Command(BaseCommand):
    help = "Create, launch, steer and watch campaigns."

    def add_arguments(self, parser: ArgumentParser) -> None:
        actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
        _add_create(actions.add_parser("create", help="make a draft"))
        launched = _with_id(actions.add_parser("launch", help="check it and begin to send"))
        launched.add_argument("--wait", action="store_true", help="until nothing waits any more")
        for name, what in (
            ("pause", "stop before the next message"),
            ("resume", "go on"),
            ("cancel", "stop for good"),
        ):
            _with_id(actions.add_parser(name, help=what))
        _with_id(
            actions.add_parser(
                "check", help="say what stands against a launch; exit 1 if it is blocked"
            )
        )
        status = _with_id(actions.add_parser("status", help="the account of its messages"))
        status.add_argument(
            "--follow", action="store_true", help="one line a second until nothing waits"
        )

    def handle(self, *_: Any, action: str, **given: Any) -> None:
        try:
            getattr(self, f"_{action}")(given)
        except Campaign.DoesNotExist:
            raise CommandError(f"There is no campaign {given['id']}.", returncode=2) from None
        except (IllegalMove, LaunchRefused) as problem:
            raise CommandError(str(problem), returncode=2) from problem

    def _create(self, given: dict[str, Any]) -> None:
        with transaction.atomic():
            campaign = _draft(given)
        found = preflight.check(campaign)
        if given["json"]:
            findings = [{"code": row.code, "severity": row.severity} for row in found]
            said = {"campaign": campaign.pk, "name": campaign.name, "findings": findings}
            self._say_json({**said, "state": campaign.state})
        else:
            self.stdout.write(f"Campaign {campaign.pk}, “{campaign.name}”, is a draft.")
            self._tell(found)
            if not _is_blocked(found):
                sentence = "Nothing blocks a launch." if found else _CLEAR
                self.stdout.write(f"{sentence} Next: campaign launch {campaign.pk}")

    def _check(self, given: dict[str, Any]) -> None:
        found = preflight.check(Campaign.objects.get(pk=given["id"]))
        if given["json"]:
            keys = ("code", "severity", "message", "advice")
            self._say_json({"findings": [{k: getattr(row, k) for k in keys} for row in found]})
        else:
            self._tell(found)
            if not found:
                self.stdout.write(_CLEAR)
        if _is_blocked(found):
            sys.exit(1)

    def _launch(self, given: dict[str, Any]) -> None:
        next_ = launch.launch(given["id"], actor=ACTOR, now=timezone.now())
        tasks.publish(next_)
        if not given["json"]:
            self._tell(next_.warnings)
        if given["wait"]:
            self._wait(given["id"])
        self._report(given, f"Campaign {given['id']} is being sent, as mailing {next_.mailing_id}.")

    def _pause(self, given: dict[str, Any]) -> None:
        self._steered(given, launch.pause(given["id"], actor=ACTOR), "paused")

    def _resume(self, given: dict[str, Any]) -> None:
        now = timezone.now()
        self._steered(given, launch.resume(given["id"], actor=ACTOR, now=now), "being sent again")

    def _cancel(self, given: dict[str, Any]) -> None:
        now = timezone.now()
        self._steered(given, launch.cancel(given["id"], actor=ACTOR, now=now), "cancelled")

    def _status(self, given: dict[str, Any]) -> None:
        if not given["follow"]:
            self._report(given, "")
            return
        for seen in _following(given["id"]):
            if given["json"]:
                self._say_json(seen.to_json())
            else:
                self.stdout.write(_line(seen))
                self.stdout.flush()

    def _steered(self, given: dict[str, Any], next_: Next, state: str) -> None:
        tasks.publish(next_)
        self._report(given, f"Campaign {given['id']} is {state}.")

    def _report(self, given: dict[str, Any], sentence: str) -> None:
        seen = progress.of(Campaign.objects.get(pk=given["id"]), now=timezone.now())
        if given["json"]:
            self._say_json(seen.to_json())
            return
        if sentence:
            self.stdout.write(sentence)
        self.stdout.write(_table(seen))

    def _wait(self, campaign_id: int) -> None:
        is_shown = sys.stderr.isatty()
        for seen in _following(campaign_id):
            if is_shown:
                self.stderr.write(f"\r{_bar(seen)}", ending="")
                self.stderr.flush()
        if is_shown:
            self.stderr.write("")

    def _tell(self, found: tuple[preflight.Finding, ...]) -> None:
        for row in found:
            self.stdout.write(f"{row.severity}: {row.message} {row.advice}")

    def _say_json(self, said: dict[str, Any]) -> None:
        self.stdout.write(json.dumps(said, ensure_ascii=False))
        self.stdout.flush()


def _is_blocked(found: tuple[preflight.Finding, ...]) -> bool:
    return any(row.is_blocking for row in found)


def _with_id(parser: ArgumentParser) -> ArgumentParser:
    parser.add_argument("id", type=int, metavar="ID")
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser


def _add_create(parser: ArgumentParser) -> None:
    parser.add_argument("--workspace", required=True, metavar="SLUG")
    parser.add_argument("--name", required=True)
    parser.add_argument("--list", required=True, action="append", nargs="+", metavar="NAME")
    parser.add_argument("--template", metavar="NAME", help="one that is there already")
    parser.add_argument("--subject", help="for a new template, with the files below")
    parser.add_argument("--html-file", type=Path, metavar="FILE")
    parser.add_argument("--text-file", type=Path, metavar="FILE")
    parser.add_argument("--from", required=True, dest="from_header", metavar='"NAME <ADDRESS>"')
    parser.add_argument("--reply-to", default="")
    parser.add_argument("--pool", required=True, metavar="NAME")
    parser.add_argument("--priority", choices=["low", "normal", "high"], default="normal")
    parser.add_argument(
        "--retry", default="exponential", help="exponential, ladder-3, ladder-24h, or JSON"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def _draft(given: dict[str, Any]) -> Campaign:
    workspace = Workspace.objects.filter(slug=given["workspace"]).first()
    if workspace is None:
        raise CommandError(f"There is no workspace “{given['workspace']}”.", returncode=2)
    if not 0 < len(given["name"].strip()) <= MAX_NAME_CHARS:
        raise CommandError(f"--name: give 1 to {MAX_NAME_CHARS} characters.", returncode=2)
    _refuse_unreadable(given)
    names = [name for names in given["list"] for name in names]
    lists = [_found(List.objects.filter(workspace=workspace), name) for name in names]
    campaign = Campaign.objects.create(
        workspace=workspace,
        name=given["name"],
        template=_template(workspace, given),
        from_header=given["from_header"],
        reply_to=given["reply_to"],
        pool=_pool(workspace, given["pool"]),
        priority=getattr(CampaignPriority, given["priority"].upper()),
        retry_policy=given["retry"],
    )
    campaign.lists.set(lists)
    return campaign


def _refuse_unreadable(given: dict[str, Any]) -> None:
    """What no launch could read is refused now, while the command can still be put right."""
    try:
        parse_mailbox(given["from_header"])
    except InvalidHeader as problem:
        raise CommandError(f"--from: {problem}.", returncode=2) from None
    try:
        if given["reply_to"]:
            parse_mailbox(given["reply_to"])
    except InvalidHeader as problem:
        raise CommandError(f"--reply-to: {problem}.", returncode=2) from None
    try:
        retry_from(given["retry"])
    except InvalidRetryPolicy as problem:
        raise CommandError(f"--retry: {problem}. See docs/retry.md.", returncode=2) from None


def _template(workspace: Workspace, given: dict[str, Any]) -> Template:
    has_content = given["subject"] or given["html_file"] or given["text_file"]
    if given["template"] and has_content:
        raise CommandError("Give --template, or --subject with files, not both.", returncode=2)
    if given["template"]:
        return _found(Template.objects.filter(workspace=workspace), given["template"])
    if not (given["subject"] and (given["html_file"] or given["text_file"])):
        raise CommandError(
            "Give --template NAME, or --subject with --html-file or --text-file.", returncode=2
        )
    html, text = _content(given["html_file"]), _content(given["text_file"])
    if Template.objects.filter(workspace=workspace, name=given["name"]).exists():
        # A new version of it would also change what other drafts are about to send.
        raise CommandError(
            f"There is a template “{given['name']}” already: use it with --template, "
            "or give another --name.",
            returncode=2,
        )
    template = Template.objects.create(workspace=workspace, name=given["name"])
    template.add_version(subject=given["subject"], html=html, text=text)
    return template


def _content(path: Path | None) -> str:
    try:
        return path.read_text(encoding="utf-8-sig") if path else ""
    except (OSError, UnicodeDecodeError) as problem:
        raise CommandError(f"{path} cannot be read: {problem}", returncode=2) from problem


def _pool(workspace: Workspace, name: str) -> Pool:
    """A pool of the workspace, or else a shared one."""
    usable = Pool.objects.filter(Q(workspace=workspace) | Q(workspace=None))
    pool: Pool = _found(usable.order_by(F("workspace").asc(nulls_last=True)), name)
    return pool


def _found(rows: QuerySet[Any], name: str) -> Any:
    row = rows.filter(name=name).first()
    if row is None:
        names = rows.order_by("name").values_list("name", flat=True).distinct()[:20]
        what = rows.model._meta.verbose_name
        known = ", ".join(f"“{known}”" for known in names) or "none yet"
        raise CommandError(f"There is no {what} “{name}”; there are: {known}.", returncode=2)
    return row


def _following(campaign_id: int) -> Any:
    """The progress once a second, the last one when there is nothing to wait for any more.

    A database that is away for a while is waited for, as the workers do.
    """
    watch = progress.Watch()
    answered = time.monotonic()
    while True:
        try:
            seen = watch.look(Campaign.objects.get(pk=campaign_id), now=timezone.now())
        except (OperationalError, InterfaceError):
            connection.close()
            if time.monotonic() - answered > _DATABASE_PATIENCE_SECONDS:
                raise
        else:
            answered = time.monotonic()
            yield seen
            if seen.is_over:
                return
        time.sleep(_FOLLOW_EVERY_SECONDS)


def _line(seen: Progress) -> str:
    states = ", ".join(f"{count:,} {state}" for state, count in seen.states.items() if count)
    return f"{seen.state}: {states or 'no messages yet'}; {seen.rate_per_minute:,} a minute"


def _bar(seen: Progress, width: int = 30) -> str:
    share = seen.share_settled
    filled = "█" * round(share * width)
    return f"{filled:░<{width}} {share:4.0%}  {_line(seen)} "


def _table(seen: Progress) -> str:
    rows = [("matched", seen.matched)]
    rows += [(f"- {why}", count) for why, count in seen.excluded.items()]
    rows += [("= audience", seen.audience)]
    rows += [(f"  {state}", count) for state, count in seen.states.items() if count]
    rows += [("attempts", seen.attempts)]
    head = f"{seen.name} ({seen.campaign}): {seen.state}"
    return "\n".join([head, *(f"  {count:>12,}  {name}" for name, count in rows)])
