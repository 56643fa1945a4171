from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone
from email import message_from_bytes
from email.header import decode_header, make_header
from email.message import EmailMessage
from email.policy import default
from email.utils import parseaddr, parsedate_to_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailer.core import headers
from mailer.core.headers import InvalidHeader, Mailbox
from tests.unit.mailer.core.test_quoted import hostile_text

INJECTIONS = [
    "x\r\nBcc: victim@example.com",
    "x\nBcc: victim@example.com",
    "x\rBcc: victim@example.com",
    "x\r\n\r\n<script>alert(1)</script>",
    "x\x00\r\n\tBcc: y",
    "x\x85Bcc: y",
    "x\u2028Bcc: y",
    "x\x0bBcc: y\x0c",
    "=?utf-8?q?=0D=0ABcc:_y?=",
]
hostile_value = hostile_text | st.sampled_from(INJECTIONS)


def parsed(lines: str) -> EmailMessage:
    message = message_from_bytes(f"{lines}\r\nbody\r\n".encode("ascii"), policy=default)
    assert isinstance(message, EmailMessage)
    return message


def value_of(lines: str) -> str:
    """What the field says, decoded the oldest and strictest way the library has."""
    raw = re.sub(r"\r\n(?=[ \t])", "", lines).removesuffix("\r\n").partition(":")[2].strip(" ")
    return str(make_header(decode_header(raw))) if "=?" in raw else raw


@given(hostile_value)
def test_a_value_never_leaves_its_field(value: str) -> None:
    lines = headers.unstructured("X-Note", value)

    assert parsed(lines).keys() == ["X-Note"]
    assert all(line[:1] == " " and line.strip() for line in lines.split("\r\n")[1:-1])
    assert all(len(line) <= 78 for line in lines.split("\r\n"))
    assert value_of(lines) == headers.collapsed(value)


@given(hostile_value)
def test_encoded_words_are_short_and_hold_whole_characters(value: str) -> None:
    words = re.findall(r"=\?utf-8\?[qb]\?[^?]*\?=", headers.unstructured("Subject", f"é{value}"))

    assert words
    for word in words:
        assert len(word) <= 75
        [(octets, charset)] = decode_header(word)
        assert isinstance(octets, bytes)
        octets.decode(charset or "ascii")


@given(hostile_value)
def test_a_display_name_never_changes_the_address(name: str) -> None:
    lines = headers.mailbox("To", Mailbox("ana@example.com", name))
    message = parsed(lines)

    assert message.keys() == ["To"]
    [address] = message["To"].addresses
    assert address.addr_spec == "ana@example.com"
    shown, _ = parseaddr(re.sub(r"\r\n(?=[ \t])", "", lines).removeprefix("To: ").strip())
    shown = str(make_header(decode_header(shown))) if "=?" in lines else shown
    assert re.sub(" +", " ", shown) == re.sub(" +", " ", headers.collapsed(name))
    assert all(len(line) <= 78 for line in lines.split("\r\n"))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("", "ana@example.com"),
        ("Ana Luz", "Ana Luz <ana@example.com>"),
        ("ACME, Inc.", '"ACME, Inc." <ana@example.com>'),
        ('The "Shop"', '"The \\"Shop\\"" <ana@example.com>'),
        ("José", "=?utf-8?q?Jos=C3=A9?= <ana@example.com>"),
        ("日本", "=?utf-8?b?5pel5pys?= <ana@example.com>"),
    ],
)
def test_display_names_are_bare_quoted_or_encoded(name: str, expected: str) -> None:
    assert headers.mailbox("To", Mailbox("ana@example.com", name)) == f"To: {expected}\r\n"


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("ana.luz+tag@mail.example.com", "ana.luz+tag@mail.example.com"),
        ("ana@münchen.example", "ana@xn--mnchen-3ya.example"),
        ("a,b@example.com", '"a,b"@example.com'),
        ("a..b@example.com", '"a..b"@example.com'),
        ("ana@localhost", "ana@localhost"),
    ],
)
def test_addresses_are_written_in_ascii(address: str, expected: str) -> None:
    assert headers.ascii_address(address) == expected


@pytest.mark.parametrize(
    "address",
    [
        "",
        "ana",
        "@example.com",
        "ana@",
        "ana@exa mple.com",
        "ana@example.com\r\nBcc: x@example.com",
        "ana\n@example.com",
        "ana@example.com>, <eve@example.com",
        "ana@example.com, eve@example.com",
        "ana@-example.com",
        "ana@example..com",
        "josé@example.com",
        'a"b@example.com',
        "a" * 65 + "@münchen.example",
        "ana@" + "a." * 130 + "com",
        "ana@[127.0.0.1]",
    ],
)
def test_what_is_not_an_address_is_refused(address: str) -> None:
    with pytest.raises(InvalidHeader):
        headers.mailbox("To", Mailbox(address))


