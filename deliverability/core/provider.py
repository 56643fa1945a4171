"""Which mailbox provider runs a domain's mail servers: gmail, outlook, …, or other.

Pure. Throttles, reputation and warm-up are kept by provider, since that is who judges us. The
provider is found by the MX hosts, because any domain may have its mail at any provider; only
where no MX answer is at hand do the known consumer domains help.

All MX hosts of a domain must belong to one provider: a domain that is split (or in the middle of
a move) is nobody's, and gets the careful limits of `other`. A look-alike such as
`mx.google.com.attacker.example` matches nothing: patterns are whole-label suffixes.

The table is data (`rules/providers.toml`); this module reads and applies it.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

OTHER = "other"


class InvalidProviderRules(ValueError):
    """The table cannot be used; the text names the entry and what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Provider:
    name: str
    title: str  #: for people
    mx_suffixes: tuple[str, ...]  #: a host is the provider's if it is, or ends in a dot and, one
    domains: tuple[str, ...]  #: consumer domains that are always there
    sample_mx: tuple[str, ...]  #: real hosts of it, for the tests
    origin: str
    seen_on: str  #: the ISO date on which the entry was last checked against its origin


@dataclass(frozen=True, slots=True)
class ProviderRules:
    """The table, indexed. Suffixes and domains belong to one provider each."""

    providers: tuple[Provider, ...]
    by_suffix: Mapping[str, str]
    by_domain: Mapping[str, str]

    @property
    def names(self) -> tuple[str, ...]:
        return (*(provider.name for provider in self.providers), OTHER)

    def of_host(self, host: str) -> str:
        """The provider that runs this MX host."""
        labels = host.strip().lower().rstrip(".").split(".")
        for start in range(len(labels)):
            # The longest suffix first: `olc.protection.outlook.com` before `outlook.com`.
            found = self.by_suffix.get(".".join(labels[start:]))
            if found is not None:
                return found
        return OTHER

    def of_hosts(self, hosts: Iterable[str]) -> str:
        """The provider that runs all these MX hosts, or `other` if no single one does."""
        found = {self.of_host(host) for host in hosts}
        return found.pop() if len(found) == 1 else OTHER

    def of_domain(self, domain: str) -> str:
        """A guess without DNS: the provider of a consumer domain, or `other`."""
        return self.by_domain.get(domain.strip().lower().rstrip("."), OTHER)


def load_provider_rules(text: str) -> ProviderRules:
    """Read the table. Raises `InvalidProviderRules` if two entries claim the same name."""
    try:
        entries = tomllib.loads(text)["provider"]
        providers = tuple(_provider(entry) for entry in entries)
    except (tomllib.TOMLDecodeError, KeyError, TypeError) as error:
        raise InvalidProviderRules(f"not a provider table: {error!r}") from error
    by_suffix: dict[str, str] = {}
    by_domain: dict[str, str] = {}
    for provider in providers:
        _claim(by_suffix, provider.mx_suffixes, provider.name)
        _claim(by_domain, provider.domains, provider.name)
    names = [provider.name for provider in providers]
    if len(set(names)) < len(names) or OTHER in names:
        raise InvalidProviderRules(f"a provider is named twice, or {OTHER!r}: {names}")
    return ProviderRules(providers, by_suffix, by_domain)


def _provider(entry: Mapping[str, object]) -> Provider:
    def texts(key: str) -> tuple[str, ...]:
        values = entry.get(key, [])
        if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
            raise InvalidProviderRules(f"{entry.get('name')}: {key} is a list of texts")
        return tuple(value.lower() for value in values)

    provider = Provider(
        name=str(entry["name"]),
        title=str(entry["title"]),
        mx_suffixes=texts("mx_suffixes"),
        domains=texts("domains"),
        sample_mx=texts("sample_mx"),
        origin=str(entry["origin"]),
        seen_on=str(entry["seen_on"]),
    )
    if not provider.mx_suffixes:
        raise InvalidProviderRules(f"{provider.name}: no mx_suffixes, so it would never match")
    return provider


def _claim(claimed: dict[str, str], keys: Iterable[str], name: str) -> None:
    for key in keys:
        if key.startswith(".") or key in claimed:
            raise InvalidProviderRules(
                f"{name}: {key!r} begins with a dot or belongs to {claimed.get(key)} already"
            )
        claimed[key] = name
