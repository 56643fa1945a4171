"""Which merge fields a message's content uses.

Decides what expansion has to copy into each message and what preflight has to warn about:
the names that templates use, whether some lookup is only known at send time (then every
field must be kept), and which names have a stand-in wherever they are shown. Never judges
values; a field that a recipient lacks is empty text when the message is rendered.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from jinja2 import meta, nodes

from mailer.core.template_rules import GLOBALS

#: What the engine provides beside the merge fields. `fields` holds them all by name, for
#: names that are not identifiers: `{{ fields["Company name"] }}`.
PROVIDED = frozenset({"unsubscribe_url", "fields"})
_DEFAULTS = ("default", "d")
_MAPPING_METHODS = ("get", "items", "keys", "values")


@dataclass(frozen=True, slots=True)
class MergeFields:
    """The fields that some content uses."""

    names: frozenset[str]
    guarded: frozenset[str]  #: shown only with a stand-in or behind a condition on themselves
    has_dynamic_lookup: bool  #: keep every field: names alone do not say which are used

    @property
    def unguarded(self) -> frozenset[str]:
        """The names that leave a gap where a recipient lacks them."""
        return self.names - self.guarded

    def __or__(self, other: MergeFields) -> MergeFields:
        return MergeFields(
            self.names | other.names,
            (self.guarded | other.guarded) - self.unguarded - other.unguarded,
            self.has_dynamic_lookup or other.has_dynamic_lookup,
        )


NO_FIELDS = MergeFields(frozenset(), frozenset(), False)


def fields_in(tree: nodes.Template, provided: frozenset[str] = PROVIDED) -> MergeFields:
    """Say which fields a parsed template uses; `provided` names are not fields."""
    by_name, is_dynamic = _looked_up(tree)
    plain = frozenset(meta.find_undeclared_variables(tree)) - provided - GLOBALS.keys()
    exposed = frozenset(_exposed(tree, frozenset()))
    names = plain | by_name
    return MergeFields(names, names - exposed, is_dynamic)


def _looked_up(tree: nodes.Node) -> tuple[frozenset[str], bool]:
    """Names taken from `fields`, and whether any other use is made of it."""
    names = {name for node in tree.find_all(nodes.Expr) if (name := _name_in_fields(node))}
    lookups = sum(1 for node in tree.find_all(nodes.Expr) if _name_in_fields(node))
    mentions = sum(1 for node in tree.find_all(nodes.Name) if node.name == "fields")
    return frozenset(names), mentions > lookups


def _name_in_fields(node: nodes.Node) -> str:
    """`fields.x`, `fields["x"]` and `fields.get("x")` say x."""
    match node:
        case nodes.Getattr(node=nodes.Name(name="fields"), attr=str(attr)) if (
            attr not in _MAPPING_METHODS
        ):
            return attr
        case nodes.Getitem(node=nodes.Name(name="fields"), arg=nodes.Const(value=str(key))):
            return key
        case nodes.Call(
            node=nodes.Getattr(node=nodes.Name(name="fields"), attr="get"),
            args=[nodes.Const(value=str(key)), *_],
        ):
            return key
    return ""


def _field_of(node: nodes.Node) -> str:
    """The field that an expression looks into: `a.b[0]` looks into a."""
    while True:
        name = _name_in_fields(node)
        if name or not isinstance(node, nodes.Getattr | nodes.Getitem):
            return name or (node.name if isinstance(node, nodes.Name) else "")
        node = node.node


def _exposed(node: nodes.Node, tested: frozenset[str]) -> Iterator[str]:
    """Yield each field used where its absence would show; `tested` ones were asked about."""
    name = _field_of(node)
    if name:
        if name not in tested:
            yield name
        if isinstance(node, nodes.Getitem):
            yield from _exposed(node.arg, tested)
        return
    for child, known in _children(node, tested):
        yield from _exposed(child, known)


def _children(
    node: nodes.Node, tested: frozenset[str]
) -> Iterator[tuple[nodes.Node, frozenset[str]]]:
    match node:
        case nodes.Filter(name=name, node=nodes.Node() as value) if name in _DEFAULTS:
            yield value, tested | {_field_of(value)}
            yield from ((arg, tested) for arg in node.args)
        case nodes.If() | nodes.CondExpr():
            known = tested | _names(node.test)
            yield from ((child, known) for child in node.iter_child_nodes())
        case nodes.Or():
            yield node.left, tested | _names(node.left)
            yield node.right, tested
        case nodes.And():
            yield node.left, tested | _names(node.left)
            yield node.right, tested | _names(node.left)
        case nodes.Test(name="defined" | "undefined" | "none"):
            yield node.node, tested | _names(node.node)
        case nodes.For():
            yield from ((child, tested | _names(node.iter)) for child in node.iter_child_nodes())
        case _:
            yield from ((child, tested) for child in node.iter_child_nodes())


def _names(node: nodes.Node) -> frozenset[str]:
    own = {_field_of(node)} if isinstance(node, nodes.Expr) else set()
    inner = {_field_of(item) for item in node.find_all(nodes.Expr)}
    return frozenset((own | inner) - {""})
