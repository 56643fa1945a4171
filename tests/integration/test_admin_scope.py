"""Nobody sees or changes anything of another workspace, on any page of the admin."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib import admin
from django.db import models
from django.http import HttpResponse
from django.test import Client
from django.urls import reverse

from deliverability.models import Pool, Role, Source, Workspace
from tests.integration import admin_world as world

pytestmark = pytest.mark.django_db

REGISTERED = sorted(admin.site._registry, key=lambda model: model._meta.label)
MODELS = [pytest.param(model, id=model._meta.label) for model in REGISTERED]


@pytest.fixture
def ours() -> world.Tenant:
    return world.tenant("Acme")


@pytest.fixture
def theirs() -> world.Tenant:
    return world.tenant("GLOBEXSECRET")


@pytest.fixture
def operator(ours: world.Tenant) -> Client:
    """The strongest role that is not a superuser's."""
    return world.signed_in(world.member(ours, Role.OPERATOR))


@pytest.fixture
def foreign(theirs: world.Tenant) -> dict[type[models.Model], Any]:
    """One object of every registered model that our operator must not reach."""
    found = {**theirs.objects, **world.installation_wide()}
    unknown = [model._meta.label for model in REGISTERED if model not in found]
    assert not unknown, f"teach tests/integration/admin_world.py to make {unknown}"
    return found


def name_of(model: type[models.Model], page: str) -> str:
    return f"admin:{model._meta.app_label}_{model._meta.model_name}_{page}"


def text_of(response: HttpResponse) -> str:
    body = b"".join(response) if response.streaming else response.content  # type: ignore[arg-type]
    return body.decode()


def is_silent(response: HttpResponse) -> bool:
    text = text_of(response).lower()
    return "globexsecret" not in text and "systemonly" not in text


def row_of(obj: Any) -> dict[str, Any] | None:
    return type(obj)._default_manager.filter(pk=obj.pk).values().first()


def object_pages(model: type[models.Model]) -> Iterator[str]:
    """The names of every page of the model that is about one object, built in or our own."""
    for pattern in admin.site._registry[model].get_urls():
        if pattern.name and "object_id" in str(pattern.pattern):
            yield f"admin:{pattern.name}"


def arguments(page: str, obj: Any) -> list[Any]:
    return [obj.pk, 1] if page.endswith("_version") else [obj.pk]


@pytest.mark.parametrize("model", MODELS)
def test_lists_and_searches_show_nothing_of_another_workspace(
    model: Any, operator: Client, foreign: dict[Any, Any], theirs: world.Tenant
) -> None:
    page = reverse(name_of(model, "changelist"))
    other = theirs.workspace.pk
    questions = [
        {},
        {"workspace": other},
        {"mailing": theirs.mailing.pk},
        {"list": theirs.list.pk},
        {"q": str(foreign[model].pk)},
        {"q": "globexsecret@example.com"},
        {"q": "gone-globexsecret@example.com"},
        {"id__exact": str(foreign[model].pk)},
        {"workspace__name__startswith": "GLOBEX"},
    ]
    for question in questions:
        response = operator.get(page, question)
        shown = {key: value for key, value in question.items() if key != "q"}
        # The page repeats what was searched for; the rows are what matters.
        assert response.status_code in {200, 302, 400, 403}, question
        if response.status_code == 200 and "q" in question:
            rows = response.context["cl"].result_list
            assert foreign[model].pk not in [row.pk for row in rows], question
        else:
            assert is_silent(response), shown


@pytest.mark.parametrize("model", MODELS)
def test_pages_of_another_workspaces_object_do_not_open(
    model: Any, operator: Client, foreign: dict[Any, Any]
) -> None:
    obj = foreign[model]
    before = row_of(obj)
    for page in object_pages(model):
        url = reverse(page, args=arguments(page, obj))
        for response in (operator.get(url), operator.post(url, {"post": "yes", "typed": "send"})):
            assert response.status_code in {302, 403, 404, 405}, page
            assert is_silent(response), page
    assert row_of(obj) == before


