"""The transport on real sockets: TLS, passwords, addresses, and servers that go away."""

from __future__ import annotations

import asyncio
import inspect
import socket
import ssl
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path

import aiosmtplib
import pytest
import uvloop
from aiosmtplib.protocol import SMTPProtocol
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from deliverability.core.outcome import Phase
from mailer.core.envelope import Envelope
from mailer.transport.door import Host, Replied, SendReport, Timeouts, Unreached
from mailer.transport.memory import MODERN, ServerScript, Treatment
from mailer.transport.smtp import SmtpTransport
from tests.conformance.transport_peers import (
    CONTENT,
    ListFeed,
    LoopbackServer,
    a_destination,
    an_envelope,
    feed_of,
    until,
)

LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
TLS_OFFERS = (*MODERN, "STARTTLS")
Play = Callable[[Coroutine[None, None, None]], None]


@pytest.fixture(params=LOOPS)
def play(request: pytest.FixtureRequest) -> Play:
    def run(scenario: Coroutine[None, None, None]) -> None:
        async def bounded() -> None:
            async with asyncio.timeout(30):
                await scenario

        with asyncio.Runner(loop_factory=LOOPS[request.param]) as runner:
            runner.run(bounded())

    return run


async def send(
    transport: SmtpTransport, server: LoopbackServer, feed: ListFeed, **settings: object
) -> SendReport:
    destination = a_destination(*settings.pop("hosts", (server.host,)), **settings)  # type: ignore[misc]
    return await transport.send(destination, feed, 1)


# -- TLS


@dataclass(frozen=True)
class Certificates:
    ca_file: str
    chain_file: str

    def server_context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.chain_file)
        return context


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """An authority of our own and its certificate for mx.test."""
    folder: Path = tmp_path_factory.mktemp("tls")
    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    ca_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test authority")])
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "mx.test")])
    now = datetime.now(UTC)

    def certificate(subject: x509.Name, public: ec.EllipticCurvePublicKey, is_ca: bool) -> bytes:
        builder = x509.CertificateBuilder(
            issuer_name=ca_name,
            subject_name=subject,
            public_key=public,
            serial_number=x509.random_serial_number(),
            not_valid_before=now - timedelta(days=1),
            not_valid_after=now + timedelta(days=1),
        ).add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
        ca_id = x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key())
        own_id = x509.SubjectKeyIdentifier.from_public_key(public)
        builder = builder.add_extension(own_id, critical=False).add_extension(ca_id, critical=False)
        builder = builder.add_extension(_usage(is_ca), critical=True)
        alternative = x509.SubjectAlternativeName([x509.DNSName("mx.test")])
        if not is_ca:
            builder = builder.add_extension(alternative, critical=False)
        return builder.sign(ca_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    (folder / "ca.pem").write_bytes(certificate(ca_name, ca_key.public_key(), True))
    (folder / "chain.pem").write_bytes(certificate(name, key.public_key(), False) + private)
    return Certificates(str(folder / "ca.pem"), str(folder / "chain.pem"))


def _usage(is_ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=is_ca,
        crl_sign=is_ca,
        encipher_only=False,
        decipher_only=False,
    )


@pytest.mark.parametrize("count", [1, 40])
def test_mail_flows_over_verified_tls(play: Play, certificates: Certificates, count: int) -> None:
    async def scenario() -> None:
        script = ServerScript(offers=TLS_OFFERS)
        async with LoopbackServer(script, certificates.server_context()) as server:
            transport = SmtpTransport(ca_file=certificates.ca_file)
            feed = feed_of(f"r{number}@x.test" for number in range(count))

            await send(transport, server, feed, tls="required", verify_certificate=True)

            assert set(feed.told().values()) == {"250 content"}
            assert {got.content for got in script.inbox} == {CONTENT}
            assert script.commands[1] == "STARTTLS"
            assert [line.split()[0] for line in script.commands].count("EHLO") == 2
            await transport.close(1.0)

    play(scenario())


def test_big_content_over_tls_arrives_whole(play: Play, certificates: Certificates) -> None:
    async def scenario() -> None:
        script = ServerScript(offers=TLS_OFFERS)
        async with LoopbackServer(script, certificates.server_context()) as server:
            transport = SmtpTransport()
            content = b".dots everywhere\r\n" * 150_000
            feed = ListFeed([an_envelope(number, content=content) for number in (1, 2, 3)])

            await send(transport, server, feed, tls="required")

            assert set(feed.told().values()) == {"250 content"}
            assert [got.content == content for got in script.inbox] == [True] * 3
            await transport.close(1.0)

    play(scenario())


def test_a_certificate_for_another_name_is_refused(play: Play, certificates: Certificates) -> None:
    async def scenario() -> None:
        script = ServerScript(offers=TLS_OFFERS)
        async with LoopbackServer(script, certificates.server_context()) as server:
            transport = SmtpTransport(ca_file=certificates.ca_file)
            other = replace(server.host, name="other.test")
            for tls in ("required", "opportunistic"):
                feed = feed_of(["a@x.test"])

                report = await send(
                    transport, server, feed, hosts=(other,), tls=tls, verify_certificate=True
                )

                assert feed.told() == {1: "unreached tls"}
                assert report.unreached is not None
                assert "certificate verify failed" in report.unreached.text
            assert script.inbox == []
            await transport.close(1.0)

    play(scenario())


def test_opportunistic_tls_falls_back_when_the_handshake_fails(play: Play) -> None:
    async def scenario() -> None:
        broken = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)  # has no certificate: cannot shake hands
        script = ServerScript(offers=TLS_OFFERS)
        async with LoopbackServer(script, broken) as server:
            transport = SmtpTransport()
            feed = feed_of(["a@x.test", "b@x.test"])

            await send(transport, server, feed, tls="opportunistic")

            assert feed.told() == {1: "250 content", 2: "250 content"}
            assert script.connections == 2
            await transport.close(1.0)

    play(scenario())


