"""One SMTP conversation from the server's side, without any I/O.

Bytes go in by `receive`; what comes of them is laid out for the caller: `records` to keep
before anything is said, `output` to write, then `delayed` (a reply that must wait) or
`ending`. While either of the last two is set, nothing more is read.

A bare LF in a command ends the conversation; in a content it is just a byte. What a client
sends behind STARTTLS before the handshake is dropped (RFC 3207 section 4.2). Commands may be
pipelined; replies keep order.

RFC 5321, RFC 2920 PIPELINING, RFC 3030 CHUNKING, RFC 1870 SIZE, RFC 3207 STARTTLS.
"""

from __future__ import annotations

import enum
import itertools
from typing import ClassVar

from sandbox import commands
from sandbox.commands import Objection
from sandbox.faults import Effect, Fault
from sandbox.headers import header_block, header_value
from sandbox.providers import Texts
from sandbox.reception import Reception, Turned
from sandbox.records import Accepted, Record, Refused
from sandbox.wire import Flaw, Wire

RECIPIENTS_AT_MOST = 1000  #: RFC 5321 section 4.5.3.1.8 asks for 100 at least
ERRORS_AT_MOST = 20  #: Postfix's smtpd_hard_error_limit
REPLY_LINE_AT_MOST = 510  #: RFC 5321 section 4.5.3.1.5, without CRLF

_NO_RECIPIENTS = b"554 5.5.1 No valid recipients\r\n"
_ids = itertools.count(1)


class Ending(enum.Enum):
    CLOSE = enum.auto()  #: after what was written has gone out
    CUT = enum.auto()  #: without a further word
    START_TLS = enum.auto()


