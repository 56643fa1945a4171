from __future__ import annotations

from dataclasses import replace

import pytest

from campaigns.core.preflight import Facts, judge

READY = Facts(
    subject="Hello",
    html='<p>Hi</p><a href="{{ unsubscribe_url }}">out</a>',
    list_names=("Readers",),
    pool_name="Main",
    sources_count=2,
    usable_sources_count=1,
)


def codes(**changes: object) -> list[str]:
    return [f"{row.severity}:{row.code}" for row in judge(replace(READY, **changes))]


def test_a_campaign_that_is_ready_has_no_findings() -> None:
    assert judge(READY) == ()


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"has_version": False}, "blocking:no_content"),
        ({"subject": "  "}, "blocking:empty_subject"),
        ({"template_errors": ("subject, line 1: no",)}, "blocking:invalid_template"),
        ({"from_error": "no"}, "blocking:invalid_from"),
        ({"reply_to_error": "no"}, "blocking:invalid_reply_to"),
        ({"list_names": ()}, "blocking:no_list"),
        ({"foreign_lists": ("Theirs",)}, "blocking:foreign_list"),
        ({"has_audience": False}, "blocking:empty_audience"),
        ({"absent_fields": frozenset({"frist_name"})}, "blocking:unknown_field"),
        ({"is_pool_foreign": True}, "blocking:foreign_pool"),
        ({"sources_count": 0, "usable_sources_count": 0}, "blocking:no_source"),
        ({"usable_sources_count": 0}, "blocking:no_usable_source"),
        ({"retry_error": "no"}, "blocking:invalid_retry"),
        ({"html": "<p>Hi</p>"}, "warning:no_unsubscribe_link"),
        ({"html": READY.html + "x" * 105_000}, "warning:clipped_html"),
        ({"gap_ratios": {"city": 0.25}}, "warning:field_gaps"),
        ({"is_public_url_local": True}, "warning:local_links"),
    ],
)
def test_each_fact_that_is_wrong_is_one_finding(changes: dict[str, object], found: str) -> None:
    assert codes(**changes) == [found]


def test_every_message_ends_with_one_full_stop() -> None:
    found = judge(
        replace(
            READY,
            template_errors=("line 1: no", "line 2: no."),
            from_error="no address",
            reply_to_error="no address",
            retry_error="no policy",
        )
    )

    assert len(found) == 5
    assert all(row.message.endswith(".") and not row.message.endswith("..") for row in found)


def test_content_without_html_and_text_blocks() -> None:
    assert "blocking:empty_content" in codes(html="", text=" ")


def test_in_the_sandbox_links_may_point_to_this_machine() -> None:
    assert codes(is_public_url_local=True, is_sandbox=True) == []


def test_an_unsubscribe_link_in_the_text_is_enough() -> None:
    assert codes(html="", text="Out: {{ unsubscribe_url }}") == []


def test_an_unknown_field_comes_with_the_fields_that_are_known() -> None:
    facts = replace(
        READY, absent_fields=frozenset({"frist_name"}), known_fields=frozenset({"first_name"})
    )
    (finding,) = judge(facts)

    assert "“frist_name”" in finding.message
    assert "Known fields are: first_name." in finding.advice
    assert finding.is_blocking


def test_what_blocks_comes_before_what_warns() -> None:
    found = codes(html="<p>Hi</p>", has_audience=False)

    assert found == ["blocking:empty_audience", "warning:no_unsubscribe_link"]
