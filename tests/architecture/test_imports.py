"""The contracts of `.importlinter`, each with its reason written above it there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
LINT = "import sys; from importlinter.cli import lint_imports_command; sys.exit({})"


def lint_imports(folder: Path, config: Path) -> subprocess.CompletedProcess[str]:
    program = LINT.format(f"lint_imports_command(['--no-cache', '--config', {str(config)!r}])")
    return subprocess.run(
        [sys.executable, "-c", program], cwd=folder, capture_output=True, text=True, timeout=120
    )


def test_imports_keep_the_contracts() -> None:
    result = lint_imports(REPOSITORY, REPOSITORY / ".importlinter")

    assert result.returncode == 0, result.stdout + result.stderr


def test_the_contracts_catch_an_import_that_goes_up(tmp_path: Path) -> None:
    """A lint that finds nothing proves nothing: here it has something to find."""
    for app in ("config", "campaigns", "mailer", "deliverability", "sandbox"):
        for package in ("", "/core", "/models"):
            folder = tmp_path / f"{app}{package}"
            folder.mkdir(parents=True)
            (folder / "__init__.py").touch()
    (tmp_path / "deliverability/gate.py").write_text("import mailer.models\nimport redis\n")
    (tmp_path / "mailer/core/retry.py").write_text("import socket\n")
    contracts = (REPOSITORY / ".importlinter").read_text().split("[importlinter:contract:")
    wanted = [one for one in contracts[1:] if one.startswith(("down]", "redis]", "pure-core]"))]
    quiet = [
        one.replace("deliverability.counters -> redis", "mailer.absent -> redis")
        + "\nunmatched_ignore_imports_alerting = none\n"
        for one in wanted
    ]
    config = tmp_path / ".importlinter"
    config.write_text("".join([contracts[0], *("[importlinter:contract:" + one for one in quiet)]))

    result = lint_imports(tmp_path, config)

    assert result.returncode == 1, result.stdout + result.stderr
    assert "0 kept, 3 broken" in result.stdout
    for line in (
        "deliverability.gate -> mailer.models",
        "deliverability.gate -> redis",
        "mailer.core.retry -> socket",
    ):
        assert line in result.stdout
