"""The inbox as pages: plain HTML, one style sheet, no script.

Pure. Every value goes through `_e`, which escapes it; nothing of a mail reaches a page in any
other way. The HTML part of a mail is only ever shown in a sandboxed frame of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any
from urllib.parse import urlencode

RAW_AT_MOST_BYTES = 256 * 1024

STYLE = """
:root { color-scheme: light dark; --line: #d9dde3; --soft: #f3f5f8; --text: #1d2430;
  --quiet: #5c6675; --accent: #1f5fbf; --paper: #fff; }
@media (prefers-color-scheme: dark) { :root { --line: #343b47; --soft: #1e242e; --text: #e6e9ee;
  --quiet: #9aa5b5; --accent: #7fb0ff; --paper: #14181f; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--text);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
a { color: var(--accent); text-decoration: none; }
a:hover { text-decoration: underline; }
header, main { max-width: 64rem; margin: 0 auto; padding: 0 1rem; }
header { padding-top: 1rem; display: flex; flex-wrap: wrap; gap: .5rem 1.5rem;
  align-items: baseline; }
h1 { font-size: 1.25rem; margin: 0; }
h1 a { color: inherit; }
h2 { font-size: 1.15rem; margin: 1rem 0 .5rem; overflow-wrap: anywhere; }
.quiet { color: var(--quiet); }
.counts { display: flex; flex-wrap: wrap; gap: .25rem 1rem; margin: .5rem 0; padding: 0;
  list-style: none; color: var(--quiet); }
.counts b { color: var(--text); }
form.search { display: flex; flex-wrap: wrap; gap: .5rem; margin: .75rem 0; }
input, select, button { font: inherit; color: inherit; background: var(--paper);
  border: 1px solid var(--line); border-radius: .4rem; padding: .35rem .6rem; }
input[type=search] { flex: 1 1 14rem; min-width: 0; }
button { cursor: pointer; background: var(--soft); }
.mails { list-style: none; margin: 0; padding: 0; border-top: 1px solid var(--line); }
.mails li { border-bottom: 1px solid var(--line); }
.mails a { display: grid; grid-template-columns: 15rem 1fr auto; gap: 0 1rem;
  padding: .5rem .25rem; color: inherit; }
.mails a:hover { background: var(--soft); text-decoration: none; }
.mails span, .mails b { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.mails small { grid-column: 1 / -1; color: var(--quiet); overflow-wrap: anywhere; }
.pages { display: flex; gap: 1rem; padding: 1rem 0 2rem; }
.empty { padding: 3rem 1rem; text-align: center; color: var(--quiet); }
table { border-collapse: collapse; width: 100%; }
th { text-align: left; vertical-align: top; font-weight: 500; color: var(--quiet);
  padding: .15rem 1rem .15rem 0; white-space: nowrap; }
td { padding: .15rem 0; overflow-wrap: anywhere; }
details { border-top: 1px solid var(--line); padding: .5rem 0; }
summary { cursor: pointer; font-weight: 600; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; background: var(--soft); padding: .75rem;
  border-radius: .4rem; font-size: .85rem; }
iframe { width: 100%; height: 36rem; border: 1px solid var(--line); border-radius: .4rem;
  background: #fff; color-scheme: light; }
@media (max-width: 40rem) {
  .mails a { grid-template-columns: 1fr auto; }
  .mails span.subject { grid-column: 1 / -1; grid-row: 2; }
  table, tbody, tr, th, td { display: block; } th { padding-top: .4rem; }
  iframe { height: 28rem; }
}
"""

_COUNTS = ("received", "distinct", "duplicates", "rejected", "deferred", "connections")


def list_page(
    rows: Sequence[Mapping[str, Any]],
    *,
    total: int,
    counts: Mapping[str, Any],
    query: Mapping[str, str],
    page: int,
    page_rows: int,
    labels: Mapping[str, str],
) -> str:
    """The newest messages, with search and counts."""
    numbers = "".join(f"<li><b>{counts[name]:,}</b> {name}</li>" for name in _COUNTS)
    if rows:
        mails = "".join(_list_row(row, labels) for row in rows)
        listing = f'<ul class="mails">{mails}</ul>'
    else:
        listing = '<p class="empty">No messages here yet.</p>'
    body = (
        f'<ul class="counts">{numbers}</ul>{_search_form(query, labels)}'
        f"{listing}{_paging(query, page, has_more=page * page_rows < total, total=total)}"
        '<form method="post" action="/api/clear?then=inbox"><button>Empty the inbox</button></form>'
    )
    return _document("Inbox", body)


def refusals_page(
    rows: Sequence[Mapping[str, Any]], *, page: int, has_more: bool, labels: Mapping[str, str]
) -> str:
    """What the servers turned away, and with which words."""
    items = "".join(
        f"<tr><th>{_time(row['refused_at'])}<br>{_e(_label(row, labels))}</th>"
        f"<td>{_e(row['recipient'])}<pre>{_e(row['text'])}</pre></td></tr>"
        for row in rows
    )
    listing = f"<table>{items}</table>" if rows else '<p class="empty">Nothing was refused.</p>'
    paging = _paging({}, page, has_more=has_more, total=None)
    return _document("Refusals", f"<h2>Refused or deferred</h2>{listing}{paging}")


def message_page(
    row: Mapping[str, Any],
    *,
    headers: Sequence[Sequence[str]],
    text: str,
    has_html: bool,
    shows_images: bool,
    attachments: Sequence[str],
    raw: str,
    is_cut: bool,
    labels: Mapping[str, str],
) -> str:
    """One message: envelope, HTML in a frame, text, headers, source."""
    envelope = row["envelope"]
    facts = {
        "From": row["from_header"],
        "To": row["recipient"],
        "Received": f"{_time(row['received_at'])}, {_label(row, labels)} ({envelope['host']})",
        "Return path": envelope["return_path"] or "<>",
        "Client": f"{envelope['helo']} [{envelope['peer']}], {envelope['tls'] or 'no TLS'}",
        "Mailing": row["mailing"] or "–",
        "Message-ID": row["rfc_message_id"],
        "Size": f"{row['size']:,} bytes",
    }
    if attachments:
        facts["Attachments"] = ", ".join(attachments)
    number = int(row["id"])
    parts = [f"<h2>{_e(row['subject'] or '(no subject)')}</h2>", _table(facts.items())]
    if has_html:
        parts.append(_html_frame(number, shows_images=shows_images))
    if text:
        opened = "" if has_html else " open"
        parts.append(f"<details{opened}><summary>Text</summary><pre>{_e(text)}</pre></details>")
    parts.append(f"<details><summary>Headers</summary>{_table(headers)}</details>")
    ending = "\n…" if is_cut else ""
    parts.append(
        f"<details><summary>Source</summary><p>"
        f'<a href="/api/messages/{number}/raw" download="{number}.eml">Download</a></p>'
        f"<pre>{_e(raw)}{ending}</pre></details>"
    )
    return _document(row["subject"] or "(no subject)", "".join(parts))


def not_found_page() -> str:
    return _document("Not found", '<p class="empty">There is no such message.</p>')


def _html_frame(number: int, *, shows_images: bool) -> str:
    query = "?images=1" if shows_images else ""
    toggle = (
        f'<a href="/messages/{number}">Hide images</a>'
        if shows_images
        else f'<a href="/messages/{number}?images=1">Show images</a> '
        '<span class="quiet">(as in a mail program, this may count as an open)</span>'
    )
    return (
        f"<p>{toggle}</p>"
        f'<iframe src="/messages/{number}/html{query}" title="The message" '
        'sandbox="allow-popups allow-popups-to-escape-sandbox" '
        'referrerpolicy="no-referrer"></iframe>'
    )


def _list_row(row: Mapping[str, Any], labels: Mapping[str, str]) -> str:
    return (
        f'<li><a href="/messages/{int(row["id"])}"><b>{_e(row["recipient"])}</b>'
        f'<span class="subject">{_e(row["subject"] or "(no subject)")}</span>'
        f'<span class="quiet">{_time(row["received_at"])}</span>'
        f"<small>{_e(_label(row, labels))} · {_e(row['from_header'])}</small></a></li>"
    )


def _search_form(query: Mapping[str, str], labels: Mapping[str, str]) -> str:
    options = "".join(
        f'<option value="{_e(name)}"{" selected" if query.get("provider") == name else ""}>'
        f"{_e(label)}</option>"
        for name, label in labels.items()
    )
    mailing = query.get("mailing", "")
    kept = f'<input type="hidden" name="mailing" value="{_e(mailing)}">' if mailing else ""
    return (
        f'<form class="search" method="get" action="/">{kept}'
        f'<input type="search" name="q" value="{_e(query.get("q", ""))}" '
        'placeholder="Recipient or subject" aria-label="Recipient or subject">'
        '<select name="provider" aria-label="Provider"><option value="">All providers</option>'
        f"{options}</select><button>Search</button></form>"
    )


def _paging(query: Mapping[str, str], page: int, *, has_more: bool, total: int | None) -> str:
    def link(to: int, label: str) -> str:
        parameters = {name: query[name] for name in ("q", "provider", "mailing") if name in query}
        return f'<a href="?{_e(urlencode({**parameters, "page": to}))}">{label}</a>'

    newer = link(page - 1, "← Newer") if page > 1 else ""
    older = link(page + 1, "Older →") if has_more else ""
    found = "" if total is None else f'<span class="quiet">{total:,} found</span>'
    return f'<nav class="pages">{newer}{older}{found}</nav>'


def _document(title: str, body: str) -> str:
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<title>{_e(title)} · Sandbox</title><link rel="stylesheet" href="/style.css"></head>'
        '<body><header><h1><a href="/">Sandbox inbox</a></h1>'
        '<a href="/">Inbox</a><a href="/refusals">Refusals</a>'
        '<span class="quiet">Mail that comes here never leaves this machine.</span></header>'
        f"<main>{body}</main></body></html>"
    )


def _table(pairs: Any) -> str:
    rows = "".join(f"<tr><th>{_e(name)}</th><td>{_e(value)}</td></tr>" for name, value in pairs)
    return f"<table>{rows}</table>"


def _label(row: Mapping[str, Any], labels: Mapping[str, str]) -> str:
    return labels.get(row["provider"], row["provider"])


def _time(iso: str) -> str:
    return _e(iso[:19].replace("T", " ") + " UTC")


def _e(value: object) -> str:
    return escape(str(value), quote=True)
