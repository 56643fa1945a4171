"""Partitions of single days, made by whoever needs them first."""

from __future__ import annotations

from datetime import date

import pytest
from django.db import connection

from mailer import partitions
from tests.integration.world import in_threads


def made(day: date) -> list[str]:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT relname FROM pg_class JOIN pg_inherits ON inhrelid = pg_class.oid"
            " WHERE relname LIKE %s AND relkind = 'r' ORDER BY relname",
            [f"mailer_%_{day:%Y%m%d}"],
        )
        return [row[0] for row in cursor.fetchall()]


@pytest.mark.django_db
def test_a_day_gets_its_partitions_once() -> None:
    day = date(2031, 2, 28)
    assert made(day) == []

    partitions.ensure(day)
    partitions.ensure(day)

    assert made(day) == ["mailer_attempt_20310228", "mailer_message_20310228"]


@pytest.mark.django_db
def test_a_partition_keeps_the_keys_of_its_parent() -> None:
    day = date(2031, 3, 1)
    partitions.ensure(day)
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT indexdef FROM pg_indexes WHERE tablename = %s",
            [partitions.name_of("mailer_message", day)],
        )
        indexes = "\n".join(row[0] for row in cursor.fetchall())

    assert "UNIQUE INDEX" in indexes
    assert "(mailing_day, mailing_id, dedup_key)" in indexes
    assert "(mailing_day, id)" in indexes
    assert "(due_at)" in indexes


@pytest.mark.django_db(transaction=True)
def test_many_make_the_same_day_at_once() -> None:
    days = [date(2031, 4, number) for number in (1, 2, 3)]
    try:
        in_threads(6, lambda number: [partitions.ensure(day) for day in days[number % 3 :] + days])

        for day in days:
            assert len(made(day)) == 2
    finally:
        with connection.cursor() as cursor:
            for day in days:
                for name in made(day):
                    cursor.execute(f"DROP TABLE {name}")