@pytest.mark.parametrize("model", MODELS)
def test_actions_do_not_touch_another_workspaces_rows(
    model: Any, operator: Client, foreign: dict[Any, Any]
) -> None:
    obj = foreign[model]
    before = row_of(obj)
    names = {
        "delete_selected",
        *(
            action if isinstance(action, str) else action.__name__
            for action in admin.site._registry[model].actions or ()
        ),
    }
    for name in names:
        data = {
            "action": name,
            "_selected_action": [str(obj.pk)],
            "index": "0",
            "select_across": "1",
            "post": "yes",
        }
        response = operator.post(reverse(name_of(model, "changelist")), data)
        assert response.status_code in {200, 302, 403}
    assert row_of(obj) == before


def autocompleted() -> list[Any]:
    found = []
    for model in REGISTERED:
        for one in [*model._meta.fields, *model._meta.many_to_many]:
            if one.remote_field:
                found.append(pytest.param(model, one.name, id=f"{model._meta.label}.{one.name}"))
    return found


@pytest.mark.parametrize(("model", "name"), autocompleted())
def test_autocompletion_offers_nothing_of_another_workspace(
    model: Any, name: str, operator: Client, foreign: dict[Any, Any]
) -> None:
    for term in ("", "globexsecret", "globexsecret@example.com", "systemonly"):
        response = operator.get(
            reverse("admin:autocomplete"),
            {
                "app_label": model._meta.app_label,
                "model_name": model._meta.model_name,
                "field_name": name,
                "term": term,
            },
        )
        assert response.status_code in {200, 403, 404}
        assert is_silent(response) or response.status_code == 404


@pytest.mark.parametrize("model", MODELS)
def test_forms_offer_nothing_of_another_workspace(
    model: Any, operator: Client, foreign: dict[Any, Any], ours: world.Tenant
) -> None:
    pages = [reverse(name_of(model, "add"))]
    if model in ours.objects:
        pages.append(reverse(name_of(model, "change"), args=[ours.objects[model].pk]))
    for page in pages:
        assert is_silent(operator.get(page)), page


def test_the_first_page_and_the_search_say_nothing_of_another_workspace(
    operator: Client, foreign: dict[Any, Any]
) -> None:
    for url in (reverse("admin:index"), reverse("admin:search") + "?s=globexsecret"):
        assert is_silent(operator.get(url))


def test_a_posted_form_cannot_name_another_workspaces_things(
    operator: Client, ours: world.Tenant, theirs: world.Tenant
) -> None:
    good = {
        "workspace": ours.workspace.pk,
        "name": "new",
        "lists": [ours.list.pk],
        "template": ours.template.pk,
        "pool": ours.pool.pk,
        "from_header": "a@example.com",
        "priority": 2,
        "retry_policy": "exponential",
    }
    page = reverse("admin:campaigns_campaign_add")
    swapped = {
        "workspace": theirs.workspace.pk,
        "lists": [theirs.list.pk],
        "template": theirs.template.pk,
        "pool": theirs.pool.pk,
    }
    for name, value in swapped.items():
        response = operator.post(page, {**good, name: value})
        assert response.status_code == 200
        assert name in response.context["adminform"].form.errors
    assert operator.post(page, good).status_code == 302


def test_who_is_in_two_workspaces_cannot_mix_them(ours: world.Tenant, theirs: world.Tenant) -> None:
    user = world.member(ours, Role.SENDER)
    theirs.workspace.memberships.create(user=user, role=Role.SENDER)
    page = reverse("admin:campaigns_campaign_change", args=[ours.draft.pk])
    data = {
        "name": "mixed",
        "lists": [theirs.list.pk],
        "template": ours.template.pk,
        "pool": ours.pool.pk,
        "from_header": "a@example.com",
        "priority": 2,
        "retry_policy": "exponential",
    }

    response = world.signed_in(user).post(page, data)

    assert "lists" in response.context["adminform"].form.errors


def test_a_row_cannot_be_moved_to_another_workspace(
    operator: Client, ours: world.Tenant, theirs: world.Tenant
) -> None:
    page = reverse("admin:campaigns_list_change", args=[ours.list.pk])

    operator.post(page, {"name": "kept", "workspace": theirs.workspace.pk})

    ours.list.refresh_from_db()
    assert (ours.list.name, ours.list.workspace_id) == ("kept", ours.workspace.pk)


