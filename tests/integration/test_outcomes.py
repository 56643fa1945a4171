"""Recording outcomes: all of a batch at once, each of them once, whatever servers say."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from deliverability.core.outcome import OutcomeKind, Phase, Reply
from deliverability.models import Suppression
from mailer import outbox, outcomes
from mailer.core.lifecycle import MessageEvent
from mailer.core.retry import policy_from
from mailer.core.settlement import Standing
from mailer.models import Attempt, Batch, Mailing, Message
from mailer.outcomes import Claim, Rest, Seen, Waiting
from tests.integration.world import World, in_threads, now, people

pytestmark = pytest.mark.django_db
JOURNAL = "6f2d0c9e-8a54-4a0e-9d0e-0123456789ab"
OK = Reply(250, "2.0.0", "Ok", Phase.CONTENT)
UNKNOWN = Reply(550, "5.1.1", "No such user here", Phase.RCPT)


def taken(world: World, count: int) -> tuple[Mailing, Claim, dict[int, Waiting]]:
    """A batch that this worker has taken and loaded."""
    mailing = world.mailing_to(people(count))
    (batch,) = world.batches(mailing)
    Batch.objects.filter(pk=batch.pk).update(state="taken", journal_id=JOURNAL, provider="gmail")
    batch.refresh_from_db()
    policy = policy_from(mailing.retry)
    claim = Claim(
        batch.pk,
        batch.journal_id,  # type: ignore[arg-type]
        mailing.day,
        mailing.pk,
        world.workspace.pk,
        "gmail",
        policy,
    )
    rows = Message.objects.filter(mailing_id=mailing.pk).order_by("id")
    loaded = {r.pk: Waiting(Standing(r.pk, 0, 0, r.queued_at), r.address) for r in rows}
    return mailing, claim, loaded


def seen(world: World, reply: Reply = OK, kind: OutcomeKind = OutcomeKind.ACCEPTED) -> Seen:
    return Seen(1, now(), kind, reply, "mx.test", world.source.pk)


def record(claim: Claim, messages: dict[int, Waiting], told: dict[int, Seen], **rest: Any) -> None:
    still_out = rest.pop("still_out", ())
    aside = rest.pop("aside", {})
    outcomes.record(claim, messages, told, aside, Rest(**rest), still_out=still_out, now=now())


def batch_of(claim: Claim) -> Batch:
    return Batch.objects.get(pk=claim.batch_id)


def test_a_whole_batch_costs_the_same_few_statements(world: World) -> None:
    counts = []
    for size in (2, 150):
        _, claim, messages = taken(world, size)
        told = {key: seen(world, OK if key % 2 else UNKNOWN) for key in messages}
        with CaptureQueriesContext(connection) as queries:
            record(claim, messages, told)
        counts.append(len(queries))
        Suppression.objects.all().delete()

    assert counts[0] == counts[1] <= 12


def test_the_same_outcomes_count_once_however_often_they_are_told(
    transactional_db: None, world: World
) -> None:
    mailing, claim, messages = taken(world, 40)
    told = {key: seen(world) for key in messages}
    ids = list(messages)

    def tell(_: int) -> int:
        try:
            record(claim, messages, told, still_out=ids[:1])
        except outcomes.ClaimLost:
            return 0
        return 1

    assert sum(in_threads(4, tell)) >= 1

    assert world.states(mailing) == {"delivered": 40}
    assert world.check(mailing.pk).attempts == 40
    assert Attempt.objects.filter(mailing_id=mailing.pk).count() == 40


def test_the_rest_goes_back_and_what_is_out_stays_taken(world: World) -> None:
    mailing, claim, messages = taken(world, 6)
    ids = list(messages)

    record(
        claim,
        messages,
        {ids[0]: seen(world)},
        ids=ids[3:],
        waits_for="a cap",
        due_at=now(),
        still_out=ids[1:3],
    )

    assert (batch_of(claim).state, batch_of(claim).ids) == ("taken", ids[1:3])
    (back,) = world.batches(mailing, state="untaken")
    assert (back.ids, back.waits_for, back.provider) == (ids[3:], "a cap", "gmail")

    record(claim, messages, {ids[1]: seen(world)}, ids=[ids[2]])
    assert (batch_of(claim).state, batch_of(claim).ids) == ("untaken", [ids[2]])
    assert (batch_of(claim).journal_id, batch_of(claim).source_id) == (None, None)
    assert world.states(mailing) == {"delivered": 2, "waiting": 4}


def test_the_rest_of_a_cancelled_mailing_is_cancelled(world: World) -> None:
    mailing, claim, messages = taken(world, 4)
    ids = list(messages)
    outbox.cancel(mailing.pk)

    record(claim, messages, {ids[0]: seen(world)}, ids=ids[1:])

    assert world.states(mailing) == {"delivered": 1, "cancelled": 3}
    assert batch_of(claim).state == "done"


def test_nothing_is_recorded_for_a_batch_that_is_not_ours(world: World) -> None:
    mailing, claim, messages = taken(world, 3)
    Batch.objects.update(state="untaken", journal_id=None)

    with pytest.raises(outcomes.ClaimLost):
        record(claim, messages, {key: seen(world) for key in messages})

    assert world.states(mailing) == {"waiting": 3}
    assert not Attempt.objects.exists()


def test_a_move_without_an_attempt_is_none(world: World) -> None:
    mailing, claim, messages = taken(world, 2)
    first, second = messages

    record(
        claim,
        messages,
        {},
        aside={
            first: (MessageEvent.SUPPRESSED, "complaint"),
            second: (MessageEvent.EXPIRED, "too_old"),
        },
    )

    assert world.states(mailing) == {"suppressed": 1, "expired": 1}
    assert world.check(mailing.pk).attempts == 0
    assert not Attempt.objects.exists()


@pytest.mark.parametrize(
    "text",
    ["nul \0 inside", "a lone \udc80 surrogate", "x" * 9_000, "ü" * 3_000, "'; DROP TABLE x"],
)
def test_whatever_a_server_says_can_be_recorded(world: World, text: str) -> None:
    mailing, claim, messages = taken(world, 1)
    (message_id,) = messages
    told = Seen(
        1, now(), OutcomeKind.ACCEPTED, Reply(550, "5.1.1", text, Phase.RCPT), text, world.source.pk
    )

    record(claim, messages, {message_id: told})

    assert world.check(mailing.pk).states["waiting"] == 0
    attempt = Attempt.objects.get()
    assert len(attempt.reply) <= 2_000
    assert attempt.reply[:8] == text.replace("\0", "�").encode("utf-8", "replace").decode()[:8]


@pytest.mark.parametrize(
    ("kind", "outcome"),
    [
        (OutcomeKind.UNREACHED, "unreached"),
        (OutcomeKind.IN_DOUBT, "in_doubt"),
        (OutcomeKind.BROKEN, "broken"),
    ],
)
def test_silence_is_never_taken_for_a_refusal(
    world: World, kind: OutcomeKind, outcome: str
) -> None:
    """Not even where the last words heard would have been one."""
    _, claim, messages = taken(world, 1)
    (message_id,) = messages

    record(claim, messages, {message_id: seen(world, UNKNOWN, kind)})

    assert Attempt.objects.get().outcome == outcome
    assert Message.objects.get(pk=message_id).state != "bounced"
    assert not Suppression.objects.exists()


def test_a_record_of_the_journal_gives_the_same_outcome_back(world: World) -> None:
    before = seen(world, UNKNOWN)

    after = Seen.from_record(before.attempt_no, before.to_record())

    assert after == before