@pytest.mark.parametrize("offers", [MODERN, TLS_OFFERS])
def test_required_tls_never_falls_back(play: Play, offers: tuple[str, ...]) -> None:
    async def scenario() -> None:
        script = ServerScript(offers=offers)
        broken = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        async with LoopbackServer(script, broken) as server:
            transport = SmtpTransport()
            feed = feed_of(["a@x.test"])

            report = await send(transport, server, feed, tls="required")

            assert feed.told() == {1: "unreached tls"}
            assert report.unreached is not None
            assert script.inbox == []
            assert not [line for line in script.commands if line.startswith("MAIL")]
            await transport.close(1.0)

    play(scenario())


# -- AUTH


@pytest.mark.parametrize("mechanisms", ["PLAIN LOGIN", "PLAIN", "LOGIN"])
def test_a_relay_gets_its_password(play: Play, certificates: Certificates, mechanisms: str) -> None:
    async def scenario() -> None:
        script = ServerScript(
            offers=(*TLS_OFFERS, f"AUTH {mechanisms}"), credentials=("me", "secret")
        )
        async with LoopbackServer(script, certificates.server_context()) as server:
            transport = SmtpTransport()
            feed = feed_of(["a@x.test"])

            await send(transport, server, feed, tls="required", username="me", password="secret")

            assert feed.told() == {1: "250 content"}
            assert [line for line in script.commands if line.startswith("AUTH")]
            await transport.close(1.0)

    play(scenario())


def test_a_wrong_password_is_told_in_the_servers_words(
    play: Play, certificates: Certificates
) -> None:
    async def scenario() -> None:
        script = ServerScript(offers=(*TLS_OFFERS, "AUTH PLAIN"), credentials=("me", "secret"))
        async with LoopbackServer(script, certificates.server_context()) as server:
            transport = SmtpTransport()
            feed = feed_of(["a@x.test"])

            report = await send(
                transport, server, feed, tls="required", username="me", password="wrong"
            )

            assert report.unreached is not None
            reply = report.unreached.reply
            assert (reply.code, reply.enhanced, reply.phase) == (535, "5.7.8", Phase.AUTH)
            await transport.close(1.0)

    play(scenario())


def test_no_password_goes_over_an_unencrypted_connection(play: Play) -> None:
    async def scenario() -> None:
        script = ServerScript(offers=(*MODERN, "AUTH PLAIN"), credentials=("me", "secret"))
        async with LoopbackServer(script) as server:
            transport = SmtpTransport()
            feed = feed_of(["a@x.test"])

            report = await send(
                transport, server, feed, tls="opportunistic", username="me", password="secret"
            )

            assert report.unreached is not None
            assert report.unreached.phase is Phase.AUTH
            assert not [line for line in script.commands if line.startswith("AUTH")]
            await transport.close(1.0)

    play(scenario())


def test_a_password_is_not_shown() -> None:
    destination = a_destination(Host("mx.test", "127.0.0.1"), password="secret")

    assert "secret" not in repr(destination)


# -- addresses and hosts