class Conversation:
    """What was said so far with one client."""

    def __init__(
        self, reception: Reception, *, host: str, peer: str, now: float, has_tls: bool = True
    ) -> None:
        self.output = bytearray()
        self.records: list[Record] = []
        self.delayed: tuple[float, bytes] | None = None
        self.ending: Ending | None = None
        self._reception = reception
        self._provider = reception.provider
        self._reply_seconds = reception.reply_seconds
        self._host = host
        self._peer = peer
        self._now = now
        self._has_tls = has_tls and self._provider.offers("STARTTLS")
        self._tls = ""
        self._id = f"{int(now):x}{next(_ids):06x}"
        self._wire = Wire()
        self._errors = 0
        self._helo = ""
        self._reader = self._read_command
        self._begin_transaction()
        self._texts: Texts = self._provider.texts
        self._fixed = {name: self._text(name) for name in ("sender_ok", "go_ahead")}
        self._say(self._text("banner"))

    def receive(self, data: bytes, now: float) -> None:
        """Take in what the client sent."""
        self._wire.feed(data)
        self._now = now
        self._advance()

    def reply_is_due(self, now: float) -> None:
        """The wait for `delayed` is over: say it, and go on."""
        assert self.delayed is not None
        self.output += self.delayed[1]
        self.delayed = None
        self._now = now
        self._advance()

    def tls_is_up(self, version: str) -> None:
        """The handshake asked for by `START_TLS` is done; the client greets anew."""
        self.ending = None
        self._tls = version
        self._helo = ""
        self._begin_transaction()

    def shut_down(self) -> None:
        """Take leave of the client, whatever it is doing."""
        if self.ending is None:
            self.output += self._text("closing")
            self.ending = Ending.CLOSE

    @property
    def waiting_bytes(self) -> int:
        """How much has come in that was not looked at yet."""
        return len(self._wire)

    def _advance(self) -> None:
        while self.delayed is None and self.ending is None and self._reader():
            pass
        if self.ending is Ending.START_TLS:
            self._wire.drop()
        self._wire.compact()

    def _read_command(self) -> bool:
        line = self._wire.read_line()
        if line is None:
            return False
        if line is Flaw.LINE_TOO_LONG:
            self._object(b"500 5.5.2 Line too long\r\n")
            return True
        if isinstance(line, Flaw):
            self._say(b"521 5.5.2 Bare LF is not an end of line\r\n")
            self.ending = Ending.CLOSE
            return False
        verb, _, argument = line.partition(b" ")
        handler = self._handlers.get(verb.upper())
        if handler is None:
            self._object(b"500 5.5.2 Command not recognized\r\n")
        else:
            handler(self, argument)
        return True

    def _read_content(self) -> bool:
        if self._is_cut_in_content and self._wire.has_content:
            self.ending = Ending.CUT
            return False
        content = self._wire.read_content(self._provider.size_limit_bytes)
        if content is None:
            return False
        self._reader = self._read_command
        self._is_too_big = isinstance(content, Flaw)
        self._take_content(b"" if isinstance(content, Flaw) else content)
        return True

    def _read_chunk(self) -> bool:
        piece = self._wire.read_bytes(self._chunk_left)
        self._chunk_left -= len(piece)
        if piece and self._is_cut_in_content:
            self.ending = Ending.CUT
            return False
        self._content_bytes += len(piece)
        if self._content_bytes > self._provider.size_limit_bytes:
            self._is_too_big = True
            self._chunks.clear()
        elif piece:
            self._chunks.append(piece)
        if self._chunk_left:
            return False
        self._reader = self._read_command
        self._end_chunk()
        return True

    def _end_chunk(self) -> None:
        if self._chunk_objection is not None:
            self._chunks.clear()
            self._object(self._chunk_objection)
        elif self._chunk_is_last:
            content = b"".join(self._chunks)
            self._take_content(content if content.endswith(b"\r\n") else content + b"\r\n")
        elif self._is_too_big:
            self._say_text("too_big")
            self._begin_transaction()
        else:
            self._say(self._text("chunk_ok", size=self._chunk_bytes))

    def _say(self, reply: bytes) -> None:
        if not self._reply_seconds:
            self.output += reply
        elif self.delayed is None:
            self.delayed = (self._reply_seconds, reply)
        else:
            self.delayed = (self.delayed[0], self.delayed[1] + reply)

    def _say_text(self, name: str, **fields: object) -> None:
        self._say(self._text(name, **fields))

    def _text(self, name: str, **fields: object) -> bytes:
        fields = {"id": self._id, "host": self._host, "peer": self._peer, **fields}
        text = getattr(self._texts, name).format(**fields)
        lines = [line[:REPLY_LINE_AT_MOST] for line in text.split("\n")]
        return ("\r\n".join(lines) + "\r\n").encode("utf-8")

    def _object(self, reply: bytes) -> None:
        self._say(reply)
        # A client that pipelines cannot know that its recipients were refused.
        self._errors += reply is not _NO_RECIPIENTS
        if self._errors > ERRORS_AT_MOST:
            self._say(b"421 4.7.0 Too many errors\r\n")
            self.ending = Ending.CLOSE

    def _begin_transaction(self) -> None:
        self._sender: commands.Sender | None = None
        self._recipients: list[tuple[str, Fault | None]] = []
        self._has_refused = False
        self._is_cut_in_content = False
        self._is_too_big = False
        self._chunks: list[bytes] = []
        self._content_bytes = 0
        self._has_chunks = False

    def _helo_command(self, argument: bytes) -> None:
        if self._greeted(argument):
            self._say(b"250 %s\r\n" % self._host.encode())

    def _ehlo_command(self, argument: bytes) -> None:
        if not self._greeted(argument):
            return
        lines = [self._texts.greeting.format(host=self._host, peer=self._peer)]
        for line in self._provider.extensions:
            if line != "STARTTLS" or (self._has_tls and not self._tls):
                lines.append(line)
        body = "".join(f"250-{line}\r\n" for line in lines[:-1]) + f"250 {lines[-1]}\r\n"
        self._say(body.encode())

    def _greeted(self, argument: bytes) -> bool:
        name = argument.strip()
        if not name:
            self._object(b"501 5.5.4 A host name is needed\r\n")
            return False
        self._helo = name.decode("utf-8", "replace")
        self._begin_transaction()
        return True

    def _mail_command(self, argument: bytes) -> None:
        if not self._helo:
            return self._object(b"503 5.5.1 EHLO first\r\n")
        if self._sender is not None:
            return self._object(b"503 5.5.1 Nested MAIL command\r\n")
        sender = commands.parse_sender(argument, self._provider)
        if isinstance(sender, Objection):
            return self._object(sender.reply)
        if sender.size_bytes > self._provider.size_limit_bytes:
            return self._say_text("too_big")
        self._sender = sender
        return self._say(self._fixed["sender_ok"])

    def _rcpt_command(self, argument: bytes) -> None:
        if self._sender is None or self._has_chunks:
            return self._object(b"503 5.5.1 MAIL first\r\n")
        recipient = commands.parse_recipient(argument, self._provider, is_utf8=self._sender.is_utf8)
        if isinstance(recipient, Objection):
            self._has_refused = True
            return self._object(recipient.reply)
        if len(self._recipients) >= RECIPIENTS_AT_MOST:
            self._has_refused = True
            return self._say(b"452 4.5.3 Too many recipients\r\n")
        answer = self._reception.at_recipient(
            self._peer, self._sender.path, recipient, now=self._now
        )
        if isinstance(answer, Turned):
            self._has_refused = True
            return self._refuse(answer.says, (recipient,))
        self._recipients.append((recipient, answer.fault))
        if answer.fault is not None and answer.fault.rule.effect is Effect.CUT_IN_CONTENT:
            self._is_cut_in_content = True
        return self._say_text("recipient_ok", recipient=recipient)

    def _data_command(self, argument: bytes) -> None:
        if argument.strip():
            return self._object(commands.BAD_SYNTAX.reply)
        if (reply := self._objection_to_content()) is not None:
            return self._object(reply)
        assert self._sender is not None
        if self._sender.is_binary or self._has_chunks:
            return self._object(b"503 5.5.1 BDAT is needed here\r\n")
        self._wire.begin_content()
        self._reader = self._read_content
        return self._say(self._fixed["go_ahead"])

    def _bdat_command(self, argument: bytes) -> None:
        if not self._provider.offers("CHUNKING"):
            return self._object(b"502 5.5.1 Command not implemented\r\n")
        chunk = commands.parse_chunk(argument)
        if isinstance(chunk, Objection):
            # Where the chunk ends is unknown, so nothing behind it can be understood.
            self._object(chunk.reply)
            self.ending = Ending.CLOSE
            return None
        self._chunk_left, self._chunk_is_last = chunk
        self._chunk_bytes = self._chunk_left
        self._chunk_objection = self._objection_to_content()
        self._has_chunks = self._chunk_objection is None
        self._reader = self._read_chunk
        return None

    def _objection_to_content(self) -> bytes | None:
        if self._sender is None:
            return b"503 5.5.1 MAIL first\r\n"
        if self._recipients:
            return None
        if self._has_refused:
            return _NO_RECIPIENTS
        return b"503 5.5.1 RCPT first\r\n"

    def _rset_command(self, argument: bytes) -> None:
        self._begin_transaction()
        self._say(b"250 2.0.0 Ok\r\n")

    def _noop_command(self, argument: bytes) -> None:
        self._say(b"250 2.0.0 Ok\r\n")

    def _vrfy_command(self, argument: bytes) -> None:
        self._say(b"252 2.1.5 Send some mail, I will try my best\r\n")

    def _quit_command(self, argument: bytes) -> None:
        self._say_text("goodbye")
        self.ending = Ending.CLOSE

    def _starttls_command(self, argument: bytes) -> None:
        if not self._has_tls:
            return self._object(b"502 5.5.1 Command not implemented\r\n")
        if argument.strip():
            return self._object(commands.BAD_SYNTAX.reply)
        if self._tls:
            return self._object(b"503 5.5.1 TLS is already active\r\n")
        self._say(b"220 2.0.0 Ready to start TLS\r\n")
        self.ending = Ending.START_TLS
        return None

    def _unimplemented_command(self, argument: bytes) -> None:
        self._object(b"502 5.5.1 Command not implemented\r\n")

    _handlers: ClassVar = {
        b"HELO": _helo_command,
        b"EHLO": _ehlo_command,
        b"MAIL": _mail_command,
        b"RCPT": _rcpt_command,
        b"DATA": _data_command,
        b"BDAT": _bdat_command,
        b"RSET": _rset_command,
        b"NOOP": _noop_command,
        b"VRFY": _vrfy_command,
        b"QUIT": _quit_command,
        b"STARTTLS": _starttls_command,
        b"EXPN": _unimplemented_command,
        b"HELP": _unimplemented_command,
        b"TURN": _unimplemented_command,
        b"ETRN": _unimplemented_command,
        b"AUTH": _unimplemented_command,
    }

    def _refuse(self, says: str, recipients: tuple[str, ...]) -> None:
        recipient = recipients[0]
        reply = self._text(says, recipient=recipient, recipient_domain=recipient.rpartition("@")[2])
        code = int(reply[:3])
        text = reply.decode("utf-8").replace("\r\n", "\n").rstrip()
        self.records.append(Refused(self._provider.name, recipients, code, text, self._now))
        self._say(reply)
        if code == 421:
            self.ending = Ending.CLOSE

    def _take_content(self, content: bytes) -> None:
        assert self._sender is not None
        recipients = tuple(recipient for recipient, _ in self._recipients)
        if self._is_too_big:
            self._refuse("too_big", recipients)
            return self._begin_transaction()
        rfc_message_id = header_value(header_block(content), "Message-ID")
        answer = self._reception.after_content(self._recipients, rfc_message_id)
        if isinstance(answer, Turned):
            self._refuse(answer.says, recipients)
            return self._begin_transaction()
        self.records.append(
            Accepted(
                provider=self._provider.name,
                host=self._host,
                peer=self._peer,
                helo=self._helo,
                tls=self._tls,
                return_path=self._sender.path,
                recipients=recipients,
                content=content,
                received_at=self._now,
            )
        )
        self._begin_transaction()
        if answer.reply_is_lost:
            self.ending = Ending.CUT
            return None
        reply = self._text(
            "accepted",
            id=f"{self._id}-{next(_ids):x}",
            size=len(content),
            rfc_message_id=rfc_message_id,
        )
        if answer.reply_after_seconds:
            self.delayed = (answer.reply_after_seconds + self._reply_seconds, reply)
            return None
        return self._say(reply)
