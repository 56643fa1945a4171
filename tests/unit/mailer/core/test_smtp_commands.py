from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deliverability.core.outcome import Phase, Reply
from mailer.core.envelope import Envelope, UnsafeAddress
from mailer.core.smtp_commands import Abilities, Commands, commands_for, wire_content

ALL = Abilities(pipelining=True, eight_bit=True, smtputf8=True, size=True)


def an_envelope(
    recipient: str = "r@x.test",
    return_path: str = "b@s.test",
    content: bytes = b"Hello\r\n",
    is_dot_safe: bool = False,
) -> Envelope:
    return Envelope(1, 1, return_path, recipient, content, is_dot_safe)


def test_abilities_are_read_from_what_ehlo_offers() -> None:
    offered = {"Pipelining": "", "SIZE": "35882577", "8bitmime": "", "SMTPUTF8": "", "CHUNKING": ""}

    assert Abilities.of(offered) == Abilities(
        pipelining=True,
        eight_bit=True,
        smtputf8=True,
        size=True,
        size_limit_bytes=35882577,
        chunking=True,
    )
    assert Abilities.of({}) == Abilities()


@pytest.mark.parametrize("limit", ["", "0", "many", "-1", "1 2", "٣", "9" * 5000])
def test_a_size_that_is_no_number_limits_nothing(limit: str) -> None:
    abilities = Abilities.of({"size": limit})

    assert abilities.size
    assert abilities.size_limit_bytes == 0


@pytest.mark.parametrize(
    ("envelope", "mail", "rcpt"),
    [
        (an_envelope(), b"MAIL FROM:<b@s.test> SIZE=7\r\n", b"RCPT TO:<r@x.test>\r\n"),
        (an_envelope(return_path=""), b"MAIL FROM:<> SIZE=7\r\n", b"RCPT TO:<r@x.test>\r\n"),
        (
            an_envelope(content="ä\r\n".encode()),
            b"MAIL FROM:<b@s.test> SIZE=4 BODY=8BITMIME\r\n",
            b"RCPT TO:<r@x.test>\r\n",
        ),
        (
            an_envelope(recipient="ä@x.test"),
            b"MAIL FROM:<b@s.test> SIZE=7 SMTPUTF8\r\n",
            "RCPT TO:<ä@x.test>\r\n".encode(),
        ),
    ],
)
def test_parameters_are_said_when_offered_and_needed(
    envelope: Envelope, mail: bytes, rcpt: bytes
) -> None:
    assert commands_for(envelope, ALL) == Commands(mail, rcpt)


def test_a_server_that_offers_nothing_is_told_no_parameters() -> None:
    assert commands_for(an_envelope(), Abilities()) == Commands(
        b"MAIL FROM:<b@s.test>\r\n", b"RCPT TO:<r@x.test>\r\n"
    )


@pytest.mark.parametrize(
    ("envelope", "abilities", "code", "phase"),
    [
        (an_envelope(recipient="ä@x.test"), Abilities(), 553, Phase.RCPT),
        (an_envelope(return_path="ä@x.test"), Abilities(), 553, Phase.MAIL),
        (an_envelope(recipient="\ud800@x.test"), ALL, 553, Phase.RCPT),
        (an_envelope(content="ä\r\n".encode()), Abilities(), 554, Phase.DATA),
        (an_envelope(content=b"no end"), ALL, 554, Phase.DATA),
        (an_envelope(content=b""), ALL, 554, Phase.DATA),
        (an_envelope(content=b"a\nb\r\n"), ALL, 554, Phase.DATA),
        (an_envelope(content=b"a\rb\r\n"), ALL, 554, Phase.DATA),
        (an_envelope(), Abilities(size=True, size_limit_bytes=6), 552, Phase.DATA),
    ],
)
def test_what_cannot_be_carried_is_refused_in_clear_words(
    envelope: Envelope, abilities: Abilities, code: int, phase: Phase
) -> None:
    refusal = commands_for(envelope, abilities)

    assert isinstance(refusal, Reply)
    assert (refusal.code, refusal.phase) == (code, phase)
    assert refusal.text.startswith("not sent: ")


@given(address=st.text(max_size=40))
def test_no_address_can_end_a_command_and_begin_another(address: str) -> None:
    try:
        envelope = an_envelope(recipient=f"{address}@x.test", return_path=address)
    except UnsafeAddress:
        return
    commands = commands_for(envelope, ALL)
    if isinstance(commands, Commands):
        for command in (commands.mail, commands.rcpt):
            assert command.endswith(b"\r\n")
            assert not {*command[:-2]} & {0, 10, 13}
            assert command.count(b"<") == command.count(b">") == 1


@pytest.mark.parametrize(
    ("content", "wire"),
    [
        (b"a\r\n", b"a\r\n"),
        (b".\r\n", b"..\r\n"),
        (b".a\r\n..b\r\n.\r\nc.\r\n", b"..a\r\n...b\r\n..\r\nc.\r\n"),
    ],
)
def test_leading_dots_are_doubled(content: bytes, wire: bytes) -> None:
    assert wire_content(an_envelope(content=content)) == wire


@given(
    lines=st.lists(st.binary(max_size=5).filter(lambda line: not {*line} & {10, 13}), min_size=1)
)
def test_content_never_ends_itself_and_comes_out_as_it_went_in(lines: list[bytes]) -> None:
    content = b"\r\n".join([*lines, b""])

    wire = wire_content(an_envelope(content=content))

    assert b"\r\n.\r\n" not in b"\r\n" + wire
    stripped = [line[1:] if line.startswith(b".") else line for line in wire.split(b"\r\n")]
    assert b"\r\n".join(stripped) == content


def test_content_that_promises_to_be_dot_safe_goes_out_untouched() -> None:
    envelope = an_envelope(content=b"a\r\n", is_dot_safe=True)

    assert wire_content(envelope) is envelope.content
