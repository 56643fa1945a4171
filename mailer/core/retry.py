"""Retry policy: one delivery attempt failed; what happens to the message next?

Pure. The caller passes in the time and one random draw, so the same facts always give the same
decision, and a test needs neither a clock nor a mock. It never looks at a reply's text or code:
`deliverability` has said what the outcome was.

A policy is a schedule (exponential, or a ladder of fixed steps), a maximum age and a jitter. It
is frozen into each mailing as JSON: `policy_from` reads it, `RetryPolicy.spec` writes it.

RFC 5321 section 4.5.4.1 asks for half an hour or more between attempts in general, for four to
five days before giving up, and for both to be configurable. A campaign is stale sooner than
that, so `max_age` is set per mailing and defaults to two days.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import pairwise
from types import MappingProxyType

from deliverability.core.outcome import OutcomeKind

# Past this many failures every schedule we accept sits at its cap. Clamping keeps
# growth ** exponent inside a float however long a message has been failing.
_MAX_EXPONENT = 64

#: Nobody waits longer for mail; bounds what arithmetic on dates has to bear.
_LONGEST = timedelta(days=60)


class InvalidRetryPolicy(ValueError):
    """The configured numbers cannot describe a schedule. Raised when a policy is made."""


class FailureKind(enum.Enum):
    """What a failed attempt says about the message itself."""

    TRANSIENT = "transient"  #: 4yz, or no reply at all: the same message may pass later
    PERMANENT = "permanent"  #: 5yz about this recipient or content: it never will
    THROTTLED = "throttled"  #: we, or the provider, asked for less; not its fault


_FAILURE_OF = MappingProxyType(
    {
        OutcomeKind.DEFERRED: FailureKind.TRANSIENT,
        OutcomeKind.UNREACHED: FailureKind.TRANSIENT,
        OutcomeKind.REJECTED: FailureKind.PERMANENT,
        OutcomeKind.THROTTLED: FailureKind.THROTTLED,
    }
)


class NotRetryable(ValueError):
    """The outcome is no failure that a schedule answers: accepted, in doubt, or our own fault."""


def failure_kind(outcome: OutcomeKind) -> FailureKind:
    """Say what an outcome means for the retry of its message.

    Raises `NotRetryable` for ACCEPTED (nothing to retry), IN_DOUBT (never blindly sent again)
    and BROKEN (counted apart, because waiting mends no template).
    """
    try:
        return _FAILURE_OF[outcome]
    except KeyError:
        raise NotRetryable(f"{outcome} is not answered by a retry schedule") from None


class GiveUpReason(enum.Enum):
    REJECTED = "rejected"  #: the receiver said no for good
    EXPIRED = "expired"  #: the next attempt would fall after `max_age`
    EXHAUSTED = "exhausted"  #: the ladder has no further step


@dataclass(frozen=True, slots=True)
class Failure:
    """The facts about a failed attempt that bear on what to do next."""

    kind: FailureKind
    failures: int  #: failed attempts so far, this one included; throttling not counted
    queued_at: datetime  #: when the message first became due
    not_before: datetime | None = None  #: earliest useful time, if anyone told us


@dataclass(frozen=True, slots=True)
class RetryAt:
    """Try again at `at`. `counts` is False when the attempt was not the message's fault."""

    at: datetime
    counts: bool


@dataclass(frozen=True, slots=True)
class GiveUp:
    reason: GiveUpReason


Decision = RetryAt | GiveUp


