"""Who we will not send to: scopes, reasons, and until when."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from deliverability import suppressions
from deliverability.models import Suppression
from tests.integration.world import a_workspace

pytestmark = pytest.mark.django_db
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
KEYS = ["ann@x.example", "bob@x.example", "cle@x.example"]


def test_the_first_reason_is_kept() -> None:
    workspace = a_workspace()

    assert suppressions.suppress(workspace.pk, KEYS[0], reason="complaint") is True
    assert suppressions.suppress(workspace.pk, KEYS[0], reason="manual") is False

    found = suppressions.suppressed_among(workspace.pk, KEYS, "list:1", now=NOW)
    assert found == {KEYS[0]: "complaint"}


def test_a_scope_covers_itself_and_the_workspace_everything() -> None:
    workspace = a_workspace()
    suppressions.suppress(workspace.pk, KEYS[0], scope="list:1", reason="left")
    suppressions.suppress(workspace.pk, KEYS[1], reason="complaint")

    def asked(scope: str) -> set[str]:
        return set(suppressions.suppressed_among(workspace.pk, KEYS, scope, now=NOW))

    assert asked("list:1") == {KEYS[0], KEYS[1]}
    assert asked("list:2") == {KEYS[1]}
    assert asked("") == {KEYS[1]}


def test_workspaces_do_not_share_suppressions() -> None:
    suppressions.suppress(a_workspace().pk, KEYS[0], reason="complaint")

    assert suppressions.suppressed_among(a_workspace().pk, KEYS, "", now=NOW) == {}


def test_a_suppression_ends_at_its_moment_and_not_before() -> None:
    workspace = a_workspace()
    suppressions.suppress(workspace.pk, KEYS[0], reason="full", until=NOW)

    before = NOW - timedelta(microseconds=1)
    assert suppressions.suppressed_among(workspace.pk, KEYS, "", now=before) == {KEYS[0]: "full"}
    assert suppressions.suppressed_among(workspace.pk, KEYS, "", now=NOW) == {}


def test_many_at_once_and_what_stood_stays() -> None:
    workspace = a_workspace()
    suppressions.suppress(workspace.pk, KEYS[0], reason="complaint")

    suppressions.suppress_many(workspace.pk, [(key, "unknown", "x" * 5_000) for key in KEYS])
    suppressions.suppress_many(workspace.pk, [])

    found = dict(Suppression.objects.values_list("address_key", "reason"))
    assert found == {KEYS[0]: "complaint", KEYS[1]: "unknown", KEYS[2]: "unknown"}
    assert max(len(one.detail) for one in Suppression.objects.all()) == 1_000


def test_a_suppression_that_has_ended_can_be_made_anew() -> None:
    """Else somebody who complains after a short rest would be written to."""
    workspace = a_workspace()
    suppressions.suppress(workspace.pk, KEYS[0], reason="full", until=NOW - timedelta(days=1))
    suppressions.suppress(workspace.pk, KEYS[1], reason="full", until=NOW - timedelta(days=1))

    assert suppressions.suppress(workspace.pk, KEYS[0], reason="complaint") is True
    suppressions.suppress_many(workspace.pk, [(KEYS[1], "unknown", "")])

    found = suppressions.suppressed_among(workspace.pk, KEYS, "", now=NOW)
    assert found == {KEYS[0]: "complaint", KEYS[1]: "unknown"}


def test_a_longer_suppression_replaces_a_shorter_and_never_the_other_way() -> None:
    workspace = a_workspace()
    tomorrow, later = NOW + timedelta(days=1), NOW + timedelta(days=9)

    assert suppressions.suppress(workspace.pk, KEYS[0], reason="full", until=tomorrow)
    assert suppressions.suppress(workspace.pk, KEYS[0], reason="away", until=later)
    assert not suppressions.suppress(workspace.pk, KEYS[0], reason="full", until=tomorrow)
    assert Suppression.objects.get().until == later
    assert suppressions.suppress(workspace.pk, KEYS[0], reason="complaint")
    assert not suppressions.suppress(workspace.pk, KEYS[0], reason="full", until=later)

    one = Suppression.objects.get()
    assert (one.reason, one.until) == ("complaint", None)
