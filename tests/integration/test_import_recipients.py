"""The import itself, on a real PostgreSQL."""

from __future__ import annotations

import csv
import errno
import resource
import threading
from collections.abc import Iterable
from pathlib import Path

import pytest
from django.db import OperationalError, connection
from django.utils import timezone

from campaigns import consent, imports, uploads
from campaigns.imports import ImportRefused, Options
from campaigns.models import (
    Import,
    ImportState,
    List,
    Recipient,
    Subscription,
    UpdateMode,
)
from campaigns.uploads import UploadFailed
from tests.integration.campaign_world import World, make_world

pytestmark = pytest.mark.django_db


@pytest.fixture
def world(db) -> World:
    return make_world()


@pytest.fixture
def csv_file(tmp_path: Path):
    def write(text: str, name: str = "people.csv") -> Path:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8", newline="")
        return path

    return write


def state_of(into: List, key: str) -> str:
    return Subscription.objects.get(list=into, recipient__address_key=key).state


def attributes_of(key: str) -> dict[str, str]:
    return Recipient.objects.get(address_key=key).attributes


def test_new_people_are_made_and_subscribed(world, csv_file) -> None:
    into = world.list()
    path = csv_file("E-Mail,First Name,City\nAnn@Example.com,Ann,\nbob@b.example,Bob,Rome\n")
    report = imports.import_file(path, into, Options(origin="a fair"))

    assert (report.rows, report.created) == (2, 2)
    ann = Recipient.objects.get(address_key="ann@example.com")
    assert (ann.address, ann.domain) == ("Ann@example.com", "example.com")
    assert ann.attributes == {"first_name": "Ann"}
    subscription = Subscription.objects.get(recipient=ann)
    assert (subscription.list, subscription.state) == (into, "subscribed")
    assert subscription.origin == "a fair"


def test_importing_again_changes_nothing(world, csv_file) -> None:
    into = world.list()
    path = csv_file("email,name\na@b.example,Ann\nb@b.example,Bob\n")
    imports.import_file(path, into)
    again = imports.import_file(path, into)

    assert (again.created, again.updated, again.unchanged) == (0, 0, 2)
    assert Recipient.objects.count() == Subscription.objects.count() == 2


def test_every_row_is_counted_once(world, csv_file) -> None:
    into = world.list("Readers", world.recipient("old@b.example", name="Old"))
    path = csv_file(
        "email,name\nnew@b.example,New\nold@b.example,Older\nnew@B.example,Twice\nbroken,\n"
    )
    report = imports.import_file(path, into)

    assert report.rows == 4
    assert (report.created, report.updated, report.unchanged) == (1, 1, 0)
    assert (report.duplicates, report.rejected) == (1, 1)


def test_of_rows_with_one_address_the_first_counts_even_chunks_apart(
    world, csv_file, monkeypatch
) -> None:
    monkeypatch.setattr(imports, "CHUNK_ROWS", 2)
    path = csv_file("email,name\n" + "".join(f"a{n % 3}@b.example,{n}\n" for n in range(9)))
    report = imports.import_file(path, world.list())

    assert (report.created, report.duplicates) == (3, 6)
    assert [attributes_of(f"a{n}@b.example")["name"] for n in range(3)] == ["0", "1", "2"]


def test_who_unsubscribed_is_never_subscribed_again(world, csv_file) -> None:
    ann, bob = world.recipient("a@b.example"), world.recipient("b@b.example")
    into = world.list()
    world.subscribe(into, [ann], "unsubscribed")
    world.subscribe(into, [bob], "unconfirmed")
    for mode in UpdateMode:
        report = imports.import_file(
            csv_file(f"email,name\na@b.example,{mode}\nb@b.example,{mode}\n"),
            into,
            Options(mode=mode),
        )
        assert report.not_resubscribed == 1

    assert state_of(into, "a@b.example") == "unsubscribed"
    assert state_of(into, "b@b.example") == "unconfirmed"


def test_people_who_are_there_join_a_second_list_as_updated(world, csv_file) -> None:
    world.list("First", world.recipient("a@b.example", name="Ann"))
    second = world.list("Second")
    report = imports.import_file(csv_file("email,name\na@b.example,Ann\n"), second)

    assert (report.created, report.updated, report.unchanged) == (0, 1, 0)
    assert state_of(second, "a@b.example") == "subscribed"


