"""The client's side of an SMTP conversation, from the moment that mail may flow.

Decides what to say next and what each reply means for which message: with PIPELINING one write
holds a message's content and the next envelope's commands; without it, one command at a time.
When the connection ends at any byte, it says for every message that was begun whether it was
answered, is in doubt (its content had been handed over) or was never sent. It never touches a
socket, a clock or a log, and never decides what becomes of a message afterwards.

RFC 5321; RFC 2920 (PIPELINING), whose section 3.1 is the case of DATA accepted for no recipient.
"""

from __future__ import annotations

import enum
from collections import deque
from dataclasses import dataclass

from deliverability.core.outcome import Phase, Reply
from mailer.core.envelope import Envelope
from mailer.core.reply_lines import RawReply, ReplyError, ReplyReader, UnexpectedReply
from mailer.core.smtp_commands import (
    DATA,
    END_OF_CONTENT,
    QUIT,
    RSET,
    Abilities,
    Commands,
    commands_for,
    wire_content,
)

SERVICE_CLOSES = 421  #: RFC 5321 section 3.8: may answer any command, or none


class Step(enum.Enum):
    """Something we said, whose reply is awaited."""

    RSET = "rset"
    MAIL = "mail"
    RCPT = "rcpt"
    DATA = "data"
    CONTENT = "content"
    LONE_DOT = "lone_dot"  #: ends a DATA that had no recipient; its reply is nobody's
    QUIT = "quit"


_PHASES = {
    Step.RSET: Phase.MAIL,
    Step.MAIL: Phase.MAIL,
    Step.RCPT: Phase.RCPT,
    Step.DATA: Phase.DATA,
    Step.CONTENT: Phase.CONTENT,
}


@dataclass(frozen=True, slots=True)
class Answered:
    """The server accepted or refused the message; `reply.phase` says at what."""

    reply: Reply


@dataclass(frozen=True, slots=True)
class InDoubt:
    """The final dot was handed over and no reply to it was read."""

    why: str


@dataclass(frozen=True, slots=True)
class NotSent:
    """No content was handed over: to send it again is safe."""

    why: str
    phase: Phase  #: what the server had been asked and had not answered


@dataclass(frozen=True, slots=True)
class Broken:
    """The server answered this message, before its content, with what is no answer."""

    reply: Reply  #: code 0


Fate = Answered | InDoubt | NotSent | Broken


@dataclass(frozen=True, slots=True)
class Settled:
    envelope: Envelope
    fate: Fate


@dataclass(slots=True)
class _Transaction:
    envelope: Envelope
    is_mail_accepted: bool = False
    is_rcpt_accepted: bool = False
    refusal: Reply | None = None


class ConversationMisused(RuntimeError):
    """The caller did what the conversation did not invite. Our own fault."""