def test_the_source_address_is_the_one_asked_for(play: Play) -> None:
    async def scenario() -> None:
        script = ServerScript()
        async with LoopbackServer(script) as server:
            transport = SmtpTransport()

            for source in ("127.0.0.2", "127.0.0.3"):
                feed = feed_of(["a@x.test"])
                await send(transport, server, feed, source_address=source)
                assert feed.told() == {1: "250 content"}

            assert server.peers == {"127.0.0.2", "127.0.0.3"}
            assert {line for line in script.commands if line.startswith("EHLO")} == {
                "EHLO mail.sender.test"
            }
            await transport.close(1.0)

    play(scenario())


@pytest.mark.parametrize("source", ["192.0.2.7", "2001:db8::7"])
def test_a_source_address_that_is_not_ours_reaches_nobody(play: Play, source: str) -> None:
    async def scenario() -> None:
        async with LoopbackServer(ServerScript()) as server:
            transport = SmtpTransport()
            feed = feed_of(["a@x.test"])

            await send(transport, server, feed, source_address=source)

            assert feed.told() == {1: "unreached connect"}
            assert server.script.connections == 0
            await transport.close(1.0)

    play(scenario())


def test_a_server_from_before_esmtp_is_greeted_with_helo(play: Play) -> None:
    async def scenario() -> None:
        script = ServerScript(speaks_esmtp=False)
        async with LoopbackServer(script) as server:
            transport = SmtpTransport()
            feed = feed_of(["a@x.test", "b@x.test"])

            await send(transport, server, feed)

            assert feed.told() == {1: "250 content", 2: "250 content"}
            assert script.commands[:2] == ["EHLO mail.sender.test", "HELO mail.sender.test"]
            await transport.close(1.0)

    play(scenario())


def test_a_host_found_dead_is_not_asked_again_for_a_while(play: Play) -> None:
    async def scenario() -> None:
        async with LoopbackServer(ServerScript()) as server:
            closed = server.host
        async with LoopbackServer(ServerScript()) as server:
            transport = SmtpTransport()
            first = await send(transport, server, feed_of(["a@x.test"]), hosts=(closed,))
            async with asyncio.timeout(5):
                again = await asyncio.get_running_loop().create_server(
                    asyncio.Protocol, "127.0.0.1", closed.port
                )

            second = await send(transport, server, feed_of(["a@x.test"]), hosts=(closed,))
            both = feed_of(["a@x.test"])
            await send(transport, server, both, hosts=(closed, server.host))

            again.close()
            assert first.unreached is not None
            assert first.unreached == second.unreached
            assert both.told() == {1: "250 content"}
            await transport.close(1.0)

    play(scenario())


# -- servers that are slow, silent or gone


@contextmanager
def silent_listener() -> Iterator[Host]:
    """Accepts connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield Host("silent.test", "127.0.0.1", listener.getsockname()[1])


def test_a_silent_server_is_given_up_at_the_greeting(play: Play) -> None:
    async def scenario() -> None:
        transport = SmtpTransport()
        timeouts = Timeouts(2.0, greeting_seconds=0.05)
        with silent_listener() as host:
            feed = feed_of(["a@x.test"])

            report = await transport.send(a_destination(host, timeouts=timeouts), feed, 1)

        assert feed.told() == {1: "unreached greeting"}
        assert report.unreached is not None
        assert "timed out" in report.unreached.text.lower()
        await transport.close(1.0)

    play(scenario())


@pytest.mark.parametrize("farewell", [b"421 4.4.2 idle\r\n", b""])
def test_a_connection_closed_while_idle_costs_no_message(play: Play, farewell: bytes) -> None:
    async def scenario() -> None:
        async with LoopbackServer(ServerScript()) as server:
            transport = SmtpTransport()
            await send(transport, server, feed_of(["a@x.test"]))
            (connection,) = server.connections
            if farewell:
                connection.transport.write(farewell)
            connection.transport.close()
            feed = feed_of(["b@x.test", "c@x.test"])

            report = await send(transport, server, feed)  # before or after we notice, both happen

            assert feed.told() == {1: "250 content", 2: "250 content"}
            assert report.opened == 1
            await transport.close(1.0)

    play(scenario())


def test_a_connection_seen_closing_while_idle_is_forgotten(play: Play) -> None:
    async def scenario() -> None:
        async with LoopbackServer(ServerScript()) as server:
            transport = SmtpTransport()
            destination = a_destination(server.host)
            await transport.send(destination, feed_of(["a@x.test"]), 1)
            for connection in server.connections:
                connection.transport.write(b"421 4.4.2 idle\r\n")

            await until(lambda: transport.connections_to(destination) == 0)

            await transport.close(1.0)

    play(scenario())


def test_content_larger_than_every_buffer_is_sent_at_the_servers_pace(play: Play) -> None:
    async def scenario() -> None:
        script = ServerScript()
        async with LoopbackServer(script) as server:
            transport = SmtpTransport()
            content = b"x" * 998 + b"\r\n"
            envelopes = [an_envelope(number, content=content * 8_000) for number in (1, 2, 3)]

            feed = ListFeed(envelopes)
            await send(transport, server, feed)

            assert set(feed.told().values()) == {"250 content"}
            assert [len(got.content) for got in script.inbox] == [8_000_000] * 3
            await transport.close(1.0)

    play(scenario())


def test_a_process_that_was_stopped_reads_the_replies_that_wait_for_it(play: Play) -> None:
    """Its timers are all overdue when it goes on; the replies came long ago."""

    async def scenario(host: Host) -> None:
        transport = SmtpTransport()
        timeouts = Timeouts(5.0, 5.0, command_seconds=1.0, data_reply_seconds=1.0)
        feed = feed_of(["a@x.test", "b@x.test"])

        def stop_the_process(envelope: Envelope) -> None:
            # Soon: when the content has left, and before its reply can be here.
            asyncio.get_running_loop().call_later(0.02, time.sleep, 1.6)

        feed.may_start = stop_the_process
        await transport.send(a_destination(host, timeouts=timeouts), feed, 1)

        assert set(feed.told().values()) == {"250 content"}
        await transport.close(1.0)

    with served_elsewhere(ServerScript(), delay_seconds=0.1) as host:
        play(scenario(host))


@contextmanager
def served_elsewhere(script: ServerScript, delay_seconds: float) -> Iterator[Host]:
    """A server that lives on while this thread's loop stands still."""
    hosts: list[Host] = []
    is_up, is_done = threading.Event(), threading.Event()

    async def serve() -> None:
        async with LoopbackServer(script, delay_seconds=delay_seconds) as server:
            hosts.append(server.host)
            is_up.set()
            await asyncio.to_thread(is_done.wait)

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    assert is_up.wait(10)
    yield hosts[0]
    is_done.set()
    thread.join(10)


