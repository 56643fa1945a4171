"""Lists over tables with millions of rows: never counted, never read to their end.

A page asks for its own rows and one more. Time and depth are bounded: who wants a certain row
searches for it, instead of leafing.
"""

from __future__ import annotations

from typing import Any

from django.core.paginator import Paginator
from django.db import OperationalError, connection, transaction
from django.http import HttpRequest
from django.utils.functional import cached_property
from unfold.views import ChangeList

MAX_PAGES = 100
TIMEOUT_MS = 3_000
_MOST = 1_000  #: that autocompletion looks at


class BoundedPaginator(Paginator):
    """Knows that there are "more", never how many."""

    template_name = "admin/postroad_pagination.html"

    @cached_property
    def count(self) -> int:
        return len(self.object_list[: _MOST + 1].values_list("pk"))


class LargeChangeList(ChangeList):
    """`has_next` instead of a number of pages; `gave_up` when the question took too long."""

    page_num: int
    has_next = False
    gave_up = False

    def get_results(self, request: HttpRequest) -> None:
        size = self.list_per_page
        self.page_num = min(max(self.page_num, 1), MAX_PAGES)
        start = (self.page_num - 1) * size
        rows = self._rows(start, start + size + 1)
        self.has_next = len(rows) > size and self.page_num < MAX_PAGES
        self.result_list = rows[:size]
        self.result_count = self.full_result_count = len(self.result_list)
        self.show_full_result_count = False
        self.show_admin_actions = bool(rows)
        self.can_show_all = self.multi_page = False
        self.paginator = self.model_admin.get_paginator(request, self.queryset, size)

    def _rows(self, start: int, stop: int) -> list[Any]:
        try:
            with transaction.atomic(), connection.cursor() as cursor:
                cursor.execute(f"SET LOCAL statement_timeout = {TIMEOUT_MS}")
                rows = list(self.queryset[start:stop])
                cursor.execute("SET LOCAL statement_timeout = 0")
        except OperationalError as problem:
            if "statement timeout" not in str(problem):
                raise
            self.gave_up = True
            return []
        return rows


class LargeTable:
    """Mix in before an admin class."""

    paginator = BoundedPaginator
    show_full_result_count = False
    list_max_show_all = 0
    list_disable_select_all = True
    sortable_by: tuple[str, ...] = ()

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return LargeChangeList
