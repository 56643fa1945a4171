"""The mail itself: what waits for how long, what is stuck, and whether the account adds up."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

from django.conf import settings

from config.doctor.database import asking
from config.doctor.finding import Check, Finding, Needs, error, ok, warning
from deliverability.models import Hold, Pool, Source
from mailer import conservation
from mailer.core.priority import Priority
from mailer.journal import journal_ids

#: A batch that is due and whose mailing runs should not wait longer than this.
PATIENCE = {
    Priority.URGENT: timedelta(seconds=30),
    Priority.HIGH: timedelta(minutes=15),
    Priority.NORMAL: timedelta(hours=12),
    Priority.LOW: timedelta(days=1),
}
TAKEN_FOR = timedelta(hours=1)
RECOUNTED = 5


def _holds() -> Iterator[Finding]:
    holds = Hold.objects.filter(released_at__isnull=True).select_related("workspace")
    told = [f"{hold} (by {hold.held_by}, since {hold.since:%Y-%m-%d %H:%M})" for hold in holds[:5]]
    if told:
        yield warning("holds", "; ".join(told), "Sending is stopped on purpose: release it.")
    else:
        yield ok("holds", "none")


def _sources() -> Iterator[Finding]:
    sources = list(Source.objects.values_list("name", "state"))
    empty = Pool.objects.filter(sources__isnull=True).values_list("name", flat=True)
    if not sources:
        advice = "Make a pool with a source in the admin: mail leaves from sources."
        yield warning("sources", "none", advice)
    elif stopped := [name for name, state in sources if state == "quarantined"]:
        yield warning("sources", f"quarantined: {', '.join(stopped[:5])}", "See why in the admin.")
    elif names := ", ".join(empty[:5]):
        advice = "Mailings of such a pool wait for ever: give it a source."
        yield warning("sources", f"pools without any: {names}", advice)
    else:
        yield ok("sources", f"{len(sources)}")


def _waiting() -> Iterator[Finding]:
    with asking() as cursor:
        cursor.execute(
            """
            SELECT b.priority, count(*),
                   max(statement_timestamp() - coalesce(b.due_at, b.created_at)),
                   (array_agg(b.waits_for ORDER BY coalesce(b.due_at, b.created_at)))[1]
            FROM mailer_batch b JOIN mailer_mailing m ON m.id = b.mailing_id
            WHERE b.state = 'untaken' AND m.state IN ('expanding', 'running')
              AND (b.due_at IS NULL OR b.due_at <= statement_timestamp())
            GROUP BY b.priority ORDER BY b.priority DESC
            """
        )
        rows = cursor.fetchall()
    told = [
        f"{Priority(priority).name.lower()} {count}, the oldest for {_readable(age)}"
        for priority, count, age, _ in rows
    ]
    late = [row for row in rows if row[2] > PATIENCE[Priority(row[0])]]
    if not late:
        yield ok("waiting", "; ".join(told) or "no batch is due")
        return
    why = next((f" It waits for {row[3]}." for row in late if row[3]), "")
    advice = (
        f"The {Priority(late[0][0]).name.lower()} ones wait for too long.{why} See that workers "
        "and beat run, and what room the limits of the sources leave."
    )
    yield warning("waiting", "; ".join(told), advice)


def _taken() -> Iterator[Finding]:
    """A taken batch belongs to its worker until that one is proved dead."""
    here = set(journal_ids(Path(settings.POSTROAD_JOURNALS)))
    with asking() as cursor:
        cursor.execute(
            """
            SELECT b.id, b.journal_id, b.host, statement_timestamp() - b.taken_at,
                   j.ended_at IS NOT NULL
            FROM mailer_batch b LEFT JOIN mailer_workerjournal j ON j.id = b.journal_id
            WHERE b.state = 'taken' ORDER BY b.taken_at LIMIT 1000
            """
        )
        rows = cursor.fetchall()
    own = [row for row in rows if row[2] == settings.POSTROAD_HOST]
    lost = [row for row in own if row[1].hex not in here and not row[4]]
    old = [row for row in rows if row[3] and row[3] > TAKEN_FOR]
    if lost:
        advice = (
            "The journal's file is not on this machine although its host has this name: two "
            "hosts share one POSTROAD_HOST, POSTROAD_JOURNALS points elsewhere, or it was "
            f"deleted. If it is gone for good: `manage.py declare_host_lost {lost[0][2]}`."
        )
        found = f"{len(lost)} batches of a journal that is not here, such as {lost[0][1].hex}"
        yield error("taken", found, advice)
    elif old:
        advice = (
            "Look at the workers of that host. If it will never come back: "
            f"`manage.py declare_host_lost {old[0][2]}`."
        )
        found = f"{len(old)} for more than {_readable(TAKEN_FOR)}, the oldest on {old[0][2]}"
        yield warning("taken", found, advice)
    else:
        yield ok("taken", f"{len(rows)} batches are being sent")


def _exceptions() -> Iterator[Finding]:
    """Messages that only a person or evidence settles, from the accounts of all mailings."""
    with asking() as cursor:
        cursor.execute(
            """
            SELECT entry, sum(n)::bigint, count(DISTINCT mailing_id) FILTER (WHERE n <> 0),
                   max(mailing_id) FILTER (WHERE n <> 0)
            FROM (SELECT mailing_id, entry, sum(n) AS n FROM (
                    SELECT mailing_id, entry, count AS n FROM mailer_mailingcount
                    WHERE entry IN ('in_doubt', 'dead')
                    UNION ALL
                    SELECT mailing_id, entry, delta FROM mailer_mailingdelta
                    WHERE entry IN ('in_doubt', 'dead')) parts
                  GROUP BY mailing_id, entry) e
            GROUP BY entry
            """
        )
        found = {entry: (total, mailings, last) for entry, total, mailings, last in cursor}
    for entry, name, advice in (
        (
            "in_doubt",
            "in doubt",
            "Their content went out and the reply was lost: they may have "
            "arrived. A person decides, in the admin.",
        ),
        (
            "dead",
            "dead",
            "They failed through our own fault: see the reason in the admin, mend "
            "it and requeue them.",
        ),
    ):
        total, mailings, last = found.get(entry, (0, 0, None))
        if total:
            told = f"{total} messages in {mailings} mailings, the last is {last}"
            yield warning(name, told, advice)
        else:
            yield ok(name, "no message")


def _conservation() -> Iterator[Finding]:
    recounts = conservation.check(conservation.changed_lately(RECOUNTED))
    broken = [one for one in recounts if not one.holds]
    if broken:
        told = f"mailing {broken[0].account.mailing_id}: {'; '.join(broken[0].broken)}"
        advice = "Keep the logs and the database as they are and report it: this is a defect."
        yield error("conservation", told, advice)
    else:
        yield ok("conservation", f"holds in the last {len(recounts)} mailings")


def _deltas() -> Iterator[Finding]:
    """Deltas that nobody folds make every account slower to read."""
    with asking() as cursor:
        cursor.execute("SELECT count(*) FROM (SELECT 1 FROM mailer_mailingdelta LIMIT 200001) d")
        count = cursor.fetchone()[0]
    if count > 200_000:
        yield warning(
            "account",
            "more than 200,000 changes not yet added up",
            "See that worker “upkeep” runs.",
        )
    else:
        yield ok("account", f"{count} changes not yet added up (normal)")


def _readable(age: timedelta) -> str:
    seconds = int(age.total_seconds())
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit}"
    return f"{max(0, seconds)} s"


CHECKS = (
    Check("holds", _holds, Needs.DATABASE),
    Check("sources", _sources, Needs.DATABASE),
    Check("waiting", _waiting, Needs.DATABASE),
    Check("taken", _taken, Needs.DATABASE),
    Check("in doubt", _exceptions, Needs.DATABASE),
    Check("conservation", _conservation, Needs.DATABASE),
    Check("account", _deltas, Needs.DATABASE),
)
