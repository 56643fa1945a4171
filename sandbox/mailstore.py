"""Where received mail goes: `MailStore` keeps it, `MailSink` only counts it.

Both have the same doors, and neither decides anything about a message. `append` is called
before the server says 250. `MailStore` writes the log at once and lets a thread of its own
bring the index up to date; every question waits until the index holds all that was appended
before it, so that whoever has read a 250 finds the message.

`MailSink` is for load: it knows (recipient, Message-ID) of each message by a 128-bit digest,
which is exact for all purposes, and forgets everything when the process ends.
"""

from __future__ import annotations

import hashlib
import sqlite3
import threading
from collections import Counter
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

from sandbox.headers import MAILING_HEADER, header_block, header_value
from sandbox.mail_index import MailIndex, Wanted, content_name
from sandbox.mail_log import LogDamaged, MailLog
from sandbox.records import Record, Refused

_ENTRIES_PER_TRANSACTION = 1000
_PAUSE_SECONDS = 0.05  #: lets entries gather, and leaves the processor to the servers


class Keeper(Protocol):
    """What the servers and the inbox need of a store."""

    def append(self, records: Sequence[Record]) -> None: ...

    def note_connection(self) -> None: ...

    def counts(self, wanted: Wanted) -> dict[str, Any]: ...

    def duplicates(self, wanted: Wanted) -> list[dict[str, Any]]: ...

    def messages(self, wanted: Wanted, *, limit: int, offset: int) -> list[dict[str, Any]]: ...

    def total(self, wanted: Wanted) -> int: ...

    def message(self, number: int) -> tuple[dict[str, Any], bytes] | None: ...

    def refusals(self, *, recipient: str, limit: int, offset: int) -> list[dict[str, Any]]: ...

    def clear(self) -> None: ...

    def close(self) -> None: ...


class MailStore:
    """Keeps every message on disk."""

    def __init__(self, folder: Path) -> None:
        self._log = MailLog(folder / "mail.log")
        self._lock = threading.Lock()
        self._index = _open_index(folder / "index.sqlite3", self._log)
        self._connections = self._index.connections
        self._mend()
        self._has_news = threading.Event()
        self._is_closing = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="mail-index", daemon=True)
        self._thread.start()

    def append(self, records: Sequence[Record]) -> None:
        """Keep the records; when this returns, a killed process has them. May raise OSError."""
        self._log.append(records)
        self._has_news.set()

    def note_connection(self) -> None:
        self._connections += 1
        self._has_news.set()

    def counts(self, wanted: Wanted) -> dict[str, Any]:
        with self._lock:
            self._catch_up()
            return {**self._index.counts(wanted), "connections": self._connections}

    def duplicates(self, wanted: Wanted) -> list[dict[str, Any]]:
        with self._lock:
            self._catch_up()
            return self._index.duplicates(wanted)

    def messages(self, wanted: Wanted, *, limit: int, offset: int) -> list[dict[str, Any]]:
        with self._lock:
            self._catch_up()
            return self._index.messages(wanted, limit=limit, offset=offset)

    def total(self, wanted: Wanted) -> int:
        with self._lock:
            self._catch_up()
            return self._index.total(wanted)

    def message(self, number: int) -> tuple[dict[str, Any], bytes] | None:
        """Row and envelope of one message, and its content."""
        with self._lock:
            self._catch_up()
            row = self._index.message(number)
            if row is None:
                return None
            entry = self._log.entry_at(row["log_offset"])
            return {**row, "envelope": entry.facts}, self._log.content(entry)

    def refusals(self, *, recipient: str, limit: int, offset: int) -> list[dict[str, Any]]:
        with self._lock:
            self._catch_up()
            return self._index.refusals(recipient=recipient, limit=limit, offset=offset)

    def clear(self) -> None:
        """Forget all mail. Called where `append` is called, so that the two never overlap."""
        with self._lock:
            self._log.cut(0)
            self._connections = 0
            self._index.clear()

    def close(self) -> None:
        """End at once; what is not in the index yet will be at the next start."""
        self._is_closing.set()
        self._has_news.set()
        self._thread.join()
        self._index.add((), end=self._index.indexed_bytes, connections=self._connections)
        self._index.close()
        self._log.close()

    def _follow(self) -> None:
        while not self._is_closing.is_set():
            self._has_news.wait()
            self._has_news.clear()
            while self._is_behind() and not self._is_closing.is_set():
                with self._lock:
                    self._take_in()
            self._is_closing.wait(_PAUSE_SECONDS)

    def _is_behind(self) -> bool:
        with self._lock:
            index = self._index
            return (index.indexed_bytes, index.connections) != (self._log.end, self._connections)

    def _take_in(self) -> None:
        """Index the next entries."""
        start, end = self._index.indexed_bytes, self._log.end
        entries = list(islice(self._log.entries(start, end), _ENTRIES_PER_TRANSACTION))
        done = entries[-1].end if entries else start
        self._index.add(entries, end=done, connections=self._connections)

    def _catch_up(self) -> None:
        end = self._log.end
        while self._index.indexed_bytes < end:
            self._take_in()

    def _mend(self) -> None:
        """Bring the index up to date, and cut off a record that a kill left torn."""
        with self._lock:
            good = self._index.indexed_bytes
            try:
                for entry in self._log.entries(good, self._log.end):
                    good = entry.end
            except LogDamaged:
                self._log.cut(good)
            self._catch_up()


