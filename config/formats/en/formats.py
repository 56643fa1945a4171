"""Dates as "22 Nov 2026", times as "22 Nov 2026, 17:45 UTC": nobody has to guess month or zone."""

from __future__ import annotations

DATE_FORMAT = SHORT_DATE_FORMAT = "j M Y"
TIME_FORMAT = "H:i"
DATETIME_FORMAT = SHORT_DATETIME_FORMAT = "j M Y, H:i T"
