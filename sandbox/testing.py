"""A sandbox for tests: a real process on free ports, told apart by its state folder.

    with started(folder) as sandbox:
        sandbox.smtp("gmail")        # where Gmail's servers listen
        sandbox.counts(mailing="7")  # what they have received

The process is ended by its id when the context ends; a killed one can be started again in the
same folder, and knows what it had received.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import Request, urlopen

_START_SECONDS = 30.0
_END_SECONDS = 10.0
_ROOT = Path(__file__).resolve().parent.parent


class DidNotStart(RuntimeError):
    """The process ended, or was not ready in time; the message holds what it said."""


@dataclass(frozen=True, slots=True)
class Sandbox:
    """A running sandbox."""

    process: subprocess.Popen[bytes]
    folder: Path
    description: dict[str, Any]  #: what sandbox.json says

    @property
    def dns(self) -> tuple[str, int]:
        address, _, port = self.description["dns"].partition(":")
        return address, int(port)

    @property
    def url(self) -> str:
        return str(self.description["http"])

    def smtp(self, provider: str) -> tuple[str, int]:
        """Address and port of a provider's servers."""
        host = self.description["providers"][provider]["hosts"][0]
        return host["address"], host["port"]

    def get(self, path: str, **query: object) -> Any:
        """What the inbox answers to a question, as JSON."""
        question = f"?{urlencode(query)}" if query else ""
        with urlopen(f"{self.url}{path}{question}", timeout=10) as response:
            return json.load(response)

    def counts(self, **query: object) -> dict[str, Any]:
        return dict(self.get("/api/counts", **query))

    def messages(self, **query: object) -> list[dict[str, Any]]:
        return list(self.get("/api/messages", **query))

    def clear(self) -> None:
        """Forget all mail, and whom the servers have met."""
        with urlopen(Request(f"{self.url}/api/clear", method="POST"), timeout=10):
            pass


def start(folder: Path, *options: str) -> Sandbox:
    """Start a process with these command line options and wait until it is ready."""
    folder.mkdir(parents=True, exist_ok=True)
    ready = folder / "sandbox.json"
    with open(folder / "output.txt", "w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "sandbox", "--state-dir", str(folder), *options],
            cwd=_ROOT,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    deadline = time.monotonic() + _START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        # A file left by a killed process names another id.
        with contextlib.suppress(FileNotFoundError):
            description = json.loads(ready.read_text())
            if description["pid"] == process.pid:
                return Sandbox(process, folder, description)
        time.sleep(0.01)
    process.kill()
    process.wait()
    raise DidNotStart((folder / "output.txt").read_text())


@contextlib.contextmanager
def started(folder: Path, *options: str) -> Iterator[Sandbox]:
    """A sandbox that ends with the context."""
    sandbox = start(folder, *options)
    try:
        yield sandbox
    finally:
        sandbox.process.terminate()
        try:
            sandbox.process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            sandbox.process.kill()
            sandbox.process.wait()
