"""One template of a message: parsed and compiled once, rendered once per recipient.

Decides between two ways to the same text. The fast way writes the static text in
quoted-printable in advance and encodes only the values; it is taken where a template
consists of text, values, conditions, loops and simple assignments. Where a construct
captures what it puts out (set blocks, macros, call and filter blocks, recursive loops), the
text is rendered whole and encoded afterwards. Both give the same text once decoded.

Never loads another template: `include`, `import` and `extends` are refused when the
template is compiled. What marketers did wrong is `InvalidTemplate` then, or `RenderFailed`
for one recipient's values later, with part and line.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import CodeType, TracebackType
from typing import Any

from jinja2 import Template, TemplateSyntaxError, Undefined, nodes, pass_context
from jinja2.compiler import CodeGenerator, Frame
from jinja2.exceptions import TemplateError
from jinja2.runtime import Context
from markupsafe import Markup, escape

from mailer.core import budget, quoted
from mailer.core.budget import Budget, OverBudget
from mailer.core.template_rules import BUDGET, GLOBALS, Pricing, TemplateSandbox

MAX_SOURCE_CHARS = 500_000
MAX_NODES = 10_000  #: constructs in one part: the time to compile grows faster than their number
_LOADING = (nodes.Extends, nodes.Include, nodes.Import, nodes.FromImport)
_STREAMING = (
    nodes.Output,
    nodes.If,
    nodes.For,
    nodes.Assign,
    nodes.With,
    nodes.ExprStmt,
)


class InvalidTemplate(ValueError):
    """A template that cannot be used for anybody. `line` is 0 where no line is to blame."""

    def __init__(self, part: str, line: int, message: str) -> None:
        place = f"{part}, line {line}" if line else part
        super().__init__(f"{place}: {message}")
        self.part = part
        self.line = line
        self.message = message


class RenderFailed(ValueError):
    """A template that failed with one recipient's values; trying again cannot help."""

    def __init__(self, part: str, line: int, message: str) -> None:
        place = f"{part}, line {line}" if line else part
        super().__init__(f"{place}: {message}")
        self.part = part
        self.line = line
        self.message = message


def values_for(fields: Mapping[str, object], provided: Mapping[str, object]) -> dict[str, object]:
    """Join what templates may name; what the engine provides wins over fields."""
    return {**GLOBALS, **fields, **provided, BUDGET: Budget()}


class CompiledTemplate:
    """A template ready to render. Immutable; may be shared between threads."""

    __slots__ = ("_call_cost", "_environment", "_is_encoded", "_template", "part")

    def __init__(self, part: str, source: str, *, is_html: bool, is_body: bool) -> None:
        """Compile `source`; a body renders to quoted-printable, anything else to text."""
        tree = parse(part, source, is_html=is_html)
        self.part = part
        pricing = Pricing()
        try:
            self._is_encoded = is_body and _is_streaming(tree.body)
            self._environment = _ENVIRONMENTS[is_html, self._is_encoded]
            pricing.visit(tree)
            if self._is_encoded:
                _encode_static(tree)
            tree.set_environment(self._environment)
            code = _compiled(part, tree, self._environment)
        except RecursionError:
            raise _too_deep(part) from None
        self._call_cost = pricing.call_cost
        self._template = Template.from_code(self._environment, code, {})

    def text(self, values: dict[str, object]) -> str:
        """Render to text; for templates that are not bodies."""
        return quoted.normalised(self._render(values))

    def encoded(self, values: dict[str, object]) -> str:
        """Render to quoted-printable without a soft break at the end."""
        rendered = self._render(values)
        if not self._is_encoded:
            rendered = quoted.encode(quoted.normalised(rendered))
        return quoted.finished(rendered)

    def _render(self, values: dict[str, object]) -> str:
        template = self._template
        context = Context(self._environment, values, None, template.blocks)
        allowance: Any = values[BUDGET]
        allowance.call_cost = self._call_cost
        try:
            return _joined(template.root_render_func(context))
        except OverBudget as error:
            raise RenderFailed(self.part, self._line_of(error), str(error)) from error
        except RecursionError as error:
            message = "it calls itself too deeply"
            raise RenderFailed(self.part, self._line_of(error), message) from None
        # Templates may fail in any way that Python can: a value of the wrong kind is enough.
        except Exception as error:
            message = f"{type(error).__name__}: {error}"[:300]
            raise RenderFailed(self.part, self._line_of(error), message) from error

    def _line_of(self, error: BaseException) -> int:
        line, step = 0, error.__traceback__
        while step is not None:
            line = self._line_at(step) or line
            step = step.tb_next
        return line

    def _line_at(self, step: TracebackType) -> int:
        if step.tb_frame.f_code.co_filename != self._template.filename:
            return 0
        return self._template.get_corresponding_lineno(step.tb_lineno)


