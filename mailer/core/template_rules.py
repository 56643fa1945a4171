"""What a template may do: Jinja's sandbox, with a list of what is allowed and a price on it.

Decides which methods, functions and filters marketers' templates may use. Everything that
can make a value larger is paid from the message's `Budget` before it runs. Never offers
chance (`random`, `lipsum`): the same message rendered again is the same message.

Where it differs from plain Jinja: a missing field, and anything looked up in one, is empty
text; `None` is empty text; `default()` also stands in for `None` and for blank text, since
an empty column of a list means "not known".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import date, datetime, time
from decimal import Decimal
from types import BuiltinMethodType, MethodType
from typing import Any, TypeVar

from jinja2 import ChainableUndefined, Undefined, nodes, pass_context
from jinja2.filters import FILTERS
from jinja2.runtime import BlockReference, Context, LoopContext, Macro, markup_join, str_join
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Cycler, Joiner, Namespace
from jinja2.visitor import NodeTransformer
from markupsafe import Markup

from mailer.core import budget as cost
from mailer.core.budget import Budget, OverBudget
from mailer.core.quoted import normalised

# Names with a space: no template can say them.
BUDGET = "the budget"
_LOOP = "a loop"
_CONCAT = "a concatenation"
_SLICE = "a slice"

_FREE_FILTERS = {"count", "length", "first", "last", "float", "abs", "safe"}
_FORBIDDEN_FILTERS = {"random", "pprint"}
_TEXT_METHODS = frozenset(
    [
        "capitalize",
        "casefold",
        "count",
        "endswith",
        "find",
        "format",
        "format_map",
        "index",
        "isalnum",
        "isalpha",
        "isascii",
        "isdecimal",
        "isdigit",
        "islower",
        "isnumeric",
        "isprintable",
        "isspace",
        "istitle",
        "isupper",
        "join",
        "lower",
        "lstrip",
        "partition",
        "removeprefix",
        "removesuffix",
        "replace",
        "rfind",
        "rindex",
        "rpartition",
        "rsplit",
        "rstrip",
        "split",
        "splitlines",
        "startswith",
        "strip",
        "swapcase",
        "title",
        "upper",
    ]
)
_METHODS: tuple[tuple[type, frozenset[str]], ...] = (
    (Markup, _TEXT_METHODS | {"striptags", "unescape"}),
    (str, _TEXT_METHODS),
    (Mapping, frozenset({"get", "items", "keys", "values"})),
    (list, frozenset({"count", "index"})),
    (tuple, frozenset({"count", "index"})),
    (datetime, frozenset({"date", "isoformat", "isoweekday", "strftime", "time", "weekday"})),
    (date, frozenset({"isoformat", "isoweekday", "strftime", "weekday"})),
    (time, frozenset({"isoformat", "strftime"})),
    (float, frozenset({"is_integer"})),
    (Decimal, frozenset({"is_signed", "is_zero"})),
    (LoopContext, frozenset({"cycle", "changed"})),
    (Cycler, frozenset({"next", "reset"})),
)


_Node = TypeVar("_Node", bound=nodes.Node)


class _Format:
    """`text.format`, taken from the sandbox together with the text that its price depends on."""

    def __init__(self, text: str, apply: Callable[..., str]) -> None:
        self.text = text
        self.apply = apply


def _is_blank(value: object) -> bool:
    if isinstance(value, str):
        return (
            not value or value.isspace() or not (value.isprintable() or normalised(value).strip())
        )
    return value is None or isinstance(value, Undefined)


def default(value: object, stand_in: object = "", boolean: bool = False) -> object:
    """Return `value`, or `stand_in` where the value is missing, None or blank."""
    if _is_blank(value) or (boolean and not value):
        return stand_in
    return value


def small_range(*bounds: int) -> range:
    """Python's range, of at most `MAX_RANGE` numbers."""
    numbers = range(*bounds)
    try:
        is_small = len(numbers) <= cost.MAX_RANGE
    except OverflowError:
        is_small = False
    if not is_small:
        raise OverBudget(f"range() may count to {cost.MAX_RANGE} at most")
    return numbers


GLOBALS: Mapping[str, object] = {
    "range": small_range,
    "dict": dict,
    "cycler": Cycler,
    "joiner": Joiner,
    "namespace": Namespace,
}
_FUNCTIONS = tuple(GLOBALS.values())


class TemplateSandbox(ImmutableSandboxedEnvironment):
    """The environment of every template. `finalize` sees each value that is put out."""

    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self, *, autoescape: bool, finalize: Callable[..., object]) -> None:
        super().__init__(
            autoescape=autoescape,
            finalize=finalize,
            undefined=ChainableUndefined,
            keep_trailing_newline=True,
            cache_size=0,
        )
        self.globals.clear()
        self.filters = _priced_filters()
        self.filters |= {_LOOP: _loop, _CONCAT: _concat, _SLICE: _slice}

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        if not super().is_safe_attribute(obj, attr, value):
            return False
        return (
            not callable(value)
            or isinstance(value, Macro | BlockReference)
            or (any(isinstance(obj, kind) and attr in names for kind, names in _METHODS))
        )

    def is_safe_callable(self, obj: Any) -> bool:
        if isinstance(obj, Macro | BlockReference | LoopContext | Joiner | _Format):
            return True
        if isinstance(obj, BuiltinMethodType | MethodType):
            return self.is_safe_attribute(obj.__self__, obj.__name__, obj)
        return any(obj is function for function in _FUNCTIONS)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        apply = super().wrap_str_format(value)
        return None if apply is None else _Format(value.__self__, apply)  # type: ignore[return-value]

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805
        budget: Budget = __context.parent[BUDGET]
        if isinstance(__obj, _Format):
            budget.spend(1, cost.format_cost(__obj.text, [args, kwargs]))
            return __obj.apply(*args, **kwargs)
        if isinstance(__obj, LoopContext) and args:
            args = (cost.metered(budget, args[0], budget.call_cost), *args[1:])
        else:
            args = tuple(_listed(budget, arg) for arg in args)
        budget.spend(*_call_cost(budget, __obj, args, kwargs))
        return super().call(__context, __obj, *args, **kwargs)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        budget: Budget = context.parent[BUDGET]
        budget.spend(1, cost.operator_cost(operator, left, right))
        return self.binop_table[operator](left, right)


