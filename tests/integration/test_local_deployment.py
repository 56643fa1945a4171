"""Docker Compose and systemd run the very processes that bin/start runs."""

from __future__ import annotations

import configparser
import re
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from django.utils import timezone
from django_celery_beat.models import IntervalSchedule, PeriodicTask

from config.local import health, ports
from config.local.roles import Listen, Role, all_roles
from config.local.stack import ROOT

ROLES = {role.name: role for role in all_roles(Listen(), deliverers=1)}
IN_CONTAINERS = {role.name: role for role in all_roles(Listen(host="0.0.0.0"), deliverers=1)}


def service_of(role: Role) -> str:
    return "deliver" if role.name == "deliver-1" else role.name


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    found = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    assert isinstance(found, dict)
    return dict(found["services"])


@pytest.mark.parametrize("role", IN_CONTAINERS.values(), ids=lambda role: role.name)
def test_a_container_runs_the_same_command(role: Role, compose: dict[str, Any]) -> None:
    command = compose[service_of(role)]["command"].split()

    assert command == ["python", "-m", *role.command]


def test_every_container_is_a_role_or_what_roles_stand_on(compose: dict[str, Any]) -> None:
    roles = {service_of(role) for role in ROLES.values()}

    assert set(compose) == roles | {"postgres", "redis", "migrate"}


def test_every_lasting_container_has_a_health_check(compose: dict[str, Any]) -> None:
    without = [name for name, service in compose.items() if "healthcheck" not in service]

    assert without == ["migrate"]


def test_workers_keep_journals_on_a_named_volume_and_share_a_host_name(
    compose: dict[str, Any],
) -> None:
    workers = [compose[name] for name in ("deliver", "urgent", "upkeep")]

    assert all("journals:/var/lib/postroad/journals" in worker["volumes"] for worker in workers)
    assert len({worker["environment"]["POSTROAD_HOST"] for worker in workers}) == 1


def test_nothing_is_published_beyond_this_machine(compose: dict[str, Any]) -> None:
    published = [port for service in compose.values() for port in service.get("ports", [])]

    assert published
    assert all(port.startswith("127.0.0.1:") for port in published)


def test_containers_get_longer_to_stop_than_their_workers_need(compose: dict[str, Any]) -> None:
    for name in ("deliver-1", "urgent", "upkeep"):
        given = compose[service_of(ROLES[name])]["stop_grace_period"]
        assert int(given.removesuffix("s")) > ROLES[name].grace_seconds


@pytest.mark.parametrize("role", ROLES.values(), ids=lambda role: role.name)
def test_a_systemd_unit_runs_the_same_command(role: Role) -> None:
    name = "deliver@" if role.name == "deliver-1" else role.name
    unit = configparser.RawConfigParser(strict=False)
    unit.optionxform = str  # type: ignore[assignment, method-assign]
    unit.read_string((ROOT / f"deploy/systemd/postroad-{name}.service").read_text())
    program, *command = unit["Service"]["ExecStart"].split()
    # As systemd reads it: %i is the instance, %% a per cent sign.
    read = [word.replace("%i", "1").replace("%%", "%") for word in command]

    assert program == "/srv/postroad/.venv/bin/python"
    assert read == ["-m", *role.command]
    assert int(unit["Service"]["Nice"]) == role.nice
    assert int(unit["Service"]["TimeoutStopSec"]) > role.grace_seconds


def test_the_target_wants_every_unit() -> None:
    folder = ROOT / "deploy" / "systemd"
    wanted = (folder / "postroad.target").read_text()
    units = [path.name.removesuffix(".service") for path in folder.glob("*.service")]

    assert len(units) == len(ROLES)
    assert all(unit in wanted for unit in units)


def test_each_health_check_is_one_that_exists(compose: dict[str, Any]) -> None:
    ours = [
        service["healthcheck"]["test"][4:]
        for service in compose.values()
        if "config.local.health" in service.get("healthcheck", {}).get("test", [])
    ]

    assert sorted(ours) == [
        ["beat"],
        ["http", "http://127.0.0.1:5555/healthcheck"],
        ["http", "http://127.0.0.1:8000/health"],
        ["worker", "deliver-1"],
        ["worker", "upkeep"],
        ["worker", "urgent"],
    ]


def test_a_worker_that_does_not_run_is_not_healthy() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "config.local.health", "worker", "nobody"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert (done.returncode, done.stdout) == (1, "no answer\n")


@pytest.mark.django_db
def test_beat_is_healthy_only_while_tasks_are_sent() -> None:
    every = IntervalSchedule.objects.create(every=1, period=IntervalSchedule.SECONDS)
    now = timezone.now()
    PeriodicTask.objects.all().delete()
    task = PeriodicTask.objects.create(name="t", task="t", interval=every, last_run_at=now)
    assert health.beat_ticks()

    PeriodicTask.objects.filter(pk=task.pk).update(last_run_at=now - timedelta(minutes=11))

    assert not health.beat_ticks()


def test_a_port_where_nobody_listens_is_not_healthy() -> None:
    assert not health.http_answers("http://127.0.0.1:9/health")


def test_the_image_holds_every_package_that_the_roles_import() -> None:
    copied = (ROOT / "Dockerfile").read_text()
    packages = [path.parent.name for path in Path(ROOT).glob("*/apps.py")]

    assert packages
    assert all(f"COPY {name} {name}" in copied for name in packages)


def test_the_manual_lists_every_option_of_the_start_and_no_other() -> None:
    manual = (ROOT / "docs" / "running.md").read_text()
    table = manual.split("| option | does |")[1].split("\n\n")[0]

    assert set(re.findall(r"`(--[a-z-]+)", table)) == start_options()


def start_options() -> set[str]:
    shown = subprocess.run(
        [sys.executable, "-m", "config.local.start", "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return set(re.findall(r"--[a-z-]+", shown.split("options:")[1])) - {"--help"}


def test_the_manual_names_the_usual_ports() -> None:
    manual = (ROOT / "docs" / "running.md").read_text()

    assert [name for name, port in ports.USUAL.items() if str(port) not in manual] == []
