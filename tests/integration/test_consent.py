"""The unsubscribe page and one-click, as readers, mail programs and link scanners use them."""

from __future__ import annotations

import re

import pytest
from django.test import Client

from campaigns import consent, expansion, launch
from campaigns.models import Subscription
from deliverability.models import Suppression
from mailer import conf
from mailer.core.tokens import Purpose, sign
from mailer.models import Message
from tests.integration.campaign_world import NOW, World, make_world

pytestmark = pytest.mark.django_db

ONE_CLICK = "List-Unsubscribe=One-Click"
FORM = "application/x-www-form-urlencoded"


@pytest.fixture
def world(db) -> World:
    return make_world()


@pytest.fixture
def browser() -> Client:
    """Without a CSRF exemption of the test client's own."""
    return Client(enforce_csrf_checks=True)


def sent(world: World, *lists: object) -> Message:
    campaign = world.campaign(*lists)
    mailing_id = launch.launch(campaign.pk, actor="ann", now=NOW).mailing_id
    expansion.expand_step(mailing_id, 10)
    return Message.objects.filter(mailing_id=mailing_id).order_by("id").first()


def link_of(message: Message, recipient_id: int | None = None) -> str:
    token = sign(
        conf.token_keys()[0],
        Purpose.UNSUBSCRIBE,
        message.mailing_day,
        message.mailing_id,
        message.pk,
        message.recipient_id if recipient_id is None else recipient_id,
    )
    return f"/u/{token}"


def everything() -> tuple[list[object], list[object]]:
    subscriptions = Subscription.objects.order_by("id").values_list("id", "state", "changed_at")
    return list(subscriptions), list(Suppression.objects.order_by("id").values_list())


def states() -> list[str]:
    return list(Subscription.objects.order_by("id").values_list("state", flat=True))


def scopes() -> list[str]:
    return sorted(Suppression.objects.values_list("scope", flat=True))


@pytest.mark.parametrize("method", ["get", "head"])
def test_looking_at_the_page_changes_nothing(world, browser, method) -> None:
    message = sent(world, world.list("R", world.recipient("ann@b.example")))
    before = everything()
    answer = getattr(browser, method)(link_of(message))

    assert answer.status_code == 200
    assert everything() == before


def test_the_page_asks_first_and_shows_who_would_be_unsubscribed_from_whom(world, browser) -> None:
    message = sent(world, world.list("R", world.recipient("annabel@b.example")))
    page = browser.get(link_of(message)).content.decode()

    assert '<form method="post">' in page
    assert "a…l@b.example" in page
    assert "annabel" not in page
    assert "Acme &amp; Co" in page


def test_the_button_of_the_page_unsubscribes(world, browser) -> None:
    readers = world.list("R", world.recipient("ann@b.example"), world.recipient("bob@b.example"))
    answer = browser.post(link_of(sent(world, readers)))

    assert answer.status_code == 200
    assert "You are unsubscribed" in answer.content.decode()
    assert states() == ["unsubscribed", "subscribed"]
    row = Suppression.objects.get()
    assert (row.address_key, row.scope) == ("ann@b.example", f"list:{readers.pk}")
    assert row.reason == "unsubscribed"


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (ONE_CLICK, FORM),
        (
            f'--x\r\nContent-Disposition: form-data; name="{ONE_CLICK.split("=")[0]}"\r\n\r\n'
            "One-Click\r\n--x--\r\n",
            "multipart/form-data; boundary=x",
        ),
        ("", FORM),
        ("no form at all", "multipart/form-data"),
        ('{"a": 1}', "application/json"),
    ],
)
def test_one_click_unsubscribes_without_cookie_redirect_or_question(
    world, browser, body, kind
) -> None:
    message = sent(world, world.list("R", world.recipient("ann@b.example")))
    answer = browser.post(link_of(message), body, content_type=kind)

    assert answer.status_code == 200
    assert not answer.cookies
    assert states() == ["unsubscribed"]


def test_unsubscribing_again_changes_nothing_and_says_the_same(world, browser) -> None:
    link = link_of(sent(world, world.list("R", world.recipient("ann@b.example"))))
    first = browser.post(link, ONE_CLICK, content_type=FORM)
    before = everything()
    second = browser.post(link)

    assert second.content == first.content
    assert everything() == before


def test_a_campaign_to_several_lists_is_left_as_a_whole(world, browser) -> None:
    ann = world.recipient("ann@b.example")
    one, two = world.list("One", ann), world.list("Two", ann)
    untouched = world.list("Other", ann)
    message = sent(world, one, two)
    browser.post(link_of(message))

    by_list = dict(Subscription.objects.values_list("list__name", "state"))
    assert by_list == {"One": "unsubscribed", "Two": "unsubscribed", "Other": "subscribed"}
    campaign = f"campaign:{world.workspace.campaigns.get().pk}"
    assert scopes() == sorted([campaign, f"list:{one.pk}", f"list:{two.pk}"])
    assert f"list:{untouched.pk}" not in scopes()


def test_the_next_campaign_to_the_list_leaves_the_unsubscribed_out(world, browser) -> None:
    readers = world.list("R", world.recipient("ann@b.example"), world.recipient("bob@b.example"))
    browser.post(link_of(sent(world, readers)))
    again = sent(world, readers)

    assert again.address == "bob@b.example"