@dataclass(frozen=True, slots=True)
class Exponential:
    """Each wait is the one before times `growth`, up to `max_delay`."""

    first_delay: timedelta = timedelta(minutes=5)  #: Postgrey's default greylisting delay
    growth: float = 2.0  #: ratio between one delay and the next
    max_delay: timedelta = timedelta(hours=4)

    def __post_init__(self) -> None:
        if not timedelta(0) < self.first_delay <= self.max_delay <= _LONGEST:
            raise InvalidRetryPolicy(
                f"need 0 < first_delay <= max_delay <= {_LONGEST.days} days, "
                f"not {self.first_delay} and {self.max_delay}"
            )
        if not 1.0 <= self.growth <= 10.0:
            raise InvalidRetryPolicy(f"need 1 <= growth <= 10, not {self.growth}")

    def delay_after(self, failures: int) -> timedelta:
        exponent = min(failures - 1, _MAX_EXPONENT)
        seconds = self.first_delay.total_seconds() * self.growth**exponent
        return timedelta(seconds=min(seconds, self.max_delay.total_seconds()))


@dataclass(frozen=True, slots=True)
class Ladder:
    """Fixed steps. After the last one it gives up, or goes on at the last step's pace."""

    delays: tuple[timedelta, ...]
    repeats_last: bool = False

    def __post_init__(self) -> None:
        if not self.delays:
            raise InvalidRetryPolicy("a ladder needs at least one delay")
        if not all(timedelta(0) < delay <= _LONGEST for delay in self.delays):
            raise InvalidRetryPolicy(f"each delay of a ladder lies in (0, {_LONGEST.days} days]")
        if any(later < earlier for earlier, later in pairwise(self.delays)):
            raise InvalidRetryPolicy("the delays of a ladder never get shorter")

    @property
    def first_delay(self) -> timedelta:
        return self.delays[0]

    def delay_after(self, failures: int) -> timedelta | None:
        if failures <= len(self.delays):
            return self.delays[failures - 1]
        return self.delays[-1] if self.repeats_last else None


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """A schedule, and how long a message is worth sending."""

    schedule: Exponential | Ladder = field(default_factory=Exponential)
    max_age: timedelta = timedelta(days=2)
    jitter: float = 0.1  #: ratio; each wait grows by up to this much

    def __post_init__(self) -> None:
        if not timedelta(0) < self.max_age <= _LONGEST:
            raise InvalidRetryPolicy(f"need 0 < max_age <= {_LONGEST.days} days")
        if not 0.0 <= self.jitter <= 1.0:
            raise InvalidRetryPolicy(f"need 0 <= jitter <= 1, not {self.jitter}")

    def decide(self, failure: Failure, *, now: datetime, draw: float) -> Decision:
        """Say what to do with the message.

        `draw` is uniform in [0, 1). It spreads retries out, so that a provider coming back from
        an outage does not meet every deferred message in the same second.
        """
        if failure.kind is FailureKind.PERMANENT:
            return GiveUp(GiveUpReason.REJECTED)
        throttled = failure.kind is FailureKind.THROTTLED
        wait = self.schedule.first_delay if throttled else self.delay_after(failure.failures)
        if wait is None:
            return GiveUp(GiveUpReason.EXHAUSTED)
        if failure.not_before is not None:
            wait = max(wait, failure.not_before - now)
        # Give up now rather than hold a message we already know we will not send. Asked before
        # the jitter, so that chance never decides whether a message is given up.
        deadline = failure.queued_at + self.max_age
        if now + wait > deadline:
            return GiveUp(GiveUpReason.EXPIRED)
        # Jitter only ever adds: back before a greylist opens is an attempt wasted.
        at = min(now + wait * (1 + self.jitter * draw), deadline)
        return RetryAt(at, counts=not throttled)

    def delay_after(self, failures: int) -> timedelta | None:
        """The wait after the n-th failure (n >= 1), before jitter; None when there is no more."""
        return self.schedule.delay_after(max(failures, 1))

    def spec(self) -> dict[str, object]:
        """The policy as JSON-ready values, from which `policy_from` makes an equal one."""
        common: dict[str, object] = {
            "max_age_seconds": self.max_age.total_seconds(),
            "jitter_ratio": self.jitter,
        }
        match self.schedule:
            case Exponential(first_delay, growth, max_delay):
                return {
                    "kind": "exponential",
                    "first_delay_seconds": first_delay.total_seconds(),
                    "growth_ratio": growth,
                    "max_delay_seconds": max_delay.total_seconds(),
                    **common,
                }
            case Ladder(delays, repeats_last):
                return {
                    "kind": "ladder",
                    "delays_seconds": [delay.total_seconds() for delay in delays],
                    "repeats_last": repeats_last,
                    **common,
                }


