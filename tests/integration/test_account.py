"""The conservation law: every message is somewhere, and what says otherwise is found."""

from __future__ import annotations

import pytest
from django.db import IntegrityError, connection
from django.db.models import F

from mailer import account, conservation, outbox
from mailer.models import Expansion, MailingDelta, Message
from mailer.transport.memory import HANGS_UP, Treatment
from tests.integration.world import GMAIL, World, audience, people

pytestmark = pytest.mark.django_db


def test_an_account_tells_every_state_and_what_was_left_out(world: World) -> None:
    world.servers[GMAIL].treatments = {
        "r1@gmail.com": Treatment(rcpt="550 5.1.1 No such user"),
        "r2@gmail.com": Treatment(content=HANGS_UP),
        "r3@gmail.com": Treatment(rcpt="451 4.3.2 Later"),
    }
    mailing = world.open_mailing()
    outbox.accept_page(mailing, *audience(people(6), {6: "unsubscribed"}))
    world.work()

    found = world.check(mailing.pk)

    assert set(found.states) == set(account.STATES)
    assert {state: n for state, n in found.states.items() if n} == {
        "bounced": 1,
        "in_doubt": 1,
        "waiting": 1,
        "delivered": 2,
    }
    assert (found.matched, found.audience, found.excluded) == (6, 5, {"unsubscribed": 1})
    assert (found.undelivered, found.is_settled, found.is_finished) == (3, False, False)
    assert found.to_json()["audience"] == 5


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda m: Message.objects.filter(address="r1@gmail.com").delete(), "the rows 2"),
        (lambda m: Message.objects.update(state="delivered"), "waiting: the account says 3"),
        (lambda m: Message.objects.update(attempts=1), "attempts: the account says 0, the rows 3"),
        (
            lambda m: MailingDelta.objects.create(mailing_id=m.pk, entry="dead", delta=1),
            "dead: the account says 1, the rows 0",
        ),
        (
            lambda m: Expansion.objects.filter(mailing=m).update(matched=F("matched") + 1),
            "matched 4, but audience and exclusions make 3",
        ),
    ],
)
def test_whatever_breaks_the_law_is_named(
    world: World, damage: object, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    mailing = world.mailing_to(people(3))
    assert account.recount(mailing.pk).holds

    damage(mailing)  # type: ignore[operator]

    (recount,) = [
        one for one in conservation.check_recent() if one.account.mailing_id == mailing.pk
    ]
    assert not recount.holds
    assert any(words in broken for broken in recount.broken)
    assert "mailer.conservation.broken" in caplog.text


@pytest.mark.parametrize(
    ("statement", "refusal"),
    [
        ("UPDATE mailer_message SET state = 'sent'", "check constraint"),
        ("UPDATE mailer_message SET state = 'delivered', due_at = now()", "check constraint"),
        ("UPDATE mailer_message SET attempts = -1", "check constraint"),
        (
            "INSERT INTO mailer_message (mailing_day, mailing_id, dedup_key, address,"
            " recipient_domain, state) SELECT mailing_day, mailing_id, dedup_key, address,"
            " recipient_domain, 'waiting' FROM mailer_message",
            "duplicate key",
        ),
    ],
)
def test_the_database_itself_refuses_what_no_message_can_be(
    world: World, statement: str, refusal: str
) -> None:
    world.mailing_to(people(1))

    with pytest.raises(IntegrityError, match=refusal), connection.cursor() as cursor:
        cursor.execute(statement)


def test_accounts_of_many_take_two_queries(world: World, django_assert_num_queries: object) -> None:
    ids = [world.mailing_to(people(2)).pk for _ in range(4)]

    with django_assert_num_queries(2):  # type: ignore[operator]
        found = account.accounts_of([*ids, 999_999])

    assert sorted(found) == ids
    assert {one.audience for one in found.values()} == {2}


def test_a_mailing_nobody_knows_has_no_account(db: None) -> None:
    with pytest.raises(KeyError):
        account.account_of(999_999)
