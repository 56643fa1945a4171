from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deliverability.core.outcome import Phase, Reply
from mailer.core.envelope import Envelope
from mailer.core.smtp import (
    Answered,
    Broken,
    Conversation,
    ConversationMisused,
    Fate,
    InDoubt,
    NotSent,
    Settled,
    Step,
)
from mailer.core.smtp_commands import Abilities
from mailer.transport.memory import MODERN, ServerDialogue, ServerScript, Treatment

CONTENT = b"Subject: Hello\r\n\r\nHello\r\n"
PIPELINED = Abilities(pipelining=True)
PLAIN = Abilities()


def an_envelope(number: int, **changes: object) -> Envelope:
    fields = {
        "message_id": number,
        "attempt_no": 1,
        "return_path": "b@s.test",
        "recipient": f"r{number}@x.test",
        "content": CONTENT,
        "is_dot_safe": True,
    }
    return Envelope(**{**fields, **changes})  # type: ignore[arg-type]


def said(conversation: Conversation) -> list[str]:
    return conversation.take_output().decode().splitlines()


def announced(abilities: Abilities, *, ready: bool = False) -> Conversation:
    conversation = Conversation(abilities)
    conversation.announce(an_envelope(1))
    conversation.take_output()
    if ready:
        conversation.receive(b"250 Ok\r\n250 Ok\r\n354 Go\r\n")
    return conversation


def fates(settled: list[Settled]) -> dict[int, Fate]:
    return {each.envelope.message_id: each.fate for each in settled}


def accepted(text: str = "Ok") -> Answered:
    return Answered(Reply(250, "", text, Phase.CONTENT))


# -- what is said, and when


def test_a_pipelined_envelope_is_announced_in_one_write() -> None:
    conversation = Conversation(PIPELINED)

    conversation.announce(an_envelope(1))

    assert said(conversation) == ["MAIL FROM:<b@s.test>", "RCPT TO:<r1@x.test>", "DATA"]
    assert not conversation.wants_envelope


def test_content_and_the_next_envelope_share_a_write() -> None:
    conversation = announced(PIPELINED, ready=True)

    conversation.hand_over()
    conversation.announce(an_envelope(2))

    assert said(conversation) == [
        *CONTENT.decode().splitlines(),
        ".",
        "MAIL FROM:<b@s.test>",
        "RCPT TO:<r2@x.test>",
        "DATA",
    ]
    settled = conversation.receive(b"250 2.0.0 queued\r\n250 Ok\r\n250 Ok\r\n354 Go\r\n")
    assert fates(settled) == {1: Answered(Reply(250, "2.0.0", "queued", Phase.CONTENT))}
    assert conversation.ready == an_envelope(2)


def test_without_pipelining_each_command_waits_for_its_reply() -> None:
    conversation = Conversation(PLAIN)
    conversation.announce(an_envelope(1))
    assert said(conversation) == ["MAIL FROM:<b@s.test>"]
    conversation.receive(b"250 Ok\r\n")
    assert said(conversation) == ["RCPT TO:<r1@x.test>"]
    conversation.receive(b"250 Ok\r\n")
    assert said(conversation) == ["DATA"]
    conversation.receive(b"354 Go\r\n")

    conversation.hand_over()

    assert said(conversation)[-1] == "."
    assert not conversation.wants_envelope
    assert fates(conversation.receive(b"250 Ok\r\n")) == {1: accepted()}
    assert conversation.wants_envelope


def test_a_refused_recipient_in_plain_mode_is_not_followed_by_data() -> None:
    conversation = announced(PLAIN)
    conversation.receive(b"250 Ok\r\n")
    said(conversation)

    settled = conversation.receive(b"550 5.1.1 gone\r\n")

    assert fates(settled) == {1: Answered(Reply(550, "5.1.1", "gone", Phase.RCPT))}
    assert said(conversation) == []


