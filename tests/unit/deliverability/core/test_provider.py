from __future__ import annotations

from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deliverability.core.provider import (
    InvalidProviderRules,
    Provider,
    ProviderRules,
    load_provider_rules,
)
from deliverability.rules import provider_rules

RULES = provider_rules()
EVERY_PROVIDER = pytest.mark.parametrize("provider", RULES.providers, ids=lambda p: p.name)


def entry(name: str, suffix: str, domain: str = "") -> str:
    return f"""
[[provider]]
name = "{name}"
title = "{name}"
mx_suffixes = ["{suffix}"]
domains = [{f'"{domain}"' if domain else ""}]
sample_mx = []
origin = "test"
seen_on = "2026-01-01"
"""


@EVERY_PROVIDER
def test_each_sample_host_belongs_to_its_provider(provider: Provider) -> None:
    assert provider.sample_mx
    assert {RULES.of_host(host) for host in provider.sample_mx} == {provider.name}


@EVERY_PROVIDER
def test_no_suffix_is_dead_or_shadowed(provider: Provider) -> None:
    for suffix in provider.mx_suffixes:
        claimed = [host for host in provider.sample_mx if f".{host}".endswith(f".{suffix}")]
        assert claimed, f"no sample for {suffix}"
        assert {RULES.of_host(host) for host in claimed} == {provider.name}


@EVERY_PROVIDER
def test_each_entry_says_where_it_comes_from_and_when(provider: Provider) -> None:
    assert provider.origin
    assert date.fromisoformat(provider.seen_on) >= date(2026, 1, 1)


@EVERY_PROVIDER
def test_known_domains_lead_to_their_provider(provider: Provider) -> None:
    assert all(RULES.of_domain(domain) == provider.name for domain in provider.domains)


@pytest.mark.parametrize(
    ("hosts", "provider"),
    [
        (["gmail-smtp-in.l.google.com", "alt1.gmail-smtp-in.l.google.com"], "gmail"),
        (["ASPMX.L.GOOGLE.COM.", "aspmx2.googlemail.com"], "gmail"),
        (["outlook-com.olc.protection.outlook.com"], "outlook"),
        (["acme-com.mail.protection.outlook.com"], "microsoft365"),
        (["acme-com.h-v1.mx.microsoft"], "microsoft365"),
        (["mta7.am0.yahoodns.net", "mta6.am0.yahoodns.net"], "yahoo"),
        (["mx01.mail.icloud.com"], "apple"),
        (["mx1.corp.example", "mx2.corp.example"], "other"),
        ([], "other"),
    ],
)
def test_the_provider_of_a_domain_is_who_runs_its_mail_hosts(
    hosts: list[str], provider: str
) -> None:
    assert RULES.of_hosts(hosts) == provider


def test_a_domain_split_between_two_providers_is_nobodys() -> None:
    hosts = ["aspmx.l.google.com", "acme-com.mail.protection.outlook.com"]

    assert RULES.of_hosts(hosts) == "other"
    assert RULES.of_hosts(["aspmx.l.google.com", "mx.backup.example"]) == "other"


@pytest.mark.parametrize(
    "host",
    ["mx.google.com.attacker.example", "notgoogle.com", "google.com.", "protection.outlook.com"],
)
def test_only_whole_labels_at_the_end_count(host: str) -> None:
    expected = "gmail" if host == "google.com." else "other"

    assert RULES.of_host(host) == expected


@given(st.text(max_size=60))
def test_any_text_has_a_provider(host: str) -> None:
    assert RULES.of_host(host) in RULES.names
    assert RULES.of_domain(host) in RULES.names


def test_the_names_that_limits_are_kept_by_are_there() -> None:
    assert {"gmail", "outlook", "yahoo", "apple", "other"} <= set(RULES.names)


def test_the_longest_suffix_wins() -> None:
    rules: ProviderRules = load_provider_rules(
        entry("wide", "example.com") + entry("narrow", "special.example.com")
    )

    assert rules.of_host("mx.special.example.com") == "narrow"
    assert rules.of_host("mx.example.com") == "wide"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (entry("a", "x.example") + entry("b", "x.example"), "belongs to a already"),
        (entry("a", "x.example", "d.example") + entry("b", "y.example", "d.example"), "already"),
        (entry("a", "x.example") + entry("a", "y.example"), "named twice"),
        (entry("other", "x.example"), "named twice, or 'other'"),
        (entry("a", ".x.example"), "begins with a dot"),
        ("[[provider]]\nname = 'a'", "not a provider table"),
        ("provider = 3", "not a provider table"),
        ("", "not a provider table"),
        (entry("a", "x.example").replace('["x.example"]', "[]"), "would never match"),
        (entry("a", "x.example").replace('["x.example"]', '"x"'), "mx_suffixes is a list"),
    ],
)
def test_a_table_that_cannot_work_is_refused(text: str, complaint: str) -> None:
    with pytest.raises(InvalidProviderRules) as refusal:
        load_provider_rules(text)

    assert complaint in str(refusal.value)
