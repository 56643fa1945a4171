from __future__ import annotations

import codecs

import pytest

from campaigns.core.text_format import (
    delimiter_from,
    encoding_by_bytes,
    encoding_by_mark,
    sniff_delimiter,
    why_binary,
)

TABLE = "email,name\nann@b.example,Ann\n"


@pytest.mark.parametrize(
    ("head", "name"),
    [
        (codecs.BOM_UTF8 + TABLE.encode(), "utf-8-sig"),
        (TABLE.encode("utf-16"), "utf-16"),
        (codecs.BOM_UTF16_BE + TABLE.encode("utf-16-be"), "utf-16"),
        (TABLE.encode("utf-32"), "utf-32"),
        (TABLE.encode("utf-16-le"), "utf-16-le"),
        (TABLE.encode("utf-16-be"), "utf-16-be"),
    ],
)
def test_a_byte_order_mark_or_its_lack_in_utf_16_settles_the_encoding(
    head: bytes, name: str
) -> None:
    found = encoding_by_mark(head)

    assert found is not None
    assert found.name == name


def test_plain_text_has_no_mark() -> None:
    assert encoding_by_mark(TABLE.encode()) is None


@pytest.mark.parametrize(
    ("good", "bad", "found", "name"),
    [
        (0, 0, frozenset[int](), "utf-8"),
        (900, 0, frozenset[int](), "utf-8"),
        (0, 12, frozenset({0xE9, 0xFC}), "cp1252"),
        (0, 12, frozenset({0xE9, 0x81}), "latin-1"),
        (900, 2, frozenset({0xE9}), "utf-8"),
        (1, 50, frozenset({0xE9}), "cp1252"),
    ],
)
def test_bytes_that_are_not_utf_8_decide_what_the_file_is(
    good: int, bad: int, found: frozenset[int], name: str
) -> None:
    encoding = encoding_by_bytes(good, bad, found)

    assert encoding.name == name
    assert bool(encoding.note) == bool(bad)


@pytest.mark.parametrize(
    ("head", "what"),
    [
        (b"PK\x03\x04rest", "workbook"),
        (b"\xd0\xcf\x11\xe0rest", "old Excel"),
        (b"\x1f\x8b\x08", "compressed"),
        (b"%PDF-1.7", "PDF"),
        (b"\x89PNG\r\n", "picture"),
        (bytes(range(256)) * 4, "binary data"),
    ],
)
def test_a_file_that_is_no_text_is_called_what_it_is(head: bytes, what: str) -> None:
    assert what in why_binary(head)


@pytest.mark.parametrize(
    "head",
    [
        TABLE.encode(),
        TABLE.encode("utf-16"),
        TABLE.encode("utf-16-le"),
        "email\nrené@b.example".encode("latin-1"),
        b"email,name\nann@b.example,A\x00nn and a long enough rest of the table\n",
    ],
)
def test_text_with_a_stray_control_character_is_still_text(head: bytes) -> None:
    assert why_binary(head) == ""


@pytest.mark.parametrize(
    ("lines", "delimiter"),
    [
        (["email,name", "a@b.example,Ann"], ","),
        (["email;name", "a@b.example;Ann, the first"], ";"),
        (["email\tname", "a@b.example\tAnn, B; C"], "\t"),
        (["email|name|city", "a@b.example|Ann|Rome, IT"], "|"),
        (["email", "a@b.example"], ","),
        (['"last, first";email', '"Smith, Ann";a@b.example'], ";"),
        (["email,note", 'a@b.example,"x;y;z"', "b@b.example,plain"], ","),
        ([], ","),
    ],
)
def test_the_delimiter_is_the_one_that_makes_an_even_table(
    lines: list[str], delimiter: str
) -> None:
    assert sniff_delimiter([f"{line}\n" for line in lines]) == delimiter


@pytest.mark.parametrize(
    ("written", "delimiter"),
    [(";", ";"), ("tab", "\t"), ("\\t", "\t"), ("Semicolon", ";"), ("pipe", "|"), ("^", "^")],
)
def test_a_delimiter_may_be_written_or_named(written: str, delimiter: str) -> None:
    assert delimiter_from(written) == delimiter


@pytest.mark.parametrize("written", ["", "ab", "x", '"', "\n", "comma or so"])
def test_what_cannot_separate_columns_is_refused(written: str) -> None:
    with pytest.raises(ValueError, match="cannot separate columns"):
        delimiter_from(written)
