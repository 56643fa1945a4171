from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deliverability.core.classify import Rule, classify, seen_in, template_of
from deliverability.core.outcome import Action, OutcomeKind, Phase, Reply, Scope, Verdict
from deliverability.core.reply_rules import parse_sample
from deliverability.rules import classify as classify_by_shipped_rules
from deliverability.rules import provider_rules, reply_rules

RULES = reply_rules()
EVERY_RULE = pytest.mark.parametrize("rule", RULES.rules, ids=lambda rule: rule.id)

phases = st.sampled_from(Phase)
codes = st.integers(min_value=0, max_value=599)
providers = st.sampled_from(provider_rules().names)
# Real wordings, and shreds of them, meet each other in ways that nobody wrote down.
wordings = st.lists(
    st.sampled_from(sorted({s for rule in RULES.rules for s in rule.matches})), max_size=3
).map(" ".join) | st.text(max_size=200)
statuses = st.just("") | st.from_regex(r"[245]\.[0-7]\.[0-9]{1,3}", fullmatch=True)
replies = st.builds(Reply, codes, statuses, wordings, phases)


def verdict(sample: str, provider: str = "other") -> Verdict:
    return classify(parse_sample(sample), provider, RULES)


@EVERY_RULE
def test_each_rule_decides_its_own_samples(rule: Rule) -> None:
    """So no rule is dead, and none is shadowed by one before it."""
    for provider in rule.providers or {"other"}:
        decided_by = {sample: verdict(sample, provider).rule for sample in rule.matches}
        assert decided_by == dict.fromkeys(rule.matches, rule.id)


@EVERY_RULE
def test_no_rule_decides_what_it_must_not(rule: Rule) -> None:
    for provider in rule.providers or {"other"}:
        for sample in rule.misses:
            assert verdict(sample, provider).rule != rule.id, sample


@EVERY_RULE
def test_each_rule_names_providers_that_exist_and_where_it_comes_from(rule: Rule) -> None:
    assert rule.providers <= set(provider_rules().names)
    assert rule.origin


@given(replies, providers)
def test_every_reply_has_a_verdict(reply: Reply, provider: str) -> None:
    found = classify(reply, provider, RULES)

    assert found.rule
    assert found.reason


@given(replies, providers)
def test_only_a_5yz_to_the_recipient_or_the_content_ever_suppresses(
    reply: Reply, provider: str
) -> None:
    found = classify(reply, provider, RULES)

    if found.action is Action.SUPPRESS:
        assert reply.code // 100 == 5
        assert reply.phase in (Phase.RCPT, Phase.DATA, Phase.CONTENT, Phase.ROUTE)
        assert found.scope is Scope.RECIPIENT
        assert found.kind is OutcomeKind.REJECTED


@given(replies, providers)
def test_a_4yz_never_ends_a_message(reply: Reply, provider: str) -> None:
    if reply.code // 100 == 4:
        kind = classify(reply, provider, RULES).kind
        assert kind in (OutcomeKind.DEFERRED, OutcomeKind.THROTTLED)


@given(replies, providers)
def test_a_reply_before_rcpt_says_nothing_about_the_recipient(reply: Reply, provider: str) -> None:
    if reply.phase not in (Phase.RCPT, Phase.DATA, Phase.CONTENT, Phase.ROUTE):
        found = classify(reply, provider, RULES)
        assert found.scope not in (Scope.RECIPIENT, Scope.RECIPIENT_DOMAIN)


@given(replies, providers)
def test_a_refusal_of_our_address_leaves_the_message_alive(reply: Reply, provider: str) -> None:
    found = classify(reply, provider, RULES)

    if found.scope in (Scope.SOURCE, Scope.PATH):
        assert found.kind is not OutcomeKind.REJECTED


@given(st.sampled_from(["greeting", "ehlo"]), st.integers(500, 599), wordings, providers)
def test_a_5yz_before_mail_ends_no_message_unless_the_servers_cannot_talk(
    phase: str, code: int, text: str, provider: str
) -> None:
    found = classify(Reply(code, "", text, Phase(phase)), provider, RULES)

    if found.kind is OutcomeKind.REJECTED:
        assert found.scope in (Scope.ROUTE, Scope.PROVIDER)


@pytest.mark.parametrize(
    "sample",
    [
        "rcpt 550 5.7.1 Service unavailable, Client host [192.0.2.1] blocked using Spamhaus",
        "rcpt 550 5.7.606 Access denied, banned sending IP [192.0.2.1]",
        "mail 550 5.7.1 Unfortunately, messages from [192.0.2.1] weren't sent since part of their "
        "network is on our block list (S3140).",
        "greeting 554 Connection refused due to poor reputation",
    ],
)
def test_a_5yz_about_our_ip_tries_another_source(sample: str) -> None:
    found = verdict(sample)

    assert found.kind is OutcomeKind.DEFERRED
    assert found.action is Action.OTHER_SOURCE
    assert found.scope in (Scope.SOURCE, Scope.PATH)


