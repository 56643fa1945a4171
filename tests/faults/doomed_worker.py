"""A Celery worker that kills itself at a chosen moment of its work.

python -m tests.faults.doomed_worker MOMENT -A config worker ...
"""

from __future__ import annotations

import functools
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

#: What is called at the moment, and whether it is still done.
MOMENTS = {
    "taken": ("mailer.journal", "Journal.took", False),
    "noted": ("mailer.journal", "Journal.took", True),
    "intended": ("mailer.journal", "Journal.intend", True),
    "accepted": ("mailer.journal", "Journal.settle", False),
    "settled": ("mailer.outcomes", "record", False),
    "recorded": ("mailer.journal", "Journal.recorded", False),
}


def _is_the_moment(moment: str, arguments: tuple[Any, ...]) -> bool:
    return moment != "accepted" or arguments[-1].code == 250


def doom(moment: str) -> None:
    """Patch the one function at which this process dies."""
    module_name, path, is_done = MOMENTS[moment]
    owner: Any = __import__(module_name, fromlist=["_"])
    *parents, name = path.split(".")
    for parent in parents:
        owner = getattr(owner, parent)
    setattr(owner, name, _dying(getattr(owner, name), is_done, moment))


def _dying(real: Callable[..., Any], is_done: bool, moment: str) -> Callable[..., Any]:
    @functools.wraps(real)
    def die(*arguments: Any, **options: Any) -> Any:
        if not _is_the_moment(moment, arguments):
            return real(*arguments, **options)
        if is_done:
            real(*arguments, **options)
        return os.kill(os.getpid(), signal.SIGKILL)

    return die


def main() -> None:
    import django
    from celery.__main__ import main as celery

    django.setup()
    doom(sys.argv.pop(1))
    celery()


if __name__ == "__main__":
    main()
