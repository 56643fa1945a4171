from __future__ import annotations

import pytest

from config.local.roles import (
    BULK_NICE,
    InvalidProcessCount,
    Listen,
    all_roles,
    deliver,
    delivery_processes,
    urgent,
)


def test_there_is_one_bulk_worker_per_core_and_at_most_four() -> None:
    assert [delivery_processes({}, cores) for cores in (1, 2, 4, 64)] == [1, 2, 4, 4]


def test_the_environment_says_how_many_bulk_workers_run() -> None:
    assert delivery_processes({"POSTROAD_DELIVERY_PROCESSES": "12"}, cores=2) == 12


@pytest.mark.parametrize("given", ["0", "65", "-1", "two", "1.5"])
def test_a_nonsensical_number_of_workers_is_refused(given: str) -> None:
    with pytest.raises(InvalidProcessCount, match="whole number from 1 to 64"):
        delivery_processes({"POSTROAD_DELIVERY_PROCESSES": given}, cores=2)


def test_the_urgent_worker_overtakes_bulk_on_the_processor_and_shares_no_queue_with_it() -> None:
    queues = [set(role.command[7].split(",")) for role in (deliver(1), urgent())]

    assert (deliver(1).nice, urgent().nice) == (BULK_NICE, 0)
    assert queues == [{"deliver.high", "deliver.normal", "deliver.low"}, {"deliver.urgent"}]


def test_bulk_queues_are_listed_in_the_order_of_their_priority() -> None:
    assert deliver(1).command[7] == "deliver.high,deliver.normal,deliver.low"


def test_each_process_has_its_own_name() -> None:
    names = [role.name for role in all_roles(Listen(), deliverers=2)]

    assert names == ["deliver-1", "deliver-2", "urgent", "upkeep", "flower", "beat", "web"]


def test_servers_listen_on_loopback_only_unless_told_otherwise() -> None:
    words = " ".join(word for role in all_roles(Listen(), 1) for word in role.command)

    assert "0.0.0.0" not in words
    assert "--bind 127.0.0.1:8000" in words
    assert "--address=127.0.0.1" in words


def test_no_secret_is_on_a_command_line() -> None:
    words = [word for role in all_roles(Listen(), 1) for word in role.command]

    assert not [word for word in words if "auth" in word or "password" in word]
