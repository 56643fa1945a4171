"""What every process of one machine finds in its environment.

What the person who starts us has set wins; the rest is filled in here. Secrets are made once and
kept in the state folder. docs/settings.md explains the variables.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from config.local.secret import kept_secret

FLOWER_USER = "postroad"


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where the parts of this machine answer."""

    database_url: str
    redis_url: str
    web_url: str
    flower_url: str
    dns: str | None = None  #: the sandbox's DNS server, host:port; None without sandbox
    sandbox_url: str | None = None  #: the sandbox's inbox


@dataclass(frozen=True, slots=True)
class Secrets:
    secret_key: str
    flower_password: str

    @classmethod
    def kept_in(cls, folder: Path) -> Secrets:
        return cls(
            secret_key=kept_secret(folder / "secret-key"),
            flower_password=kept_secret(folder / "flower-password"),
        )


def build_environment(
    given: Mapping[str, str], addresses: Addresses, secrets: Secrets, var: Path
) -> dict[str, str]:
    """The variables that the children need; `given` is our own environment."""
    in_sandbox = addresses.dns is not None
    defaults = {
        "SECRET_KEY": secrets.secret_key,
        "FLOWER_BASIC_AUTH": f"{FLOWER_USER}:{secrets.flower_password}",
        "POSTROAD_VAR": str(var),
        "POSTROAD_PUBLIC_URL": addresses.web_url,
        "POSTROAD_FLOWER_URL": addresses.flower_url,
        "DEBUG": "off",
    }
    fixed = {
        # Also when a variable was given: the same, checked; or empty, and filled in.
        "DATABASE_URL": addresses.database_url,
        "REDIS_URL": addresses.redis_url,
        # Never taken from outside: a stale value would aim at real servers, or at none.
        "POSTROAD_SANDBOX": "on" if in_sandbox else "off",
        "POSTROAD_SANDBOX_URL": addresses.sandbox_url or "",
        "DJANGO_SETTINGS_MODULE": "config.settings",
        # A worker's SIGTERM is a soft shutdown: what is in flight is finished or given back.
        "REMAP_SIGTERM": "SIGQUIT",
        "PYTHONUNBUFFERED": "1",
    }
    if in_sandbox:
        fixed["POSTROAD_DNS"] = str(addresses.dns)
    chosen = {name: given.get(name) or value for name, value in defaults.items()}
    return {**chosen, **fixed}
