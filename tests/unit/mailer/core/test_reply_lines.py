from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deliverability.core.outcome import Phase, Reply
from mailer.core.reply_lines import (
    LINE_LIMIT_BYTES,
    LINES_LIMIT,
    MalformedReply,
    OverlongReply,
    RawReply,
    ReplyReader,
    reply_of,
)


def read(*pieces: bytes) -> list[RawReply]:
    reader = ReplyReader()
    return [reply for piece in pieces for reply in reader.read(piece)]


@pytest.mark.parametrize(
    ("stream", "code", "lines"),
    [
        (b"250 Ok\r\n", 250, (b"Ok",)),
        (b"250 Ok\n", 250, (b"Ok",)),
        (b"250\r\n", 250, (b"",)),
        (b"250 \r\n", 250, (b"",)),
        (b"250-one\r\n250-two\r\n250 three\r\n", 250, (b"one", b"two", b"three")),
        (b"250-\r\n250\r\n", 250, (b"", b"")),
        (b"250-ok\r\n550 no\r\n", 550, (b"ok", b"no")),
    ],
)
def test_replies_are_read(stream: bytes, code: int, lines: tuple[bytes, ...]) -> None:
    assert read(stream) == [RawReply(code, lines)]


def test_each_reply_has_its_own_lines() -> None:
    assert read(b"250-a\r\n250 b\r\n250-c\r\n250 d\r\n354 e\r\n") == [
        RawReply(250, (b"a", b"b")),
        RawReply(250, (b"c", b"d")),
        RawReply(354, (b"e",)),
    ]


@pytest.mark.parametrize("line", [b"", b"25", b"2500 x", b"250x", b"abc x", b"150 x", b"650 x"])
def test_a_line_without_a_reply_code_is_malformed(line: bytes) -> None:
    reader = ReplyReader()

    assert reader.read(b"250 fine\r\n" + line + b"\r\n250 lost\r\n") == [RawReply(250, (b"fine",))]
    assert isinstance(reader.fault, MalformedReply)
    assert reader.read(b"250 later\r\n") == []


def test_a_line_without_end_is_not_kept_for_ever() -> None:
    reader = ReplyReader()

    reader.read(b"250 " + b"x" * LINE_LIMIT_BYTES)

    assert isinstance(reader.fault, OverlongReply)


def test_a_reply_without_end_is_not_kept_for_ever() -> None:
    reader = ReplyReader()

    assert reader.read(b"250-x\r\n" * (LINES_LIMIT + 1)) == []
    assert isinstance(reader.fault, OverlongReply)


@given(cuts=st.lists(st.integers(0, 60), max_size=8))
def test_how_the_network_cuts_the_stream_does_not_matter(cuts: list[int]) -> None:
    stream = b"250-2.1.0 a\r\n250 2.1.0 b\r\n354 go\n550-5.1.1 no\r\n550 5.1.1 one\r\n"
    ends = sorted({*cuts, len(stream)})
    pieces = [stream[start:end] for start, end in zip([0, *ends], ends, strict=False)]

    assert read(*pieces) == read(stream)
    assert [reply.code for reply in read(stream)] == [250, 354, 550]


@given(data=st.binary(max_size=200))
def test_any_bytes_are_replies_or_a_named_error(data: bytes) -> None:
    reader = ReplyReader()

    for raw in reader.read(data):
        reply = raw.told(Phase.RCPT)
        assert 200 <= reply.code <= 599
        assert "\0" not in reply.text
        assert "\r" not in reply.text
    assert reader.fault is None or isinstance(reader.fault, MalformedReply | OverlongReply)


@pytest.mark.parametrize(
    ("text", "enhanced", "kept"),
    [
        ("5.1.1 No such user", "5.1.1", "No such user"),
        ("5.1.1 No such\n5.1.1 user", "5.1.1", "No such\nuser"),
        ("5.1.1\nuser", "5.1.1", "user"),
        ("4.7.650 slow", "4.7.650", "slow"),
        ("No such user", "", "No such user"),
        ("5.1.1.1 is no status", "", "5.1.1.1 is no status"),
        ("mail from 5.1.1 refused", "", "mail from 5.1.1 refused"),
        ("a\0b\x1b[0m\x85c", "", "a b [0m c"),
        ("é \x00", "", "é"),
        ("x" * 3000, "", "x" * 2000),
        ("", "", ""),
    ],
)
def test_status_and_text_are_told_apart(text: str, enhanced: str, kept: str) -> None:
    assert reply_of(550, text, Phase.RCPT) == Reply(550, enhanced, kept, Phase.RCPT)


def test_bytes_that_are_no_text_do_not_hide_a_reply() -> None:
    (raw,) = read(b"550 caf\xe9\r\n")

    assert raw.told(Phase.RCPT) == Reply(550, "", "caf\ufffd", Phase.RCPT)
