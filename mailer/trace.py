"""The whole life of one message, from the rows that tell it."""

from __future__ import annotations

from typing import Any

import orjson
from django.db import connection


class NoSuchMessage(LookupError):
    """No message has this id."""


def trace(message_id: int) -> dict[str, Any]:
    """Everything known of a message: its mailing, where it is now, and each attempt.

    Times are aware datetimes. `waits` says what a waiting message waits for. Raises
    `NoSuchMessage`.
    """
    found = _rows(
        """
        SELECT m.id AS message_id, m.address, m.state, m.reason, m.attempts, m.failures,
               m.queued_at, m.due_at, m.settled_at, m.dedup_key, m.recipient_id, m.mailing_day,
               m.mailing_id, g.name AS mailing, g.reference, g.state AS mailing_state,
               g.priority, r.provider, r.hosts
        FROM mailer_message m JOIN mailer_mailing g ON g.id = m.mailing_id
        LEFT JOIN mailer_route r ON r.domain = m.recipient_domain
        WHERE m.id = %s
        """,
        [message_id],
    )
    if not found:
        raise NoSuchMessage(f"there is no message {message_id}")
    message = found[0]
    message["hosts"] = orjson.loads(message["hosts"] or "[]")
    message["life"] = attempts_of(message_id, message["mailing_day"])
    message["waits"] = _waits(message)
    return message


def attempts_of(message_id: int, day: object) -> list[dict[str, Any]]:
    """The attempts of a message in their order, with the source's name and the real reply."""
    return _rows(
        """
        SELECT a.attempt_no, a.at, a.outcome, a.reason, a.scope, a.rule, a.phase, a.reply_code,
               a.enhanced, a.reply, a.mx_host, a.provider, a.source_id, s.name AS source,
               a.batch_id, a.journal_id
        FROM mailer_attempt a LEFT JOIN deliverability_source s ON s.id = a.source_id
        WHERE a.mailing_day = %s AND a.message_id = %s ORDER BY a.attempt_no
        """,
        [day, message_id],
    )


def _waits(message: dict[str, Any]) -> str:
    if message["state"] != "waiting":
        return ""
    if message["due_at"] is not None:
        return f"deferred ({message['reason']}) until {message['due_at']:%Y-%m-%d %H:%M:%S} UTC"
    if message["mailing_state"] == "paused":
        return "held: the mailing is paused"
    batches = _rows(
        """
        SELECT state, waits_for, due_at, published_at, host FROM mailer_batch
        WHERE mailing_id = %s AND state <> 'done' AND %s = ANY(ids) LIMIT 1
        """,
        [message["mailing_id"], message["message_id"]],
    )
    if not batches:
        return "nothing: it is in no batch; `manage.py conservation` will say so"
    batch = batches[0]
    if batch["state"] == "taken":
        return f"a reply: a worker on {batch['host']} is sending its batch"
    if batch["published_at"] is not None:
        return "a free worker"
    until = f" until {batch['due_at']:%Y-%m-%d %H:%M:%S} UTC" if batch["due_at"] else ""
    return (batch["waits_for"] or "dispatch") + until


def _rows(sql: str, params: list[object]) -> list[dict[str, Any]]:
    with connection.cursor() as cursor:
        cursor.execute(sql, params)
        names = [column.name for column in cursor.description or ()]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
