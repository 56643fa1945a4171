"""What a log line leaves out."""

from __future__ import annotations

import logging
from collections.abc import Callable


def without_traceback_below_500() -> Callable[[logging.LogRecord], bool]:
    """Make a filter that cuts tracebacks of requests which were refused, not broken."""

    def brief(record: logging.LogRecord) -> bool:
        is_refused = record.name.startswith("django.security")
        is_refused |= record.name == "django.request" and getattr(record, "status_code", 500) < 500
        if is_refused:
            record.exc_info = record.exc_text = None
        return True

    return brief
