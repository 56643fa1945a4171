"""What the DNS of the sandbox knows, and how it misbehaves for some names.

Pure: a question in, an answer out. Everything that is not in the providers' table, nor under
a catch-all zone, does not exist. Since the servers cannot always have port 25, the port of
each mail host is told by SRV at `_smtp._tcp.<host>` (RFC 2782).

RFC 1035; RFC 5321 section 5.1 (MX, and A in its place); RFC 7505 (null MX).
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sandbox.loopback import Endpoint
from sandbox.providers import CATCH_ALL_ZONES, Provider

SPF = '"v=spf1 ip4:127.0.0.0/8 -all"'
DMARC = '"v=DMARC1; p=none"'


class Rcode(enum.Enum):
    NOERROR = enum.auto()
    NXDOMAIN = enum.auto()
    SERVFAIL = enum.auto()


@dataclass(frozen=True, slots=True)
class Silence:
    """No answer at all."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Records of the type asked for, as a zone file writes them."""

    rcode: Rcode
    records: tuple[str, ...] = ()


NOTHING = Answer(Rcode.NOERROR)
NO_SUCH_NAME = Answer(Rcode.NXDOMAIN)

#: Names with a fault of their own, and what it is.
FAULTY_NAMES = {
    "nullmx.example": "MX 0 `.`: the domain takes no mail",
    "nomx.example": "an A record but no MX; mail goes to the A record",
    "badmx.example": "an MX whose name does not exist",
    "unreachable.example": "an MX on which nothing listens",
    "servfail.example": "SERVFAIL to every question",
    "timeout.example": "no answer to any question",
}


class Zone:
    """All names of the sandbox."""

    def __init__(
        self,
        providers: Sequence[Provider],
        endpoints: Mapping[str, Endpoint],
        *,
        unreachable: Endpoint,
        catch_all: Provider,
    ) -> None:
        """`endpoints` is by provider name; the catch-all is one of the providers."""
        self._hosts: dict[str, Endpoint] = {}
        self._names: dict[str, dict[str, tuple[str, ...]]] = {}
        self._pointers: dict[str, tuple[str, ...]] = {}
        for provider in providers:
            endpoint = endpoints[provider.name]
            for host in provider.hosts:
                self._hosts[host.name] = endpoint
            pointer = f"{provider.hosts[0].name}."
            self._pointers[_reverse(endpoint.address)] = (pointer,)
            for domain in provider.domains:
                self._names[domain] = {"MX": _mx(provider), "TXT": (SPF,)}
        self._catch_all = {"MX": _mx(catch_all), "TXT": (SPF,)}
        self._catch_all_endpoint = endpoints[catch_all.name]
        address = self._catch_all_endpoint.address
        self._hosts["nomx.example"] = self._catch_all_endpoint
        self._hosts["mx.unreachable.example"] = unreachable
        self._names["nomx.example"] = {"A": (address,), "TXT": (SPF,)}
        self._names["nullmx.example"] = {"MX": ("0 .",), "A": (address,)}
        self._names["badmx.example"] = {"MX": ("10 mx.badmx.invalid.",)}
        self._names["unreachable.example"] = {"MX": ("10 mx.unreachable.example.",)}

    def answer(self, name: str, kind: str) -> Answer | Silence:
        """Answer for a name without its final dot, and a type such as "MX"."""
        name = name.lower()
        if _is_in(name, "timeout.example"):
            return Silence()
        if _is_in(name, "servfail.example"):
            return Answer(Rcode.SERVFAIL)
        known = self._lookup(name)
        if known is None:
            return NO_SUCH_NAME
        return Answer(Rcode.NOERROR, known.get(kind, ())) if kind in known else NOTHING

    def _lookup(self, name: str) -> Mapping[str, tuple[str, ...]] | None:
        if name in self._pointers:
            return {"PTR": self._pointers[name]}
        if name in self._names:
            return self._names[name]
        if name in self._hosts:
            return {"A": (self._hosts[name].address,)}
        first, _, rest = name.partition(".")
        if first == "_smtp" and rest.startswith("_tcp."):
            return self._service(rest.removeprefix("_tcp."))
        if not any(name.endswith(f".{zone}") for zone in CATCH_ALL_ZONES):
            return {} if name in CATCH_ALL_ZONES else None
        if first == "_dmarc":
            return {"TXT": (DMARC,)}
        if first.startswith("_"):
            return None
        return {"A": (self._catch_all_endpoint.address,), **self._catch_all}

    def _service(self, host: str) -> Mapping[str, tuple[str, ...]] | None:
        endpoint = self._hosts.get(host)
        if endpoint is None:
            known = self._lookup(host)
            if known is None or "A" not in known:
                return None
            endpoint = self._catch_all_endpoint
        return {"SRV": (f"0 0 {endpoint.port} {host}.",)}


def _mx(provider: Provider) -> tuple[str, ...]:
    return tuple(f"{host.preference} {host.name}." for host in provider.hosts)


def _is_in(name: str, zone: str) -> bool:
    return name == zone or name.endswith(f".{zone}")


def _reverse(address: str) -> str:
    return ".".join(reversed(address.split("."))) + ".in-addr.arpa"
