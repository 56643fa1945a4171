"""The feed as the connections of one `send` share it.

Decides which envelope comes next: those that a lost connection gave back, then the feeder's.
Never holds more than one envelope for each connection, so that a pause takes effect at once.
"""

from __future__ import annotations

from collections import deque

from mailer.core.envelope import Envelope
from mailer.transport.door import Feed, Result, Unsent


class Supply:
    """A `Feed` in front of a feeder's feed. Settles each envelope exactly once."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self._held: deque[Envelope] = deque()
        self._stopped: str | None = None

    def prefetch(self, count: int) -> int:
        """Hold up to `count` envelopes; return how many connections that can use."""
        try:
            while len(self._held) < count and self._pull():
                pass
        except Exception:
            self.stop("the feed failed")
            raise
        return len(self._held)

    @property
    def has_more(self) -> bool:
        return bool(self._held) or self._pull()

    @property
    def holds_any(self) -> bool:
        return bool(self._held)

    def stop(self, why: str) -> None:
        """Hand out nothing more."""
        self._stopped = why
        self.settle_held(Unsent(why))

    def settle_held(self, result: Result) -> None:
        """Settle what no connection took."""
        while self._held:
            self._feed.settle(self._held.popleft(), result)

    def next(self) -> Envelope | None:
        if self._held:
            return self._held.popleft()
        return self._feed.next() if self._stopped is None else None

    def starting(self, envelope: Envelope) -> None:
        self._feed.starting(envelope)

    def settle(self, envelope: Envelope, result: Result) -> None:
        is_given_back = isinstance(result, Unsent) and result.is_lost and self._stopped is None
        if is_given_back:
            self._held.appendleft(envelope)
        else:
            self._feed.settle(envelope, result)

    def _pull(self) -> bool:
        envelope = self._feed.next() if self._stopped is None else None
        if envelope is not None:
            self._held.append(envelope)
        return envelope is not None
