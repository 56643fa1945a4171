from __future__ import annotations

import pytest

from sandbox import inbox_pages
from sandbox.headers import header_block, header_value, readable
from sandbox.http_server import BadRequest, Request, is_local_request, parse_request

EVIL = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>"


def row(**changes: object) -> dict[str, object]:
    envelope = dict.fromkeys(("host", "return_path", "helo", "peer", "tls"), EVIL)
    names = ("recipient", "subject", "from_header", "rfc_message_id", "mailing", "provider")
    return {
        "id": 1,
        "received_at": "2026-01-01T00:00:00.000+00:00",
        "size": 5,
        "envelope": envelope,
        **dict.fromkeys(names, EVIL),
        **changes,
    }


def assert_is_harmless(page: str) -> None:
    assert "<script" not in page
    assert "<img" not in page
    assert "onerror" in page


def test_no_field_of_a_message_can_put_markup_into_its_page() -> None:
    page = inbox_pages.message_page(
        row(),
        headers=[[EVIL, EVIL]],
        text=EVIL,
        has_html=True,
        shows_images=False,
        attachments=[EVIL],
        raw=EVIL,
        is_cut=False,
        labels={},
    )

    assert_is_harmless(page)


def test_no_field_can_put_markup_into_the_list() -> None:
    counts = dict.fromkeys(inbox_pages._COUNTS, 1)
    page = inbox_pages.list_page(
        [row()],
        total=100,
        counts=counts,
        query={"q": EVIL, "provider": EVIL, "mailing": EVIL},
        page=2,
        page_rows=1,
        labels={EVIL: EVIL},
    )

    assert_is_harmless(page)


def test_no_refusal_can_put_markup_into_its_page() -> None:
    refusal = {"refused_at": EVIL, "provider": EVIL, "recipient": EVIL, "text": EVIL}

    page = inbox_pages.refusals_page([refusal], page=1, has_more=False, labels={})

    assert_is_harmless(page)


def request(**headers: str) -> Request:
    return Request("POST", "/api/clear", {}, headers)


@pytest.mark.parametrize(
    ("headers", "is_local"),
    [
        ({"host": "127.0.0.1:8025"}, True),
        ({"host": "localhost:8025"}, True),
        ({"host": "[::1]:8025"}, True),
        ({"host": "rebound.attacker.example"}, False),
        ({}, False),
        ({"host": "127.0.0.1:8025", "origin": "http://127.0.0.1:8025"}, True),
        ({"host": "127.0.0.1:8025", "origin": "https://attacker.example"}, False),
        ({"host": "127.0.0.1:8025", "origin": "null"}, False),
    ],
)
def test_only_requests_of_this_machine_are_answered(
    headers: dict[str, str], is_local: bool
) -> None:
    assert is_local_request(request(**headers)) is is_local


def test_a_request_is_read() -> None:
    parsed = parse_request(b"GET /a%20b?q=x+y&z=1 HTTP/1.1\r\nHost: localhost\r\nX-A:  b ")

    assert parsed == Request(
        "GET", "/a b", {"q": "x y", "z": "1"}, {"host": "localhost", "x-a": "b"}
    )


@pytest.mark.parametrize("head", [b"", b"GET /", b"GET / SPDY/3", b"GET / HTTP/1.1\r\nno colon"])
def test_what_is_not_http_is_refused(head: bytes) -> None:
    with pytest.raises(BadRequest):
        parse_request(head)


@pytest.mark.parametrize(
    ("content", "value"),
    [
        (b"Subject: Hello\r\n\r\nSubject: other", "Hello"),
        (b"A: b\r\nSUBJECT:Hello  \r\n\r\n", "Hello"),
        (b"Subject: Hello\r\n there\r\nA: b\r\n\r\n", "Hello there"),
        (b"A: b\r\n\r\nSubject: in the body\r\n", ""),
        (b"\r\nSubject: in the body\r\n\r\n", ""),
        (b"X-Subject: no\r\nSubject: yes", "yes"),
        ("Subject: Grüße\r\n\r\n".encode(), "Grüße"),
        ("Subject: Grüße\r\n\r\n".encode("latin-1"), "Grüße"),
    ],
)
def test_a_header_field_is_found(content: bytes, value: str) -> None:
    assert header_value(header_block(content), "Subject") == value


@pytest.mark.parametrize(
    ("raw", "value"),
    [
        ("=?utf-8?q?Gr=C3=BC=C3=9Fe?= an alle", "Grüße an alle"),
        ("plain", "plain"),
        ("=?nonsense?q?x?=", "=?nonsense?q?x?="),
        ("=?utf-8?b?4?=", "=?utf-8?b?4?="),
    ],
)
def test_encoded_words_become_readable(raw: str, value: str) -> None:
    assert readable(raw) == value
