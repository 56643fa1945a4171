"""How a worker's journal is written down: records to bytes, bytes to what a batch went through.

Pure. A journal tells a rescuer, after a worker died, which messages may have reached a server
(an intent) and which of them were answered (a settlement). This module knows the bytes and what
they mean together; `mailer.journal` owns the files, the locks and the disk's errors.

One record is a fixed head (length, CRC-32, kind, batch, message, attempt) and, for a settlement
or its like, a JSON array. Binary heads and not lines, because the intent is the record of the hot
path: 27 bytes and about half a microsecond. The checksum makes a half-written record visible, so
a reader stops there instead of guessing.
"""

from __future__ import annotations

import enum
import struct
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import orjson

#: First bytes of each segment. Another version of the format gets another number.
MAGIC = b"postroad journal 1\n"

#: Longest reply text kept. The attempt row keeps as much.
TEXT_LIMIT = 500

_LENGTH = struct.Struct("<HI")  # octets after this pair, CRC-32 of them
_BODY = struct.Struct("<Bqqi")  # kind, batch_id, message_id, attempt_no


class UnknownFormat(ValueError):
    """The bytes are a journal of another version, or no journal at all."""


class RecordKind(enum.IntEnum):
    TOOK = 1  #: the batch is ours from here on; whatever was noted of it before is void
    INTENT = 2  #: the content of this message is about to go out
    SETTLED = 3  #: its outcome is known
    RECORDED = 4  #: every outcome of the batch is durable in PostgreSQL


@dataclass(frozen=True, slots=True)
class SettledRecord:
    """The outcome of one attempt, as much of it as the database needs."""

    at: float  #: seconds since the epoch, UTC
    kind: str  #: an `OutcomeKind` value
    code: int = 0
    enhanced: str = ""
    text: str = ""  #: cut to `TEXT_LIMIT` characters
    phase: str = ""
    host: str = ""
    source_id: int | None = None


@dataclass(frozen=True, slots=True)
class Settlement:
    attempt_no: int
    result: SettledRecord


@dataclass(slots=True)
class BatchTrace:
    """What the journal knows of one batch that is not yet recorded.

    A message has one attempt in a batch; should it have more, the last one stands.
    """

    intents: dict[int, int] = field(default_factory=dict)  #: message_id -> attempt_no
    settled: dict[int, Settlement] = field(default_factory=dict)  #: by message_id

    @property
    def unanswered(self) -> dict[int, int]:
        """Messages whose content may be with the server and whose reply is unknown."""
        return {
            message_id: attempt_no
            for message_id, attempt_no in self.intents.items()
            if message_id not in self.settled or self.settled[message_id].attempt_no < attempt_no
        }


@dataclass(frozen=True, slots=True)
class Record:
    kind: RecordKind
    batch_id: int
    message_id: int = 0
    attempt_no: int = 0
    result: SettledRecord | None = None


class Tail(enum.Enum):
    """How the readable part of a segment ends."""

    CLEAN = "clean"
    TORN = "torn"  #: inside a record: its writer died in the write, so nothing followed from it
    DAMAGED = "damaged"  #: a whole record with a wrong checksum: what follows it is unknown


@dataclass(frozen=True, slots=True)
class Segment:
    records: tuple[Record, ...]
    tail: Tail
    readable_bytes: int


def encode_mark(kind: RecordKind, batch_id: int) -> bytes:
    """Encode a record about a whole batch (TOOK, RECORDED)."""
    return _framed(_BODY.pack(kind, batch_id, 0, 0))


def encode_intent(batch_id: int, message_id: int, attempt_no: int) -> bytes:
    return _framed(_BODY.pack(RecordKind.INTENT, batch_id, message_id, attempt_no))


def encode_settled(batch_id: int, message_id: int, attempt_no: int, result: SettledRecord) -> bytes:
    head = _BODY.pack(RecordKind.SETTLED, batch_id, message_id, attempt_no)
    values = (
        result.at,
        result.kind,
        result.code,
        result.enhanced,
        result.text[:TEXT_LIMIT],
        result.phase,
        result.host,
        result.source_id,
    )
    try:
        payload = orjson.dumps(values)
    except TypeError:  # a server may send octets that became lone surrogates; keep the rest
        payload = orjson.dumps([_storable(value) for value in values])
    return _framed(head + payload)


def decode(data: bytes) -> Segment:
    """Read a segment up to its end or to the first record that does not check out."""
    if not data.startswith(MAGIC):
        if MAGIC.startswith(data):  # its writer died before the first line was whole
            return Segment((), Tail.TORN if data else Tail.CLEAN, 0)
        raise UnknownFormat(f"a segment begins with {data[:20]!r}")
    records: list[Record] = []
    at = len(MAGIC)
    while at < len(data):
        body = _body_at(data, at)
        if not isinstance(body, bytes):
            return Segment(tuple(records), body, at)
        records.append(_record(body))
        at += _LENGTH.size + len(body)
    return Segment(tuple(records), Tail.CLEAN, at)


def replay(segments: Iterable[Iterable[Record]]) -> dict[int, BatchTrace]:
    """Say what is known of each batch that was not recorded; segments in their order.

    A RECORDED mark stands in every segment that has records of its batch, and may be written
    there later than records of younger segments. So a batch stays closed, whatever younger
    segments hold of it, until it is taken again.
    """
    traces: dict[int, BatchTrace] = {}
    closed: set[int] = set()
    for record in _flat(segments):
        match record.kind:
            case RecordKind.TOOK:
                closed.discard(record.batch_id)
                traces[record.batch_id] = BatchTrace()
            case RecordKind.RECORDED:
                closed.add(record.batch_id)
                traces.pop(record.batch_id, None)
            case _ if record.batch_id not in closed:
                _note(traces.setdefault(record.batch_id, BatchTrace()), record)
    return traces


def _note(trace: BatchTrace, record: Record) -> None:
    if record.result is None:
        trace.intents[record.message_id] = record.attempt_no
    else:
        trace.settled[record.message_id] = Settlement(record.attempt_no, record.result)


def _flat(segments: Iterable[Iterable[Record]]) -> Iterator[Record]:
    for segment in segments:
        yield from segment


def _framed(body: bytes) -> bytes:
    return _LENGTH.pack(len(body), zlib.crc32(body)) + body


def _storable(value: object) -> object:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    return value


def _body_at(data: bytes, at: int) -> bytes | Tail:
    start = at + _LENGTH.size
    if start > len(data):
        return Tail.TORN
    length, checksum = _LENGTH.unpack_from(data, at)
    body = data[start : start + length]
    if length < _BODY.size:
        return Tail.DAMAGED
    if len(body) < length:
        return Tail.TORN
    if zlib.crc32(body) != checksum:
        return Tail.DAMAGED
    return body


def _record(body: bytes) -> Record:
    kind, batch_id, message_id, attempt_no = _BODY.unpack_from(body)
    result = None
    if kind == RecordKind.SETTLED:
        result = SettledRecord(*orjson.loads(body[_BODY.size :]))
    return Record(RecordKind(kind), batch_id, message_id, attempt_no, result)
