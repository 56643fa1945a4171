"""The feed of one conversation: hands envelopes to the transport and takes their results.

Everything here but `start` runs in the loop and never blocks. The journal notes the intent
before content goes out, and the outcome when the reply comes.
"""

from __future__ import annotations

import concurrent.futures
import logging
from collections import deque
from collections.abc import Callable

from deliverability.core.outcome import OutcomeKind, Phase, Reply
from mailer import runtime
from mailer.core.envelope import Envelope
from mailer.outcomes import Seen
from mailer.transport.door import Destination, InDoubt, Replied, Result, Unreached, Unsent

logger = logging.getLogger(__name__)

#: (message_id, attempt_no, how far it came, the reply, the server)
See = Callable[[int, int, OutcomeKind, Reply, str], Seen]


class Feed:
    """Hands one group's envelopes to the transport and takes their results. All in the loop."""

    def __init__(
        self,
        current: runtime.Runtime,
        batch_id: int,
        envelopes: deque[Envelope],
        *,
        see: See,
        put_off: Callable[[str], object],
    ) -> None:
        """`see` takes what was seen of a message; `put_off` why nothing can be sent now."""
        self._runtime = current
        self._journal = current.journal
        self._batch_id = batch_id
        self._see, self._put_off = see, put_off
        self.envelopes = envelopes
        self.out: set[int] = set()  #: messages that are with the transport
        self.tried = 0
        self.is_stopped = False
        self.future: concurrent.futures.Future[object] | None = None

    def start(self, destination: Destination, connections: int) -> None:
        self.future = self._runtime.submit(self._run(destination, connections))

    async def _run(self, destination: Destination, connections: int) -> None:
        report = await self._runtime.transport.send(destination, self, connections)
        if report.unreached is not None and not self._should_stop():
            # Nobody could be reached: an attempt for each message that had its turn coming.
            for envelope in self.envelopes:
                self._note(
                    envelope, OutcomeKind.UNREACHED, report.unreached.reply, report.unreached.host
                )
            self.envelopes.clear()

    def next(self) -> Envelope | None:
        if self._should_stop() or not self.envelopes:
            return None
        envelope = self.envelopes.popleft()
        self.out.add(envelope.message_id)
        return envelope

    def starting(self, envelope: Envelope) -> None:
        try:
            self._journal.intend(self._batch_id, envelope.message_id, envelope.attempt_no)
        except OSError as error:
            # Without its intent on disk no content goes out. The batch waits until there is room.
            self.is_stopped = True
            self._put_off(str(error))
            raise

    def settle(self, envelope: Envelope, result: Result) -> None:
        match result:
            case Replied(reply, host):
                self._note(envelope, OutcomeKind.ACCEPTED, reply, host)
            case Unreached(reply, host):
                self._note(envelope, OutcomeKind.UNREACHED, reply, host)
            case InDoubt(why, host):
                lost = Reply(0, "", why[:2000], Phase.CONTENT)
                self._note(envelope, OutcomeKind.IN_DOUBT, lost, host)
            case Unsent():
                pass
        self.out.discard(envelope.message_id)

    def _note(self, envelope: Envelope, kind: OutcomeKind, reply: Reply, host: str) -> None:
        self.tried += 1
        seen = self._see(envelope.message_id, envelope.attempt_no, kind, reply, host)
        try:
            self._journal.settle(
                self._batch_id, envelope.message_id, envelope.attempt_no, seen.to_record()
            )
        except OSError:
            # Still in memory, and recorded from there; only a crash before that leaves a doubt.
            logger.exception("mailer.journal.settle_failed message=%s", envelope.message_id)

    def _should_stop(self) -> bool:
        return self.is_stopped or self._runtime.is_stopping.is_set()
