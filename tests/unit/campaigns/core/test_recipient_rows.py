from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from campaigns.core.recipient_rows import (
    MAX_FIELD_CHARS,
    MAX_RAW_CHARS,
    Columns,
    NoAddressColumn,
    RecipientRow,
    RejectedRow,
    columns_from,
    field_name,
    row_from,
)

COLUMNS = Columns(("email", "first_name", "city"), address=0)


def read(*cells: str, columns: Columns = COLUMNS) -> RecipientRow | RejectedRow:
    return row_from(columns, cells, line=7, raw=",".join(cells))


def reason_of(*cells: str) -> str:
    row = read(*cells)
    assert isinstance(row, RejectedRow)
    return row.reason


@pytest.mark.parametrize(
    "header",
    [
        "email",
        "E-Mail",
        "EMAIL ADDRESS",
        "e_mail_address",
        " Mail ",
        "Address",
        "correo",
        "Correo electrónico",
        "Courriel",
        "Adresse e-mail",
        "E-Mail-Adresse",
        "Indirizzo e-mail",
        "e-posta",
        "Subscriber email",
        "Email (work)",
    ],
)
def test_the_address_column_is_found_by_its_name_in_any_case(header: str) -> None:
    assert columns_from(["Name", header, "City"]).address == 1


def test_the_surest_of_several_names_is_the_address_column() -> None:
    columns = columns_from(["Address", "Work email", "Mail", "Email"])

    assert columns.address == 3
    assert columns.names == ("address", "work_email", "mail", "email")


def test_without_an_address_column_the_columns_found_are_named() -> None:
    with pytest.raises(NoAddressColumn, match=r"“Name”, “City”; name the one with the addresses"):
        columns_from(["Name", "City", ""])


def test_a_file_without_a_header_line_is_told_so() -> None:
    with pytest.raises(NoAddressColumn, match="holds an address instead of column names"):
        columns_from(["ann@example.com", "Ann"])


def test_a_line_of_very_many_columns_is_no_header() -> None:
    with pytest.raises(NoAddressColumn, match="501 columns"):
        columns_from(["email"] * 501)


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ("First Name", "first_name"),
        ("  Company (legal) ", "company_legal"),
        ("Straße", "straße"),
        ("2024 revenue", "field_2024_revenue"),
        ("%%%", ""),
        ("Ünïcode", "ünïcode"),
    ],
)
def test_a_header_becomes_a_name_that_templates_can_speak(header: str, name: str) -> None:
    assert field_name(header) == name


@given(st.text(max_size=300))
def test_a_field_name_is_always_an_identifier_or_nothing(header: str) -> None:
    name = field_name(header)

    assert not name or name.isidentifier()


def test_unnamed_and_repeated_columns_are_numbered_by_their_place() -> None:
    assert columns_from(["email", "", "Tag", "tag"]).names == ("email", "column_2", "tag", "tag_4")


def test_a_good_row_keeps_its_line_and_the_cells_that_are_not_empty() -> None:
    row = read(" Ann@Example.com ", " Ann ", "  ")

    assert isinstance(row, RecipientRow)
    assert row.line == 7
    assert (row.address.address, row.address.key) == ("Ann@example.com", "ann@example.com")
    assert row.attributes == {"first_name": "Ann"}


@pytest.mark.parametrize(
    ("cells", "reason"),
    [
        (("a@b.example", "Ann"), "It has 2 columns, the first line of the file has 3."),
        (("a@b.example",), "It has 1 column, the first line of the file has 3."),
        (("a@b.example", "Ann", "x", "y"), "It has 4 columns, the first line of the file has 3."),
        (("", "Ann", "Rome"), "The address is empty."),
        (("a@b.example", "An\x00n", "Rome"), "It holds a NUL byte."),
        (("a@b.example", "Ann", "K\udcf8ln"), "It holds bytes that are not text"),
        (("a@b.example", "A" * (MAX_FIELD_CHARS + 1), ""), "first_name is 5,001 characters long"),
    ],
)
def test_a_row_that_is_damaged_is_set_aside_with_the_reason(
    cells: tuple[str, ...], reason: str
) -> None:
    assert reason_of(*cells).startswith(reason)


@pytest.mark.parametrize(
    "address", ["nobody", "a@b", "a b@c.example", "@c.example", "a@@c.example"]
)
def test_an_invalid_address_is_set_aside_with_a_sentence(address: str) -> None:
    reason = reason_of(address, "Ann", "Rome")

    assert reason.endswith(".")
    assert reason[0].isupper()


def test_a_value_of_the_greatest_length_is_kept() -> None:
    assert isinstance(read("a@b.example", "A" * MAX_FIELD_CHARS, ""), RecipientRow)


def test_what_is_kept_of_a_row_is_short_and_can_be_stored() -> None:
    row = read("bad", "\x00\udcff", "x" * 9_999)

    assert isinstance(row, RejectedRow)
    assert len(row.raw) == MAX_RAW_CHARS
    assert row.raw.startswith("bad,\N{SYMBOL FOR NULL}\N{REPLACEMENT CHARACTER},xxx")


@given(st.lists(st.text(max_size=40), max_size=6))
def test_any_row_is_either_taken_or_set_aside(cells: list[str]) -> None:
    row = row_from(COLUMNS, cells, line=1, raw="\t".join(cells))

    assert isinstance(row, RecipientRow | RejectedRow)
    if isinstance(row, RejectedRow):
        assert row.reason
        assert "\x00" not in row.raw
        row.raw.encode("utf-8")
