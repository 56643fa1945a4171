from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.wire import LINE_AT_MOST_BYTES, Flaw, Wire

MANY = 1 << 20


def fed(data: bytes) -> Wire:
    wire = Wire()
    wire.feed(data)
    return wire


def content_of(data: bytes, at_most_bytes: int = MANY) -> bytes | Flaw | None:
    wire = fed(b"DATA\r\n" + data)
    assert wire.read_line() == b"DATA"
    wire.begin_content()
    return wire.read_content(at_most_bytes)


def test_lines_end_at_crlf_and_nowhere_else() -> None:
    wire = fed(b"NOOP\r\nRSET\rx\r\nQU")

    assert [wire.read_line() for _ in range(3)] == [b"NOOP", b"RSET\rx", None]


def test_a_bare_lf_in_a_line_is_a_flaw() -> None:
    assert fed(b"NOOP\nRSET\r\n").read_line() is Flaw.BARE_LF
    assert fed(b"NOOP\n").read_line() is Flaw.BARE_LF


def test_a_line_too_long_is_skipped_up_to_its_end() -> None:
    wire = fed(b"x" * (LINE_AT_MOST_BYTES + 1))
    assert wire.read_line() is Flaw.LINE_TOO_LONG

    for piece in (b"more", b"and more\r", b"\nNOOP\r\n"):
        assert wire.read_line() is None
        wire.compact()
        wire.feed(piece)

    assert wire.read_line() == b"NOOP"


def test_a_line_too_long_takes_no_room_while_it_is_skipped() -> None:
    wire = fed(b"x" * (LINE_AT_MOST_BYTES + 1))
    wire.read_line()
    for _ in range(100):
        wire.feed(b"x" * 1000)
        wire.read_line()
        wire.compact()

    assert len(wire) <= 1


@pytest.mark.parametrize(
    ("sent", "meant"),
    [
        (b".\r\n", b""),
        (b"a\r\n.\r\n", b"a\r\n"),
        (b"..\r\n.\r\n", b".\r\n"),
        (b"a\r\n...b\r\n.\r\n", b"a\r\n..b\r\n"),
        (b".a\r\n.\r\n", b"a\r\n"),
        (b"\r\n\r\n.\r\n", b"\r\n\r\n"),
        (b"..\r\n..\r\n.\r\n", b".\r\n.\r\n"),
    ],
)
def test_dots_are_unstuffed(sent: bytes, meant: bytes) -> None:
    assert content_of(sent) == meant


@pytest.mark.parametrize(
    "ending", [b"\n.\n", b"\n.\r\n", b"\r\n.\n", b"\r.\r", b"\r\n.\r", b"\n.\r\n\n", b"\r.\r\n"]
)
def test_only_crlf_dot_crlf_ends_a_content(ending: bytes) -> None:
    smuggled = b"a" + ending + b"MAIL FROM:<evil@x.test>\r\n"

    assert content_of(smuggled) is None
    assert content_of(smuggled + b".\r\n") is not None


def test_a_content_over_the_limit_is_read_to_its_end_and_dropped() -> None:
    wire = fed(b"DATA\r\n")
    wire.read_line()
    wire.begin_content()
    for _ in range(50):
        wire.feed(b"x" * 100 + b"\r\n")
        assert wire.read_content(1000) is None
        wire.compact()
    assert len(wire) < 1200

    wire.feed(b".\r\nNOOP\r\n")

    assert wire.read_content(1000) is Flaw.TOO_BIG
    assert wire.read_line() == b"NOOP"


def test_what_was_dropped_is_never_read() -> None:
    wire = fed(b"STARTTLS\r\nMAIL FROM:<evil@x.test>\r\n")
    wire.read_line()
    wire.drop()
    wire.feed(b"NOOP\r\n")

    assert wire.read_line() == b"NOOP"


lines = st.lists(st.sampled_from([b"", b".", b"..", b".a", b"a.", b"a\nb", b"a\rb", b"\n.\n"]))


@given(lines=lines, cuts=st.lists(st.integers(min_value=1, max_value=5)))
def test_any_content_survives_stuffing_and_any_cutting(lines: list[bytes], cuts: list[int]) -> None:
    content = b"".join(line + b"\r\n" for line in lines)
    stuffed = (b"\r\n" + content).replace(b"\r\n.", b"\r\n..")[2:] + b".\r\nNOOP\r\n"
    wire = fed(b"DATA\r\n")
    wire.read_line()
    wire.begin_content()
    received: bytes | Flaw | None = None
    for size in [*cuts, len(stuffed)]:
        piece, stuffed = stuffed[:size], stuffed[size:]
        wire.feed(piece)
        if received is None:
            received = wire.read_content(MANY)
        wire.compact()

    assert received == content
    assert wire.read_line() == b"NOOP"
