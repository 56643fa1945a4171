from __future__ import annotations

from email import message_from_string
from email.message import Message
from email.policy import default

from hypothesis import given
from hypothesis import strategies as st

from mailer.core import mime, quoted
from tests.unit.mailer.core.test_quoted import hostile_text


def decoded_text(part: Message) -> str:
    """The text of a part that is no container, with `\\n` line ends."""
    octets = part.get_payload(decode=True)
    assert isinstance(octets, bytes)
    return octets.decode().replace("\r\n", "\n")


@given(hostile_text, hostile_text, st.text(max_size=20))
def test_parts_come_back_whole_from_between_their_boundaries(
    text: str, html: str, seed: str
) -> None:
    boundary = mime.boundary_for(seed)
    text, html = quoted.normalised(text), quoted.normalised(html)
    encoded = [quoted.finished(quoted.encode(part)) for part in (text, html)]

    body = mime.alternative_body(boundary, *encoded)
    message = message_from_string(mime.alternative_fields(boundary) + "\r\n" + body, policy=default)

    assert not any(part.defects for part in message.walk())
    assert message.get_content_type() == "multipart/alternative"
    parts = list(message.iter_parts())
    assert [part.get_content_type() for part in parts] == ["text/plain", "text/html"]
    assert [decoded_text(part) for part in parts] == [text, html]


@given(hostile_text, st.text(max_size=20))
def test_no_encoded_text_holds_a_boundary(text: str, seed: str) -> None:
    boundary = mime.boundary_for(seed)

    assert boundary.startswith("=_")
    assert boundary not in quoted.encode(quoted.normalised(f"{text}{boundary}{text}"))


def test_the_same_seed_gives_the_same_boundary_and_another_seed_another() -> None:
    assert mime.boundary_for("17") == mime.boundary_for("17") != mime.boundary_for("18")


def test_a_single_text_part_needs_no_boundary() -> None:
    body = mime.single_body(quoted.encode("Olá\n\n"))
    message = message_from_string(f"{mime.SINGLE_TEXT_FIELDS}\r\n{body}", policy=default)

    assert message.get_content_type() == "text/plain"
    assert message.get_payload(decode=True) == "Olá\r\n".encode()
    assert not message.defects


def test_an_empty_text_is_an_empty_body() -> None:
    assert mime.single_body("") == ""
