from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from campaigns.core.addresses import Address, InvalidAddress, parse_address
from mailer.core.envelope import checked


@pytest.mark.parametrize(
    ("text", "address", "domain"),
    [
        ("ann@example.com", "ann@example.com", "example.com"),
        ("  ann@example.com\t\n", "ann@example.com", "example.com"),
        ("\ufeffann@example.com\u200b", "ann@example.com", "example.com"),
        ("\xa0ann@example.com", "ann@example.com", "example.com"),
        ("Ann.Smith+news@Example.COM", "Ann.Smith+news@example.com", "example.com"),
        ("o'hara_{x}@mail.example.co.uk", "o'hara_{x}@mail.example.co.uk", "mail.example.co.uk"),
        ("ann@user.gmail.test", "ann@user.gmail.test", "user.gmail.test"),
        ("ann@corp.example", "ann@corp.example", "corp.example"),
        ("ann@Bücher.example", "ann@xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("ann@xn--bcher-kva.example", "ann@xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("ann@пример.рф", "ann@xn--e1afmkfd.xn--p1ai", "xn--e1afmkfd.xn--p1ai"),
        ("1@1.example", "1@1.example", "1.example"),
        ("a" * 64 + "@example.com", "a" * 64 + "@example.com", "example.com"),
    ],
)
def test_an_address_is_read_and_its_domain_written_as_dns_has_it(
    text: str, address: str, domain: str
) -> None:
    assert parse_address(text) == Address(address, address.lower(), domain)


def test_letter_case_does_not_make_two_recipients() -> None:
    one, other = parse_address("Ann@Example.com"), parse_address("ann@EXAMPLE.com")

    assert one.key == other.key
    assert one.address != other.address


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "there is no address"),
        ("   ", "there is no address"),
        ("ann", "has no @"),
        ("@example.com", "nothing stands before the @"),
        ("ann@", "after the @"),
        ("ann@@example.com", "more than one @"),
        ("ann@b.example@c.example", "more than one @"),
        ("ann smith@example.com", "holds a space"),
        ("Ann <ann@example.com>", "without a name and angle brackets"),
        ("ann@example.com, bob@example.com", "one address at a time"),
        ("ann@example.com;", "one address at a time"),
        ('"ann"@example.com', "quotation marks"),
        ("ann@[192.0.2.1]", "after the @"),
        ("ann@192.0.2.1", ""),
        ("ann@localhost", "should have a period"),
        ("ann@printer.local", "internal use"),
        ("ann@nowhere.invalid", "internal use"),
        (".ann@example.com", "dot"),
        ("ann.@example.com", "dot"),
        ("ann..smith@example.com", "two in a row"),
        ("ann(work)@example.com", "holds ( )"),
        ("ann\\@example.com", "holds \\"),
        ("ann@example..com", ""),
        ("ann@-example.com", ""),
        ("ann@exa_mple.com", ""),
        ("ann@example.c", ""),
        ("jürgen@example.com", "letters outside a to z"),
        ("ann\r\nBcc: bob@example.com", "control character"),
        ("ann\x00@example.com", "control character"),
        ("ann\u202e@example.com", "control character"),
        ("a" * 65 + "@example.com", "longer than the 64"),
        ("ann@" + "a" * 64 + ".example", ""),
        ("ann@" + ".".join(["a" * 60] * 5) + ".example", "longer than the 254"),
        ("ann@" + "ü" * 300 + ".example", "longer than the 254"),
    ],
)
def test_what_is_no_address_is_refused_with_a_reason_for_people(text: str, reason: str) -> None:
    with pytest.raises(InvalidAddress) as refusal:
        parse_address(text)

    told = str(refusal.value)
    assert reason in told
    assert told
    assert not told[0].isupper()


@given(st.text(max_size=80) | st.emails())
def test_any_text_is_either_an_address_that_an_envelope_can_carry_or_refused(text: str) -> None:
    try:
        found = parse_address(text)
    except InvalidAddress:
        return

    assert checked(found.address) == found.address
    assert found.address.isascii()
    assert found.address.endswith("@" + found.domain)
    assert found.key == found.address.lower()


@given(st.emails())
def test_reading_an_address_again_changes_nothing(text: str) -> None:
    try:
        found = parse_address(text)
    except InvalidAddress:
        return

    assert parse_address(found.address) == found
    assert parse_address(found.key).key == found.key