def test_a_recipient_who_was_deleted_is_suppressed_by_the_address_of_the_message(
    world, browser
) -> None:
    ann = world.recipient("Ann@b.example")
    message = sent(world, world.list("R", ann))
    ann.delete()
    answer = browser.post(link_of(message))

    assert answer.status_code == 200
    assert Suppression.objects.get().address_key == "ann@b.example"


def test_a_link_of_a_mailing_that_is_gone_unsubscribes_from_everything(world, browser) -> None:
    ann = world.recipient("ann@b.example")
    message = sent(world, world.list("R", ann))
    message.mailing_id = 424242
    answer = browser.post(link_of(message))

    assert answer.status_code == 200
    assert scopes() == ["workspace"]


def test_a_link_of_which_nothing_is_left_says_so(world, browser) -> None:
    message = sent(world, world.list("R", world.recipient("ann@b.example")))
    message.mailing_id = 424242

    assert browser.post(link_of(message, recipient_id=0)).status_code == 404


def test_a_recipient_of_another_workspace_is_never_touched(world, browser) -> None:
    message = sent(world, world.list("R", world.recipient("ann@b.example")))
    other = make_world("globex")
    stranger = other.recipient("stranger@b.example")
    other.list("Theirs", stranger)
    browser.post(link_of(message, recipient_id=stranger.pk))

    assert Suppression.objects.filter(workspace=other.workspace).count() == 0
    assert dict(Subscription.objects.values_list("recipient__address", "state")) == {
        "ann@b.example": "unsubscribed",
        "stranger@b.example": "subscribed",
    }


@pytest.mark.parametrize("method", ["get", "post"])
@pytest.mark.parametrize(
    "spoil",
    [
        lambda link: link[:-1],
        lambda link: link[:-1] + ("0" if link[-1] != "0" else "1"),
        lambda link: re.sub(r"\.[0-9a-f]+\.([0-9a-f]{24})$", r".1\1", link),
        lambda link: "/u/x",
        lambda link: "/u/" + "a" * 4_000,
        lambda link: "/u/%00%0d%0aSet-Cookie:x",
        lambda link: "/u/<script>alert(1)</script>",
        lambda link: link.replace("/u/u", "/u/c"),
    ],
)
def test_a_link_that_is_damaged_or_forged_is_a_page_in_clear_words(
    world, browser, method, spoil
) -> None:
    link = link_of(sent(world, world.list("R", world.recipient("ann@b.example"))))
    answer = getattr(browser, method)(spoil(link))

    assert answer.status_code == 404
    assert "<script>" not in answer.content.decode()
    if not spoil(link).startswith("/u/<"):
        assert "This link does not work" in answer.content.decode()
    assert states() == ["subscribed"]


def test_a_token_for_another_purpose_does_not_unsubscribe(world, browser) -> None:
    message = sent(world, world.list("R", world.recipient("ann@b.example")))
    token = sign(
        conf.token_keys()[0],
        Purpose.CLICK,
        message.mailing_day,
        message.mailing_id,
        message.pk,
        message.recipient_id,
    )

    assert browser.post(f"/u/{token}").status_code == 404
    assert states() == ["subscribed"]


def test_a_link_signed_with_the_key_before_still_works(world, browser, settings) -> None:
    link = link_of(sent(world, world.list("R", world.recipient("ann@b.example"))))
    settings.SECRET_KEY_FALLBACKS = [settings.SECRET_KEY]
    settings.SECRET_KEY = "another-secret-key-that-is-long-enough-0123456789"

    assert browser.get(link).status_code == 200
    settings.SECRET_KEY_FALLBACKS = []
    assert browser.get(link).status_code == 404


@pytest.mark.parametrize("method", ["put", "delete", "patch"])
def test_other_methods_are_refused(world, browser, method) -> None:
    link = link_of(sent(world, world.list("R", world.recipient("ann@b.example"))))

    assert getattr(browser, method)(link).status_code == 405
    assert states() == ["subscribed"]


def test_the_page_loads_nothing_from_elsewhere_and_is_kept_nowhere(world, browser) -> None:
    link = link_of(sent(world, world.list("R", world.recipient("ann@b.example"))))
    answer = browser.get(link)
    page = answer.content.decode()

    assert not re.search(r"https?://|src=|@import|<script", page)
    assert 'name="viewport"' in page
    assert "prefers-color-scheme: dark" in page
    assert answer["Cache-Control"] == "no-store"
    assert answer["Referrer-Policy"] == "no-referrer"
    assert "default-src 'none'" in answer["Content-Security-Policy"]
    assert not answer.cookies


def test_what_the_page_shows_is_escaped(world, browser) -> None:
    world.workspace.name = "<img src=x onerror=alert(1)>"
    world.workspace.save()
    link = link_of(sent(world, world.list("R", world.recipient("ann@b.example"))))

    assert "<img" not in browser.get(link).content.decode()


def test_subscribing_anew_lifts_the_suppression_of_that_list_only(world) -> None:
    ann = world.recipient("ann@b.example")
    one, two = world.list("One", ann), world.list("Two", ann)
    for into in (one, two):
        bearer = consent.Bearer(
            world.workspace, ann.address, ann.address_key, (f"list:{into.pk}",), (into.pk,)
        )
        assert consent.unsubscribe(bearer, now=NOW)
        assert not consent.unsubscribe(bearer, now=NOW)
    consent.subscribe(ann, one, origin="the form", now=NOW)

    assert scopes() == [f"list:{two.pk}"]
    assert dict(Subscription.objects.values_list("list__name", "state")) == {
        "One": "subscribed",
        "Two": "unsubscribed",
    }
