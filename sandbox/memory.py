"""What a mailbox provider remembers of earlier attempts: counts, and a greylist.

Pure apart from remembering: the time is an argument. Both memories are bounded; the entries
that were used least recently go first, as they would in a real server's cache.

Greylisting follows RFC 6647; return paths are compared as Postgrey does it, with numbers
and extensions taken out, so that a VERP address of each message does not look new.
"""

from __future__ import annotations

import re
from collections import OrderedDict

ENTRIES_AT_MOST = 200_000

_NUMBER = re.compile(r"\b\d+\b")


class AttemptMemory:
    """Counts attempts by key, so that the first few can be treated differently."""

    def __init__(self, entries_at_most: int = ENTRIES_AT_MOST) -> None:
        self._counts: OrderedDict[str, int] = OrderedDict()
        self._entries_at_most = entries_at_most

    def is_among_first(self, key: str, count: int) -> bool:
        """Note one attempt; say whether it is one of the first `count`."""
        attempts = self._counts.pop(key, 0) + 1
        self._counts[key] = min(attempts, count + 1)
        if len(self._counts) > self._entries_at_most:
            self._counts.popitem(last=False)
        return attempts <= count

    def forget(self, key: str) -> None:
        """Start anew for this key."""
        self._counts.pop(key, None)

    def forget_all(self) -> None:
        self._counts.clear()


class GreylistMemory:
    """Who was seen when for the first time."""

    def __init__(self, delay_seconds: float, entries_at_most: int = ENTRIES_AT_MOST) -> None:
        self._delay_seconds = delay_seconds
        self._first_seen: OrderedDict[tuple[str, str, str], float] = OrderedDict()
        self._entries_at_most = entries_at_most

    def may_pass(self, client: str, return_path: str, recipient: str, *, now: float) -> bool:
        """Say whether this triplet was first seen long enough ago; note it if it is new."""
        triplet = (client, _without_verp(return_path.lower()), recipient.lower())
        first_seen = self._first_seen.get(triplet)
        if first_seen is None:
            self._first_seen[triplet] = now
            if len(self._first_seen) > self._entries_at_most:
                self._first_seen.popitem(last=False)
            return self._delay_seconds <= 0
        self._first_seen.move_to_end(triplet)
        return now - first_seen >= self._delay_seconds

    def forget_all(self) -> None:
        self._first_seen.clear()


def _without_verp(return_path: str) -> str:
    local_part, _, domain = return_path.rpartition("@")
    return f"{_NUMBER.sub('#', local_part.partition('+')[0])}@{domain}"
