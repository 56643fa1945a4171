"""The store on disk: what survives, and what a torn write does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox.mail_index import Wanted
from sandbox.mail_log import MailLog
from sandbox.mailstore import Keeper, MailSink, MailStore
from sandbox.records import Accepted, Refused


def accepted(number: int, *recipients: str, mailing: str = "7", body: bytes = b"") -> Accepted:
    header = f"Message-ID: <{number}@x>\r\nX-Postroad-Mailing: {mailing}\r\nSubject: 100% sure_\r\n"
    return Accepted(
        provider="gmail",
        host="mx",
        peer="127.0.0.1",
        helo="c",
        tls="",
        return_path="me@x",
        recipients=recipients or ("a@x",),
        content=header.encode() + b"\r\n" + body,
        received_at=1000.0 + number,
    )


def refused(code: int) -> Refused:
    return Refused("gmail", ("a@x",), code, f"{code} no", 1000.0)


def numbers(keeper: Keeper, wanted: Wanted | None = None) -> tuple[int, int, int]:
    counts = keeper.counts(wanted or Wanted())
    return counts["received"], counts["distinct"], counts["duplicates"]


@pytest.fixture(params=["store", "sink"])
def keeper(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Keeper]:
    made: Keeper = MailStore(tmp_path) if request.param == "store" else MailSink()
    yield made
    made.close()


def test_copies_are_told_by_recipient_and_message_id(keeper: Keeper) -> None:
    keeper.append([accepted(1, "a@x", "b@x"), accepted(2, "a@x"), accepted(1, "A@x")])

    assert numbers(keeper) == (4, 3, 1)
    (duplicate,) = keeper.duplicates(Wanted())
    assert (duplicate["recipient"], duplicate["rfc_message_id"]) == ("a@x", "<1@x>")
    assert len(duplicate["copies"]) == 2


def test_mailings_are_counted_apart(keeper: Keeper) -> None:
    keeper.append([accepted(1), accepted(2, mailing="8"), accepted(2, mailing="8")])

    assert numbers(keeper, Wanted(mailing="8")) == (2, 1, 1)
    assert numbers(keeper, Wanted(mailing="9")) == (0, 0, 0)


def test_refusals_are_counted_by_class(keeper: Keeper) -> None:
    keeper.append([refused(550), refused(451), refused(421)])

    counts = keeper.counts(Wanted())
    assert (counts["rejected"], counts["deferred"]) == (1, 2)


def test_messages_without_an_id_are_told_apart_by_their_content(keeper: Keeper) -> None:
    plain = [
        Accepted("g", "mx", "p", "c", "", "", ("a@x",), content, 1.0)
        for content in (b"A: b\r\n\r\none", b"A: b\r\n\r\ntwo", b"A: b\r\n\r\none")
    ]
    keeper.append(plain)

    assert numbers(keeper) == (3, 2, 1)


def test_clearing_forgets_everything(keeper: Keeper) -> None:
    keeper.append([accepted(1), refused(550)])
    keeper.note_connection()

    keeper.clear()

    assert numbers(keeper) == (0, 0, 0)
    counts = keeper.counts(Wanted())
    assert (counts["rejected"], counts["connections"]) == (0, 0)
    keeper.append([accepted(1)])
    assert numbers(keeper) == (1, 1, 0)


def test_a_search_takes_percent_and_underscore_literally(tmp_path: Path) -> None:
    store = MailStore(tmp_path)
    store.append([accepted(1)])

    assert store.total(Wanted(words="100% sure_")) == 1
    assert store.total(Wanted(words="1%0")) == 0
    assert store.total(Wanted(words="A@X")) == 1
    store.close()


@pytest.mark.parametrize("is_indexed", [True, False])
def test_a_torn_record_is_cut_off_and_the_rest_stays(tmp_path: Path, is_indexed: bool) -> None:
    store = MailStore(tmp_path)
    store.append([accepted(1), accepted(2, body=b"x" * 100_000)])
    store.close()
    path = tmp_path / "mail.log"
    whole = path.read_bytes()
    if not is_indexed:
        for file in tmp_path.glob("index*"):
            file.unlink()
    for torn in (b"A", b"A 300 100\n{", whole[: len(whole) - 50_000]):
        path.write_bytes(whole + torn)

        store = MailStore(tmp_path)
        known = numbers(store)
        store.append([accepted(3)])
        received = store.total(Wanted())
        store.clear()
        store.append([accepted(1), accepted(2, body=b"x" * 100_000)])
        store.close()

        complete = 3 if torn.startswith(b"A 1") else 2
        assert known[0] == complete
        assert received == complete + 1


def test_a_lost_or_ruined_index_is_made_again(tmp_path: Path) -> None:
    store = MailStore(tmp_path)
    store.append([accepted(1), accepted(2), refused(550)])
    store.close()
    for file in tmp_path.glob("index*"):
        file.write_bytes(b"not a database" * 100)

    store = MailStore(tmp_path)

    assert numbers(store) == (2, 2, 0)
    assert store.counts(Wanted())["rejected"] == 1
    store.close()


def test_many_records_go_into_one_write_and_come_back(tmp_path: Path) -> None:
    log = MailLog(tmp_path / "mail.log")
    records = [accepted(number, body=b"y" * number) for number in range(700)]

    log.append(records)

    entries = list(log.entries(0, log.end))
    assert [log.content(entry) for entry in entries] == [record.content for record in records]
    assert log.end == (tmp_path / "mail.log").stat().st_size
    log.close()


def test_a_header_longer_than_the_first_guess_is_read_whole(tmp_path: Path) -> None:
    store = MailStore(tmp_path)
    content = b"X: " + b"y" * 20_000 + b"\r\nMessage-ID: <far@x>\r\n\r\n"
    store.append([Accepted("g", "mx", "p", "c", "", "", ("a@x",), content, 1.0)])

    (row,) = store.messages(Wanted(), limit=10, offset=0)

    assert row["rfc_message_id"] == "<far@x>"
    store.close()
