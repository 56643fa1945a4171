"""Templates, imports, sources, holds, people, and the engine's large tables in the admin."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import connection
from django.db.models.expressions import RawSQL
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from campaigns import conf, imports
from campaigns.admin.audience import RecipientAdmin
from campaigns.models import Import, Recipient, Subscription
from deliverability.models import Hold, Role, Source, Suppression
from deliverability.sealing import unseal
from mailer.models import Message
from tests.integration import admin_world as world

pytestmark = pytest.mark.django_db


@pytest.fixture
def ours() -> world.Tenant:
    return world.tenant("Acme")


@pytest.fixture
def editor(ours: world.Tenant) -> Client:
    return world.signed_in(world.member(ours, Role.EDITOR))


@pytest.fixture
def operator(ours: world.Tenant) -> Client:
    return world.signed_in(world.member(ours, Role.OPERATOR))


@pytest.fixture
def root() -> Client:
    return world.signed_in(world.person("root", superuser=True))


def test_the_sign_in_page_has_an_icon_and_leads_to_no_other_site(client: Client) -> None:
    page = client.get(reverse("admin:login")).content.decode()

    icon = re.search(r'<link rel="icon" href="([^"]+)"', page)
    assert icon
    assert client.get(icon[1])["Content-Type"] == "image/svg+xml"
    assert "Return to site" not in page


# Templates ---------------------------------------------------------------------------


def template_data(**changes: str) -> dict[str, str]:
    return {"name": "Acme template", "subject": "Hello", "html": "<p>x</p>", "text": "", **changes}


def test_saving_changed_content_makes_a_new_version(ours: world.Tenant, editor: Client) -> None:
    page = reverse("admin:campaigns_template_change", args=[ours.template.pk])

    editor.post(page, template_data())
    editor.post(page, template_data(name="only renamed"))

    versions = list(ours.template.versions.values_list("number", "subject"))
    assert versions == [(2, "Hello"), (1, "Acme subject")]
    ours.template.refresh_from_db()
    assert ours.template.name == "only renamed"


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"html": "{{ first_name", "text": ""}, "html"),
        ({"subject": "{% include 'x' %}"}, "subject"),
        ({"html": " "}, "html"),
    ],
)
def test_a_template_that_cannot_be_sent_is_refused(
    changes: dict[str, str], name: str, ours: world.Tenant, editor: Client
) -> None:
    page = reverse("admin:campaigns_template_change", args=[ours.template.pk])

    response = editor.post(page, template_data(**changes))

    assert name in response.context["adminform"].form.errors
    assert ours.template.versions.count() == 1


def test_a_preview_renders_what_is_in_the_form_and_saves_nothing(
    ours: world.Tenant, editor: Client
) -> None:
    page = reverse("admin:campaigns_template_preview", args=[ours.template.pk])
    written = {"subject": "To {{ first_name }}", "html": "<b>{{ first_name }}</b>", "text": ""}

    shown = editor.post(page, {**written, "recipient": "acme@example.com"}).json()
    unknown = editor.post(page, {**written, "recipient": "who@example.com"}).json()
    broken = editor.post(page, {**written, "html": "{{"}).json()

    assert (shown["subject"], shown["html"]) == ("To Acme", "<b>Acme</b>")
    assert "No recipient" in unknown["error"]
    assert broken["error"]
    assert ours.template.versions.count() == 1
    assert editor.get(page).status_code == 405


def test_an_earlier_version_is_shown_in_a_page_that_can_do_nothing(
    ours: world.Tenant, editor: Client
) -> None:
    page = reverse("admin:campaigns_template_version", args=[ours.template.pk, 1])

    shown = editor.get(page)

    assert "Hi Acme" in shown.content.decode()
    assert shown["Content-Security-Policy"].startswith("sandbox ")
    missing = reverse("admin:campaigns_template_version", args=[ours.template.pk, 9])
    assert editor.get(missing).status_code == 404


# Imports -----------------------------------------------------------------------------


@pytest.fixture
def uploads_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(conf, "folders", lambda: conf.Folders(tmp_path, tmp_path))
    return tmp_path


def upload(client: Client, into: Any, content: bytes) -> Any:
    file = SimpleUploadedFile("../people.csv", content, content_type="text/csv")
    data = {"list": into.pk, "mode": "overwrite", "file": file}
    return client.post(reverse("admin:campaigns_import_add"), data)


def test_an_uploaded_file_is_imported_and_its_bad_rows_can_be_fetched(
    ours: world.Tenant,
    editor: Client,
    uploads_folder: Path,
    django_capture_on_commit_callbacks: Any,
) -> None:
    content = b"email,first_name\nann@example.com,Ann\nnobody,Bo\n=cmd,Cy\n"

    with django_capture_on_commit_callbacks() as published:
        response = upload(editor, ours.list, content)

    run = Import.objects.order_by("-pk")[0]
    assert response["Location"] == reverse("admin:campaigns_import_change", args=[run.pk])
    assert "people.csv is being read" in editor.get(response["Location"]).content.decode()
    assert (run.state, run.file_name, len(published)) == ("waiting", "people.csv", 1)
    assert Path(run.path).parent == uploads_folder
    imports.run_import(run.pk)
    run.refresh_from_db()
    assert (run.state, run.created, run.rejected) == ("finished", 1, 2)
    page = editor.get(reverse("admin:campaigns_import_change", args=[run.pk])).content.decode()
    assert "nobody" in page
    fetched = editor.get(reverse("admin:campaigns_import_rejected", args=[run.pk]))
    lines = b"".join(fetched).decode().splitlines()  # type: ignore[arg-type]
    assert lines[0] == "line,reason,row"
    assert len(lines) == 3
    assert "'=cmd" in lines[2]


def test_an_imports_page_shows_counts_that_add_up(
    ours: world.Tenant, editor: Client, uploads_folder: Path
) -> None:
    upload(editor, ours.list, b"email,first_name\nann@example.com,Ann\nbob@example.com,Bob\n")
    imports.run_import(Import.objects.order_by("-pk")[0].pk)
    again = (
        b"email,first_name\nann@example.com,Anna\nbob@example.com,Bob\ncy@example.com,Cy\n"
        b"cy@example.com,Cy\nnobody,Bo\n"
    )
    upload(editor, ours.list, again)
    run = Import.objects.order_by("-pk")[0]
    imports.run_import(run.pk)

    page = editor.get(reverse("admin:campaigns_import_change", args=[run.pk])).content.decode()

    shown = {words: int(n) for n, words in re.findall(r"<b>([\d,]+)</b><span>([^<]+)<", page)}
    assert shown == {
        "rows read": 5,
        "new people": 1,
        "updated": 1,
        "unchanged": 1,
        "twice in the file": 1,
        "set aside": 1,
    }


@pytest.mark.parametrize("content", [b"", b"name\nAnn\n", b"PK\x03\x04 a workbook"])
def test_a_file_that_cannot_be_imported_is_refused_at_once(
    content: bytes, ours: world.Tenant, editor: Client, uploads_folder: Path
) -> None:
    before = Import.objects.count()

    response = upload(editor, ours.list, content)

    errors = response.context["adminform"].form.errors
    assert "file" in errors
    assert str(uploads_folder) not in str(errors)
    assert Import.objects.count() == before
    assert list(uploads_folder.iterdir()) == []


def test_a_file_whose_reading_fails_is_not_left_behind(
    ours: world.Tenant,
    editor: Client,
    uploads_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("something nobody thought of")

    monkeypatch.setattr(imports, "examine", fail)

    with pytest.raises(RuntimeError, match="nobody thought"):
        upload(editor, ours.list, b"email\nann@example.com\n")

    assert list(uploads_folder.iterdir()) == []


# Sources -----------------------------------------------------------------------------


def source_data(ours: world.Tenant, **changes: Any) -> dict[str, Any]:
    return {
        "pool": ours.pool.pk,
        "name": "relay-1",
        "kind": "relay",
        "state": "active",
        "helo_name": "relay.example",
        "tls": "required",
        "messages_per_connection": 100,
        "relay_host": "smtp.example",
        "relay_port": 587,
        "relay_username": "acme",
        **changes,
    }


def test_a_relays_password_goes_in_sealed_and_never_comes_out(
    ours: world.Tenant, operator: Client
) -> None:
    operator.post(
        reverse("admin:deliverability_source_add"),
        source_data(ours, relay_password="hunter2-secret"),
    )
    source = Source.objects.get(name="relay-1")
    page = reverse("admin:deliverability_source_change", args=[source.pk])

    assert unseal(bytes(source.relay_password_sealed)) == "hunter2-secret"
    shown = operator.get(page).content.decode()
    assert "hunter2" not in shown
    assert bytes(source.relay_password_sealed).decode() not in shown
    assert "is set" in shown
    history = reverse("admin:deliverability_source_history", args=[source.pk])
    assert "hunter2" not in operator.get(history).content.decode()

    operator.post(page, source_data(ours, helo_name="new.example"))
    source.refresh_from_db()
    assert unseal(bytes(source.relay_password_sealed)) == "hunter2-secret"
    operator.post(page, source_data(ours, forget_password="on"))
    source.refresh_from_db()
    assert bytes(source.relay_password_sealed) == b""


@pytest.mark.parametrize(
    "changes", [{"relay_host": "127.0.0.1"}, {"relay_port": "26"}, {"tls": "none"}]
)
def test_a_kept_password_is_not_sent_elsewhere_without_being_entered_again(
    ours: world.Tenant, operator: Client, changes: dict[str, str]
) -> None:
    operator.post(
        reverse("admin:deliverability_source_add"), source_data(ours, relay_password="hunter2")
    )
    source = Source.objects.get(name="relay-1")
    page = reverse("admin:deliverability_source_change", args=[source.pk])

    refused = operator.post(page, source_data(ours, **changes))

    assert "enter it again" in refused.content.decode()
    operator.post(page, source_data(ours, relay_password="new one", **changes))
    source.refresh_from_db()
    assert unseal(bytes(source.relay_password_sealed)) == "new one"
    assert str(getattr(source, next(iter(changes)))) == next(iter(changes.values()))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("helo_name", "mail.example\r\nRCPT TO:<a@b.example>"),
        ("helo_name", "mail example"),
        ("helo_name", "[mail.example]"),
        ("relay_host", "a\r\nb"),
        ("relay_host", "smtp.example.com:587"),
        ("relay_port", "0"),
        ("relay_port", "65536"),
    ],
)
def test_a_source_that_could_never_send_is_refused(
    ours: world.Tenant, operator: Client, name: str, value: str
) -> None:
    page = reverse("admin:deliverability_source_add")

    response = operator.post(page, source_data(ours, **{name: value}))

    assert list(response.context["adminform"].form.errors) == [name]
    assert not Source.objects.filter(name="relay-1").exists()


@pytest.mark.parametrize("name", ["mail.example.com", "mx_1.example", "[192.0.2.1]", "[IPv6:::1]"])
def test_a_source_may_be_called_by_every_name_that_ehlo_allows(
    ours: world.Tenant, operator: Client, name: str
) -> None:
    operator.post(reverse("admin:deliverability_source_add"), source_data(ours, helo_name=name))

    assert Source.objects.filter(helo_name=name).exists()


def test_an_invalid_form_does_not_show_the_password_again(
    ours: world.Tenant, operator: Client
) -> None:
    page = reverse("admin:deliverability_source_add")

    response = operator.post(page, source_data(ours, helo_name="", relay_password="hunter2"))

    assert response.status_code == 200
    assert "hunter2" not in response.content.decode()


# Holds -------------------------------------------------------------------------------


def test_an_operator_stops_the_own_workspace_and_a_superuser_everything(
    ours: world.Tenant, operator: Client, root: Client
) -> None:
    page = reverse("admin:deliverability_hold_add")

    assert operator.post(page, {"workspace": "", "reason": "all of it"}).status_code == 200
    operator.post(page, {"workspace": ours.workspace.pk, "reason": "blocklisted"})
    root.post(page, {"workspace": "", "reason": "fire"})

    in_force = Hold.objects.filter(released_at__isnull=True).order_by("pk")
    assert list(in_force.values_list("workspace", "reason", "held_by")) == [
        (ours.workspace.pk, "blocklisted", "operator-of-acme"),
        (None, "fire", "root"),
    ]
    assert "fire" in operator.get(reverse("admin:index")).content.decode()


def test_a_hold_is_released_by_who_may_set_it(
    ours: world.Tenant, editor: Client, operator: Client
) -> None:
    own = Hold.objects.create(workspace=ours.workspace, reason="x", held_by="x")
    for_all = Hold.objects.create(workspace=None, reason="x", held_by="x")

    def release(client: Client, hold: Hold) -> int:
        page = reverse("admin:deliverability_hold_release", args=[hold.pk])
        assert client.get(page).status_code == 405
        return client.post(page).status_code

    assert release(editor, own) == 403
    assert release(operator, for_all) == 403
    assert release(operator, own) == 302
    own.refresh_from_db()
    for_all.refresh_from_db()
    assert own.released_at is not None
    assert for_all.released_at is None


# People ------------------------------------------------------------------------------


def test_an_address_is_checked_and_normalised(ours: world.Tenant, editor: Client) -> None:
    page = reverse("admin:campaigns_recipient_add")
    inline = {"subscriptions-TOTAL_FORMS": 0, "subscriptions-INITIAL_FORMS": 0}
    data = {"workspace": ours.workspace.pk, "attributes": '{"first_name": "Ann"}', **inline}

    bad = editor.post(page, {**data, "address": "ann(at)example.com"})
    editor.post(page, {**data, "address": " Ann@Example.COM "})
    again = editor.post(page, {**data, "address": "ANN@example.com"})

    ann = Recipient.objects.get(address_key="ann@example.com")
    assert (ann.address, ann.domain) == ("Ann@example.com", "example.com")
    assert "address" in bad.context["adminform"].form.errors
    assert "address" in again.context["adminform"].form.errors


def test_unsubscribing_here_stops_mail_that_waits(ours: world.Tenant, editor: Client) -> None:
    row = Subscription.objects.get(list=ours.list)
    page = reverse("admin:campaigns_subscription_changelist")

    def act(name: str) -> None:
        editor.post(page, {"action": name, "_selected_action": [str(row.pk)], "index": "0"})
        row.refresh_from_db()

    act("unsubscribe")
    scope = f"list:{ours.list.pk}"
    assert row.state == "unsubscribed"
    assert Suppression.objects.filter(scope=scope, address_key="acme@example.com").exists()
    act("subscribe_again")
    assert row.state == "subscribed"
    assert not Suppression.objects.filter(scope=scope).exists()


def test_a_persons_page_tells_what_was_sent(ours: world.Tenant, editor: Client) -> None:
    page = editor.get(reverse("admin:campaigns_recipient_change", args=[ours.recipient.pk]))

    text = page.content.decode()
    assert ours.mailing.name in text
    assert reverse("admin:mailer_message_change", args=[ours.message.pk]) in text


def test_a_list_says_how_many_people_it_has(
    ours: world.Tenant, editor: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = reverse("admin:campaigns_list_changelist")
    assert editor.get(page).context["cl"].result_list[0].people.number == 1

    monkeypatch.setattr("campaigns.admin.list_counts.EXACT_UP_TO", 0)
    assert str(editor.get(page).context["cl"].result_list[0].people).startswith("about ")


# Large tables ------------------------------------------------------------------------

LARGE = ["mailer_message", "mailer_attempt", "campaigns_recipient", "campaigns_subscription"]


@pytest.mark.parametrize("name", LARGE)
def test_large_tables_are_never_counted(name: str, ours: world.Tenant, root: Client) -> None:
    page = reverse(f"admin:{name}_changelist")

    chosen = f"?mailing={ours.mailing.pk}" if name.startswith("mailer") else "?state=subscribed"
    questions = ["", "?q=acme@example.com", "?p=3"]
    if name != "campaigns_recipient":
        questions.append(chosen)
    for question in questions:
        with CaptureQueriesContext(connection) as seen:
            assert root.get(page + question).status_code == 200
        counted = [q["sql"] for q in seen if f'COUNT(*) AS "__count" FROM "{name}"' in q["sql"]]
        assert not counted
        read = [q["sql"] for q in seen if q["sql"].startswith("SELECT") and f'"{name}"' in q["sql"]]
        assert all(" LIMIT " in sql for sql in read)


def test_a_question_that_reads_too_much_is_given_up_and_said_so(
    ours: world.Tenant, root: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    endless = RawSQL("(SELECT 1 FROM pg_sleep(20))", [])
    monkeypatch.setattr("deliverability.admin.large.TIMEOUT_MS", 50)
    monkeypatch.setattr(RecipientAdmin, "ordering", (endless,))

    page = root.get(reverse("admin:campaigns_recipient_changelist"))

    assert "That would take too long" in page.content.decode()
    assert Recipient.objects.count() == 1  # the connection is in order, without the limit


def test_messages_are_found_by_address_and_by_number(ours: world.Tenant, operator: Client) -> None:
    page = reverse("admin:mailer_message_changelist")

    def found(question: str) -> list[int]:
        return [row.pk for row in operator.get(page + question).context["cl"].result_list]

    assert found("") == []
    assert found("?q=Acme@Example.com") == [ours.message.pk]
    assert found(f"?q={ours.message.pk}") == [ours.message.pk]
    assert found("?q=99999999999999999999999") == []
    assert found("?q=acme") == []
    assert found(f"?mailing={ours.mailing.pk}") == [ours.message.pk]
    assert found(f"?mailing={ours.mailing.pk}&state=delivered") == []


def test_the_search_uses_the_messages_keys(ours: world.Tenant, operator: Client) -> None:
    for term in ("acme@example.com", str(ours.message.pk)):
        with CaptureQueriesContext(connection) as seen:
            operator.get(reverse("admin:mailer_message_changelist") + f"?q={term}")
        asked = [
            q["sql"] for q in seen if "mailer_message" in q["sql"] and "SAVEPOINT" not in q["sql"]
        ]
        assert asked
        for sql in asked:
            with connection.cursor() as cursor:
                cursor.execute("SET LOCAL enable_seqscan = off")
                cursor.execute("EXPLAIN " + sql)
                plan = "\n".join(row[0] for row in cursor.fetchall())
            assert "Seq Scan on mailer_message" not in plan, plan
            assert re.search(r"Index Cond: .*mailing_day", plan), plan


def test_a_messages_page_tells_its_whole_life(ours: world.Tenant, operator: Client) -> None:
    page = operator.get(reverse("admin:mailer_message_change", args=[ours.message.pk]))

    text = page.content.decode()
    for part in ("550 5.1.1", "no such user", "Acme-source", "mx.Acme.example", "recipient"):
        assert part in text


@pytest.mark.parametrize("name", ["message", "mailing", "batch", "attempt"])
def test_the_engines_tables_are_not_edited(name: str, ours: world.Tenant, root: Client) -> None:
    pk = ours.message.pk if name in {"message", "attempt"} else ours.mailing.pk
    before = list(Message.objects.values())

    assert root.get(reverse(f"admin:mailer_{name}_add")).status_code == 403
    for page in ("change", "delete"):
        answer = root.post(reverse(f"admin:mailer_{name}_{page}", args=[pk]), {"post": "yes"})
        assert answer.status_code in {302, 403}
    assert list(Message.objects.values()) == before


def test_every_page_of_a_superuser_opens(ours: world.Tenant, root: Client) -> None:
    from django.contrib import admin

    wide = world.installation_wide()
    for model in admin.site._registry:
        name = f"admin:{model._meta.app_label}_{model._meta.model_name}"
        obj = {**ours.objects, **wide}[model]
        assert root.get(reverse(f"{name}_changelist")).status_code == 200, name
        assert root.get(reverse(f"{name}_add")).status_code in {200, 403}, name
        assert root.get(reverse(f"{name}_change", args=[obj.pk])).status_code in {200, 302}, name
        assert root.get(reverse(f"{name}_history", args=[obj.pk])).status_code in {200, 302}, name
