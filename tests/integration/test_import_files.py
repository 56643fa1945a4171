"""Files as they really come: encodings, delimiters, broken rows; read without a database."""

from __future__ import annotations

import codecs
import errno
import os
from pathlib import Path

import pytest

from campaigns.table_file import Record, UnreadableFile, open_table, why_unreadable


@pytest.fixture
def written(tmp_path: Path):
    def write(content: bytes | str, name: str = "people.csv") -> Path:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def rows_of(path: Path, **asked: str) -> list[list[str]]:
    return [record.cells for record in open_table(path, **asked).records()]


def records_of(path: Path) -> list[Record]:
    return list(open_table(path).records())


@pytest.mark.parametrize(
    ("encoding", "found"),
    [
        ("utf-8", "utf-8"),
        ("utf-8-sig", "utf-8-sig"),
        ("utf-16", "utf-16"),
        ("utf-16-le", "utf-16-le"),
        ("cp1252", "cp1252"),
    ],
)
def test_names_survive_in_every_encoding_that_spreadsheets_write(written, encoding, found) -> None:
    text = "email,name\r\nrene@b.example,René Müller\r\n" * 1 + "jo@b.example,Zoë\r\n"
    table = open_table(written(text.encode(encoding)))

    assert table.encoding.name == found
    assert table.header == ("email", "name")
    assert [record.cells[1] for record in table.records()] == ["René Müller", "Zoë"]


def test_an_encoding_that_is_found_out_late_is_decided_for_the_whole_file(written) -> None:
    late = b"email,name\n" + b"a@b.example,Ann\n" * 200_000 + "z@b.example,Zoë\n".encode("cp1252")
    table = open_table(written(late))

    assert table.encoding.name == "cp1252"
    assert "Windows-1252" in table.encoding.note


def test_a_utf_8_character_cut_by_the_reading_block_is_not_damaged(written) -> None:
    block = 1 << 20
    start = b"email,name\n"
    filler = b"a" * (block - len(start) - len("x@b.example,") - 1)
    text = start + filler[: -len("\n")] + b"\n" + b"x@b.example," + "é".encode() + b"\n"
    table = open_table(written(text))

    assert table.encoding.name == "utf-8"
    assert table.encoding.note == ""


def test_a_few_bad_bytes_in_utf_8_damage_their_rows_only(written) -> None:
    good = "".join(f"a{n}@b.example,Zoë\n" for n in range(20)).encode()
    path = written(b"email,name\n" + good + b"bad@b.example,\xff\n")
    table = open_table(path)

    assert table.encoding.name == "utf-8"
    assert "one byte is not UTF-8" in table.encoding.note
    assert [row[1] for row in rows_of(path)] == ["Zoë"] * 20 + ["\udcff"]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_the_delimiter_is_found(written, delimiter) -> None:
    path = written(delimiter.join(["email", "note"]) + "\n" + delimiter.join(["a@b.example", "x"]))

    assert rows_of(path) == [["a@b.example", "x"]]


def test_the_delimiter_that_excel_declares_is_believed(written) -> None:
    table = open_table(written("sep=;\nemail;note\na@b.example;x, y, z\n"))

    assert (table.delimiter, table.header) == (";", ("email", "note"))
    assert [(record.line, record.cells) for record in table.records()] == [
        (3, ["a@b.example", "x, y, z"])
    ]


def test_quoted_fields_hold_line_ends_delimiters_and_quotes(written) -> None:
    path = written('email,note\na@b.example,"two\r\nlines, ""quoted"""\nb@b.example,x\n')
    records = records_of(path)

    assert [(record.line, record.cells[1]) for record in records] == [
        (2, 'two\r\nlines, "quoted"'),
        (4, "x"),
    ]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_line_ends_of_every_system_are_line_ends(written, end) -> None:
    path = written(end.join(["email,name", "a@b.example,Ann", "", "b@b.example,Bob"]))

    assert [record.line for record in records_of(path)] == [2, 4]


def test_empty_lines_around_the_header_are_no_rows(written) -> None:
    path = written("\n\n  \nemail,name\n\na@b.example,Ann\n   \n")

    assert rows_of(path) == [["a@b.example", "Ann"]]


