from __future__ import annotations

import re
from dataclasses import fields

import pytest

from sandbox.providers import CATCH_ALL, PROVIDERS, Provider, Texts

FILLED_IN = {
    "host": "mx.x.test",
    "peer": "127.0.0.1",
    "id": "abc123",
    "recipient": "a@x.test",
    "recipient_domain": "x.test",
    "rfc_message_id": "<1@x.test>",
    "size": 1234,
}

every_provider = pytest.mark.parametrize("provider", PROVIDERS, ids=lambda p: p.name)


@every_provider
def test_every_text_is_a_well_formed_reply(provider: Provider) -> None:
    for field in fields(Texts):
        if field.name == "greeting":
            continue
        lines = getattr(provider.texts, field.name).format(**FILLED_IN).split("\n")
        codes = {line[:3] for line in lines}

        assert len(codes) == 1, field.name
        assert re.fullmatch("[2345][0-9][0-9]", lines[0][:3])
        assert all(line[3] == "-" for line in lines[:-1])
        assert lines[-1][3] == " "
        assert max(map(len, lines)) <= 510


@every_provider
@pytest.mark.parametrize(
    ("name", "begins"),
    [
        ("unknown_recipient", "550[ -]5.1.1 "),
        ("over_quota", "552[ -]5.2.2 "),
        ("temporary_failure", "451[ -]4.3.2 "),
        ("greylisted", "451[ -]4.7.1 "),
        ("content_refused", "554[ -]5.7.1 "),
        ("closing", "421[ -]"),
        ("rate_limited", "4[25]1[ -]4.7."),
    ],
)
def test_faults_have_the_codes_the_documentation_promises(
    provider: Provider, name: str, begins: str
) -> None:
    assert re.match(begins, getattr(provider.texts, name))


def test_names_domains_and_hosts_belong_to_one_provider_each() -> None:
    for names in (
        [provider.name for provider in PROVIDERS],
        [domain for provider in PROVIDERS for domain in provider.domains],
        [host.name for provider in PROVIDERS for host in provider.hosts],
    ):
        assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("name", "domain", "mx_ends_with"),
    [
        ("gmail", "gmail.com", ".google.com"),
        ("outlook", "hotmail.com", ".olc.protection.outlook.com"),
        ("yahoo", "aol.com", ".yahoodns.net"),
        ("apple", "me.com", ".mail.icloud.com"),
    ],
)
def test_real_providers_are_known_by_their_mx_names(
    name: str, domain: str, mx_ends_with: str
) -> None:
    provider = next(provider for provider in PROVIDERS if provider.name == name)

    assert domain in provider.domains
    assert all(host.name.endswith(mx_ends_with) for host in provider.hosts)


def test_gmail_offers_what_gmail_offers() -> None:
    assert PROVIDERS[0].keywords == {
        "SIZE",
        "8BITMIME",
        "STARTTLS",
        "ENHANCEDSTATUSCODES",
        "PIPELINING",
        "CHUNKING",
        "SMTPUTF8",
    }
    assert PROVIDERS[0].size_limit_bytes == 157286400


def test_the_slow_provider_offers_size_alone() -> None:
    slow = next(provider for provider in PROVIDERS if provider.is_slow)

    assert slow.keywords == {"SIZE"}


def test_the_catch_all_is_one_of_the_providers() -> None:
    assert CATCH_ALL in PROVIDERS
