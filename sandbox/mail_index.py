"""The index over the log: which messages there are, by recipient, mailing and Message-ID.

Made from the log alone and thrown away whenever it does not fit it; `indexed_bytes` says how
much of the log is in, and moves in the same transaction as the rows. One row per accepted
recipient: a message to three recipients was received three times.

A message without a Message-ID is told apart by a digest of its content.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sandbox.headers import MAILING_HEADER, header_value, readable
from sandbox.mail_log import Entry, MailLog

_VERSION = 1
_SCHEMA = """
CREATE TABLE IF NOT EXISTS messages (
    id INTEGER PRIMARY KEY,
    received_at REAL NOT NULL,
    provider TEXT NOT NULL,
    recipient TEXT NOT NULL,
    rfc_message_id TEXT NOT NULL,
    mailing TEXT NOT NULL,
    subject TEXT NOT NULL,
    from_header TEXT NOT NULL,
    size_bytes INTEGER NOT NULL,
    log_offset INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS by_copy
    ON messages (recipient, rfc_message_id, received_at, provider);
CREATE INDEX IF NOT EXISTS by_mailing
    ON messages (mailing, recipient, rfc_message_id, received_at, provider);
CREATE TABLE IF NOT EXISTS refusals (
    id INTEGER PRIMARY KEY,
    refused_at REAL NOT NULL,
    provider TEXT NOT NULL,
    recipient TEXT NOT NULL,
    code INTEGER NOT NULL,
    text TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS state (name TEXT PRIMARY KEY, value INTEGER NOT NULL);
"""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which messages are asked for; empty means all."""

    mailing: str = ""
    since: float = 0.0  #: seconds since the epoch
    recipient: str = ""  #: the whole address
    provider: str = ""
    words: str = ""  #: part of the recipient or of the subject

    def condition(self) -> tuple[str, list[Any]]:
        """As SQL."""
        parts, values = ["1"], list[Any]()
        for column in ("mailing", "provider"):
            if value := getattr(self, column):
                parts.append(f"{column} = ?")
                values.append(value)
        if self.recipient:
            parts.append("recipient = ?")
            values.append(self.recipient.lower())
        if self.since:
            parts.append("received_at >= ?")
            values.append(self.since)
        if self.words:
            parts.append("(recipient LIKE ? ESCAPE '\\' OR subject LIKE ? ESCAPE '\\')")
            values += [_containing(self.words)] * 2
        return " AND ".join(parts), values


class MailIndex:
    """A SQLite file. Not safe for several threads at once: its owner takes turns."""

    def __init__(self, path: Path, log: MailLog) -> None:
        self._log = log
        self._database = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._database.row_factory = sqlite3.Row
        # The log is the truth; an index lost with the power is made again.
        self._database.executescript("PRAGMA journal_mode=WAL; PRAGMA synchronous=OFF;")
        self._database.executescript(_SCHEMA)
        if self._state("version") != _VERSION or self.indexed_bytes > log.end:
            self.clear()

    @property
    def indexed_bytes(self) -> int:
        return self._state("indexed_bytes")

    @property
    def connections(self) -> int:
        return self._state("connections")

    def add(self, entries: Iterable[Entry], *, end: int, connections: int) -> None:
        """Take in the entries up to `end`, and how many connections there were in all."""
        messages, refusals = list[tuple[Any, ...]](), list[tuple[Any, ...]]()
        for entry in entries:
            if entry.kind == "A":
                messages += self._message_rows(entry)
            else:
                refusals += _refusal_rows(entry)
        database = self._database
        database.execute("BEGIN")
        with database:
            database.executemany(
                "INSERT INTO messages (received_at, provider, recipient, rfc_message_id, mailing, "
                "subject, from_header, size_bytes, log_offset) VALUES (?,?,?,?,?,?,?,?,?)",
                messages,
            )
            database.executemany(
                "INSERT INTO refusals (refused_at, provider, recipient, code, text) "
                "VALUES (?,?,?,?,?)",
                refusals,
            )
            self._set_state(indexed_bytes=end, connections=connections)

    def clear(self) -> None:
        """Forget everything; the log is empty, or is read again from its beginning."""
        self._database.execute("BEGIN")
        with self._database:
            for table in ("messages", "refusals", "state"):
                self._database.execute(f"DELETE FROM {table}")
            self._set_state(version=_VERSION, indexed_bytes=0, connections=0)

    def close(self) -> None:
        self._database.close()

    def counts(self, wanted: Wanted) -> dict[str, Any]:
        """How many copies came, how many of them are distinct, and from which provider."""
        condition, values = wanted.condition()
        by_provider = {
            row["provider"]: row["n"]
            for row in self._database.execute(
                f"SELECT provider, count(*) AS n FROM messages WHERE {condition} GROUP BY provider",
                values,
            )
        }
        distinct = self._number(
            f"SELECT count(*) FROM (SELECT 1 FROM messages WHERE {condition} "
            "GROUP BY recipient, rfc_message_id)",
            values,
        )
        received = sum(by_provider.values())
        return {
            "received": received,
            "distinct": distinct,
            "duplicates": received - distinct,
            "by_provider": by_provider,
            "rejected": self._refusals("code >= 500", wanted.since),
            "deferred": self._refusals("code < 500", wanted.since),
        }

    def duplicates(self, wanted: Wanted) -> list[dict[str, Any]]:
        """Every (recipient, Message-ID) that came more than once, with the ids of its copies."""
        condition, values = wanted.condition()
        rows = self._database.execute(
            f"SELECT recipient, rfc_message_id, group_concat(id) AS ids FROM messages "
            f"WHERE {condition} GROUP BY recipient, rfc_message_id HAVING count(*) > 1",
            values,
        ).fetchall()
        return [
            {
                "recipient": row["recipient"],
                "rfc_message_id": row["rfc_message_id"],
                "copies": self._copies(sorted(int(number) for number in row["ids"].split(","))),
            }
            for row in rows
        ]

    def messages(self, wanted: Wanted, *, limit: int, offset: int) -> list[dict[str, Any]]:
        """Newest first."""
        condition, values = wanted.condition()
        rows = self._database.execute(
            f"SELECT * FROM messages WHERE {condition} ORDER BY id DESC LIMIT ? OFFSET ?",
            [*values, limit, offset],
        )
        return [dict(row) for row in rows]

    def total(self, wanted: Wanted) -> int:
        condition, values = wanted.condition()
        return self._number(f"SELECT count(*) FROM messages WHERE {condition}", values)

    def message(self, number: int) -> dict[str, Any] | None:
        row = self._database.execute("SELECT * FROM messages WHERE id = ?", [number]).fetchone()
        return None if row is None else dict(row)

    def refusals(self, *, recipient: str, limit: int, offset: int) -> list[dict[str, Any]]:
        """What was turned away, newest first."""
        rows = self._database.execute(
            "SELECT * FROM refusals WHERE ? IN ('', recipient) ORDER BY id DESC LIMIT ? OFFSET ?",
            [recipient.lower(), limit, offset],
        )
        return [dict(row) for row in rows]

    def _copies(self, numbers: list[int]) -> list[dict[str, Any]]:
        marks = ",".join("?" * min(len(numbers), 100))
        rows = self._database.execute(
            f"SELECT id, received_at, provider FROM messages WHERE id IN ({marks}) ORDER BY id",
            numbers[:100],
        )
        return [dict(row) for row in rows]

    def _refusals(self, condition: str, since: float) -> int:
        return self._number(
            f"SELECT count(*) FROM refusals WHERE {condition} AND refused_at >= ?", [since]
        )

    def _number(self, query: str, values: list[Any]) -> int:
        return int(self._database.execute(query, values).fetchone()[0])

    def _state(self, name: str) -> int:
        row = self._database.execute("SELECT value FROM state WHERE name = ?", [name]).fetchone()
        return 0 if row is None else int(row[0])

    def _set_state(self, **values: int) -> None:
        self._database.executemany("INSERT OR REPLACE INTO state VALUES (?, ?)", values.items())

    def _message_rows(self, entry: Entry) -> list[tuple[Any, ...]]:
        facts, header = entry.facts, self._log.header(entry)
        rfc_message_id = header_value(header, "Message-ID")
        if not rfc_message_id:
            rfc_message_id = content_name(self._log.content(entry))
        common = (
            rfc_message_id,
            header_value(header, MAILING_HEADER),
            readable(header_value(header, "Subject")),
            readable(header_value(header, "From")),
            entry.content_bytes,
            entry.offset,
        )
        return [
            (facts["at"], facts["provider"], recipient.lower(), *common)
            for recipient in facts["recipients"]
        ]


def content_name(content: bytes) -> str:
    """What stands for the Message-ID of a message that has none."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _refusal_rows(entry: Entry) -> list[tuple[Any, ...]]:
    facts = entry.facts
    return [
        (facts["at"], facts["provider"], recipient.lower(), facts["code"], facts["text"])
        for recipient in facts["recipients"]
    ]


def _containing(words: str) -> str:
    escaped = words.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return f"%{escaped}%"