@pytest.mark.parametrize("abilities", [PIPELINED, PLAIN])
def test_a_transaction_left_open_is_reset_before_the_next(abilities: Abilities) -> None:
    conversation = announced(abilities)
    conversation.receive(b"250 Ok\r\n550 gone\r\n" + b"503 no\r\n" * abilities.pipelining)
    said(conversation)

    conversation.announce(an_envelope(2))

    assert said(conversation)[0] == "RSET"
    conversation.receive(b"250 Ok\r\n")
    assert conversation.over is None


def test_a_refused_sender_leaves_nothing_to_reset() -> None:
    conversation = announced(PIPELINED)
    conversation.receive(b"550 not you\r\n503 no\r\n503 no\r\n")

    conversation.announce(an_envelope(2))

    assert said(conversation)[0] == "MAIL FROM:<b@s.test>"


def test_quit_is_said_only_when_nothing_is_due() -> None:
    conversation = announced(PIPELINED)
    conversation.quit()
    assert said(conversation) == []
    conversation.receive(b"550 a\r\n550 b\r\n550 c\r\n")

    conversation.quit()

    assert said(conversation) == ["QUIT"]
    assert not conversation.wants_envelope
    conversation.receive(b"221 Bye\r\n")
    assert conversation.over == "we said QUIT"


def test_an_uninvited_call_is_our_own_fault() -> None:
    conversation = announced(PIPELINED)

    with pytest.raises(ConversationMisused):
        conversation.announce(an_envelope(2))
    with pytest.raises(ConversationMisused):
        conversation.hand_over()


def test_it_tells_what_it_waits_for() -> None:
    conversation = announced(PIPELINED)
    assert conversation.awaits is Step.MAIL
    conversation.receive(b"250 Ok\r\n250 Ok\r\n354 Go\r\n")
    assert conversation.awaits is None
    assert conversation.is_busy
    conversation.hand_over()
    assert conversation.awaits is Step.CONTENT


def test_content_that_never_left_the_output_is_not_in_doubt() -> None:
    conversation = announced(PIPELINED, ready=True)
    conversation.hand_over()

    told = fates(conversation.lose("our own fault"))

    assert told == {1: NotSent("our own fault", Phase.DATA)}
    assert conversation.take_output() == b""


# -- DATA accepted for nobody (RFC 2920 section 3.1)


def test_data_accepted_for_a_refused_recipient_is_ended_with_a_lone_dot() -> None:
    conversation = announced(PIPELINED)

    settled = conversation.receive(b"250 Ok\r\n550 5.1.1 gone\r\n354 Go\r\n")

    assert fates(settled) == {1: Answered(Reply(550, "5.1.1", "gone", Phase.RCPT))}
    assert conversation.ready is None
    conversation.announce(an_envelope(2))
    assert said(conversation) == [".", "MAIL FROM:<b@s.test>", "RCPT TO:<r2@x.test>", "DATA"]


@pytest.mark.parametrize("reply", [b"250 Ok\r\n", b"554 no valid recipients\r\n", b"451 x\r\n"])
def test_the_reply_to_a_lone_dot_is_nobodys(reply: bytes) -> None:
    conversation = announced(PIPELINED)
    conversation.receive(b"250 Ok\r\n550 gone\r\n354 Go\r\n")
    conversation.announce(an_envelope(2))

    assert conversation.receive(reply) == []
    conversation.receive(b"250 Ok\r\n250 Ok\r\n354 Go\r\n")
    conversation.hand_over()
    assert fates(conversation.receive(b"250 Ok\r\n")) == {2: accepted()}


def test_no_dot_is_sent_when_a_recipient_stands_though_the_sender_was_refused() -> None:
    conversation = announced(PIPELINED)

    settled = conversation.receive(b"550 not you\r\n250 Ok\r\n354 Go\r\n")

    assert fates(settled) == {1: Answered(Reply(550, "", "not you", Phase.MAIL))}
    assert conversation.over is not None
    assert said(conversation) == []


# -- 421


