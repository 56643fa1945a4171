"""Keeps the processes of one machine running: starts them, restarts what dies, stops in order.

Single-threaded: everything happens in `watch`, one step at a time, which every wait calls. A
first Ctrl-C or SIGTERM asks for the ordered stop; a second one shortens everybody's patience.

When the supervisor itself is killed: Linux sends workers, web, beat, Flower and sandbox their
ordinary SIGTERM, so that no mail goes out unwatched. PostgreSQL and Valkey get nothing, because
the workers still have outcomes to record. The next start ends whatever is left, by the state
file, before it starts anything.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType

from config.local.child import Child, Spec
from config.local.processes import identify
from config.local.state import stop_groups, write_state

POLL_SECONDS = 0.1
FIRST_DELAY_SECONDS = 0.5
MAX_DELAY_SECONDS = 30.0
STEADY_SECONDS = 60.0  #: one that lived this long starts its failures anew


class Stopped(Exception):
    """A person, or the system, asked us to stop."""


class DidNotStart(RuntimeError):
    """A process ended, or did not get ready in time. The message shows its last lines."""


def restart_delay(failures: int) -> float:
    """Seconds to wait before the restart after the n-th failure in a row (n >= 1)."""
    return float(min(FIRST_DELAY_SECONDS * 2 ** min(failures - 1, 16), MAX_DELAY_SECONDS))


def failures_after(failures: int, lived_seconds: float) -> int:
    """Count one more failure, or begin again when the process had lived long."""
    return 1 if lived_seconds >= STEADY_SECONDS else failures + 1


def patience_after(signals: int, seconds: float) -> float:
    """How long to wait for a process to end: a second Ctrl-C shortens it, a third even more.

    Never to nothing: the database needs a moment to write what it has.
    """
    return min(seconds, (seconds, seconds, 3.0, 0.5)[min(signals, 3)])


@dataclass(slots=True)
class Post:
    """A place that is to be filled by one running process."""

    make: Callable[[], Spec]  #: called at each start: a restart may need to clean up first
    child: Child
    started_at: float
    failures: int = 0
    restarts: int = 0
    due_at: float | None = None  #: when to start it again, once it died


class Supervisor:
    def __init__(self, var: Path, say: Callable[[str], None]) -> None:
        self.var = var
        self.say = say
        self.addresses: dict[str, str] = {}
        self._posts: dict[str, Post] = {}
        self._one_off: Child | None = None
        self._signals = 0
        self._stopping = False

    # Starting and watching ----------------------------------------------------------

    def start(self, make: Callable[[], Spec]) -> Child:
        """Start a process and keep it running from now on."""
        child = self._launch(make())
        self._posts[child.spec.name] = Post(make, child, time.monotonic())
        self.write_state()
        return child

    def _launch(self, spec: Spec) -> Child:
        return Child(spec, self.var / "log" / f"{spec.name}.log")

    def watch(self) -> None:
        """One step: notice who died, start again who is due. Raises Stopped when asked to."""
        if self._signals and not self._stopping:
            raise Stopped
        now = time.monotonic()
        for name, post in self._posts.items():
            if post.due_at is None and (code := post.child.poll()) is not None:
                self._bury(name, post, code, now)
            elif post.due_at is not None and now >= post.due_at:
                self._revive(name, post)

    def _bury(self, name: str, post: Post, code: int, now: float) -> None:
        post.child.kill_group()
        post.failures = failures_after(post.failures, now - post.started_at)
        delay = restart_delay(post.failures)
        post.due_at = now + delay
        self.say(f"{name} ended ({reason(code)}); again in {delay:g} s, see {post.child.log}")

    def _revive(self, name: str, post: Post) -> None:
        try:
            post.child = self._launch(post.make())
        except (OSError, RuntimeError) as error:
            post.failures += 1
            post.due_at = time.monotonic() + restart_delay(post.failures)
            self.say(f"{name} cannot start: {error}")
            return
        post.started_at, post.due_at = time.monotonic(), None
        post.restarts += 1
        self.write_state()

    def until(self, condition: Callable[[], bool], seconds: float) -> bool:
        """Watch until `condition` holds, `seconds` at most; say whether it does."""
        deadline = time.monotonic() + seconds
        while not condition():
            self.watch()
            if time.monotonic() >= deadline:
                return False
            time.sleep(POLL_SECONDS)
        return True

    def await_ready(self, child: Child, is_ready: Callable[[], bool], seconds: float) -> None:
        """Wait for a process that was just started; its death or the deadline is an error."""
        self.until(lambda: child.poll() is not None or is_ready(), seconds)
        if child.poll() is not None or not is_ready():
            ended = child.poll()
            what = "is not ready" if ended is None else f"ended ({reason(ended)})"
            raise DidNotStart(
                f"{child.spec.name} {what}. Its log, {child.log}:\n{child.last_lines()}"
            )

    def run(
        self, spec: Spec, seconds: float, each_step: Callable[[Child], None] | None = None
    ) -> Child:
        """Run a command to its end, watching the others meanwhile."""
        child = self._one_off = self._launch(spec)

        def has_ended() -> bool:
            if each_step is not None:
                each_step(child)
            return child.poll() is not None

        self.until(has_ended, seconds)
        if (code := child.poll()) is None:
            child.stop()
            raise TimeoutError(f"{spec.name} took more than {seconds:g} s, see {child.log}")
        self._one_off = None
        if code != 0:
            raise DidNotStart(
                f"{spec.name}: {reason(code)}. Its log, {child.log}:\n{child.last_lines()}"
            )
        return child

    # Stopping -----------------------------------------------------------------------

    @contextlib.contextmanager
    def signals(self) -> Iterator[None]:
        """While inside, Ctrl-C and SIGTERM ask for an ordered stop."""
        caught = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        before = {number: signal.signal(number, self._note_signal) for number in caught}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _note_signal(self, _number: int, _frame: FrameType | None) -> None:
        self._signals += 1

    def stop_all(self) -> None:
        """Stop everybody, the last started first; workers side by side, as each takes long."""
        self._stopping = True
        if self._one_off is not None:
            self._one_off.stop()
        for group in stop_groups(list(self._posts)):
            self._stop_group([self._posts[name].child for name in group])
        self._posts.clear()
        self.write_state()

    def _stop_group(self, children: list[Child]) -> None:
        """Send everybody's first signal, wait, then the next to those who are still there."""
        for step in range(max(len(child.spec.stop) for child in children)):
            running = [child for child in children if child.poll() is None]
            steps = [child.spec.stop[min(step, len(child.spec.stop) - 1)] for child in running]
            for child, (number, _) in zip(running, steps, strict=True):
                child.signal(number)
            patience = max((seconds for _, seconds in steps), default=0.0)
            asked_at = time.monotonic()
            while any(child.poll() is None for child in running):
                if time.monotonic() - asked_at >= patience_after(self._signals, patience):
                    break
                time.sleep(POLL_SECONDS)
        for child in children:
            child.kill_group()

    # What others can read -----------------------------------------------------------

    def write_state(self) -> None:
        """Write down who runs: for the next start, should this one be killed, and for people."""
        processes = {
            name: {
                **asdict(post.child.identity),
                "restarts": post.restarts,
                "log": str(post.child.log),
            }
            for name, post in self._posts.items()
        }
        state = {
            "supervisor": asdict(identify(os.getpid(), "config.local")),
            "addresses": self.addresses,
            "processes": processes,
        }
        write_state(self.var, state)


def reason(code: int) -> str:
    """An exit code in words."""
    if code >= 0:
        return f"exit code {code}"
    with contextlib.suppress(ValueError):
        return signal.Signals(-code).name
    return f"signal {-code}"
