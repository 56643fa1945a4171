from __future__ import annotations

import quopri
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailer.core import quoted

HOSTILE_PIECES = [
    ".", "..", ".\n.", "From ", "\nFrom x", " ", "  ", "   ", "\t", " \t ", "\n", "\r\n", "\r",
    "\x00", "\x0b\x0c", "\x7f", "=", "=3D", "=\n", "=_", "--", "é", "€", "😀", "\u202etxt", "שלום",
    "\ud83d", "\ude00", "x" * 72, "x" * 73, "x" * 74, "x" * 75, "x" * 2_000, "é" * 40, "\x85\u2028",
    "a b", "<b>", "&amp;", '"', "'",
]  # fmt: skip
hostile_text = st.lists(st.sampled_from(HOSTILE_PIECES) | st.text(max_size=5), max_size=12).map(
    "".join
)


def decoded(encoded: str) -> str:
    return quopri.decodestring(encoded.encode("ascii")).decode().replace("\r\n", "\n")


def relaxed(body: str) -> str:
    """The relaxed body canonical form (RFC 6376, 3.4.4), written the slow and plain way."""
    lines = [re.sub(r"[ \t]+", " ", line).rstrip(" ") for line in body.split("\r\n")]
    while lines and not lines[-1]:
        lines.pop()
    return "".join(f"{line}\r\n" for line in lines)


def assert_lines_are_safe(encoded: str) -> None:
    assert "\n" not in encoded.replace("\r\n", "")
    assert "\r" not in encoded.replace("\r\n", "")
    for line in encoded.split("\r\n"):
        assert len(line) <= 76
        assert not line.startswith((".", "From "))
        assert line == relaxed(line).removesuffix("\r\n")


@given(hostile_text)
def test_text_survives_encoding_but_for_what_normalising_changes(text: str) -> None:
    encoded = quoted.encode(quoted.normalised(text))

    assert decoded(encoded) == quoted.normalised(text)
    assert_lines_are_safe(encoded)


@given(st.lists(hostile_text, max_size=6))
def test_pieces_encoded_apart_join_to_the_encoding_of_the_whole(pieces: list[str]) -> None:
    joined = "".join(quoted.encode_value(piece) for piece in pieces)

    assert decoded(joined) == "".join(quoted.normalised(piece) for piece in pieces)
    assert_lines_are_safe(joined)
    assert not joined or joined.endswith("\r\n")


@given(st.lists(hostile_text, max_size=6))
def test_a_finished_part_loses_nothing_but_its_last_soft_break(pieces: list[str]) -> None:
    finished = quoted.finished("".join(quoted.encode_value(piece) for piece in pieces))

    assert decoded(finished) == "".join(quoted.normalised(piece) for piece in pieces)
    assert_lines_are_safe(finished)
    assert not finished.endswith("=\r\n")


@given(st.lists(hostile_text, max_size=6))
def test_a_body_is_its_own_relaxed_canonical_form(pieces: list[str]) -> None:
    body = quoted.ended("".join(quoted.encode_value(piece) for piece in pieces))

    assert body == relaxed(body)
    assert decoded(body).rstrip("\n") == "".join(map(quoted.normalised, pieces)).rstrip("\n")


@given(hostile_text)
def test_equals_signs_stand_only_before_hex_digits_and_line_ends(text: str) -> None:
    encoded = quoted.encode_value(text)

    assert not re.search(r"=(?![0-9A-F]{2}|\r\n)", encoded)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ""),
        ("plain", "plain=\r\n"),
        ("one\ntwo", "one\r\ntwo=\r\n"),
        (".hidden", "=2Ehidden=\r\n"),
        ("From here", "=46rom here=\r\n"),
        ("a  b", "a =20b=\r\n"),
        ("a \nb", "a=20\r\nb=\r\n"),
        ("a\tb", "a=09b=\r\n"),
        ("1=2", "1=3D2=\r\n"),
        ("niño", "ni=C3=B1o=\r\n"),
        ("x" * 74, "x" * 73 + "=\r\nx=\r\n"),
        ("x" * 72 + "é", "x" * 72 + "=\r\n=C3=A9=\r\n"),
    ],
)
def test_the_written_form(text: str, expected: str) -> None:
    assert quoted.encode_value(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a\r\nb\rc", "a\nb\nc"),
        ("a\x00b\x1fc\x7fd", "a b c d"),
        ("tab\tstays", "tab\tstays"),
        ("\ud83d\ude00", "😀"),
        ("\ud83d!", "\ufffd!"),
    ],
)
def test_what_normalising_changes(text: str, expected: str) -> None:
    assert quoted.normalised(text) == expected


def test_html_needs_no_escaping_only_where_no_character_is_special() -> None:
    assert quoted.is_plain_in_html("ACME S.A. (2)")
    for special in "<>&'\"=\n\té":
        assert not quoted.is_plain_in_html(f"ACME{special}")
