"""How the sandbox internet is started and where it answers; the sandbox itself is `sandbox/`.

It writes its addresses into `sandbox.json` in its state folder once everything listens.
"""

from __future__ import annotations

import json
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

from config.local.child import Spec
from config.local.roles import BULK_NICE

ADDRESSES = "sandbox.json"


@dataclass(frozen=True, slots=True)
class Answer:
    dns: str  #: host:port
    inbox_url: str


def prepare(folder: Path, root: Path, *, inbox_port: int, dns_port: int) -> Spec:
    """Say how to run the sandbox with its state in `folder`.

    The ports are chosen by us, so that after a crash it answers where everybody looks for it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # What an earlier run answered under must not be taken for this one's.
    (folder / ADDRESSES).unlink(missing_ok=True)
    return Spec(
        name="sandbox",
        command=(
            *(sys.executable, "-m", "sandbox", "--state-dir", str(folder)),
            *("--http-port", str(inbox_port), "--dns-port", str(dns_port)),
        ),
        marker="sandbox",
        folder=root,
        nice=BULK_NICE,
        stop=((signal.SIGTERM, 10), (signal.SIGKILL, 5)),
    )


def read(folder: Path) -> Answer | None:
    """Where it answers; None while it does not yet."""
    try:
        found = json.loads((folder / ADDRESSES).read_text(encoding="utf-8"))
        return Answer(dns=str(found["dns"]), inbox_url=str(found["http"]))
    except (FileNotFoundError, ValueError, KeyError):
        return None
