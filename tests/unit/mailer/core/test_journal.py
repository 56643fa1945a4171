from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailer.core.journal import (
    MAGIC,
    TEXT_LIMIT,
    BatchTrace,
    Record,
    RecordKind,
    SettledRecord,
    Settlement,
    Tail,
    UnknownFormat,
    decode,
    encode_intent,
    encode_mark,
    encode_settled,
    replay,
)

DELIVERED = SettledRecord(
    1_767_225_600.25, "accepted", 250, "2.0.0", "OK", "content", "mx.gmail.test", 7
)

ids = st.integers(min_value=0, max_value=2**63 - 1)
attempt_numbers = st.integers(min_value=0, max_value=2**31 - 1)
texts = st.text(st.characters(codec="utf-8"), max_size=40)
settled_records = st.builds(
    SettledRecord,
    at=st.floats(min_value=0, max_value=4e9),
    kind=texts,
    code=st.integers(0, 999),
    enhanced=texts,
    text=texts,
    phase=texts,
    host=texts,
    source_id=st.none() | ids,
)
records = st.one_of(
    st.builds(Record, st.sampled_from([RecordKind.TOOK, RecordKind.RECORDED]), ids),
    st.builds(Record, st.just(RecordKind.INTENT), ids, ids, attempt_numbers),
    st.builds(Record, st.just(RecordKind.SETTLED), ids, ids, attempt_numbers, settled_records),
)


def encoded(record: Record) -> bytes:
    if record.kind is RecordKind.INTENT:
        return encode_intent(record.batch_id, record.message_id, record.attempt_no)
    if record.result is not None:
        return encode_settled(record.batch_id, record.message_id, record.attempt_no, record.result)
    return encode_mark(record.kind, record.batch_id)


def took(batch_id: int) -> Record:
    return Record(RecordKind.TOOK, batch_id)


def intent(batch_id: int, message_id: int, attempt_no: int = 1) -> Record:
    return Record(RecordKind.INTENT, batch_id, message_id, attempt_no)


def settled(batch_id: int, message_id: int, attempt_no: int = 1) -> Record:
    return Record(RecordKind.SETTLED, batch_id, message_id, attempt_no, DELIVERED)


def recorded(batch_id: int) -> Record:
    return Record(RecordKind.RECORDED, batch_id)


@given(st.lists(records, max_size=20))
def test_what_is_written_is_read_back(written: list[Record]) -> None:
    data = MAGIC + b"".join(map(encoded, written))

    segment = decode(data)

    assert segment.records == tuple(written)
    assert segment.tail is Tail.CLEAN
    assert segment.readable_bytes == len(data)


@given(st.lists(records, min_size=1, max_size=6))
def test_a_segment_cut_at_any_byte_gives_the_whole_records_before_the_cut(
    written: list[Record],
) -> None:
    data = MAGIC + b"".join(map(encoded, written))
    ends = [len(MAGIC)]
    for record in written:
        ends.append(ends[-1] + len(encoded(record)))

    for cut in range(len(data)):
        segment = decode(data[:cut])

        whole = max(sum(end <= cut for end in ends) - 1, 0)
        assert segment.records == tuple(written[:whole])
        assert segment.tail is (Tail.CLEAN if cut == 0 or cut in ends else Tail.TORN)


@given(st.lists(records, min_size=2, max_size=5), st.data())
def test_a_changed_byte_never_changes_what_is_read_unnoticed(
    written: list[Record], data: st.DataObject
) -> None:
    whole = bytearray(MAGIC + b"".join(map(encoded, written)))
    position = data.draw(st.integers(len(MAGIC), len(whole) - 1))
    whole[position] ^= data.draw(st.integers(1, 255))

    segment = decode(bytes(whole))

    assert segment.tail is not Tail.CLEAN
    assert segment.records == tuple(written[: len(segment.records)])


def test_a_file_of_another_version_is_refused() -> None:
    with pytest.raises(UnknownFormat):
        decode(b"postroad journal 2\n" + encoded(intent(1, 2)))


def test_zeros_after_the_last_record_count_as_damage() -> None:
    segment = decode(MAGIC + encoded(intent(1, 2)) + bytes(64))

    assert segment.records == (intent(1, 2),)
    assert segment.tail is Tail.DAMAGED


def test_a_long_reply_is_cut_and_a_strange_one_is_kept_readable() -> None:
    result = SettledRecord(0.0, "deferred", 451, "", "\udcff" + "x" * 2_000, "rcpt", "mx.test")

    segment = decode(MAGIC + encode_settled(1, 2, 1, result))

    read_back = segment.records[0].result
    assert read_back is not None
    assert read_back.text == "?" + "x" * (TEXT_LIMIT - 1)


def test_an_intent_without_a_settlement_is_unanswered() -> None:
    traces = replay([[took(1), intent(1, 10), intent(1, 11), settled(1, 10)]])

    assert traces == {1: BatchTrace({10: 1, 11: 1}, {10: Settlement(1, DELIVERED)})}
    assert traces[1].unanswered == {11: 1}


def test_a_later_attempt_is_unanswered_although_an_earlier_one_was_settled() -> None:
    traces = replay([[took(1), intent(1, 10), settled(1, 10), intent(1, 10, 2)]])

    assert traces[1].unanswered == {10: 2}


def test_a_settlement_needs_no_intent() -> None:
    """A connection that was refused is an outcome, and no content was ever about to go out."""
    traces = replay([[took(1), settled(1, 10)]])

    assert traces[1].unanswered == {}
    assert set(traces[1].settled) == {10}


def test_a_taken_batch_shows_even_before_its_first_message() -> None:
    assert replay([[took(1)]]) == {1: BatchTrace()}


def test_a_recorded_batch_is_forgotten_and_others_stay() -> None:
    traces = replay([[took(1), intent(1, 10), took(2), intent(2, 20), recorded(1)]])

    assert set(traces) == {2}


def test_a_batch_recorded_in_an_old_segment_stays_closed_in_the_younger_ones() -> None:
    older = [took(1), intent(1, 10), recorded(1)]
    younger = [intent(1, 11), settled(1, 10)]

    assert replay([older, younger]) == {}


def test_taking_a_batch_again_begins_a_new_account() -> None:
    traces = replay([[took(1), intent(1, 10), recorded(1), took(1), intent(1, 10, 2)]])

    assert traces == {1: BatchTrace({10: 2})}