def _open_index(path: Path, log: MailLog) -> MailIndex:
    try:
        return MailIndex(path, log)
    except sqlite3.DatabaseError:
        for leftover in path.parent.glob(path.name + "*"):
            leftover.unlink()
        return MailIndex(path, log)


class MailSink:
    """Counts messages and finds duplicates; keeps no content and nothing on disk."""

    def __init__(self) -> None:
        self._forget()

    def _forget(self) -> None:
        self._seen: set[bytes] = set()
        self._copies: Counter[tuple[str, str]] = Counter()
        self._received: Counter[tuple[str, str]] = Counter()
        self._distinct: Counter[str] = Counter()
        self._refused: Counter[str] = Counter()
        self._connections = 0

    def append(self, records: Sequence[Record]) -> None:
        for record in records:
            if isinstance(record, Refused):
                self._refused[str(record.code)[0]] += len(record.recipients)
                continue
            header = header_block(record.content)
            rfc_message_id = header_value(header, "Message-ID") or content_name(record.content)
            mailing = header_value(header, MAILING_HEADER)
            for recipient in record.recipients:
                self._count(recipient.lower(), rfc_message_id, mailing, record.provider)

    def _count(self, recipient: str, rfc_message_id: str, mailing: str, provider: str) -> None:
        self._received[mailing, provider] += 1
        key = f"{recipient}\n{rfc_message_id}".encode()
        digest = hashlib.blake2b(key, digest_size=16).digest()
        if digest not in self._seen:
            self._seen.add(digest)
            self._distinct[mailing] += 1
        else:
            self._copies[recipient, rfc_message_id] += 1

    def note_connection(self) -> None:
        self._connections += 1

    def counts(self, wanted: Wanted) -> dict[str, Any]:
        """Only `mailing` is heeded; times are not known."""
        by_provider: Counter[str] = Counter()
        for (mailing, provider), count in list(self._received.items()):
            if wanted.mailing in ("", mailing):
                by_provider[provider] += count
        received = sum(by_provider.values())
        distinct = (
            self._distinct[wanted.mailing] if wanted.mailing else sum(self._distinct.values())
        )
        return {
            "received": received,
            "distinct": distinct,
            "duplicates": received - distinct,
            "by_provider": dict(by_provider),
            "rejected": self._refused["5"],
            "deferred": self._refused["4"],
            "connections": self._connections,
        }

    def duplicates(self, wanted: Wanted) -> list[dict[str, Any]]:
        """The copies after the first are only counted, so each is an empty object."""
        return [
            {"recipient": recipient, "rfc_message_id": rfc_message_id, "copies": [{}] * (more + 1)}
            for (recipient, rfc_message_id), more in list(self._copies.items())
        ]

    def messages(self, wanted: Wanted, *, limit: int, offset: int) -> list[dict[str, Any]]:
        return []

    def total(self, wanted: Wanted) -> int:
        return 0

    def message(self, number: int) -> tuple[dict[str, Any], bytes] | None:
        return None

    def refusals(self, *, recipient: str, limit: int, offset: int) -> list[dict[str, Any]]:
        return []

    def clear(self) -> None:
        self._forget()

    def close(self) -> None:
        pass
