"""How one provider receives: what it answers to a recipient and to a content.

Decides from the address (`faults`), from what was tried before (`memory`) and from the
provider's own habits. Never touches a connection or the disk; the time is an argument.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from sandbox.faults import AT_RECIPIENT, Effect, Fault, fault_for
from sandbox.memory import AttemptMemory, GreylistMemory
from sandbox.providers import Provider


@dataclass(frozen=True, slots=True)
class Delays:
    """How long things take, in seconds."""

    greylist_seconds: float = 4.0
    slow_host_seconds: float = 0.3  #: before each reply of a slow provider
    slow_seconds: float = 5.0  #: before the final reply to `slow@`


@dataclass(frozen=True, slots=True)
class Welcome:
    """The recipient is taken. `fault` waits for the content, if there is one."""

    fault: Fault | None = None


@dataclass(frozen=True, slots=True)
class Turned:
    """Not taken: answer with the text of that name."""

    says: str


@dataclass(frozen=True, slots=True)
class Kept:
    """The content is taken. The reply comes after `reply_after_seconds`, or gets lost."""

    reply_after_seconds: float = 0.0
    reply_is_lost: bool = False


WELCOME = Welcome()
KEPT = Kept()


@dataclass(slots=True)
class Memory:
    """What all providers remember together."""

    greylist: GreylistMemory
    attempts: AttemptMemory = field(default_factory=AttemptMemory)

    def forget_all(self) -> None:
        self.greylist.forget_all()
        self.attempts.forget_all()


class Reception:
    """One provider's decisions."""

    def __init__(self, provider: Provider, memory: Memory, delays: Delays) -> None:
        self.provider = provider
        self.delays = delays
        self._memory = memory

    @property
    def reply_seconds(self) -> float:
        """How long each reply of this provider takes."""
        return self.delays.slow_host_seconds if self.provider.is_slow else 0.0

    def at_recipient(
        self, client: str, return_path: str, recipient: str, *, now: float
    ) -> Welcome | Turned:
        """Answer a RCPT command."""
        fault = fault_for(recipient)
        if fault is not None and self._turns_away(fault, recipient):
            return Turned(fault.rule.says)
        is_greylisted = self.provider.has_greylist or (
            fault is not None and fault.rule.effect is Effect.GREYLIST
        )
        if is_greylisted and not self._memory.greylist.may_pass(
            client, return_path, recipient, now=now
        ):
            return Turned("greylisted")
        return WELCOME if fault is None else Welcome(fault)

    def _turns_away(self, fault: Fault, recipient: str) -> bool:
        match fault.rule.effect:
            case Effect.REFUSE_RECIPIENT | Effect.CLOSE_AT_RECIPIENT:
                return True
            case Effect.DEFER_RECIPIENT | Effect.RATE_LIMIT:
                key = _key(fault, recipient)
                return self._memory.attempts.is_among_first(key, fault.count)
        return False

    def after_content(
        self, recipients: Sequence[tuple[str, Fault | None]], rfc_message_id: str
    ) -> Kept | Turned:
        """Answer a content. The first recipient with a fault decides for all of them."""
        kept = KEPT
        for recipient, fault in recipients:
            if fault is None:
                continue
            key = _key(fault, recipient)
            match fault.rule.effect:
                case Effect.REFUSE_CONTENT:
                    return Turned(fault.rule.says)
                case Effect.DEFER_CONTENT:
                    key = f"{key} {rfc_message_id}"
                    if self._memory.attempts.is_among_first(key, fault.count):
                        return Turned(fault.rule.says)
                case Effect.LOSE_REPLY if kept is KEPT:
                    kept = Kept(reply_is_lost=True)
                case Effect.DELAY_REPLY if kept is KEPT:
                    kept = Kept(reply_after_seconds=self._seconds(fault))
        self._start_anew(recipients)
        return kept

    def _start_anew(self, recipients: Sequence[tuple[str, Fault | None]]) -> None:
        """The next message to a recipient that defers meets the whole count again."""
        for recipient, fault in recipients:
            if fault is not None and fault.rule.effect in AT_RECIPIENT:
                self._memory.attempts.forget(_key(fault, recipient))

    def _seconds(self, fault: Fault) -> float:
        return self.delays.slow_seconds if fault.number is None else float(fault.number)


def _key(fault: Fault, recipient: str) -> str:
    return f"{fault.rule.name} {recipient.lower()}"
