from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailer.core.envelope import Envelope, UnsafeAddress, checked

CONTENT = b"Subject: Hello\r\n\r\nHello\r\n"


def envelope(recipient: str = "ann@shop.example", return_path: str = "b@acme.example") -> Envelope:
    return Envelope(1, 1, return_path, recipient, CONTENT)


@pytest.mark.parametrize(
    "address",
    [
        "ann@shop.example",
        "ann+news@shop.example",
        "o'hara@shop.example",
        "ann@xn--bcher-kva.example",
        "grüße@bücher.example",
        "!#$%&'*+-/=?^_`{|}~@shop.example",
        "",  # the null reverse path
    ],
)
def test_addresses_that_may_stand_in_a_command_pass_unchanged(address: str) -> None:
    assert checked(address) == address


@pytest.mark.parametrize(
    "address",
    [
        "ann@shop.example\r\nDATA",
        "ann@shop.example\nRCPT TO:<bob@shop.example>",
        "ann@shop.example\r",
        "ann@shop.example> SIZE=1",
        "<ann@shop.example",
        "ann smith@shop.example",
        "ann@shop.example\t",
        "ann\0@shop.example",
        "ann\x7f@shop.example",
        "ann\x85@shop.example",  # next line, in Unicode
        '"ann smith"@shop.example',
    ],
)
def test_nothing_that_could_end_a_command_gets_into_an_envelope(address: str) -> None:
    with pytest.raises(UnsafeAddress):
        envelope(recipient=address)
    with pytest.raises(UnsafeAddress):
        envelope(return_path=address)


def test_an_address_has_at_most_254_octets() -> None:
    longest = "a" * 241 + "@shop.example"

    assert checked(longest) == longest
    with pytest.raises(UnsafeAddress, match="254 octets"):
        checked("a" + longest)
    with pytest.raises(UnsafeAddress, match="254 octets"):
        checked("ü" * 121 + "@shop.example")  # 255 octets, though fewer characters


@pytest.mark.parametrize("recipient", ["", "ann", "shop.example"])
def test_a_recipient_has_a_domain(recipient: str) -> None:
    with pytest.raises(UnsafeAddress):
        envelope(recipient=recipient)


def test_the_null_reverse_path_is_allowed_for_the_return_path_only() -> None:
    assert envelope(return_path="").return_path == ""


@given(address=st.text(max_size=300))
def test_whatever_passes_cannot_leave_its_angle_brackets(address: str) -> None:
    try:
        passed = checked(address)
    except UnsafeAddress:
        return
    assert passed == address
    assert not set(" \t\r\n\v\f\0") & set(passed)
    line = f"RCPT TO:<{passed}>\r\n"
    assert line.count("\r\n") == 1
    assert line.count(">") == 1