@pytest.mark.parametrize(
    ("mode", "left"),
    [
        (UpdateMode.OVERWRITE, {"name": "Anna", "city": "Rome", "plan": "Team", "age": "9"}),
        (UpdateMode.FILL, {"name": "Ann", "city": "Rome", "plan": "Team", "age": "9"}),
        (UpdateMode.SKIP, {"name": "Ann", "city": "", "plan": "Team"}),
    ],
)
def test_fields_are_merged_as_the_mode_says_and_empty_cells_erase_nothing(
    world, csv_file, mode, left
) -> None:
    into = world.list("Readers", world.recipient("a@b.example", name="Ann", city="", plan="Team"))
    path = csv_file("email,name,city,plan,age\na@b.example,Anna,Rome,,9\n")
    imports.import_file(path, into, Options(mode=mode))

    assert attributes_of("a@b.example") == left


def test_the_same_address_in_another_workspace_is_another_recipient(world, csv_file) -> None:
    other = make_world("globex")
    path = csv_file("email,name\na@b.example,Ann\n")
    imports.import_file(path, world.list())
    report = imports.import_file(path, other.list())

    assert report.created == 1
    assert Recipient.objects.filter(address_key="a@b.example").count() == 2


BAD_FILE = (
    "email,name\n"
    "good@b.example,Good\n"
    "not an address,x\n"
    ",empty\n"
    "short@b.example\n"
    "long@b.example,a,b,c\n"
    'open@b.example,"never closed\n'
    "nul@b.example,a\x00b\n"
    "huge@b.example," + "h" * 6_000 + "\n"
    "last@b.example,Last\n"
)


def test_rows_that_are_wrong_are_set_aside_with_line_reason_and_text(
    world, csv_file, tmp_path
) -> None:
    out = tmp_path / "rejected.csv"
    into = world.list()
    run = imports.start(into, csv_file(BAD_FILE), file_name="bad.csv")
    report = imports.import_file(Path(run.path), into, run=run, rejected_to=out)

    assert (report.created, report.rejected, report.rows) == (2, 7, 9)
    kept = [(row.line, row.reason) for row in run.rejected_rows.all()]
    assert [line for line, _ in kept] == [3, 4, 5, 6, 7, 8, 9]
    assert [reason for _, reason in kept[1:]] == [
        "The address is empty.",
        "It has 1 column, the first line of the file has 2.",
        "It has 4 columns, the first line of the file has 2.",
        "A quoted field that begins on this line is never closed.",
        "It holds a NUL byte.",
        "name is 6,000 characters long; 5,000 are allowed.",
    ]
    with out.open(newline="", encoding="utf-8") as file:
        written = list(csv.DictReader(file))
    assert [(int(row["line"]), row["reason"]) for row in written] == kept
    assert written[2]["row"] == "short@b.example"


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("", "is empty"),
        ("name,city\nAnn,Rome\n", "“name”, “city”"),
        ("a@b.example,Ann\n", "instead of column names"),
    ],
)
def test_a_file_that_cannot_be_imported_is_refused_in_one_sentence(
    world, csv_file, content, sentence
) -> None:
    with pytest.raises(ImportRefused, match=sentence):
        imports.import_file(csv_file(content), world.list())

    assert not Recipient.objects.exists()


def test_a_header_alone_imports_nobody(world, csv_file) -> None:
    report = imports.import_file(csv_file("email,name\n"), world.list())

    assert (report.rows, report.created) == (0, 0)


def test_a_dry_run_says_what_an_import_does_and_changes_nothing(world, csv_file) -> None:
    people = [world.recipient("same@b.example", name="Same"), world.recipient("old@b.example")]
    into = world.list("Readers", *people)
    world.recipient("elsewhere@b.example", name="E")
    path = csv_file(
        "email,name\nnew@b.example,N\nsame@b.example,Same\nold@b.example,Old\n"
        "elsewhere@b.example,E\nnew@b.example,N\nbad,\n"
    )
    before = (list(Recipient.objects.values()), Subscription.objects.count())
    foretold = imports.dry_run(path, world.workspace, into)
    assert (list(Recipient.objects.values()), Subscription.objects.count()) == before

    done = imports.import_file(path, into)
    assert foretold.to_json() == done.to_json()
    assert (done.created, done.updated, done.unchanged, done.duplicates) == (1, 2, 1, 1)