@pytest.mark.parametrize(
    ("before", "phase"),
    [
        (b"", Phase.MAIL),
        (b"250 Ok\r\n", Phase.RCPT),
        (b"250 Ok\r\n250 Ok\r\n", Phase.DATA),
        (b"250 Ok\r\n250 Ok\r\n354 Go\r\n", Phase.DATA),
    ],
)
def test_421_answers_the_message_that_was_being_begun(before: bytes, phase: Phase) -> None:
    conversation = announced(PIPELINED)
    conversation.receive(before)

    settled = conversation.receive(b"421 4.7.0 slow down\r\n250 ignored\r\n")

    reply = Reply(421, "4.7.0", "slow down", phase)
    assert fates(settled) == {1: Answered(reply)}
    assert conversation.closing_reply is not None
    assert conversation.closing_reply.text == "slow down"
    assert conversation.over == "the server closed the service: 421 slow down"


def test_421_in_mid_window_defers_the_content_and_spares_the_next() -> None:
    conversation = announced(PIPELINED, ready=True)
    conversation.hand_over()
    conversation.announce(an_envelope(2))

    settled = conversation.receive(b"421 4.3.2 shutting down\r\n")

    assert fates(settled) == {
        1: Answered(Reply(421, "4.3.2", "shutting down", Phase.CONTENT)),
        2: NotSent("the server closed the service: 421 shutting down", Phase.MAIL),
    }


def test_an_earlier_refusal_outlives_a_421() -> None:
    conversation = announced(PIPELINED)

    settled = conversation.receive(b"250 Ok\r\n550 gone\r\n421 bye\r\n")

    assert fates(settled) == {1: Answered(Reply(550, "", "gone", Phase.RCPT))}


def test_an_unsolicited_421_settles_nothing() -> None:
    conversation = Conversation(PIPELINED)

    assert conversation.receive(b"421 idle for too long\r\n") == []
    assert conversation.over is not None
    assert not conversation.wants_envelope


# -- what is no answer


@pytest.mark.parametrize(
    ("stream", "phase"),
    [
        (b"354 Go\r\n", Phase.MAIL),
        (b"250 Ok\r\n354 Go\r\n", Phase.RCPT),
        (b"250 Ok\r\n250 Ok\r\n250 Ok\r\n", Phase.DATA),
        (b"250 Ok\r\n250 Ok\r\n354 Go\r\n250 too early\r\n", Phase.DATA),
        (b"nonsense\r\n", Phase.MAIL),
        (b"250 Ok\r\nnonsense\r\n", Phase.RCPT),
        (b"25", Phase.MAIL),
        (b"x" * 9000, Phase.MAIL),
        (b"250-" + b"x\r\n250-" * 200, Phase.MAIL),
    ],
)
def test_nonsense_before_the_content_is_laid_to_the_message_it_should_answer(
    stream: bytes, phase: Phase
) -> None:
    conversation = announced(PIPELINED)

    settled = conversation.receive(stream) + conversation.lose("gone")

    (fate,) = fates(settled).values()
    if stream == b"25":
        assert fate == NotSent("gone", Phase.MAIL)
    else:
        assert isinstance(fate, Broken)
        assert (fate.reply.code, fate.reply.phase) == (0, phase)
        assert fate.reply.text.startswith("the server broke the protocol: ")


@pytest.mark.parametrize("stream", [b"354 more\r\n", b"nonsense\r\n", b"x" * 9000])
def test_nonsense_after_the_content_leaves_it_in_doubt_and_the_next_unsent(stream: bytes) -> None:
    conversation = announced(PIPELINED, ready=True)
    conversation.hand_over()
    conversation.announce(an_envelope(2))
    conversation.take_output()

    told = fates(conversation.receive(stream))

    assert isinstance(told[1], InDoubt)
    assert isinstance(told[2], NotSent)


def test_a_refused_reset_ends_the_conversation_before_any_content() -> None:
    conversation = announced(PIPELINED)
    conversation.receive(b"250 Ok\r\n550 gone\r\n503 no\r\n")
    conversation.announce(an_envelope(2))

    told = fates(conversation.receive(b"500 what\r\n"))

    assert isinstance(told[2], Broken)
    assert conversation.over is not None


