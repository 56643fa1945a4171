"""The inbox over HTTP: which question gets which answer.

Translates requests into questions to the store, and the answers into JSON or pages. Nothing
changes on a GET. Everything below /api/ is JSON; what goes wrong is `{"error": why}`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from email.message import EmailMessage, Message
from email.parser import BytesParser
from email.policy import default
from http import HTTPStatus
from typing import Any

from sandbox import inbox_pages
from sandbox.headers import header_block, header_value
from sandbox.http_server import BadRequest, Request, Response, failure, json_response
from sandbox.mail_index import Wanted
from sandbox.mailstore import Keeper
from sandbox.providers import Provider

LIMIT_BY_DEFAULT = 100
LIMIT_AT_MOST = 10_000
_PAGE_ROWS = 50
_ID_AT_MOST = 1 << 62

#: No script runs, nothing is fetched; style is our own sheet.
PAGE_POLICY = (
    "default-src 'none'; style-src 'self'; img-src 'self'; frame-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
#: The mail's own HTML: an origin of its own, no scripts, no forms; images only when asked for.
_MAIL_POLICY = (
    "sandbox allow-popups allow-popups-to-escape-sandbox; default-src 'none'; "
    "style-src 'unsafe-inline'; img-src {images}; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'self'"
)


class Inbox:
    """Answers requests from a store."""

    def __init__(
        self, keeper: Keeper, providers: Sequence[Provider], clear: Callable[[], None]
    ) -> None:
        """`clear` empties the store and the servers' memory."""
        self._keeper = keeper
        self._labels = {provider.name: provider.label for provider in providers}
        self._clear = clear

    def respond(self, request: Request) -> Response:
        """Answer one request."""
        for method, pattern, handler in _ROUTES:
            match = pattern.fullmatch(request.path)
            if match is not None:
                if (request.method == "POST") != (method == "POST"):
                    return failure(HTTPStatus.METHOD_NOT_ALLOWED, f"{method} only")
                return handler(self, request, *match.groups())
        return failure(HTTPStatus.NOT_FOUND, "no such page")

    # JSON.

    def _health(self, request: Request) -> Response:
        return json_response({"status": "ok"})

    def _counts(self, request: Request) -> Response:
        return json_response(self._keeper.counts(_wanted(request)))

    def _duplicates(self, request: Request) -> Response:
        return json_response(self._keeper.duplicates(_wanted(request)))

    def _messages(self, request: Request) -> Response:
        wanted = _wanted(request)
        rows = self._keeper.messages(
            wanted,
            limit=_number(request, "limit", LIMIT_BY_DEFAULT, LIMIT_AT_MOST),
            offset=_number(request, "offset", 0, _ID_AT_MOST),
        )
        total = str(self._keeper.total(wanted))
        return json_response([_listed(row) for row in rows], X_Total_Count=total)

    def _message(self, request: Request, number: str) -> Response:
        found = self._found(number)
        if found is None:
            return failure(HTTPStatus.NOT_FOUND, "no such message")
        row, content = found
        envelope = row["envelope"]
        return json_response(
            {
                **_listed(row),
                "envelope": {
                    "return_path": envelope["return_path"],
                    "recipients": envelope["recipients"],
                },
                "tls": envelope["tls"] or None,
                "peer": envelope["peer"],
                "helo": envelope["helo"],
                "host": envelope["host"],
                "headers": _headers(content),
            }
        )

    def _raw(self, request: Request, number: str) -> Response:
        found = self._found(number)
        if found is None:
            return failure(HTTPStatus.NOT_FOUND, "no such message")
        return Response(found[1], "message/rfc822")

    def _refusals(self, request: Request) -> Response:
        rows = self._keeper.refusals(
            recipient=request.query.get("recipient", ""),
            limit=_number(request, "limit", LIMIT_BY_DEFAULT, LIMIT_AT_MOST),
            offset=_number(request, "offset", 0, _ID_AT_MOST),
        )
        for row in rows:
            row["refused_at"] = _iso(row["refused_at"])
        return json_response(rows)

    def _clear_all(self, request: Request) -> Response:
        self._clear()
        if request.query.get("then") == "inbox":
            return Response(b"", status=HTTPStatus.SEE_OTHER, headers={"Location": "/"})
        return json_response({"status": "cleared"})

    # Pages.

    def _list_page(self, request: Request) -> Response:
        page = _number(request, "page", 1, 1_000_000) or 1
        wanted = _wanted(request)
        rows = self._keeper.messages(wanted, limit=_PAGE_ROWS, offset=(page - 1) * _PAGE_ROWS)
        return _page(
            inbox_pages.list_page(
                [_listed(row) for row in rows],
                total=self._keeper.total(wanted),
                counts=self._keeper.counts(Wanted()),
                query=request.query,
                page=page,
                page_rows=_PAGE_ROWS,
                labels=self._labels,
            )
        )

    def _refusals_page(self, request: Request) -> Response:
        page = _number(request, "page", 1, 1_000_000) or 1
        rows = self._keeper.refusals(
            recipient="", limit=_PAGE_ROWS + 1, offset=(page - 1) * _PAGE_ROWS
        )
        for row in rows:
            row["refused_at"] = _iso(row["refused_at"])
        return _page(
            inbox_pages.refusals_page(
                rows[:_PAGE_ROWS], page=page, has_more=len(rows) > _PAGE_ROWS, labels=self._labels
            )
        )

    def _message_page(self, request: Request, number: str) -> Response:
        found = self._found(number)
        if found is None:
            return _page(inbox_pages.not_found_page(), HTTPStatus.NOT_FOUND)
        row, content = found
        message = _parsed(content)
        return _page(
            inbox_pages.message_page(
                {**_listed(row), "envelope": row["envelope"]},
                headers=_headers(content),
                text=_text_of(message, "plain"),
                has_html=_body(message, "html") is not None,
                shows_images=request.query.get("images") == "1",
                attachments=[part.get_filename() or "unnamed" for part in _attachments(message)],
                raw=content[: inbox_pages.RAW_AT_MOST_BYTES].decode("utf-8", "replace"),
                is_cut=len(content) > inbox_pages.RAW_AT_MOST_BYTES,
                labels=self._labels,
            )
        )

    def _html_page(self, request: Request, number: str) -> Response:
        found = self._found(number)
        html = "" if found is None else _text_of(_parsed(found[1]), "html")
        images = "http: https: data:" if request.query.get("images") == "1" else "data:"
        # Links open in a window of their own; the mail's markup stays as it is.
        body = f'<base target="_blank">{html}'.encode("utf-8", "replace")
        policy = _MAIL_POLICY.format(images=images)
        return Response(body, headers={"Content-Security-Policy": policy})

    def _style(self, request: Request) -> Response:
        return Response(inbox_pages.STYLE.encode(), "text/css; charset=utf-8")

    def _found(self, number: str) -> tuple[dict[str, Any], bytes] | None:
        return self._keeper.message(int(number)) if int(number) < _ID_AT_MOST else None