def _minutes(*numbers: int) -> tuple[timedelta, ...]:
    return tuple(timedelta(minutes=number) for number in numbers)


#: The policies a mailing can name. The ladders are two published presets: three retries, as
#: cold-email services do; and quick retries for a day, as large platforms do.
POLICIES: Mapping[str, RetryPolicy] = MappingProxyType(
    {
        "exponential": RetryPolicy(),
        "ladder-3": RetryPolicy(Ladder(_minutes(5, 30, 120))),
        "ladder-24h": RetryPolicy(
            Ladder(_minutes(1, 5, 15, 60), repeats_last=True), max_age=timedelta(hours=24)
        ),
    }
)


def policy_from(stored: str | Mapping[str, object]) -> RetryPolicy:
    """Make the policy that a name or a stored spec describes.

    Raises `InvalidRetryPolicy`, which names the field, for anything else: an unknown field too,
    since a misspelt one would silently leave a default in force.
    """
    if isinstance(stored, str):
        if stored not in POLICIES:
            raise InvalidRetryPolicy(f"no policy {stored!r}; there are {', '.join(POLICIES)}")
        return POLICIES[stored]
    fields = dict(stored)
    kind = fields.pop("kind", None)
    schedule: Exponential | Ladder
    if kind == "exponential":
        usual = Exponential()
        schedule = Exponential(
            _taken_delay(fields, "first_delay_seconds", usual.first_delay),
            _taken_number(fields, "growth_ratio", usual.growth),
            _taken_delay(fields, "max_delay_seconds", usual.max_delay),
        )
    elif kind == "ladder":
        schedule = Ladder(_taken_delays(fields), _taken_flag(fields, "repeats_last"))
    else:
        raise InvalidRetryPolicy(f"kind is 'exponential' or 'ladder', not {kind!r}")
    policy = RetryPolicy(
        schedule,
        _taken_delay(fields, "max_age_seconds", RetryPolicy().max_age),
        _taken_number(fields, "jitter_ratio", RetryPolicy().jitter),
    )
    if fields:
        raise InvalidRetryPolicy(f"unknown fields: {', '.join(sorted(map(str, fields)))}")
    return policy


def _taken_delay(fields: dict[str, object], name: str, default: timedelta) -> timedelta:
    return _delay(name, fields.pop(name)) if name in fields else default


def _taken_number(fields: dict[str, object], name: str, default: float) -> float:
    return _number(name, fields.pop(name)) if name in fields else default


def _taken_flag(fields: dict[str, object], name: str) -> bool:
    value = fields.pop(name, False)
    if not isinstance(value, bool):
        raise InvalidRetryPolicy(f"{name} is true or false, not {value!r}")
    return value


def _taken_delays(fields: dict[str, object]) -> tuple[timedelta, ...]:
    delays = fields.pop("delays_seconds", None)
    if not isinstance(delays, list | tuple):
        raise InvalidRetryPolicy(f"delays_seconds is a list of seconds, not {delays!r}")
    return tuple(_delay("delays_seconds", delay) for delay in delays)


def _delay(name: str, value: object) -> timedelta:
    seconds = _number(name, value)
    if not 0 < seconds <= _LONGEST.total_seconds():
        raise InvalidRetryPolicy(f"{name} lies in (0, {_LONGEST.total_seconds():.0f}], not {value}")
    return timedelta(seconds=seconds)


def _number(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise InvalidRetryPolicy(f"{name} is a number, not {value!r}")
    return float(value)
