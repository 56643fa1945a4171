"""Is a role alive? For containers' health checks and for operators: exit status 0 says yes.

    python -m config.local.health http http://127.0.0.1:8000/health
    python -m config.local.health worker urgent
    python -m config.local.health beat

A worker is asked over the broker, so a hung one fails although its process runs. Beat is judged
by the database: the schedule's tasks must have been sent lately.
"""

from __future__ import annotations

import os
import socket
import sys
import urllib.error
import urllib.request
from datetime import timedelta

PATIENCE_SECONDS = 5.0
#: The scheduler writes down what it sent every three minutes (its `sync_every`).
BEAT_SILENT_FOR = timedelta(minutes=10)


def http_answers(url: str) -> bool:
    """A refusal is an answer: the host names that the web accepts are none of our business."""
    try:
        with urllib.request.urlopen(url, timeout=PATIENCE_SECONDS):
            return True
    except urllib.error.HTTPError as refusal:
        return bool(refusal.code < 500)
    except OSError:
        return False


def worker_answers(name: str) -> bool:
    """Ask the worker called `name` on this host."""
    from config.celery import app

    node = f"{name}@{socket.gethostname()}"
    return bool(app.control.ping(destination=[node], timeout=PATIENCE_SECONDS))


def beat_ticks() -> bool:
    """Say whether any periodic task was sent lately."""
    import django

    django.setup()
    from django.utils import timezone
    from django_celery_beat.models import PeriodicTask

    since = timezone.now() - BEAT_SILENT_FOR
    return bool(PeriodicTask.objects.filter(enabled=True, last_run_at__gte=since).exists())


def main(arguments: list[str]) -> int:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    match arguments:
        case ["http", url]:
            is_alive = http_answers(url)
        case ["worker", name]:
            is_alive = worker_answers(name)
        case ["beat"]:
            is_alive = beat_ticks()
        case _:
            print(__doc__, file=sys.stderr)
            return 2
    print("alive" if is_alive else "no answer")
    return 0 if is_alive else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
