from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailer.core.headers import InvalidHeader, Mailbox
from mailer.core.mailboxes import parse_mailbox


@pytest.mark.parametrize(
    ("text", "name", "address"),
    [
        ("news@acme.example", "", "news@acme.example"),
        ("<news@acme.example>", "", "news@acme.example"),
        ("Acme News <news@acme.example>", "Acme News", "news@acme.example"),
        ('"Acme, Inc." <news@acme.example>', "Acme, Inc.", "news@acme.example"),
        ('"Say \\"hi\\"" <news@acme.example>', 'Say "hi"', "news@acme.example"),
        ("Grüße <gruss@bücher.example>", "Grüße", "gruss@bücher.example"),
        ("  Acme   <news@acme.example>  ", "Acme", "news@acme.example"),
        ('"Acme: News" <news@acme.example>', "Acme: News", "news@acme.example"),
        ("o'hara+news@acme.example", "", "o'hara+news@acme.example"),
    ],
)
def test_one_mailbox_as_people_write_it(text: str, name: str, address: str) -> None:
    assert parse_mailbox(text) == Mailbox(address=address, name=name)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "   ",
        "Acme News",
        "Acme News <>",
        "@acme.example",
        "news@",
        "news@localhost",
        "a@x.example, b@x.example",
        "Friends: a@x.example, b@x.example;",
        "Friends: Acme News <news@acme.example>;",
        "Acme: News <news@acme.example>",
        "=?utf-8?q?=0d=0aBcc:_x?= <news@acme.example>",
        "Acme <news@acme..example>",
        "Acme <news@-acme.example>",
        "Acme <news@[127.0.0.1]>",
        "Grüße <grüße@acme.example>",
        "news@acme.example\r\nBcc: all@acme.example",
        "Acme\nBcc: all@acme.example <news@acme.example>",
        "Acme\x00 <news@acme.example>",
        "Acme\x7f <news@acme.example>",
        '"news letter"@acme.example',
        "<news@acme.example> <other@acme.example>",
        "news@acme.example> SIZE=1",
        f"{'n' * 250}@acme.example",
    ],
)
def test_what_is_not_one_plain_mailbox_is_refused_with_advice(text: str) -> None:
    with pytest.raises(InvalidHeader) as refused:
        parse_mailbox(text)

    assert len(str(refused.value)) > 20


@given(text=st.text(max_size=80))
def test_any_text_is_read_safely_or_refused(text: str) -> None:
    try:
        mailbox = parse_mailbox(text)
    except InvalidHeader:
        return
    assert not set("\r\n\0<> ") & set(mailbox.address)
    assert not any(ord(char) < 32 or ord(char) == 127 for char in mailbox.name)
    assert mailbox.address.count("@") >= 1