class Conversation:
    """One connection's conversation. Feed it bytes, ask what to do, write what it says.

    At most one message is announced or ready, and one more has its content under way.
    """

    def __init__(self, abilities: Abilities) -> None:
        self.abilities = abilities
        self.over: str | None = None  #: why nothing more will be said
        self.closing_reply: Reply | None = None  #: the 421 that ended it, if one did
        self.replies_heard = 0
        self._reader = ReplyReader()
        self._awaited: deque[Step] = deque()
        self._unsaid: deque[tuple[Step, bytes]] = deque()  # plain mode: one command at a time
        self._output: list[bytes] = []
        self._announced: _Transaction | None = None
        self._ready: _Transaction | None = None
        self._handed: _Transaction | None = None
        self._needs_reset = False
        self._is_content_unsaid = False  # handed over, and still in the output

    # -- questions

    @property
    def ready(self) -> Envelope | None:
        """The envelope whose content the server waits for."""
        return self._ready.envelope if self._ready is not None else None

    @property
    def awaits(self) -> Step | None:
        """The oldest thing said that has no reply yet."""
        return self._awaited[0] if self._awaited else None

    @property
    def is_busy(self) -> bool:
        """Whether a message has been begun and not settled, or a reply is due."""
        return bool(self._awaited) or self._ready is not None

    @property
    def is_swallowing(self) -> bool:
        """Whether the server refused the message and says nothing to the DATA after it.

        RFC 2920 section 3.2 forbids it to flush what was pipelined; some do on an error.
        """
        announced = self._announced
        is_refused = announced is not None and announced.refusal is not None
        return is_refused and self.abilities.pipelining

    @property
    def wants_envelope(self) -> bool:
        """Whether `announce` may be called now."""
        if self.over is not None or self._announced is not None or self._ready is not None:
            return False
        return not self._awaited or (self.abilities.pipelining and Step.QUIT not in self._awaited)

    # -- what the caller does

    def announce(self, envelope: Envelope) -> Reply | None:
        """Begin a message. Return a reply of our own when this server cannot be asked."""
        if not self.wants_envelope:
            raise ConversationMisused("announced while another message is being begun")
        commands = commands_for(envelope, self.abilities)
        if isinstance(commands, Reply):
            return commands
        self._announced = _Transaction(envelope)
        if self.abilities.pipelining:
            self._say_together(commands)
        else:
            self._say_one_by_one(commands)
        return None

    def hand_over(self) -> None:
        """Put the ready message's content, up to its final dot, into the output."""
        if self._ready is None:
            raise ConversationMisused("no message is ready for its content")
        self._handed, self._ready = self._ready, None
        self._output += (wire_content(self._handed.envelope), END_OF_CONTENT)
        self._awaited.append(Step.CONTENT)
        self._is_content_unsaid = True

    def quit(self) -> None:
        if self.over is None and not self.is_busy:
            self._output.append(QUIT)
            self._awaited.append(Step.QUIT)

    def take_output(self) -> bytes:
        """Return what is to be written now, all in one piece."""
        self._is_content_unsaid = False
        if not self._output:
            return b""
        output = b"".join(self._output)
        self._output.clear()
        return output

    # -- what happens

    def receive(self, data: bytes) -> list[Settled]:
        """Take in bytes from the server; return the messages that they settled."""
        settled: list[Settled] = []
        for raw in self._reader.read(data):
            if self.over is not None:
                return settled
            self.replies_heard += 1
            step = self._awaited.popleft() if self._awaited else None
            try:
                self._take(step, raw, settled)
            except UnexpectedReply as fault:
                settled += self._break(step, fault)
        if self._reader.fault is not None and self.over is None:
            settled += self._break(self.awaits, self._reader.fault)
        return settled

    def lose(self, why: str) -> list[Settled]:
        """The connection is gone, or is to be given up: settle all that was begun."""
        if self.over is not None:
            return []
        self.over = why
        settled = []
        if self._handed is not None:
            is_unsaid = self._is_content_unsaid
            fate: Fate = NotSent(why, Phase.DATA) if is_unsaid else InDoubt(why)
            settled.append(Settled(self._handed.envelope, fate))
        begun = self._ready or self._announced
        if begun is not None:
            not_sent = NotSent(why, self._phase_begun())
            fate = Answered(begun.refusal) if begun.refusal is not None else not_sent
            settled.append(Settled(begun.envelope, fate))
        self._announced = self._ready = self._handed = None
        self._awaited.clear()
        self._unsaid.clear()
        self._output.clear()
        return settled

    # -- saying

    def _say_together(self, commands: Commands) -> None:
        if self._needs_reset:
            self._needs_reset = False
            self._output.append(RSET)
            self._awaited.append(Step.RSET)
        self._output += (commands.mail, commands.rcpt, DATA)
        self._awaited.extend((Step.MAIL, Step.RCPT, Step.DATA))

    def _say_one_by_one(self, commands: Commands) -> None:
        if self._needs_reset:
            self._needs_reset = False
            self._unsaid.append((Step.RSET, RSET))
        self._unsaid.extend(
            ((Step.MAIL, commands.mail), (Step.RCPT, commands.rcpt), (Step.DATA, DATA))
        )
        self._say_next()

    def _say_next(self) -> None:
        if self._unsaid and not self._awaited:
            step, command = self._unsaid.popleft()
            self._output.append(command)
            self._awaited.append(step)

    # -- hearing

    def _take(self, step: Step | None, raw: RawReply, settled: list[Settled]) -> None:
        """Act on one whole reply."""
        if raw.code == SERVICE_CLOSES:
            self._take_closing(step, raw, settled)
        elif step is Step.CONTENT:
            self._take_content(raw.told(Phase.CONTENT), settled)
        elif step is Step.DATA:
            self._take_data(raw, settled)
        elif step is Step.MAIL or step is Step.RCPT:
            self._take_address(step, raw, settled)
        elif step is Step.RSET:
            self._take_reset(raw)
        elif step is Step.QUIT:
            self.over = "we said QUIT"
        elif step is None:
            raise UnexpectedReply(f"{raw.code} answers nothing that was said")

    def _take_address(self, step: Step, raw: RawReply, settled: list[Settled]) -> None:
        transaction = self._begun()
        if raw.code < 300:
            if step is Step.MAIL:
                transaction.is_mail_accepted = True
            else:
                transaction.is_rcpt_accepted = True
            self._say_next()
            return
        if raw.code < 400:
            raise UnexpectedReply(f"{raw.code} to {step.value.upper()}")
        if transaction.refusal is None:
            transaction.refusal = raw.told(_PHASES[step])
        if not self.abilities.pipelining:
            self._unsaid.clear()
            self._close_refused(transaction, transaction.refusal, settled)

    def _take_data(self, raw: RawReply, settled: list[Settled]) -> None:
        transaction = self._begun()
        if raw.code < 300:
            raise UnexpectedReply(f"{raw.code} to DATA")
        if raw.code < 400 and transaction.refusal is None:
            self._ready, self._announced = transaction, None
        elif raw.code < 400:
            self._take_invitation_of_refused(transaction, settled)
        else:
            refusal = transaction.refusal or raw.told(Phase.DATA)
            self._close_refused(transaction, refusal, settled)

    def _take_invitation_of_refused(
        self, transaction: _Transaction, settled: list[Settled]
    ) -> None:
        """The server waits for content although it refused the sender or the recipient."""
        if transaction.is_rcpt_accepted:
            # A dot would deliver an empty message. Only closing says nothing.
            settled += self.lose("the server asked for the content of a message it had refused")
            return
        assert transaction.refusal is not None
        self._close_refused(transaction, transaction.refusal, settled)
        self._needs_reset = False  # the dot ends the transaction
        self._output.append(END_OF_CONTENT)
        self._awaited.append(Step.LONE_DOT)

    def _take_content(self, reply: Reply, settled: list[Settled]) -> None:
        transaction = self._handed
        assert transaction is not None
        if 300 <= reply.code < 400:
            raise UnexpectedReply(f"{reply.code} to the content")
        self._handed = None
        settled.append(Settled(transaction.envelope, Answered(reply)))

    def _take_reset(self, raw: RawReply) -> None:
        if raw.code >= 300:
            raise UnexpectedReply(f"{raw.code} to RSET")
        self._say_next()

    def _take_closing(self, step: Step | None, raw: RawReply, settled: list[Settled]) -> None:
        """421: it answers what was asked, if anything was, and ends the conversation."""
        reply = raw.told(_PHASES[step] if step in _PHASES else self._phase_begun())
        self.closing_reply = reply
        if step is Step.CONTENT:
            self._take_content(reply, settled)
        elif step in (Step.MAIL, Step.RCPT, Step.DATA) or self._ready is not None:
            transaction = self._begun()
            transaction.refusal = transaction.refusal or reply
        settled += self.lose(f"the server closed the service: 421 {reply.text}")

    # -- ends

    def _begun(self) -> _Transaction:
        begun = self._announced or self._ready
        assert begun is not None
        return begun

    def _close_refused(
        self, transaction: _Transaction, refusal: Reply, settled: list[Settled]
    ) -> None:
        """A refused recipient leaves MAIL open at the server, where a second is "nested"."""
        self._announced = None
        self._needs_reset = transaction.is_mail_accepted
        settled.append(Settled(transaction.envelope, Answered(refusal)))

    def _break(self, step: Step | None, fault: ReplyError) -> list[Settled]:
        """What came is not SMTP: end, and lay it to the message whose answer it should be."""
        why = f"the server broke the protocol: {fault}"
        broken = Broken(Reply(0, "", why, _PHASES.get(step or Step.DATA, self._phase_begun())))
        is_begun_at_fault = step is not Step.CONTENT
        return [
            Settled(each.envelope, broken)
            if is_begun_at_fault and isinstance(each.fate, NotSent)
            else each
            for each in self.lose(why)
        ]

    def _phase_begun(self) -> Phase:
        """The first question about the message being begun that has no answer."""
        for step in self._awaited:
            if step in (Step.MAIL, Step.RCPT, Step.DATA):
                return _PHASES[step]
        return Phase.DATA if self._ready is not None else Phase.MAIL