def test_a_slow_reply_is_measured(play: Play) -> None:
    async def scenario() -> None:
        async with LoopbackServer(ServerScript(), delay_seconds=0.05) as server:
            transport = SmtpTransport()
            feed = feed_of(["a@x.test"])

            await send(transport, server, feed)

            result = feed.results[1]
            assert isinstance(result, Replied)
            assert result.seconds >= 0.04
            await transport.close(1.0)

    play(scenario())


def test_a_server_that_answers_nothing_but_nonsense_is_left_alone(play: Play) -> None:
    async def scenario() -> None:
        nonsense = {"bounce@sender.test": Treatment(mail="what?")}
        async with LoopbackServer(ServerScript(nonsense)) as server:
            transport = SmtpTransport()
            feed = feed_of(f"r{number}@x.test" for number in range(100))

            report = await send(transport, server, feed)

            assert server.script.connections == 3
            assert set(feed.told().values()) == {"unreached mail"}
            assert feed.taken <= 4
            assert isinstance(report.unreached, Unreached)
            await transport.close(1.0)

    play(scenario())


# -- what we rely on in aiosmtplib


def test_aiosmtplib_is_the_version_whose_inside_was_read() -> None:
    assert version("aiosmtplib") == "5.1.3"


def test_aiosmtplib_still_behaves_as_the_take_over_needs() -> None:
    """A new version must be read again before these lines are changed."""
    parameters = inspect.signature(aiosmtplib.SMTP.__init__).parameters
    assert {"hostname", "sock", "local_hostname", "timeout", "start_tls"} <= set(parameters)
    assert "tls_context" in inspect.signature(aiosmtplib.SMTP.starttls).parameters
    assert not hasattr(aiosmtplib.SMTP, "__del__")  # a dropped client must not close our socket
    assert issubclass(aiosmtplib.SMTPServerDisconnected, OSError)
    assert issubclass(aiosmtplib.SMTPConnectResponseError, aiosmtplib.SMTPResponseException)
    assert issubclass(aiosmtplib.SMTPTimeoutError, TimeoutError)
    source = inspect.getsource(SMTPProtocol.data_received)
    assert "not self._response_pending" in source  # why its protocol has to be replaced


def test_a_host_is_an_address_and_knows_whether_it_is_this_machine() -> None:
    assert Host("mx.test", "::1").is_loopback
    assert Host("mx.test", "::ffff:127.0.0.1").is_loopback
    assert not Host("mx.test", "::ffff:192.0.2.1").is_loopback
    with pytest.raises(ValueError, match="does not appear to be"):
        Host("mx.test", "localhost")