def test_a_dry_run_works_for_a_list_that_is_not_there_yet(world, csv_file) -> None:
    world.recipient("old@b.example", name="Old")
    path = csv_file("email,name\nold@b.example,Old\nnew@b.example,New\n")
    report = imports.dry_run(path, world.workspace, None)

    assert (report.created, report.updated) == (1, 1)
    assert not List.objects.exists()


def test_hostile_cells_stay_text(world, csv_file) -> None:
    cells = ["'; DROP TABLE campaigns_recipient; --", "{{ 7*7 }}", "\\N", "a\tb", "x\\y", "%s"]
    rows = "".join(f'a{n}@b.example,"{cell}"\n' for n, cell in enumerate(cells))
    imports.import_file(csv_file("email,name\n" + rows), world.list())

    assert [attributes_of(f"a{n}@b.example")["name"] for n in range(6)] == cells


def test_a_saved_import_keeps_its_progress_and_its_result(world, csv_file, monkeypatch) -> None:
    monkeypatch.setattr(imports, "CHUNK_ROWS", 3)
    path = csv_file("email,name\n" + "".join(f"a{n}@b.example,x\n" for n in range(7)) + "bad,\n")
    run = imports.start(world.list(), path, file_name="people.csv")
    seen: list[tuple[int, str]] = []

    def look(_report: object) -> None:
        row = Import.objects.get(pk=run.pk)
        seen.append((row.rows, row.state))

    imports.run_import(run.pk, look)

    assert seen == [(3, "running"), (6, "running"), (8, "running")]
    run.refresh_from_db()
    assert (run.state, run.rows, run.created, run.rejected) == ("finished", 8, 7, 1)
    assert run.read_bytes == run.size_bytes > 0
    assert run.finished_at is not None


def test_a_saved_import_of_a_bad_file_fails_with_the_sentence(world, csv_file) -> None:
    run = imports.start(world.list(), csv_file("name\nAnn\n"), file_name="people.csv")
    imports.run_import(run.pk)

    run.refresh_from_db()
    assert run.state == ImportState.FAILED
    assert "No column holds addresses" in run.error


def test_an_import_that_died_halfway_is_run_again_without_counting_twice(
    world, csv_file, monkeypatch
) -> None:
    monkeypatch.setattr(imports, "CHUNK_ROWS", 2)
    path = csv_file("email,name\na@b.example,A\nbad,\nb@b.example,B\nc@b.example,C\n")
    run = imports.start(world.list(), path, file_name="people.csv")

    def die(_report: object) -> None:
        raise OperationalError("the server went away")

    with pytest.raises(OperationalError):
        imports.run_import(run.pk, die)
    run.refresh_from_db()
    assert (run.state, run.rows, run.rejected) == (ImportState.RUNNING, 2, 1)

    imports.run_import(run.pk)
    run.refresh_from_db()
    assert (run.state, run.rows, run.rejected) == (ImportState.FINISHED, 4, 1)
    assert (run.created, run.unchanged) == (2, 1)
    assert run.rejected_rows.count() == 1
    assert Recipient.objects.count() == 3


def test_an_import_that_is_done_is_not_run_again(world, csv_file) -> None:
    run = imports.start(world.list(), csv_file("email\na@b.example\n"), file_name="people.csv")
    imports.run_import(run.pk)
    Recipient.objects.all().delete()
    imports.run_import(run.pk)

    assert not Recipient.objects.exists()


def test_imports_whose_task_was_lost_are_found(world, csv_file) -> None:
    run = imports.start(world.list(), csv_file("email\na@b.example\n"), file_name="people.csv")
    assert imports.waiting_imports() == ()

    Import.objects.update(started_at=timezone.now() - timezone.timedelta(minutes=1))
    assert imports.waiting_imports() == (run.pk,)
    imports.run_import(run.pk)
    assert imports.waiting_imports() == ()


