"""The transport against the sandbox's providers: every fault, over TLS, on every provider."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvloop

from mailer.core.envelope import Envelope
from mailer.transport.door import Destination, Host, SendReport, Timeouts
from mailer.transport.smtp import SmtpTransport
from sandbox.testing import Sandbox, started
from tests.conformance.transport_peers import ListFeed

FAST = ("--greylist-seconds", "0.1", "--slow-seconds", "0.1", "--slow-host-seconds", "0.01")

#: What the sandbox's fault addresses must be told as.
FAULTS = {
    "unknown": {"550 rcpt"},
    "full": {"552 rcpt", "452 rcpt"},
    "tempfail-1000": {"451 rcpt", "450 rcpt"},
    "421": {"421 rcpt"},
    "ratelimit-1000": {"421 rcpt", "451 rcpt", "450 rcpt"},
    "disconnect-in-data": {"in doubt"},
    "lost-reply": {"in doubt"},
    "reject-data": {"554 content", "550 content"},
    "tempfail-data-1000": {"451 content"},
    "slow": {"250 content"},
}
KEPT = {"lost-reply", "slow"}  #: the sandbox has these messages in its mailbox


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    folder: Path = tmp_path_factory.mktemp("sandbox")
    with started(folder, *FAST) as running:
        yield running


def content_for(recipient: str, number: int) -> bytes:
    return (
        f"From: <shop@sender.example>\r\nTo: <{recipient}>\r\nSubject: Hello\r\n"
        f"Message-ID: <{number}@sender.example>\r\nX-Postroad-Mailing: 7\r\n\r\n"
        ".a line with a dot\r\n.\r\nthe end\r\n"
    ).encode()


def feed_for(names: list[str], recipient_domain: str) -> ListFeed:
    recipients = [f"{name}@{recipient_domain}" for name in names]
    return ListFeed(
        [
            Envelope(number, 1, "b@sender.example", recipient, content_for(recipient, number))
            for number, recipient in enumerate(recipients, start=1)
        ]
    )


def destination_of(sandbox: Sandbox, provider: str) -> Destination:
    return Destination(
        provider,
        tuple(Host(**host) for host in sandbox.description["providers"][provider]["hosts"]),
        "client.example",
        tls="opportunistic",
        is_loopback_only=True,
        timeouts=Timeouts(5.0, 5.0, 5.0, 10.0),
    )


def send_all(destination: Destination, feed: ListFeed) -> None:
    """Send until the feed is empty: a provider may end connections before that."""

    async def work() -> None:
        transport = SmtpTransport()
        async with asyncio.timeout(60):
            while True:
                report: SendReport = await transport.send(destination, feed, 4)
                if report.unreached is None:
                    break
        await transport.close(2.0)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(work())


@pytest.mark.parametrize("provider", ["gmail", "outlook", "yahoo", "apple"])
def test_each_provider_gets_what_is_meant_for_it_once(sandbox: Sandbox, provider: str) -> None:
    sandbox.clear()
    plain = [f"anna-{number}" for number in range(60)]
    names = [*plain[:30], *FAULTS, *plain[30:]]
    recipient_domain = sandbox.description["providers"][provider]["domains"][0]
    feed = feed_for(names, recipient_domain)

    send_all(destination_of(sandbox, provider), feed)

    told = {
        envelope.recipient.rpartition("@")[0]: feed.told()[envelope.message_id]
        for envelope in feed.envelopes
    }
    for name, allowed in FAULTS.items():
        assert told[name] in allowed, name
    refused_later = {name for name in plain if told[name].startswith(("421", "unreached"))}
    delivered = {name for name in plain if told[name] == "250 content"}
    assert delivered | refused_later == set(plain)
    assert len(delivered) > 40
    rows = sandbox.messages(mailing="7", limit=500)
    got = [row["recipient"] for row in rows]
    assert sorted(got) == sorted(f"{name}@{recipient_domain}" for name in delivered | KEPT)
    assert sandbox.get("/api/duplicates") == []
    assert sandbox.get(f"/api/messages/{rows[0]['id']}")["tls"]
