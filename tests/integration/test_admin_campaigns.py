"""What is done to a campaign in the admin, and what its page says while it runs."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from campaigns.models import AuditEntry, Campaign, Import, TemplateVersion
from deliverability.models import Hold, Role
from mailer.models import Mailing
from tests.integration import admin_world as world

pytestmark = pytest.mark.django_db

SCRIPT = "<script>alert(1)</script>"


@pytest.fixture
def ours() -> world.Tenant:
    return world.tenant("Acme")


@pytest.fixture
def sender(ours: world.Tenant) -> Client:
    return world.signed_in(world.member(ours, Role.SENDER))


def url(page: str, campaign: Campaign) -> str:
    return reverse(f"admin:campaigns_campaign_{page}", args=[campaign.pk])


def draft_data(ours: world.Tenant, **changes: Any) -> dict[str, Any]:
    return {
        "name": "renamed",
        "lists": [ours.list.pk],
        "template": ours.template.pk,
        "pool": ours.pool.pk,
        "from_header": "News <news@example.com>",
        "priority": 2,
        "retry_policy": "exponential",
        **changes,
    }


def test_a_draft_is_launched_from_its_review_page(
    ours: world.Tenant, sender: Client, django_capture_on_commit_callbacks: Any
) -> None:
    review = sender.get(url("launch", ours.draft))
    assert "Review and send" in review.content.decode()

    with django_capture_on_commit_callbacks() as published:
        response = sender.post(url("launch", ours.draft))

    ours.draft.refresh_from_db()
    assert response.status_code == 302
    assert ours.draft.state == "sending"
    assert Mailing.objects.get(pk=ours.draft.mailing_id).reference == f"campaign:{ours.draft.pk}"
    assert AuditEntry.objects.get(subject__contains=ours.draft.name).actor == "sender-of-acme"
    assert len(published) == 1


def test_what_preflight_blocks_is_shown_and_not_launched(
    ours: world.Tenant, sender: Client
) -> None:
    ours.draft.lists.clear()

    review = sender.get(url("launch", ours.draft)).content.decode()
    response = sender.post(url("launch", ours.draft))

    ours.draft.refresh_from_db()
    assert "The campaign has no list." in review
    assert 'class="pr-red"' in review
    assert "It was not launched" in response.content.decode()
    assert ours.draft.state == "draft"


def test_a_large_audience_wants_the_word_typed(
    ours: world.Tenant, sender: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("campaigns.admin.deeds.TYPED_ABOVE", 1)

    refused = sender.post(url("launch", ours.draft), {"typed": "yes"})
    ours.draft.refresh_from_db()
    assert ours.draft.state == "draft"
    assert "Type “send” to confirm" in refused.content.decode()

    sender.post(url("launch", ours.draft), {"typed": "Send "})
    ours.draft.refresh_from_db()
    assert ours.draft.state == "sending"


def test_pause_resume_and_cancel_move_the_campaign_and_its_mailing(
    ours: world.Tenant, sender: Client
) -> None:
    def states() -> tuple[str, str]:
        ours.sending.refresh_from_db()
        ours.mailing.refresh_from_db()
        return ours.sending.state, ours.mailing.state

    sender.post(url("pause", ours.sending))
    assert states() == ("paused", "paused")
    sender.post(url("resume", ours.sending))
    assert states() == ("sending", "running")
    sender.post(url("cancel", ours.sending), {"typed": "no"})
    assert states() == ("sending", "running")
    sender.post(url("cancel", ours.sending), {"typed": "cancel"})
    assert states() == ("cancelled", "cancelled")
    refused = sender.post(url("resume", ours.sending), follow=True)
    assert "was cancelled" in refused.content.decode()


def test_nothing_changes_on_a_get(ours: world.Tenant, sender: Client) -> None:
    pages = ("launch", "pause", "resume", "cancel", "duplicate", "live", "content", "change")
    before = list(Campaign.objects.order_by("pk").values())

    for campaign in (ours.draft, ours.sending):
        for page in pages:
            assert sender.get(url(page, campaign)).status_code in {200, 302, 405}

    assert list(Campaign.objects.order_by("pk").values()) == before


@pytest.mark.parametrize("page", ["launch", "pause", "resume", "cancel", "duplicate"])
def test_a_deed_needs_the_token_of_a_form(page: str, ours: world.Tenant) -> None:
    client = world.signed_in(world.member(ours, Role.SENDER), enforce_csrf_checks=True)

    assert client.post(url(page, ours.sending), {"typed": "cancel"}).status_code == 403
    ours.sending.refresh_from_db()
    assert ours.sending.state == "sending"


def test_a_launched_campaign_is_not_edited_any_more(ours: world.Tenant, sender: Client) -> None:
    page = url("change", ours.sending)

    assert sender.post(page, draft_data(ours)).status_code == 403
    assert sender.post(url("delete", ours.sending), {"post": "yes"}).status_code == 403
    ours.sending.refresh_from_db()
    assert ours.sending.name == "Acme sending"


def test_the_policy_of_a_launched_campaign_is_shown_in_words(
    ours: world.Tenant, sender: Client
) -> None:
    Campaign.objects.filter(pk=ours.sending.pk).update(
        retry_policy='{"kind":"exponential","first_delay_seconds":3,"max_age_seconds":600,'
        '"growth_ratio":1.2,"max_delay_seconds":8}'
    )

    page = sender.get(url("change", ours.sending)).content.decode()

    assert "first after 3 s, ×1.2, at most 8 s, gives up after 10 min" in page
    assert "first_delay_seconds" not in page
    assert 'name="retry_policy"' in sender.get(url("change", ours.draft)).content.decode()


def test_times_are_shown_in_one_format_with_their_zone(ours: world.Tenant, sender: Client) -> None:
    launched_at = datetime(2026, 11, 22, 17, 45, tzinfo=UTC)
    Campaign.objects.filter(pk=ours.sending.pk).update(launched_at=launched_at)
    Import.objects.filter(list=ours.list).update(started_at=launched_at)

    for name in ("campaign", "import"):
        page = sender.get(reverse(f"admin:campaigns_{name}_changelist")).content.decode()
        assert "22 Nov 2026, 17:45 UTC" in page


def test_a_draft_is_edited_and_keeps_its_state(ours: world.Tenant, sender: Client) -> None:
    assert sender.post(url("change", ours.draft), draft_data(ours)).status_code == 302
    ours.draft.refresh_from_db()
    assert (ours.draft.name, ours.draft.state) == ("renamed", "draft")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("from_header", "no address"),
        ("from_header", "a@example.com\nBcc: b@example.com"),
        ("reply_to", "nobody"),
        ("retry_policy", "whenever"),
    ],
)
def test_what_could_not_be_sent_is_refused_in_the_form(
    name: str, value: str, ours: world.Tenant, sender: Client
) -> None:
    response = sender.post(url("change", ours.draft), draft_data(ours, **{name: value}))

    assert name in response.context["adminform"].form.errors


def test_a_copy_is_a_draft_with_the_same_settings(ours: world.Tenant, sender: Client) -> None:
    sender.post(url("duplicate", ours.sending))

    copy = Campaign.objects.order_by("-pk").first()
    assert copy is not None
    assert (copy.state, copy.mailing_id, copy.template) == ("draft", None, ours.template)
    assert list(copy.lists.all()) == [ours.list]


def test_the_live_numbers_add_up(ours: world.Tenant, sender: Client) -> None:
    data = json.loads(sender.get(url("live", ours.sending)).content)

    excluded = sum(row["count"] for row in data["excluded"])
    assert data["matched"] - excluded == data["audience"] == 2
    assert sum(row["count"] for row in data["states"]) == data["audience"]
    providers = {row["name"]: row for row in data["providers"]}
    assert (providers["gmail"]["refused"], providers["gmail"]["accepted"]) == (1, 0)
    assert providers["Acme-source-lane"]["waiting"] == 1
    assert data["sources"][0]["name"] == "Acme-source"
    assert data["refusals"][0]["reply"] == "550 no such user"


def test_a_hold_is_said_where_a_campaign_stands_still(ours: world.Tenant, sender: Client) -> None:
    Hold.objects.create(workspace=ours.workspace, reason="blocklisted", held_by="ops")

    assert json.loads(sender.get(url("live", ours.sending)).content)["holds"] == ["blocklisted"]


def test_the_list_costs_the_same_for_few_and_for_many(ours: world.Tenant, sender: Client) -> None:
    def queries() -> int:
        with CaptureQueriesContext(
            connection,
        ) as seen:
            page = sender.get(reverse("admin:campaigns_campaign_changelist"))
        assert page.status_code == 200
        return len(seen)

    few = queries()
    for number in range(12):
        made = world.campaign(ours.workspace, ours.list, ours.template, ours.pool, f"c{number}")
        world.engine_rows(made, ours.recipient, ours.source, "450 later")

    assert queries() == few


def test_the_live_page_asks_a_few_small_questions(ours: world.Tenant, sender: Client) -> None:
    sender.get(url("live", ours.sending))

    with CaptureQueriesContext(connection) as seen:
        sender.get(url("live", ours.sending))

    assert len(seen) <= 13
    asked = [query["sql"] for query in seen if "mailer_attempt" in query["sql"]]
    assert all("LIMIT" in sql for sql in asked)
    assert not [query for query in seen if "FROM mailer_message" in query["sql"]]


def test_replies_names_and_addresses_are_shown_and_never_run() -> None:
    hostile = world.tenant("Acme", reply=f"550 {SCRIPT}", mailing_name=SCRIPT)
    Campaign.objects.filter(pk=hostile.draft.pk).update(name=SCRIPT, from_header=SCRIPT)
    hostile.recipient.address = SCRIPT
    hostile.recipient.attributes = {"first_name": SCRIPT, SCRIPT: SCRIPT}
    hostile.recipient.save()
    for model, changes in (
        (type(hostile.message), {"address": SCRIPT, "reason": SCRIPT}),
        (type(hostile.list), {"name": SCRIPT}),
        (type(hostile.source), {"name": SCRIPT, "state_reason": SCRIPT}),
        (type(hostile.template), {"name": SCRIPT}),
        (TemplateVersion, {"subject": SCRIPT}),
        (AuditEntry, {"subject": SCRIPT, "actor": SCRIPT}),
        (Hold, {"reason": SCRIPT, "released_at": None}),
    ):
        model._default_manager.update(**changes)
    client = world.signed_in(world.person("root", superuser=True))
    pages = [reverse("admin:index"), url("change", hostile.sending), url("launch", hostile.draft)]
    pages += [url("cancel", hostile.sending)]
    for model, obj in hostile.objects.items():
        name = f"admin:{model._meta.app_label}_{model._meta.model_name}"
        pages += [reverse(f"{name}_changelist"), reverse(f"{name}_change", args=[obj.pk])]
    pages.append(reverse("admin:mailer_attempt_changelist") + f"?mailing={hostile.mailing.pk}")
    pages.append(reverse("admin:mailer_message_changelist") + f"?mailing={hostile.mailing.pk}")

    seen = 0
    for page in pages:
        text = client.get(page, follow=True).content.decode()
        assert SCRIPT not in text, page
        seen += "script&gt;alert(1)" in text or "\\u003Cscript\\u003Ealert(1)" in text
    assert seen >= 15
    live = client.get(url("live", hostile.sending))
    assert live["Content-Type"] == "application/json"
    assert live["X-Content-Type-Options"] == "nosniff"


def test_the_content_is_shown_in_a_page_that_can_do_nothing(
    ours: world.Tenant, sender: Client
) -> None:
    ours.template.add_version(subject="s", html=f"<p>{{{{ first_name }}}}</p>{SCRIPT}")

    page = sender.get(url("content", ours.draft))

    assert "<p>Acme</p>" in page.content.decode()
    assert page["Content-Security-Policy"].startswith("sandbox ")
    assert "default-src 'none'" in page["Content-Security-Policy"]
    assert "script-src" not in page["Content-Security-Policy"]