def test_shared_pools_are_used_by_all_and_edited_by_superusers_only(
    operator: Client, ours: world.Tenant
) -> None:
    shared = Pool.objects.create(workspace=None, name="Shared pool")
    source = Source.objects.create(
        pool=shared, name="shared-source", helo_name="x.example", relay_username="AN-ACCOUNT"
    )
    form = operator.get(reverse("admin:campaigns_campaign_add")).context["adminform"].form
    assert set(form.fields["pool"].queryset) == {shared, ours.pool}

    for page in (
        reverse("admin:deliverability_pool_change", args=[shared.pk]),
        reverse("admin:deliverability_source_change", args=[source.pk]),
    ):
        shown = operator.get(page)
        assert shown.status_code == 200
        assert "AN-ACCOUNT" not in text_of(shown)
        assert operator.post(page, {"name": "mine now"}).status_code == 403
    sources = operator.get(reverse("admin:deliverability_source_add")).context["adminform"].form
    assert set(sources.fields["pool"].queryset) == {ours.pool}


def test_only_a_superuser_makes_a_pool_that_all_share(operator: Client) -> None:
    response = operator.post(
        reverse("admin:deliverability_pool_add"), {"name": "for all", "workspace": ""}
    )

    assert "workspace" in response.context["adminform"].form.errors


WRITING = {
    Role.VIEWER: set(),
    Role.EDITOR: {"campaigns_campaign", "campaigns_template", "campaigns_list"},
    Role.SENDER: {"campaigns_campaign", "campaigns_template", "campaigns_list"},
    Role.OPERATOR: {
        "campaigns_campaign",
        "campaigns_template",
        "campaigns_list",
        "deliverability_pool",
        "deliverability_source",
        "deliverability_hold",
    },
}


@pytest.mark.parametrize("role", list(Role))
def test_what_a_role_may_add(role: Role, ours: world.Tenant) -> None:
    client = world.signed_in(world.member(ours, role))
    may = {
        name
        for name in WRITING[Role.OPERATOR] | {"deliverability_workspace"}
        if client.get(reverse(f"admin:{name}_add")).status_code == 200
    }

    assert may == WRITING[role]


@pytest.mark.parametrize(
    ("role", "may_send"),
    [(Role.VIEWER, False), (Role.EDITOR, False), (Role.SENDER, True), (Role.OPERATOR, True)],
)
def test_sending_needs_the_role_of_a_sender(role: Role, may_send: bool, ours: world.Tenant) -> None:
    client = world.signed_in(world.member(ours, role))
    page = reverse("admin:campaigns_campaign_pause", args=[ours.sending.pk])

    response = client.post(page)

    ours.sending.refresh_from_db()
    assert response.status_code == (302 if may_send else 403)
    assert ours.sending.state == ("paused" if may_send else "sending")


@pytest.mark.parametrize("page", ["launch", "pause", "resume", "cancel"])
def test_an_editor_reaches_no_page_that_sends(page: str, ours: world.Tenant) -> None:
    client = world.signed_in(world.member(ours, Role.EDITOR))
    url = reverse(f"admin:campaigns_campaign_{page}", args=[ours.draft.pk])

    assert client.get(url).status_code == 403
    assert client.post(url).status_code == 403


def test_somebody_without_a_workspace_sees_nothing(theirs: world.Tenant) -> None:
    client = world.signed_in(world.person("newcomer"))

    assert is_silent(client.get(reverse("admin:index")))
    for model in REGISTERED:
        assert client.get(reverse(name_of(model, "changelist"))).status_code == 403


def test_a_person_who_is_no_staff_does_not_come_in(ours: world.Tenant) -> None:
    user = world.member(ours, Role.OPERATOR)
    user.is_staff = False
    user.save()

    response = world.signed_in(user).get(reverse("admin:index"))

    assert response.status_code == 302
    assert "login" in response["Location"]


def test_a_superuser_sees_all_workspaces(ours: world.Tenant, theirs: world.Tenant) -> None:
    client = world.signed_in(world.person("root", superuser=True))

    shown = text_of(client.get(reverse("admin:campaigns_campaign_changelist")))

    assert ours.draft.name in shown
    assert theirs.draft.name in shown
    assert Workspace.objects.count() == 2