def _call_cost(
    budget: Budget, obj: object, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[int, int]:
    if isinstance(obj, Macro | BlockReference | LoopContext):
        return budget.call_cost
    target = getattr(obj, "__self__", None)
    if isinstance(target, str):
        name = getattr(obj, "__name__", "")
        if name == "replace" and len(args) >= 2:
            return 1, cost.replace_cost(target, str(args[0]), str(args[1]))
        if name == "join" and args:
            return 1, cost.filter_cost("join", args[0], [target])
        return 1, 6 * (len(target) + cost.measure(args))
    return 1, cost.measure(args) + cost.measure(kwargs)


def _priced_filters() -> dict[str, Callable[..., Any]]:
    priced: dict[str, Callable[..., Any]] = {
        name: function if name in _FREE_FILTERS else _priced(name, function)
        for name, function in FILTERS.items()
        if name not in _FORBIDDEN_FILTERS
    }
    return priced | {"default": default, "d": default}


def _priced(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    passed = getattr(getattr(function, "jinja_pass_arg", None), "name", "")

    @pass_context
    def apply(context: Context, value: Any, *args: Any, **kwargs: Any) -> Any:
        budget: Budget = context.parent[BUDGET]
        value = _listed(budget, value)
        budget.spend(1, cost.filter_cost(name, value, [*args, *kwargs.values()]))
        match passed:
            case "context":
                return function(context, value, *args, **kwargs)
            case "eval_context":
                return function(context.eval_ctx, value, *args, **kwargs)
            case "environment":
                return function(context.environment, value, *args, **kwargs)
        return function(value, *args, **kwargs)

    return apply


def _listed(budget: Budget, value: Any) -> Any:
    """Run a lazy value to its end, so that its size can be known."""
    return list(cost.metered(budget, value, (1, 8))) if hasattr(value, "__next__") else value


@pass_context
def _loop(context: Context, items: Iterable[object], steps: int, chars: int) -> Iterable[object]:
    return cost.metered(context.parent[BUDGET], items, (steps, chars))


@pass_context
def _concat(context: Context, pieces: list[object]) -> str:
    context.parent[BUDGET].spend(1, 6 * cost.measure(pieces))
    return markup_join(pieces) if context.eval_ctx.autoescape else str_join(pieces)


@pass_context
def _slice(context: Context, value: object) -> object:
    context.parent[BUDGET].spend(1, cost.measure(value))
    return value


class Pricing(NodeTransformer):
    """Put a price on the constructs that the sandbox does not ask about by itself.

    `call_cost` is then the size of the largest macro or block of the template.
    """

    def __init__(self) -> None:
        self.call_cost = (1, 0)

    def visit_For(self, node: nodes.For) -> nodes.For:  # noqa: N802
        steps, chars = _size(node)
        if node.recursive:
            self._note_callable(steps, chars)
        self.generic_visit(node)
        node.iter = _filtered(node.iter, _LOOP, nodes.Const(steps), nodes.Const(chars))
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Expr:  # noqa: N802
        self.generic_visit(node)
        return _filtered(nodes.List(node.nodes, lineno=node.lineno), _CONCAT)

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Expr:  # noqa: N802
        self.generic_visit(node)
        return _filtered(node, _SLICE) if isinstance(node.arg, nodes.Slice) else node

    def visit_Macro(self, node: nodes.Macro) -> nodes.Macro:  # noqa: N802
        return self._callable(node)

    def visit_CallBlock(self, node: nodes.CallBlock) -> nodes.CallBlock:  # noqa: N802
        return self._callable(node)

    def visit_Block(self, node: nodes.Block) -> nodes.Block:  # noqa: N802
        return self._callable(node)

    def _callable(self, node: _Node) -> _Node:
        self._note_callable(*_size(node))
        self.generic_visit(node)
        return node

    def _note_callable(self, steps: int, chars: int) -> None:
        self.call_cost = (max(self.call_cost[0], steps), max(self.call_cost[1], chars))


def _size(node: nodes.Node) -> tuple[int, int]:
    inner = list(node.find_all(nodes.Node))
    chars = sum(len(item.data) for item in inner if isinstance(item, nodes.TemplateData))
    return 1 + len(inner), chars


def _filtered(node: nodes.Node, name: str, *args: nodes.Expr) -> nodes.Filter:
    return nodes.Filter(node, name, list(args), [], None, None, lineno=node.lineno)
