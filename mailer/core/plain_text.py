"""The text part of a message that was written as HTML only.

Decides, once per template and never per message, how an HTML template reads as text. Values
and statements of the template survive as they are, in their order: values travel through the
conversion as single private-use characters, and the HTML is converted piece by piece between
statements, so that no conversion can move or lose one. Statements inside an HTML tag stay
only where they are part of a link's target.

Known weakness: markup that hides an element is not seen across a statement inside that
element, so the text may show what the HTML hides.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from inscriptis import get_text  # type: ignore[import-untyped]
from inscriptis.model.config import ParserConfig  # type: ignore[import-untyped]
from jinja2 import Environment
from lxml.etree import LxmlError  # type: ignore[import-untyped]

_EDGE = "\ue000"
_FIRST_MARK = 0xF0000  #: the supplementary private use areas begin here
_MARKS = "\U000f0000-\U0010fffd"
_UNSEEN = re.compile(
    r"<!--.*?-->|<(style|script|head|title)\b[^>]*>.*?</\1\s*>|<!doctype[^>]*>", re.I | re.S
)
_MARK = re.compile(f"[{_MARKS}]")
_RESERVED = re.compile(f"[{_EDGE}{_MARKS}]")
_REFERENCE = re.compile(r"&#(?:x([0-9a-fA-F]+)|([0-9]+));?", re.I)
_TAG_OR_MARK = re.compile(rf"<[a-zA-Z/!][^<>]*>|[{_MARKS}]")
_TAG = re.compile(r"<(/?)([a-zA-Z][a-zA-Z0-9]*)\b[^<>]*>")
_LINE_ENDS = {
    **dict.fromkeys(("div", "li", "ul", "ol", "tr", "table", "center", "section"), "<br>"),
    **dict.fromkeys(("p", "h1", "h2", "h3", "h4", "h5", "h6", "blockquote"), "<br><br>"),
}
_LINK = re.compile(r"\[([^\[\]]*)\]\(([^()\s]*)\)")
_BARE_ROW = re.compile(r"<t(?:r|d|h|body)\b", re.I)
_BRACE = re.compile(r"\{(?=[{%#])")
_BLANKS = re.compile(r"\n(?:[ \t\xa0]*\n){2,}")
_LINE_END_BLANKS = re.compile(r" +\n")
_CONFIG = ParserConfig(display_links=True)
_LEXER = Environment(keep_trailing_newline=True)


def text_template(html: str) -> str:
    """Derive the text template from a valid HTML template."""
    marked = _Marked.of(_RESERVED.sub("", _REFERENCE.sub(_without_marks, html)))
    pieces = list(_pieces(marked))
    text = _BLANKS.sub("\n\n", "".join(pieces)).strip()
    return marked.restored(text) + "\n" if text else ""


def _without_marks(reference: re.Match[str]) -> str:
    """Drop a character reference that would read as one of the marks."""
    digits, base = (reference[1], 16) if reference[1] else (reference[2], 10)
    point = int(digits, base) if len(digits) <= 8 else _FIRST_MARK
    return "" if point >= _FIRST_MARK or chr(point) == _EDGE else reference[0]


@dataclass(slots=True)
class _Marked:
    """HTML in which every construct of the template is one private-use character."""

    html: str = ""
    constructs: list[str] = field(default_factory=list)
    statements: set[str] = field(default_factory=set)

    @classmethod
    def of(cls, source: str) -> _Marked:
        marked = cls()
        pieces, construct = list[str](), ""
        for _, kind, value in _LEXER.lex(source):
            if kind == "data" and not construct:
                pieces.append(value)
            elif kind.startswith(("comment", "raw_")):
                continue
            elif kind in ("variable_end", "block_end"):
                pieces.append(marked._mark(construct + value, is_statement=kind == "block_end"))
                construct = ""
            else:
                construct += value
        marked.html = _UNSEEN.sub("", "".join(pieces))
        return marked

    def _mark(self, construct: str, *, is_statement: bool) -> str:
        mark = chr(_FIRST_MARK + len(self.constructs))
        self.constructs.append(construct)
        if is_statement:
            self.statements.add(mark)
        return mark

    def restored(self, text: str) -> str:
        """Put the constructs back; braces that were text stay text."""
        text = _BRACE.sub("{{ '{' }}", text)
        return _MARK.sub(lambda mark: self.constructs[ord(mark[0]) - _FIRST_MARK], text)


def _pieces(marked: _Marked) -> Iterator[str]:
    """Convert what lies between statements that stand outside of tags."""
    start = 0
    for found in _TAG_OR_MARK.finditer(marked.html):
        if found[0] in marked.statements:
            yield _converted(marked.html[start : found.start()])
            yield found[0]
            start = found.end()
    yield _converted(marked.html[start:])


def _converted(html: str) -> str:
    if not html.strip():
        return " " if html and "\n" not in html else ""
    body = _without_stray_ends(html)
    if _begins_inside_a_table(body):
        body = f"<table>{body}</table>"
    try:
        text: str = get_text(f"<html><body>{_EDGE}{body}{_EDGE}</body></html>", _CONFIG)
    except (LxmlError, ValueError):
        text = re.sub(r"<[^<>]*>", " ", html)
    text = _LINK.sub(_link_as_text, text.strip("\n").replace(_EDGE, ""))
    return _LINE_END_BLANKS.sub("\n", text)


def _without_stray_ends(html: str) -> str:
    """Turn ends of elements that began before this piece into the line ends they stand for."""
    is_open: Counter[str] = Counter()

    def closed(tag: re.Match[str]) -> str:
        name = tag[2].lower()
        if not tag[1]:
            is_open[name] += 1
        elif is_open[name]:
            is_open[name] -= 1
        else:
            return _LINE_ENDS.get(name, "")
        return tag[0]

    return _TAG.sub(closed, html)


def _begins_inside_a_table(html: str) -> bool:
    row = _BARE_ROW.search(html)
    return row is not None and "<table" not in html[: row.start()].lower()


def _link_as_text(link: re.Match[str]) -> str:
    shown, target = link[1].strip(), link[2]
    if not target or target.startswith("#") or shown == target:
        return shown or target.removeprefix("#")
    return f"{shown} ({target})" if shown else target
