"""manage.py declare_host_lost: an operator's word that a host will never come back."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

import orjson
from django.core.management.base import BaseCommand, CommandError

from mailer import conf, journal, rescue, tasks
from mailer.models import Batch, WorkerJournal

PATIENCE_SECONDS = 3.0


class Command(BaseCommand):
    help = (
        "Declare that a host is lost together with its journals. Its taken batches end; every "
        "message in them whose outcome was not recorded becomes in doubt: it may have been sent, "
        "and is not sent again by itself. Never do this to a host that may still be sending."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("host", help="its name, as `manage.py doctor` and the admin show it")
        parser.add_argument("--yes", action="store_true", help="really do it")
        parser.add_argument("--json", action="store_true", help="print one JSON object")

    def handle(self, *_: Any, host: str, **given: Any) -> None:
        journals = _open_journals(host)
        _refuse_if_alive(host, journals)
        taken = Batch.objects.filter(state="taken", journal_id__in=[one.pk for one in journals])
        sizes = [len(ids) for ids in taken.values_list("ids", flat=True)]
        if not given["yes"]:
            raise CommandError(
                f"Host {host}: {len(journals)} workers with {len(sizes)} batches of {sum(sizes)} "
                "messages. Those that were not recorded would become in doubt, for good. If the "
                "host can come back with its disk, start its workers instead: they settle "
                "everything from the journals. Otherwise say --yes.",
                returncode=2,
            )
        done = rescue.declare_lost(host)
        tasks.kick()
        if given["json"]:
            told = {"host": host, "workers": done.journals, "batches": done.batches}
            self.stdout.write(orjson.dumps(told).decode())
        else:
            self.stdout.write(
                f"Host {host} is declared lost: {done.journals} workers, {done.batches} batches. "
                "`manage.py conservation` shows the account."
            )


def _open_journals(host: str) -> list[WorkerJournal]:
    unfinished = WorkerJournal.objects.filter(ended_at__isnull=True)
    journals = list(unfinished.filter(host=host))
    if not journals:
        hosts = sorted(set(unfinished.values_list("host", flat=True)))
        known = ", ".join(hosts) or "none"
        raise CommandError(
            f"No worker of {host} has anything unfinished; hosts with open journals: {known}.",
            returncode=2,
        )
    return journals


def _refuse_if_alive(host: str, journals: list[WorkerJournal]) -> None:
    """A journal on this machine proves what has become of its worker; other workers answer."""
    folder = conf.place().journals
    here = set(journal.journal_ids(folder))
    for one in journals:
        if one.pk.hex in here:
            _refuse_by_journal(host, one)
    nodes = sorted(name for name in _answering() if name.endswith(f"@{host}"))
    if nodes:
        raise CommandError(f"{', '.join(nodes)} still answers: {host} is not lost.", returncode=1)


def _answering() -> set[str]:
    """Names of the workers that answer over the broker, such as deliver-1@mail2."""
    try:
        replies = tasks.deliver_batch.app.control.ping(timeout=PATIENCE_SECONDS) or []
    except Exception as error:
        # Whatever the broker's client raises: silence of the broker is no proof of anything.
        raise CommandError(
            f"The queue does not answer ({error}), so no worker can be asked whether it lives.",
            returncode=1,
        ) from None
    return {name for reply in replies for name in reply}


def _refuse_by_journal(host: str, one: WorkerJournal) -> None:
    claim = journal.claim_dead(conf.place().journals, one.pk)
    if claim is None:
        raise CommandError(
            f"Process {one.pid} of {host} lives: it holds the lock of its journal, on this "
            "machine. Stop it; what it has in hand is then settled without any doubt.",
            returncode=1,
        )
    with claim:
        if isinstance(claim.read(), journal.Missing):
            return
    raise CommandError(
        f"The journal of process {one.pid} of {host} is here and readable, and its process is "
        "dead: any worker on this machine settles it by itself within seconds, without doubt. "
        "Start one instead.",
        returncode=1,
    )