def test_after_the_end_nothing_is_heard_or_told_twice() -> None:
    conversation = announced(PIPELINED)
    assert len(conversation.lose("gone")) == 1

    assert conversation.receive(b"250 Ok\r\n") == []
    assert conversation.lose("again") == []
    assert conversation.take_output() == b""


# -- properties: a whole conversation, cut and mutated


@dataclass
class Play:
    """A conversation with a scripted server, without a network."""

    treatments: list[Treatment]
    offers: tuple[str, ...] = MODERN
    is_careless: bool = False
    seen: bytes = b""
    taken: list[int] = field(default_factory=list)
    handed: list[int] = field(default_factory=list)
    settled: list[Settled] = field(default_factory=list)

    def __post_init__(self) -> None:
        envelopes = [an_envelope(number) for number in range(len(self.treatments))]
        by_recipient = {
            envelope.recipient: treatment
            for envelope, treatment in zip(envelopes, self.treatments, strict=True)
        }
        self.script = ServerScript(by_recipient, offers=self.offers, is_careless=self.is_careless)
        self.dialogue = ServerDialogue(self.script)
        offers = dict(offer.partition(" ")[::2] for offer in self.offers)
        self.conversation = Conversation(Abilities.of(offers))
        self._waiting = deque(envelopes)

    def turn(self) -> bytes:
        conversation = self.conversation
        if conversation.ready is not None:
            self.handed.append(conversation.ready.message_id)
            conversation.hand_over()
        while self._waiting and conversation.wants_envelope:
            envelope = self._waiting.popleft()
            self.taken.append(envelope.message_id)
            assert conversation.announce(envelope) is None
        return self.dialogue.receive(conversation.take_output())

    def until(self, cut: int, piece: int, *, writes_at_the_cut: bool) -> None:
        """Hear `cut` octets, `piece` at a time; then the connection is lost."""
        stream = self.turn()
        while stream and self.conversation.over is None and len(self.seen) < cut:
            heard = stream[: min(piece, cut - len(self.seen))]
            self.settled += self.conversation.receive(heard)
            self.seen += heard
            stream = stream[len(heard) :]
            if len(self.seen) < cut or writes_at_the_cut:
                stream += self.turn()
        self.settled += self.conversation.lose("cut")


WORDS = {
    "accept": Treatment(),
    "no rcpt": Treatment(rcpt="550 5.1.1 no-{n}."),
    "later rcpt": Treatment(rcpt="451-4.7.1 wait\r\n451 4.7.1 no-{n}."),
    "no data": Treatment(data="452 4.3.1 no-{n}."),
    "no content": Treatment(content="554 5.7.1 no-{n}."),
    "closing rcpt": Treatment(rcpt="421 4.7.0 no-{n}."),
    "closing content": Treatment(content="421 4.7.0 no-{n}."),
}


def treatments_of(words: list[str]) -> list[Treatment]:
    """Every decisive reply names its message, so that a reader of the stream can tell."""
    treatments = []
    for number, word in enumerate(words):
        plain = WORDS[word]
        content = plain.content if word == "no content" else f"250 2.0.0 yes-{number}."
        if word == "closing content":
            content = plain.content
        treatments.append(
            Treatment(
                plain.mail,
                plain.rcpt.format(n=number),
                plain.data.format(n=number),
                content.format(n=number),
            )
        )
    return treatments


def truth(play: Play, number: int) -> type[Fate] | str:
    """What must be told, judged by the bytes that were heard alone."""
    for sign, word in (("yes", "accepted"), ("no", "refused")):
        if f"{sign}-{number}.\r\n".encode() in play.seen:
            return word
    return InDoubt if number in play.handed else NotSent


def told(fate: Fate) -> type[Fate] | str:
    if isinstance(fate, Answered):
        return "accepted" if fate.reply.code == 250 else "refused"
    return type(fate)


