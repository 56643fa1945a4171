from __future__ import annotations

import json
import re
from itertools import chain

from config.pages import RETRY_KEYS, pages
from mailer.core.retry import Exponential, Ladder, policy_from

PAGE = pages()["retry.md"]
EXAMPLES = [json.loads(written) for written in re.findall(r"```json\n(.+)\n```", PAGE)]


def test_there_is_an_example_of_each_kind_and_it_is_a_policy() -> None:
    assert [type(policy_from(one).schedule) for one in EXAMPLES] == [Exponential, Ladder]


def test_the_table_of_retry_keys_has_every_key_that_a_policy_has() -> None:
    assert {key for key, *_ in RETRY_KEYS} == set(chain.from_iterable(EXAMPLES))
    assert all(f"| `{key}` |" in PAGE for key, *_ in RETRY_KEYS)


def test_the_policy_on_the_command_line_can_be_read() -> None:
    (written,) = re.findall(r"--retry '(.+)'", PAGE)

    assert policy_from(json.loads(written)).delay_after(2) is not None