def test_a_quote_that_is_never_closed_costs_its_own_line_only(written) -> None:
    rest = "".join(f"p{n}@b.example,Ann\n" for n in range(9_999))
    records = records_of(written(f'email,name\na@b.example,"Ann\n{rest}'))

    assert len(records) == 10_000
    assert records[0].problem == "A quoted field that begins on this line is never closed."
    assert (records[0].line, records[0].raw) == (2, 'a@b.example,"Ann\n')
    assert not any(record.problem for record in records[1:])
    assert [record.line for record in records[1:4]] == [3, 4, 5]


def test_a_quote_left_open_at_the_end_of_the_file_is_reported(written) -> None:
    records = records_of(written('email,name\nb@b.example,Bob\na@b.example,"Ann'))

    assert [record.problem for record in records] == [
        "",
        "A quoted field that begins on this line is never closed.",
    ]


def test_broken_quotes_within_a_line_set_that_line_aside(written) -> None:
    records = records_of(written('email,name\na@b.example,"An"n\nb@b.example,Bob\n'))

    assert "quotes are broken" in records[0].problem
    assert records[1].cells == ["b@b.example", "Bob"]


def test_a_line_without_an_end_is_set_aside_without_being_kept_in_memory(written) -> None:
    records = records_of(written("email,name\n" + "x" * 3_000_000 + "\nb@b.example,Bob\n"))

    assert "too long" in records[0].problem
    assert len(records[0].raw) < 300_000
    assert records[1].cells == ["b@b.example", "Bob"]
    assert records[1].line == 3


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "is empty"),
        (b" \r\n\n ", "is empty"),
        (codecs.BOM_UTF8, "is empty"),
        (b"PK\x03\x04\x14\x00", "save the sheet as CSV"),
        (bytes(range(256)) * 40, "binary data"),
        (codecs.BOM_UTF16_LE + b"a\x00\x00\xd8b\x00", "cannot be decoded near byte"),
    ],
)
def test_what_cannot_be_read_at_all_is_said_in_one_sentence(written, content, sentence) -> None:
    with pytest.raises(UnreadableFile, match=sentence):
        records_of(written(content))


def test_a_missing_file_and_a_folder_are_named_as_such(tmp_path: Path) -> None:
    with pytest.raises(UnreadableFile, match=r"There is no file .*nothing\.csv\."):
        open_table(tmp_path / "nothing.csv")
    with pytest.raises(UnreadableFile, match="is a folder, not a file"):
        open_table(tmp_path)


def test_a_file_that_may_not_be_read_says_so(written) -> None:
    path = written("email\na@b.example\n")
    path.chmod(0)
    if os.geteuid() == 0:
        # Root may read everything: the words are checked on the error itself.
        assert "permissions" in why_unreadable(path, PermissionError(errno.EACCES, "no"))
        return
    with pytest.raises(UnreadableFile, match="check its permissions"):
        open_table(path)


def test_a_disk_that_fails_is_an_unreadable_file(tmp_path: Path) -> None:
    said = why_unreadable(tmp_path / "x", OSError(errno.EIO, "Input/output error"))

    assert said.endswith("cannot be read: Input/output error.")


def test_an_encoding_that_does_not_fit_is_refused_before_anything_is_imported(written) -> None:
    path = written("email,name\na@b.example,Zoë\n".encode("cp1252"))

    with pytest.raises(UnreadableFile, match=r"is not utf-8 text.* near byte 25"):
        open_table(path, encoding="utf-8")


@pytest.mark.parametrize("encoding", ["klingon", "base64", "rot13", "idna"])
def test_an_encoding_that_does_not_exist_for_text_is_refused(written, encoding) -> None:
    with pytest.raises(UnreadableFile, match=encoding):
        open_table(written("email\na@b.example\n"), encoding=encoding)


def test_an_encoding_that_was_asked_for_is_used(written) -> None:
    path = written("email,name\na@b.example,Łódź\n".encode("cp1250"))

    assert rows_of(path, encoding="cp1250") == [["a@b.example", "Łódź"]]


def test_a_delimiter_that_was_asked_for_is_used(written) -> None:
    path = written("email:name\na@b.example:Ann, the first\n")

    assert rows_of(path, delimiter=":") == [["a@b.example", "Ann, the first"]]
    with pytest.raises(UnreadableFile, match="cannot separate columns"):
        open_table(path, delimiter="ab")