def parse(part: str, source: str, *, is_html: bool) -> nodes.Template:
    """Parse `source`, or raise `InvalidTemplate` with what to do about it."""
    if len(source) > MAX_SOURCE_CHARS:
        raise InvalidTemplate(part, 0, f"it is longer than {MAX_SOURCE_CHARS:,} characters")
    try:
        tree = _ENVIRONMENTS[is_html, False]._parse(quoted.normalised(source), None, None)
        _check(part, tree)
    except TemplateSyntaxError as error:
        raise InvalidTemplate(part, error.lineno, _advice(error)) from error
    except RecursionError:
        raise _too_deep(part) from None
    return tree


def _check(part: str, tree: nodes.Template) -> None:
    for count, node in enumerate(tree.find_all(nodes.Node)):
        if isinstance(node, _LOADING):
            raise InvalidTemplate(
                part,
                node.lineno,
                "it loads another template; paste that template's text here instead",
            )
        if count >= MAX_NODES:
            message = f"it has more than {MAX_NODES:,} tags, fields and filters; simplify it"
            raise InvalidTemplate(part, node.lineno, message)


def _too_deep(part: str) -> InvalidTemplate:
    return InvalidTemplate(part, 0, "it is nested too deeply; split or simplify it")


def _compiled(part: str, tree: nodes.Template, environment: TemplateSandbox) -> CodeType:
    try:
        code = environment.compile(tree, filename=f"<{part}>")
    except TemplateSyntaxError as error:
        raise InvalidTemplate(part, error.lineno, _advice(error)) from error
    except TemplateError as error:
        raise InvalidTemplate(part, 0, str(error)) from error
    except (SyntaxError, RecursionError, MemoryError):
        raise _too_deep(part) from None
    assert isinstance(code, CodeType)
    return code


def _advice(error: TemplateSyntaxError) -> str:
    said = (error.message or "it cannot be read").rstrip(".")
    return f"{said}. Check the braces, tags and filter names on this line"


def _is_streaming(body: Iterable[nodes.Node]) -> bool:
    """Say whether everything in `body` is put out where it stands, never captured."""
    for node in body:
        if not isinstance(node, _STREAMING) or (isinstance(node, nodes.For) and node.recursive):
            return False
        inner = [*getattr(node, "body", ()), *getattr(node, "elif_", ())]
        if not _is_streaming([*inner, *(getattr(node, "else_", None) or ())]):
            return False
    return True


def _encode_static(tree: nodes.Template) -> None:
    for node in tree.find_all(nodes.TemplateData):
        node.data = quoted.encode(node.data)


def _joined(chunks: Iterable[str]) -> str:
    room, pieces = budget.MAX_PART_CHARS, []
    for chunk in chunks:
        room -= len(chunk)
        if room < 0:
            raise OverBudget(f"it is longer than {budget.MAX_PART_CHARS:,} characters")
        pieces.append(chunk)
    return "".join(pieces)


class _ValuesAreReady(CodeGenerator):
    """Put values out as `finalize` returns them: escaped and encoded in one step."""

    def _output_child_to_const(
        self, node: nodes.Expr, frame: Frame, finalize: CodeGenerator._FinalizeInfo
    ) -> str:
        const = node.as_const(frame.eval_ctx)
        if isinstance(node, nodes.TemplateData) or finalize.const is None:
            return str(const)
        return finalize.const(const)

    def _output_child_pre(
        self, node: nodes.Expr, frame: Frame, finalize: CodeGenerator._FinalizeInfo
    ) -> None:
        self.write(finalize.src or "")

    def _output_child_post(
        self, node: nodes.Expr, frame: Frame, finalize: CodeGenerator._FinalizeInfo
    ) -> None:
        self.write(")")


def _shown(value: object) -> str:
    """The text of a value, bounded; markup stays markup."""
    if value is None or isinstance(value, Undefined):
        return ""
    if isinstance(value, str):
        return value
    if budget.measure(value) > budget.MAX_CHARS:
        raise OverBudget("it shows a value that is too large")
    if hasattr(value, "__html__"):
        return Markup(value.__html__())
    return str(value)


def _encoded_text(value: object) -> str:
    return quoted.encode_value(value if type(value) is str else str(_shown(value)))


def _encoded_html(value: object) -> str:
    if type(value) is str and quoted.is_plain_in_html(value):
        return quoted.broken_softly(value)
    return quoted.encode(quoted.normalised(str(escape(_shown(value)))))


@pass_context
def _plain(context: Context, value: object) -> str:
    """What the whole way puts out: captured text counts, since no part's limit sees it."""
    shown = _shown(value)
    allowance: Budget = context.parent[BUDGET]
    allowance.spend(0, 6 * len(shown))
    return (
        Markup(quoted.normalised(shown))
        if isinstance(shown, Markup)
        else (quoted.normalised(shown))
    )


class _Encoding(TemplateSandbox):
    code_generator_class = _ValuesAreReady


#: By (is HTML, is encoded).
_ENVIRONMENTS: dict[tuple[bool, bool], TemplateSandbox] = {
    (True, True): _Encoding(autoescape=True, finalize=_encoded_html),
    (False, True): _Encoding(autoescape=False, finalize=_encoded_text),
    (True, False): TemplateSandbox(autoescape=True, finalize=_plain),
    (False, False): TemplateSandbox(autoescape=False, finalize=_plain),
}
