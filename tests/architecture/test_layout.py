"""How the tree is laid out: names, directions and sizes that a reader can rely on."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.apps import apps
from django.db.migrations.loader import MigrationLoader
from django.db.models.fields.related import RelatedField

REPOSITORY = Path(__file__).parents[2]
APPS = ("config", "campaigns", "mailer", "deliverability")  # from the top down
PACKAGES = (*APPS, "sandbox")

#: Names under which anything can be put, so that nothing is ever found.
FORBIDDEN_NAMES = {"utils", "helpers", "services", "signals", "managers", "common", "misc"}

TASKS_LINES = 100
TASK_BODY_LINES = 10

#: (module, attribute) that ask for the time or for chance.
IMPURE_CALLS = {
    *(("datetime", name) for name in ("now", "utcnow", "today")),
    ("date", "today"),
    *(("timezone", name) for name in ("now", "localtime", "localdate")),
}
IMPURE_MODULES = {"time", "random", "secrets", "uuid", "os", "numpy"}


def tracked(*patterns: str) -> list[Path]:
    """Files of the repository: tracked ones, and new ones that nothing ignores."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *patterns],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    paths = [REPOSITORY / line for line in sorted(set(listed.stdout.splitlines()))]
    return [path for path in paths if path.is_file()]


def named(path: Path) -> str:
    return str(path.relative_to(REPOSITORY))


CORES = [path for app in APPS for path in tracked(f"{app}/core/*.py")]
TASKS = tracked("*/tasks.py")


def test_no_file_is_named_for_nothing_in_particular() -> None:
    parts = {
        named(path): {path.stem, *(parent.name for parent in path.relative_to(REPOSITORY).parents)}
        for path in tracked("*.py")
    }

    assert [name for name, words in parts.items() if words & FORBIDDEN_NAMES] == []


def test_every_app_has_a_core() -> None:
    assert {path.relative_to(REPOSITORY).parts[0] for path in CORES} >= set(APPS[1:])


def test_foreign_keys_point_down() -> None:
    pairs = [
        (model._meta.app_label, field.related_model._meta.app_label, f"{model.__name__}.{field}")
        for model in apps.get_models()
        for field in model._meta.get_fields()
        if isinstance(field, RelatedField) and not field.auto_created
    ]
    ours = [pair for pair in pairs if pair[0] in APPS and pair[1] in APPS]

    assert len(ours) > 10
    assert [name for above, below, name in ours if APPS.index(above) > APPS.index(below)] == []


def test_messages_and_attempts_have_no_foreign_keys() -> None:
    for name in ("Message", "Attempt"):
        fields = apps.get_model("mailer", name)._meta.get_fields(include_hidden=True)
        assert [field.name for field in fields if field.is_relation] == []


def test_migrations_depend_downwards() -> None:
    loader = MigrationLoader(None, load=False)
    loader.load_disk()
    pairs = [
        (key, parent)
        for key, migration in loader.disk_migrations.items()
        for parent in [*migration.dependencies, *(first for first, _ in migration.run_before)]
        if isinstance(parent, tuple) and key[0] in APPS and parent[0] in APPS
    ]

    assert pairs
    assert [pair for pair in pairs if APPS.index(pair[0][0]) > APPS.index(pair[1][0])] == []


@pytest.mark.parametrize("path", CORES, ids=named)
def test_core_asks_neither_the_clock_nor_chance(path: Path) -> None:
    assert list(impure_calls(ast.parse(path.read_text()))) == []


def test_a_clock_or_a_die_in_core_would_be_found() -> None:
    program = (
        "import time, random\nfrom datetime import datetime as dt\nfrom time import monotonic\n"
        "a = dt.now(UTC)\nb = time.time()\nc = random.random()\nd = monotonic()\n"
        "e = datetime.datetime.now(UTC)\nf = open('x')\ng = self.now()\n"
    )

    assert list(impure_calls(ast.parse(program))) == [4, 5, 6, 7, 8, 9]


def impure_calls(tree: ast.AST) -> Iterator[int]:
    """Lines that ask for the time, for chance or for a file, under whatever name."""
    known: dict[str, str] = {}  # local name -> what it is
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                origin = f"{node.module}.{alias.name}"
                is_impure = node.module in IMPURE_MODULES
                known[alias.asname or alias.name] = origin if is_impure else alias.name
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and _is_impure(node.func, known):
            yield node.lineno


def _is_impure(called: ast.expr, known: dict[str, str]) -> bool:
    if isinstance(called, ast.Name):
        origin = known.get(called.id, called.id)
        return origin in ("open", "input", "print") or origin.split(".")[0] in IMPURE_MODULES
    if not isinstance(called, ast.Attribute):
        return False
    owner = called.value
    name = owner.id if isinstance(owner, ast.Name) else getattr(owner, "attr", "")
    name = known.get(name, name)
    return (name, called.attr) in IMPURE_CALLS or name.split(".")[0] in IMPURE_MODULES


@pytest.mark.parametrize("path", TASKS, ids=named)
def test_tasks_translate_and_make_one_call(path: Path) -> None:
    tree = ast.parse(path.read_text())
    bodies = {
        node.name: sum(_length(statement) for statement in node.body if not _is_text(statement))
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and _is_task(node)
    }

    assert bodies
    assert {name: lines for name, lines in bodies.items() if lines > TASK_BODY_LINES} == {}
    assert _code_lines(path) < TASKS_LINES


@pytest.mark.parametrize("path", TASKS, ids=named)
def test_a_task_takes_keywords_only_and_tolerates_unknown_ones(path: Path) -> None:
    """So that a worker of the version before understands what the version after publishes."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef) and _is_task(node):
            positional = [one.arg for one in [*node.args.posonlyargs, *node.args.args]]
            assert positional in ([], ["self"]), node.name
            assert node.args.kwarg is not None, node.name


def _is_task(node: ast.FunctionDef) -> bool:
    return any("shared_task" in ast.unparse(decorator) for decorator in node.decorator_list)


def _is_text(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


def _length(statement: ast.stmt) -> int:
    return (statement.end_lineno or statement.lineno) - statement.lineno + 1


def _code_lines(path: Path) -> int:
    """Lines that hold code: no blank ones, no comments, no docstrings."""
    tree = ast.parse(path.read_text())
    texts = {
        line
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and _is_text(node)
        for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)
    }
    return sum(
        1
        for number, line in enumerate(path.read_text().splitlines(), start=1)
        if number not in texts and line.strip() and not line.strip().startswith("#")
    )


def test_no_text_speaks_of_the_machine_it_was_written_on() -> None:
    spoken = re.compile(r"/(?:work|root|home/\w+)/(?!\.\.\.)|\bDESIGN\.md\b|\bSTYLE\.md\b")
    found = [
        f"{named(path)}:{number}: {line.strip()[:80]}"
        for path in tracked(
            "*.md", "*.html", "*.toml", "*.yml", "bin/*", *(f"{p}/*" for p in PACKAGES)
        )
        if path.suffix not in {".png", ".svg", ".ico", ".gz", ".woff2"}
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), start=1)
        if spoken.search(line)
    ]

    assert found == []


@pytest.mark.parametrize("package", APPS[1:])
def test_only_conf_reads_the_settings(package: str) -> None:
    """Every other module gets a policy object, and can be read without knowing the settings."""
    readers = [
        named(path)
        for path in tracked(f"{package}/*.py")
        if path.name != "conf.py" and "migrations" not in path.parts
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "settings"
        and node.attr.startswith(("POSTROAD_", "REDIS_URL", "SECRET_KEY"))
    ]

    assert readers == []