words = st.lists(st.sampled_from([*WORDS, "accept", "accept"]), min_size=1, max_size=6)
offers = st.sampled_from([MODERN, ()])


@settings(max_examples=60, deadline=None)
@given(
    words=words,
    offers=offers,
    is_careless=st.booleans(),
    piece=st.sampled_from([1, 2, 7, 10_000]),
    writes_at_the_cut=st.booleans(),
)
def test_wherever_the_connection_is_cut_each_message_is_told_once_and_rightly(
    words: list[str],
    offers: tuple[str, ...],
    is_careless: bool,
    piece: int,
    writes_at_the_cut: bool,
) -> None:
    whole = Play(treatments_of(words), offers, is_careless)
    whole.until(1_000_000, piece, writes_at_the_cut=True)

    for cut in range(len(whole.seen) + 1):
        play = Play(treatments_of(words), offers, is_careless)
        play.until(cut, piece, writes_at_the_cut=writes_at_the_cut)

        settled = fates(play.settled)
        assert sorted(settled) == sorted(play.taken)
        assert len(play.settled) == len(play.taken)
        for number, fate in settled.items():
            assert told(fate) == truth(play, number)
        assert play.script.inbox == [] or {got.content for got in play.script.inbox} == {CONTENT}


@settings(max_examples=100, deadline=None)
@given(words=words, offers=offers, is_careless=st.booleans())
def test_a_conversation_that_is_not_cut_settles_all_without_being_lost(
    words: list[str], offers: tuple[str, ...], is_careless: bool
) -> None:
    play = Play(treatments_of(words), offers, is_careless)
    stream = play.turn()
    while stream and play.conversation.over is None:
        play.settled += play.conversation.receive(stream)
        stream = play.turn()

    settled = fates(play.settled)
    if "closing" not in " ".join(words):
        assert sorted(settled) == list(range(len(words)))
        assert all(isinstance(fate, Answered) for fate in settled.values())
    assert sorted(settled) == sorted(play.taken)
    accepted_numbers = [number for number, fate in settled.items() if told(fate) == "accepted"]
    assert [got.recipient for got in play.script.inbox] == [
        f"r{number}@x.test" for number in accepted_numbers
    ]


@settings(max_examples=300, deadline=None)
@given(
    words=words,
    offers=offers,
    at=st.integers(0, 400),
    length=st.integers(0, 20),
    instead=st.binary(max_size=20),
)
def test_a_mutated_stream_ends_in_replies_or_a_named_error(
    words: list[str], offers: tuple[str, ...], at: int, length: int, instead: bytes
) -> None:
    play = Play(treatments_of(words), offers)
    heard = 0
    stream = play.turn()
    while stream and play.conversation.over is None:
        if heard <= at < heard + len(stream):
            stream = stream[: at - heard] + instead + stream[at - heard + length :]
        heard += len(stream)
        play.settled += play.conversation.receive(stream)
        stream = play.turn()
    play.settled += play.conversation.lose("the end")

    settled = fates(play.settled)
    assert sorted(settled) == sorted(play.taken)
    assert len(play.settled) == len(play.taken)
    for number, fate in settled.items():
        if told(fate) == "accepted" or isinstance(fate, InDoubt):
            assert number in play.handed


@settings(max_examples=300, deadline=None)
@given(
    chunks=st.lists(st.binary(max_size=60), max_size=8),
    abilities=st.sampled_from([PIPELINED, PLAIN]),
)
def test_random_bytes_never_raise_and_never_lose_a_message(
    chunks: list[bytes], abilities: Abilities
) -> None:
    conversation = Conversation(abilities)
    taken, settled = 0, []
    for chunk in chunks:
        if conversation.ready is not None:
            conversation.hand_over()
        if conversation.wants_envelope:
            taken += 1
            conversation.announce(an_envelope(taken))
        conversation.take_output()
        settled += conversation.receive(chunk)
    settled += conversation.lose("the end")

    assert sorted(each.envelope.message_id for each in settled) == list(range(1, taken + 1))
