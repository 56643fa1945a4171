"""docs/sandbox.md shows what the tables say."""

from __future__ import annotations

from pathlib import Path

import pytest

from sandbox.faults import table_in_markdown
from sandbox.providers import PROVIDERS, Provider
from sandbox.zone import FAULTY_NAMES

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "sandbox.md").read_text()


def shown(section: str) -> str:
    return PAGE.partition(f"<!-- {section}: begin -->")[2].partition(f"<!-- {section}: end -->")[0]


def test_the_page_lists_the_faults_as_the_table_has_them() -> None:
    assert shown("faults").strip() == table_in_markdown()


def test_the_page_lists_the_names_with_faults() -> None:
    rows = "\n".join(f"| `{name}` | {meaning} |" for name, meaning in FAULTY_NAMES.items())

    assert shown("names").strip() == f"| Name | What happens |\n| --- | --- |\n{rows}"


@pytest.mark.parametrize("provider", PROVIDERS, ids=lambda provider: provider.name)
def test_the_page_lists_each_provider(provider: Provider) -> None:
    domains, extensions = ", ".join(provider.domains), ", ".join(provider.extensions)

    assert f"| `{provider.name}` | {domains} | {extensions} |" in PAGE