@given(st.text(max_size=30))
def test_any_accepted_address_is_read_back_as_one_address(text: str) -> None:
    try:
        lines = headers.mailbox("To", Mailbox(f"{text}@example.com"))
    except InvalidHeader:
        return
    message = parsed(lines)
    assert message.keys() == ["To"]
    assert [address.domain for address in message["To"].addresses] == ["example.com"]
    assert [address.username for address in message["To"].addresses] == [text.strip('"')]


@pytest.mark.parametrize(
    "name", ["X-Campaign", "Precedence", "Auto-Submitted", "List-Id", "References", "x"]
)
def test_ordinary_extra_fields_are_allowed(name: str) -> None:
    assert headers.checked_name(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "From", "TO", "subject", "Message-ID", "Date", "Bcc", "Sender", "Return-Path", "Received",
        "DKIM-Signature", "ARC-Seal", "Content-Type", "MIME-Version", "List-Unsubscribe",
        "X-Postroad-Mailing", "Resent-From", "", "X Y", "X:Y", "X\r\nBcc", "Xé", "1X", "X" * 80,
    ],
)  # fmt: skip
def test_fields_of_the_engine_and_broken_names_are_refused(name: str) -> None:
    with pytest.raises(InvalidHeader):
        headers.checked_name(name)


def test_long_plain_text_is_folded_without_changing_a_space() -> None:
    value = "one  two three " * 12
    lines = headers.unstructured("Subject", value)

    assert "=?" not in lines
    assert value_of(lines) == value.strip()
    assert max(map(len, lines.split("\r\n"))) <= 78


def test_text_that_looks_like_an_encoded_word_is_shown_as_written() -> None:
    lines = headers.unstructured("Subject", "=?utf-8?q?Free_money?=")

    assert parsed(lines)["Subject"] == "=?utf-8?q?Free_money?="


def test_an_empty_value_leaves_no_space_at_the_end_of_the_line() -> None:
    assert headers.unstructured("Subject", " \r\n ") == "Subject:\r\n"


@given(st.datetimes(), st.integers(-14 * 60, 14 * 60))
def test_the_date_is_the_same_moment_in_utc(naive: datetime, offset_minutes: int) -> None:
    zone = timezone(timedelta(minutes=offset_minutes))
    moment = naive.replace(year=min(max(naive.year, 1970), 2199), tzinfo=zone)

    shown = parsedate_to_datetime(headers.date(moment).removeprefix("Date: ").strip())

    assert shown == moment.replace(microsecond=0)


def test_a_date_without_a_zone_is_refused() -> None:
    with pytest.raises(InvalidHeader):
        headers.date(datetime(2026, 1, 1))  # noqa: DTZ001


def test_the_date_is_written_as_the_standard_says() -> None:
    moment = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)

    assert headers.date(moment) == "Date: Fri, 02 Jan 2026 03:04:05 +0000\r\n"


@pytest.mark.parametrize("given_id", ["1.2@send.example.com", "<1.2@send.example.com>"])
def test_a_message_id_stands_in_angle_brackets_once(given_id: str) -> None:
    assert headers.message_id(given_id) == "Message-ID: <1.2@send.example.com>\r\n"


@pytest.mark.parametrize("given_id", ["", "x", "x@", "x@y>\r\nBcc: z", "x y@z", "é@x", "x@y@z"])
def test_a_broken_message_id_is_refused(given_id: str) -> None:
    with pytest.raises(InvalidHeader):
        headers.message_id(given_id)


def test_one_click_unsubscription_has_both_fields() -> None:
    lines = headers.list_unsubscribe("https://u.example.com/t", "u+t@u.example.com")
    message = parsed(lines)

    assert message["List-Unsubscribe"] == "<https://u.example.com/t>, <mailto:u+t@u.example.com>"
    assert message["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"


@pytest.mark.parametrize(
    ("url", "mailto"),
    [
        ("javascript:alert(1)", ""),
        ("https://x/>\r\nBcc: y", ""),
        ("https://x y", ""),
        ("https://x/", "a>b@example.com"),
        ("https://x/", "a@b\r\nBcc: c"),
        ("https://" + "x" * 1_000, ""),
    ],
)
def test_a_url_cannot_leave_its_angle_brackets(url: str, mailto: str) -> None:
    with pytest.raises(InvalidHeader):
        headers.list_unsubscribe(url, mailto)