def test_a_block_of_our_domain_or_content_never_suppresses() -> None:
    for sample in (
        "content 550 5.7.1 Message rejected due to DMARC policy of example.com",
        "content 554 5.7.1 Message contains a URL listed in SURBL",
        "content 550 High probability of spam",
        "content 550 5.7.1 very low reputation of the sending domain",
    ):
        found = verdict(sample)
        assert found.kind is OutcomeKind.REJECTED
        assert found.action is not Action.SUPPRESS
        assert found.scope is not Scope.RECIPIENT


@pytest.mark.parametrize("phase", ["rcpt", "data", "content"])
def test_an_unknown_user_is_suppressed_at_any_step_that_may_speak_of_it(phase: str) -> None:
    found = verdict(f"{phase} 550 5.1.1 <a@example.com>: Recipient address rejected: User unknown")

    assert found == Verdict(
        OutcomeKind.REJECTED,
        "unknown_recipient",
        Scope.RECIPIENT,
        Action.SUPPRESS,
        "user-unknown",
    )


def test_words_in_an_address_do_not_count() -> None:
    assert verdict("rcpt 550 5.1.1 <spam.blocked@blacklist.example>: user unknown").action is (
        Action.SUPPRESS
    )
    assert verdict("rcpt 550 5.7.1 <no-such-user@example.com>: rejected by policy").action is (
        Action.NONE
    )


@pytest.mark.parametrize(
    ("phase", "kind", "reason"),
    [
        (Phase.ROUTE, OutcomeKind.UNREACHED, "dns_failure"),
        (Phase.CONNECT, OutcomeKind.UNREACHED, "host_down"),
        (Phase.TLS, OutcomeKind.UNREACHED, "tls_failed"),
        (Phase.RCPT, OutcomeKind.UNREACHED, "timeout"),
        (Phase.DATA, OutcomeKind.UNREACHED, "timeout"),
        (Phase.CONTENT, OutcomeKind.IN_DOUBT, "reply_lost"),
    ],
)
def test_silence_means_what_the_step_says(phase: Phase, kind: OutcomeKind, reason: str) -> None:
    found = classify(Reply(0, "", "timed out", phase), "gmail", RULES)

    assert (found.kind, found.reason, found.action) == (kind, reason, Action.NONE)


def test_a_250_after_the_content_is_acceptance_and_elsewhere_a_confusion() -> None:
    assert classify(Reply(250, "2.0.0", "OK", Phase.CONTENT), "gmail", RULES).kind is (
        OutcomeKind.ACCEPTED
    )
    assert classify(Reply(250, "2.1.5", "OK", Phase.RCPT), "gmail", RULES).reason == (
        "protocol_error"
    )


def test_the_shipped_rules_are_what_the_short_call_uses() -> None:
    reply = parse_sample("rcpt 550 5.1.1 User unknown")

    assert classify_by_shipped_rules(reply, "gmail") == classify(reply, "gmail", RULES)


@pytest.mark.parametrize(
    ("code", "enhanced", "text", "status"),
    [
        (550, "5.1.1", "User unknown", "1.1"),
        (550, "", "Invalid recipient <a@example.com> (#5.1.1)", "1.1"),
        (550, "", "cuda_nsu 5.1.1 <a@example.com>... User unknown", "1.1"),
        (451, "", "Please try again later [#4.16.1].", ""),
        (421, "", "deferred - 4.16.55.1; see", ""),
        (550, "", "host 5.1.1.7 said no", ""),
        (550, "", "450 4.1.1 unverified", ""),
    ],
)
def test_an_enhanced_code_is_found_where_the_server_put_it(
    code: int, enhanced: str, text: str, status: str
) -> None:
    assert seen_in(Reply(code, enhanced, text, Phase.RCPT), "other").status == status


def test_codes_and_line_ends_within_a_text_do_not_count() -> None:
    reply = Reply(
        550, "", "550-5.1.1 The account\n550-5.1.1 does not\r\n550 5.1.1 exist", Phase.RCPT
    )

    assert seen_in(reply, "gmail").text == "The account does not exist"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (
            "[192.0.2.1] rate limited, see https://a.example/x?id=1 4si211252vws.10",
            "[198.51.100.77] rate limited, see https://a.example/y 7ab98c0dwx.22",
        ),
        (
            "<a@example.com>: rejected (queue id 4F1A2B3C4D)",
            "<b@b.org>: rejected (queue id 99AA77BB1C)",
        ),
        ("busy since 2026-01-01T10:00:00.123Z", "busy since 2025-12-31T09:59:59Z"),
    ],
)
def test_replies_that_differ_only_in_their_particulars_share_a_template(
    one: str, other: str
) -> None:
    assert template_of(one) == template_of(other)
