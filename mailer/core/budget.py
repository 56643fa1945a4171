"""How much work and memory one message's templates may take, and what each operation costs.

Decides before an operation runs what it can produce at worst, in characters, and says no when
the message's budget does not cover it: a template can therefore neither run for ever nor
build gigabytes. Steps bound time (a turn of a loop costs the size of its body), characters
bound memory (every value made counts, kept or not). Never measures time: the same template
with the same fields always gets the same answer.

Known weakness: comparing or searching large values is not charged, so the bound on time is
loose (seconds, not hours) for a template written to exploit that.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence, Set
from string import Formatter

from jinja2 import Undefined

MAX_STEPS = 200_000  #: nodes of loop bodies and macros run; a long product list takes about 10,000
MAX_CHARS = 4_000_000  #: made in all while one message is rendered
MAX_PART_CHARS = 1_000_000  #: one part as encoded; Gmail clips a message above 102 KB
MAX_RANGE = 1_000  #: turns of `range()`
MAX_INT_BITS = 4_096
_MAX_ROUND_DIGITS = 30
_MAX_PARSED_DIGITS = 1_000
_PERCENT_SPEC = re.compile(r"%(?:\([^)]*\))?[#0\- +]*(\*|\d*)(?:\.(\*|\d*))?[a-zA-Z%]")
_ESCAPING = 6  #: `"` becomes `&#34;`, and a control character `\\u0000` in JSON


class OverBudget(Exception):
    """A template asked for more work or memory than one message may take."""


class Budget:
    """What is left for one message. Belongs to one rendering; `call_cost` is one macro's."""

    __slots__ = ("call_cost", "chars", "steps")

    def __init__(self) -> None:
        self.steps = MAX_STEPS
        self.chars = MAX_CHARS
        self.call_cost = (1, 0)

    def spend(self, steps: int, chars: int) -> None:
        """Take from the budget, or raise `OverBudget`."""
        self.steps -= steps
        self.chars -= chars
        if self.steps < 0:
            raise OverBudget("it loops too often; show fewer items or nest fewer loops")
        if self.chars < 0:
            raise OverBudget("it builds too much text; shorten what it repeats, pads or joins")


def measure(value: object) -> int:
    """Estimate the characters in `value`; stops counting where no budget would cover it."""
    total, pending = 0, [value]
    while pending and total <= MAX_CHARS:
        item = pending.pop()
        total += _own_size(item)
        if isinstance(item, Mapping):
            pending.extend(item.keys())
            pending.extend(item.values())
        elif isinstance(item, list | tuple | Set):
            pending.extend(item)
    return total


def _own_size(item: object) -> int:
    if isinstance(item, str | bytes):
        return len(item)
    if isinstance(item, int):
        return 8 + item.bit_length() // 3
    if isinstance(item, Mapping | list | tuple | Set):
        return 4 + 4 * len(item)
    return 0 if isinstance(item, Undefined) else 64


def operator_cost(operator: str, left: object, right: object) -> int:
    """Say what `left operator right` costs at worst; raise `OverBudget` for huge numbers."""
    if operator == "%" and isinstance(left, str):
        return percent_cost(left, right)
    if isinstance(left, int) and isinstance(right, int):
        _check_integers(operator, left, right)
        return 0
    if operator == "*":
        return _repeat_cost(left, right)
    if operator == "+":
        return 0 if isinstance(left, float | int) else _length(left) + _length(right)
    return 0


def _check_integers(operator: str, left: int, right: int) -> None:
    bits = {"*": left.bit_length() + right.bit_length(), "**": left.bit_length() * max(right, 1)}
    if bits.get(operator, 0) > MAX_INT_BITS or max(left.bit_length(), right.bit_length()) > (
        MAX_INT_BITS
    ):
        raise OverBudget("it calculates with numbers of more than a thousand digits")


def _repeat_cost(left: object, right: object) -> int:
    if isinstance(left, int):
        left, right = right, left
    return _length(left) * max(right, 0) if isinstance(right, int) else 0


def _length(value: object) -> int:
    if isinstance(value, str | bytes):
        return len(value)
    return 8 * len(value) if isinstance(value, Sequence) else 0


def percent_cost(template: str, values: object) -> int:
    """Cost of `template % values`; a width from a value (`*`) is refused."""
    specs = _PERCENT_SPEC.findall(template)
    if any("*" in spec for spec in specs):
        raise OverBudget("it pads a value to a width taken from data ('*' in a format)")
    widths = sum(int(number) for spec in specs for number in spec if number)
    return len(template) + widths + (1 + len(specs)) * _ESCAPING * measure(values)


def format_cost(template: str, values: object) -> int:
    """Cost of `template.format(values)`; widths inside widths are refused."""
    try:
        fields = [field for field in Formatter().parse(template) if field[1] is not None]
    except ValueError:
        return 0  # formatting itself will say what is wrong
    specs = [spec or "" for _, _, spec, _ in fields]
    if any("{" in spec for spec in specs):
        raise OverBudget("it pads a value to a width taken from data (braces inside a format)")
    widths = sum(int(number) for spec in specs for number in re.findall(r"\d+", spec))
    return len(template) + widths + (1 + len(fields)) * _ESCAPING * measure(values)


def replace_cost(text: str, old: str, new: str) -> int:
    """Cost of replacing every `old` in `text` by `new`."""
    return _ESCAPING * (len(text) + text.count(old) * len(new))


def filter_cost(name: str, value: object, args: Sequence[object]) -> int:
    """Cost of `value|name(args)` at worst; every whole number in `args` counts as a width."""
    size = measure(value)
    texts = sum(measure(arg) for arg in args if not isinstance(arg, int))
    numbers = sum(abs(arg) for arg in args if isinstance(arg, int))
    match name:
        case "replace" if len(args) >= 2:
            return replace_cost(str(value), str(args[0]), str(args[1]))
        case "format":
            return percent_cost(str(value), args)
        case "join":
            items = len(value) if isinstance(value, list | tuple | Set | Mapping | str) else 0
            return _ESCAPING * (size + items * texts)
        case "wordwrap":
            return numbers + size * (1 + texts)
        case "indent":
            return size + (1 + str(value).count("\n")) * (4 + numbers + texts)
        case "tojson":
            return size * (_ESCAPING + numbers)
        case "urlencode":
            return 12 * size  # four octets of three characters each
        case "round" if numbers > _MAX_ROUND_DIGITS:
            raise OverBudget(f"it rounds to more than {_MAX_ROUND_DIGITS} digits")
        case "int" if size > _MAX_PARSED_DIGITS:
            raise OverBudget(f"it reads a number of more than {_MAX_PARSED_DIGITS} digits")
        case "sum" if any(not isinstance(arg, int | float | str) for arg in args[1:]):
            raise OverBudget("it adds up something other than numbers")
        case _:
            return _ESCAPING * (size + texts) + numbers


def metered(budget: Budget, items: Iterable[object], cost: tuple[int, int]) -> Iterable[object]:
    """Let a loop run over `items` at `cost` a turn; known lengths are paid at once."""
    if isinstance(items, list | tuple | range | Set | Mapping | str):
        budget.spend(cost[0] * len(items), cost[1] * len(items))
        return items
    return _metered_one_by_one(budget, items, cost)


def _metered_one_by_one(
    budget: Budget, items: Iterable[object], cost: tuple[int, int]
) -> Iterable[object]:
    for item in items:
        budget.spend(*cost)
        yield item
