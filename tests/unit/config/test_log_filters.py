from __future__ import annotations

import logging
import sys

import pytest

from config.log_filters import without_traceback_below_500


def told(name: str, status: int | None) -> logging.LogRecord:
    try:
        raise ValueError("a stranger's request")
    except ValueError:
        record = logging.LogRecord(name, logging.ERROR, "", 1, "refused", None, sys.exc_info())
    if status is not None:
        record.status_code = status
    return record


@pytest.mark.parametrize(
    ("name", "status", "keeps"),
    [
        ("django.request", 403, False),
        ("django.request", 500, True),
        ("django.security.DisallowedHost", None, False),
        ("mailer.delivery", None, True),
    ],
)
def test_only_refused_requests_lose_their_traceback(
    name: str, status: int | None, keeps: bool
) -> None:
    record = told(name, status)

    assert without_traceback_below_500()(record)
    assert (record.exc_info is not None) is keeps
