"""A Celery worker that never hears at once that its outcomes were committed.

    python -m tests.faults.unlucky_worker -A config worker ...

As when PostgreSQL goes away between the commit and its answer, every time.
"""

from __future__ import annotations

import os
from typing import Any


def deafen() -> None:
    from django.db import OperationalError

    from mailer import outcomes

    real, unheard = outcomes.record, set()

    def record(claim: Any, *arguments: Any, still_out: Any = (), now: Any) -> None:
        real(claim, *arguments, still_out=still_out, now=now)
        # Each taking of a batch has messages of its own: the same again is a repetition.
        what = (claim.batch_id, bool(still_out), id(arguments[0]))
        if what not in unheard:
            unheard.add(what)
            raise OperationalError(f"the answer to the commit was lost: batch {claim.batch_id}")

    outcomes.record = record


def main() -> None:
    # Tasks end before late replies have come, so that outcomes are recorded in two steps.
    os.environ["POSTROAD_BATCH_SECONDS"] = "1"
    import django
    from celery.__main__ import main as celery

    django.setup()
    deafen()
    celery()


if __name__ == "__main__":
    main()
