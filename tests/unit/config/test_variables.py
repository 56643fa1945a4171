from __future__ import annotations

import re
from pathlib import Path

from config.variables import VARIABLES

ROOT = Path(__file__).resolve().parents[3]
#: Read elsewhere than in settings.py, and where.
READ_BY = {
    "POSTROAD_DELIVERY_PROCESSES": "config/local/roles.py",
    "FLOWER_BASIC_AUTH": "config/local/environment.py",
}


def test_every_variable_of_the_settings_is_documented_and_none_beyond_them() -> None:
    source = (ROOT / "config/settings.py").read_text()
    read = set(re.findall(r'env\.\w+\(\s*"(\w+)"', source))

    assert {one.name for one in VARIABLES} == read | READ_BY.keys()


def test_variables_that_the_settings_do_not_read_are_read_where_the_table_says() -> None:
    for name, path in READ_BY.items():
        assert name in (ROOT / path).read_text()