_ROUTES: list[tuple[str, re.Pattern[str], Callable[..., Response]]] = [
    (method, re.compile(pattern), handler)
    for method, pattern, handler in (
        ("GET", "/", Inbox._list_page),
        ("GET", "/refusals", Inbox._refusals_page),
        ("GET", "/style.css", Inbox._style),
        ("GET", "/messages/([0-9]{1,18})", Inbox._message_page),
        ("GET", "/messages/([0-9]{1,18})/html", Inbox._html_page),
        ("GET", "/health", Inbox._health),
        ("GET", "/api/counts", Inbox._counts),
        ("GET", "/api/duplicates", Inbox._duplicates),
        ("GET", "/api/refusals", Inbox._refusals),
        ("GET", "/api/messages", Inbox._messages),
        ("GET", "/api/messages/([0-9]{1,18})", Inbox._message),
        ("GET", "/api/messages/([0-9]{1,18})/raw", Inbox._raw),
        ("POST", "/api/clear", Inbox._clear_all),
    )
]


def _page(html: str, status: HTTPStatus = HTTPStatus.OK) -> Response:
    return Response(html.encode(), status=status, headers={"Content-Security-Policy": PAGE_POLICY})


def _wanted(request: Request) -> Wanted:
    query = request.query
    return Wanted(
        mailing=query.get("mailing", ""),
        since=_since(query.get("since", "")),
        recipient=query.get("recipient", ""),
        provider=query.get("provider", ""),
        words=query.get("q", ""),
    )


def _since(text: str) -> float:
    """Seconds since the epoch, or ISO 8601 (UTC where it names no zone)."""
    if not text:
        return 0.0
    try:
        return float(text)
    except ValueError:
        pass
    try:
        # In a query a plus sign means a space.
        moment = datetime.fromisoformat(text.replace(" ", "+") if "T" in text else text)
    except ValueError:
        raise BadRequest("since: seconds since the epoch, or ISO 8601") from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _number(request: Request, name: str, otherwise: int, at_most: int) -> int:
    text = request.query.get(name, "")
    if not text:
        return otherwise
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise BadRequest(f"{name}: a whole number is needed")
    return min(int(text), at_most)


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")


def _listed(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": row["id"],
        "received_at": _iso(row["received_at"]),
        "provider": row["provider"],
        "recipient": row["recipient"],
        "rfc_message_id": row["rfc_message_id"],
        "mailing": row["mailing"],
        "subject": row["subject"],
        "from_header": row["from_header"],
        "size": row["size_bytes"],
    }


def _headers(content: bytes) -> list[list[str]]:
    """All header fields in order, unfolded, as they were sent."""
    block = header_block(content)
    fields: list[list[str]] = []
    for field in re.split(rb"\r\n(?![ \t])", block):
        name, colon, _ = field.partition(b":")
        if colon:
            label = name.decode("latin-1").strip()
            fields.append([label, header_value(b"\r\n" + field, label)])
    return fields


def _parsed(content: bytes) -> EmailMessage:
    return BytesParser(_class=EmailMessage, policy=default).parsebytes(content)


def _body(message: EmailMessage, kind: str) -> Message | None:
    return message.get_body((kind,))


def _text_of(message: EmailMessage, kind: str) -> str:
    part = _body(message, kind)
    if part is None:
        return ""
    raw = part.get_payload(decode=True)
    if not isinstance(raw, bytes):
        return ""
    try:
        return raw.decode(part.get_content_charset("utf-8"), "replace")
    except LookupError:
        return raw.decode("utf-8", "replace")


def _attachments(message: EmailMessage) -> list[Message]:
    return list(message.iter_attachments()) if message.is_multipart() else []