@pytest.mark.django_db(transaction=True)
def test_one_import_never_runs_twice_at_the_same_time(tmp_path: Path) -> None:
    world = make_world()
    path = tmp_path / "people.csv"
    path.write_text("email\n" + "".join(f"a{n}@b.example\n" for n in range(50)))
    run = imports.start(world.list(), path, file_name="people.csv")
    Import.objects.update(started_at=timezone.now() - timezone.timedelta(minutes=1))
    inside, leave, found = threading.Event(), threading.Event(), []

    def hold(_report: object) -> None:
        inside.set()
        assert leave.wait(20)

    def first() -> None:
        try:
            imports.run_import(run.pk, hold)
        finally:
            connection.close()

    worker = threading.Thread(target=first)
    worker.start()
    assert inside.wait(20)
    imports.run_import(run.pk, lambda report: found.append(report))
    stalled = imports.waiting_imports()
    leave.set()
    worker.join(20)

    assert found == []
    assert stalled == ()
    run.refresh_from_db()
    assert (run.state, run.created) == (ImportState.FINISHED, 50)


@pytest.mark.django_db(transaction=True)
def test_two_files_with_the_same_people_are_imported_at_once(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(imports, "CHUNK_ROWS", 50)
    world = make_world()
    into = world.list()
    errors: list[BaseException] = []

    def bring(numbers: Iterable[int], name: str) -> None:
        path = tmp_path / name
        path.write_text("email,n\n" + "".join(f"a{n}@b.example,{n}\n" for n in numbers))
        try:
            imports.import_file(path, into)
        except BaseException as problem:
            errors.append(problem)
        finally:
            connection.close()

    orders = {"up.csv": range(400), "down.csv": range(399, -1, -1)}
    workers = [threading.Thread(target=bring, args=(order, n)) for n, order in orders.items()]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)

    assert errors == []
    assert Recipient.objects.count() == Subscription.objects.count() == 400


def test_a_hundred_thousand_rows_take_no_more_memory_than_a_few_thousand(
    world, tmp_path: Path
) -> None:
    path = tmp_path / "large.csv"
    with path.open("w", encoding="utf-8") as file:
        file.write("email,first_name,company\n")
        file.writelines(f"person{n}@b.example,Ann{n},Company {n % 9}\n" for n in range(100_000))
    sizes: list[int] = []
    report = imports.dry_run(
        path, world.workspace, None, on_progress=lambda _report: sizes.append(resident_bytes())
    )

    assert (report.rows, report.created) == (100_000, 100_000)
    assert len(sizes) == 20
    assert max(sizes) - sizes[2] < 15_000_000


def resident_bytes() -> int:
    """What the process holds now, or at most until now where the system says no more."""
    status = Path("/proc/self/statm")
    if status.exists():
        return int(status.read_text().split()[1]) * resource.getpagesize()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def test_an_upload_is_kept_under_a_name_of_ours_and_discarded_after(world, settings) -> None:
    path = uploads.keep([b"email\n", b"a@b.example\n"])
    run = imports.start(world.list(), path, file_name="../../etc/passwd")
    assert path.read_bytes() == b"email\na@b.example\n"

    imports.run_import(run.pk)
    run.refresh_from_db()
    assert run.created == 1
    assert not path.exists()


def test_a_full_disk_is_said_in_one_sentence_and_leaves_nothing_behind() -> None:
    def chunks() -> Iterable[bytes]:
        yield b"email\n"
        raise OSError(errno.ENOSPC, "No space left on device")

    folder = uploads.keep([b"x"]).parent
    before = set(folder.iterdir())
    with pytest.raises(UploadFailed, match=r"is full: the file was not kept\."):
        uploads.keep(chunks())

    assert set(folder.iterdir()) == before


def test_who_subscribes_again_by_their_own_wish_gets_mail_again(world, csv_file) -> None:
    ann = world.recipient("a@b.example")
    into = world.list("Readers", ann)
    scopes, list_ids = (f"list:{into.pk}",), (into.pk,)
    bearer = consent.Bearer(world.workspace, ann.address, ann.address_key, scopes, list_ids)
    consent.unsubscribe(bearer, now=timezone.now())
    imports.import_file(csv_file("email\na@b.example\n"), into)
    assert state_of(into, "a@b.example") == "unsubscribed"

    consent.subscribe(ann, into, origin="the form", now=timezone.now())
    assert state_of(into, "a@b.example") == "subscribed"
