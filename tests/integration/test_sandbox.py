"""The sandbox as a process: real sockets, real clients, dnspython as the oracle for DNS."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import smtplib
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import aiosmtplib
import dns.resolver
import pytest

from sandbox.testing import DidNotStart, Sandbox, start, started

FAST = ("--greylist-seconds", "0.2", "--slow-seconds", "0.2", "--slow-host-seconds", "0.05")
CONTENT = (
    "From: Shop <shop@x.example>\r\nTo: {to}\r\nSubject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\n"
    "Message-ID: <{number}@x.example>\r\nX-Postroad-Mailing: {mailing}\r\n\r\nHello\r\n"
)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    with started(tmp_path_factory.mktemp("sandbox"), *FAST) as sandbox:
        yield sandbox


@pytest.fixture
def sandbox(running: Sandbox) -> Sandbox:
    running.clear()
    return running


def content(to: str, number: int = 1, mailing: str = "7") -> bytes:
    return CONTENT.format(to=to, number=number, mailing=mailing).encode()


def deliver(sandbox: Sandbox, provider: str, recipient: str, number: int = 1) -> int:
    """Send one message by itself; the code of the last reply, 0 where none came."""
    address, port = sandbox.smtp(provider)
    try:
        with smtplib.SMTP(address, port, "client.example", timeout=10) as client:
            client.sendmail("me@x.example", [recipient], content(recipient, number))
    except smtplib.SMTPRecipientsRefused as refused:
        return refused.recipients[recipient][0]
    except smtplib.SMTPServerDisconnected:
        return 0
    except smtplib.SMTPResponseException as error:
        return error.smtp_code
    return 250


def talk(sandbox: Sandbox, provider: str, data: bytes) -> list[str]:
    """Send everything in one write; the codes of all replies until the server closes."""
    with socket.create_connection(sandbox.smtp(provider), timeout=10) as client:
        client.sendall(data)
        with client.makefile("rb") as replies:
            return [line[:3].decode() for line in replies if line[3:4] == b" "]


def resolver(sandbox: Sandbox) -> dns.resolver.Resolver:
    asks = dns.resolver.Resolver(configure=False)
    asks.nameservers = [sandbox.dns[0]]
    asks.port = sandbox.dns[1]
    asks.lifetime = 1.0
    return asks


def test_a_message_is_found_with_its_envelope_headers_and_bytes(sandbox: Sandbox) -> None:
    assert deliver(sandbox, "gmail", "Anna@gmail.com") == 250

    (listed,) = sandbox.messages(recipient="anna@GMAIL.com")
    assert listed["subject"] == "Grüße"
    assert listed["mailing"] == "7"
    assert listed["rfc_message_id"] == "<1@x.example>"
    message = sandbox.get(f"/api/messages/{listed['id']}")
    assert message["envelope"] == {
        "return_path": "me@x.example",
        "recipients": ["Anna@gmail.com"],
    }
    assert (message["helo"], message["peer"]) == ("client.example", "127.0.0.1")
    assert message["tls"] is None
    assert ["X-Postroad-Mailing", "7"] in message["headers"]
    with urlopen(f"{sandbox.url}/api/messages/{listed['id']}/raw", timeout=10) as raw:
        assert raw.read() == content("Anna@gmail.com")


def test_pipelined_transactions_are_all_answered_in_order(sandbox: Sandbox) -> None:
    transactions = b"".join(
        b"MAIL FROM:<me@x.example>\r\nRCPT TO:<r%d@gmail.com>\r\nDATA\r\n%s.\r\n"
        % (number, content("r", number))
        for number in range(50)
    )

    codes = talk(sandbox, "gmail", b"EHLO c\r\n" + transactions + b"QUIT\r\n")

    assert codes == ["220", "250"] + ["250", "250", "354", "250"] * 50 + ["221"]
    assert sandbox.counts()["distinct"] == 50


def test_chunks_carry_a_message(sandbox: Sandbox) -> None:
    whole = content("anna@gmail.com") + b".\r\n..\r\n" + b"x" * 100_000
    head, tail = whole[:1000], whole[1000:]
    codes = talk(
        sandbox,
        "gmail",
        b"EHLO c\r\nMAIL FROM:<>\r\nRCPT TO:<anna@gmail.com>\r\n"
        + b"BDAT %d\r\n%sBDAT %d LAST\r\n%sQUIT\r\n" % (len(head), head, len(tail), tail),
    )

    assert codes == ["220", "250", "250", "250", "250", "250", "221"]
    (listed,) = sandbox.messages()
    with urlopen(f"{sandbox.url}/api/messages/{listed['id']}/raw", timeout=10) as raw:
        assert raw.read() == whole + b"\r\n"


def test_starttls_is_real_and_its_certificate_names_the_host(sandbox: Sandbox) -> None:
    context = ssl.create_default_context(cafile=str(sandbox.folder / "certificate.pem"))
    address, port = sandbox.smtp("gmail")

    async def send() -> None:
        client = aiosmtplib.SMTP(
            hostname="alt1.gmail-smtp-in.l.google.com",
            sock=socket.create_connection((address, port)),
            start_tls=True,
            tls_context=context,
        )
        async with client:
            await client.sendmail("me@x.example", ["a@gmail.com"], content("a@gmail.com"))

    asyncio.run(send())

    (listed,) = sandbox.messages()
    assert sandbox.get(f"/api/messages/{listed['id']}")["tls"] == "TLSv1.3"


def test_commands_sent_ahead_of_the_handshake_are_dropped(sandbox: Sandbox) -> None:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection(sandbox.smtp("gmail"), timeout=10) as plain:
        plain.sendall(b"EHLO c\r\nSTARTTLS\r\nMAIL FROM:<evil@x.example>\r\n")
        received = b""
        while b"220 2.0.0" not in received or not received.endswith(b"\r\n"):
            received += plain.recv(4096)
        with context.wrap_socket(plain) as secure:
            secure.sendall(b"EHLO c\r\nRCPT TO:<a@gmail.com>\r\nQUIT\r\n")
            with secure.makefile("rb") as replies:
                codes = [line[:3] for line in replies if line[3:4] == b" "]

    assert codes == [b"250", b"503", b"221"]


@pytest.mark.parametrize(
    ("recipient", "codes", "received"),
    [
        ("anna@gmail.com", [250], 1),
        ("tempfail-2@gmail.com", [451, 451, 250], 1),
        ("tempfail-data-2@gmail.com", [451, 451, 250], 1),
        ("ratelimit-1@gmail.com", [421, 250], 1),
        ("full-1@gmail.com", [552], 0),
        ("unknown-1@gmail.com", [550], 0),
        ("421-x@gmail.com", [421], 0),
        ("disconnect-in-data@gmail.com", [0], 0),
        ("lost-reply@gmail.com", [0], 1),
        ("slow@gmail.com", [250], 1),
        ("reject-data@gmail.com", [554], 0),
    ],
)
def test_faults(sandbox: Sandbox, recipient: str, codes: list[int], received: int) -> None:
    assert [deliver(sandbox, "gmail", recipient) for _ in codes] == codes
    assert sandbox.counts()["received"] == received


@pytest.mark.parametrize(
    ("provider", "recipient"), [("corporate", "anna@acme.example"), ("gmail", "greylist@gmail.com")]
)
def test_greylisting_passes_after_its_delay(
    sandbox: Sandbox, provider: str, recipient: str
) -> None:
    first_tried = time.monotonic()
    assert deliver(sandbox, provider, recipient) == 451
    deadline = first_tried + 10
    while deliver(sandbox, provider, recipient) != 250:
        assert time.monotonic() < deadline

    assert time.monotonic() - first_tried >= 0.2


def test_the_slow_server_takes_its_time_for_each_reply(sandbox: Sandbox) -> None:
    began = time.monotonic()

    assert deliver(sandbox, "slow", "anna@slow.example") == 250
    assert time.monotonic() - began >= 6 * 0.05


def test_counts_tell_copies_providers_and_mailings_apart(sandbox: Sandbox) -> None:
    deliver(sandbox, "gmail", "anna@gmail.com")
    deliver(sandbox, "gmail", "Anna@gmail.com")
    deliver(sandbox, "yahoo", "otto@yahoo.com", number=2)
    deliver(sandbox, "yahoo", "unknown@yahoo.com")
    deliver(sandbox, "yahoo", "tempfail@yahoo.com")

    counts = sandbox.counts()

    assert counts == {
        "received": 3,
        "distinct": 2,
        "duplicates": 1,
        "by_provider": {"gmail": 2, "yahoo": 1},
        "rejected": 1,
        "deferred": 1,
        "connections": 5,
    }
    assert sandbox.counts(mailing="7")["distinct"] == 2
    assert sandbox.counts(mailing="8")["received"] == 0
    assert sandbox.counts(since=time.time() + 60)["received"] == 0
    assert sandbox.counts(since="2020-01-01T00:00:00+00:00")["received"] == 3
    (duplicate,) = sandbox.get("/api/duplicates")
    assert (duplicate["recipient"], len(duplicate["copies"])) == ("anna@gmail.com", 2)
    assert {each["code"] for each in sandbox.get("/api/refusals")} == {550, 451}


def test_messages_are_listed_newest_first_and_in_pages(sandbox: Sandbox) -> None:
    for number in range(5):
        deliver(sandbox, "gmail", f"r{number}@gmail.com", number)

    listed = sandbox.messages(limit=2, offset=1)

    assert [message["recipient"] for message in listed] == ["r3@gmail.com", "r2@gmail.com"]


def test_one_copy_counts_for_each_accepted_recipient(sandbox: Sandbox) -> None:
    address, port = sandbox.smtp("gmail")
    with smtplib.SMTP(address, port, timeout=10) as client:
        recipients = ["a@gmail.com", "unknown@gmail.com", "b@gmail.com"]
        client.sendmail("me@x.example", recipients, content("all"))

    assert sandbox.counts()["received"] == 2


def test_pages_show_the_message_without_running_any_of_it(sandbox: Sandbox) -> None:
    address, port = sandbox.smtp("gmail")
    with smtplib.SMTP(address, port, timeout=10) as client:
        client.sendmail(
            "me@x.example",
            ["a@gmail.com"],
            b"Subject: <script>alert(1)</script>\r\nContent-Type: text/html\r\n\r\n<p>Hello</p>",
        )
    number = sandbox.messages()[0]["id"]

    with urlopen(f"{sandbox.url}/", timeout=10) as page:
        assert "&lt;script&gt;" in page.read().decode()
    with urlopen(f"{sandbox.url}/messages/{number}", timeout=10) as page:
        assert "script-src" not in page.headers["Content-Security-Policy"]
        assert "default-src 'none'" in page.headers["Content-Security-Policy"]
        assert "<script" not in page.read().decode()
    with urlopen(f"{sandbox.url}/messages/{number}/html", timeout=10) as page:
        assert page.headers["Content-Security-Policy"].startswith("sandbox allow-popups")
        assert "<p>Hello</p>" in page.read().decode()


@pytest.mark.parametrize(
    ("path", "method", "status"),
    [
        ("/nowhere", "GET", 404),
        ("/api/messages/999999", "GET", 404),
        ("/api/messages/999999/raw", "GET", 404),
        ("/messages/999999", "GET", 404),
        ("/api/clear", "GET", 405),
        ("/api/counts", "POST", 405),
        ("/api/counts", "DELETE", 405),
        ("/api/messages?limit=x", "GET", 400),
        ("/api/counts?since=yesterday", "GET", 400),
    ],
)
def test_wrong_questions_get_fitting_answers(
    sandbox: Sandbox, path: str, method: str, status: int
) -> None:
    with pytest.raises(HTTPError) as error:
        urlopen(Request(f"{sandbox.url}{path}", method=method), timeout=10)

    assert error.value.code == status
    error.value.close()


def test_another_sites_page_cannot_empty_the_inbox(sandbox: Sandbox) -> None:
    deliver(sandbox, "gmail", "anna@gmail.com")
    headers = {"Origin": "https://attacker.example"}
    with pytest.raises(HTTPError) as error:
        urlopen(Request(f"{sandbox.url}/api/clear", method="POST", headers=headers), timeout=10)
    error.value.close()

    assert sandbox.counts()["received"] == 1


def test_dns_leads_to_a_server_that_takes_the_mail(sandbox: Sandbox) -> None:
    asks = resolver(sandbox)
    best = min(asks.resolve("hotmail.com", "MX"), key=lambda record: record.preference)
    host = best.exchange.to_text(omit_final_dot=True)
    address = asks.resolve(host, "A")[0].address
    port = asks.resolve(f"_smtp._tcp.{host}", "SRV", tcp=True)[0].port

    assert (address, port) == sandbox.smtp("outlook")
    pointer = asks.resolve_address(address)[0].target.to_text(omit_final_dot=True)
    assert pointer == host


def test_dns_faults(sandbox: Sandbox) -> None:
    asks = resolver(sandbox)

    assert asks.resolve("nullmx.example", "MX")[0].exchange.to_text() == "."
    with pytest.raises(dns.resolver.NXDOMAIN):
        asks.resolve("nowhere.invalid", "MX")
    with pytest.raises(dns.resolver.NoAnswer):
        asks.resolve("nomx.example", "MX")
    with pytest.raises(dns.resolver.NoNameservers):
        asks.resolve("servfail.example", "MX")
    with pytest.raises(dns.resolver.LifetimeTimeout):
        asks.resolve("timeout.example", "MX", lifetime=0.2)


def test_nothing_listens_at_the_unreachable_host(sandbox: Sandbox) -> None:
    asks = resolver(sandbox)
    address = asks.resolve("mx.unreachable.example", "A")[0].address
    port = asks.resolve("_smtp._tcp.mx.unreachable.example", "SRV")[0].port

    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((address, port), timeout=5)


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_after_a_restart_everything_said_250_to_is_still_known(
    tmp_path: Path, end: signal.Signals
) -> None:
    first = start(tmp_path)
    for number in range(20):
        assert deliver(first, "gmail", f"r{number % 10}@gmail.com", number % 10) == 250
    assert deliver(first, "gmail", "unknown@gmail.com") == 550
    first.process.send_signal(end)
    first.process.wait(10)

    with started(tmp_path) as second:
        counts = second.counts()
        assert (counts["received"], counts["duplicates"], counts["rejected"]) == (20, 10, 1)
        assert deliver(second, "gmail", "r0@gmail.com", 0) == 250
        assert second.counts()["duplicates"] == 11


def test_killed_under_load_it_knows_every_message_it_said_250_to(tmp_path: Path) -> None:
    sandbox = start(tmp_path)
    load = b"".join(
        b"MAIL FROM:<>\r\nRCPT TO:<r%d@gmail.com>\r\nDATA\r\n%s%s.\r\n"
        % (number, content("r", number), b"x" * 5000 + b"\r\n")
        for number in range(3000)
    )
    with socket.create_connection(sandbox.smtp("gmail"), timeout=10) as client:
        sender = threading.Thread(target=send_until_refused, args=(client, load))
        sender.start()
        answered = 0
        with contextlib.suppress(ConnectionError), client.makefile("rb") as replies:
            for line in replies:
                answered += line.startswith(b"250 2.0.0 OK  ")
                if answered == 500:
                    sandbox.process.kill()
        sender.join()
    sandbox.process.wait(10)

    with started(tmp_path) as again:
        counts = again.counts()
        assert 500 <= answered <= counts["received"] < 3000
        assert counts["duplicates"] == 0


def send_until_refused(client: socket.socket, data: bytes) -> None:
    with contextlib.suppress(OSError):
        client.sendall(b"EHLO c\r\n" + data)


def test_sigterm_says_goodbye_to_clients_and_ends_at_once(tmp_path: Path) -> None:
    sandbox = start(tmp_path)
    with socket.create_connection(sandbox.smtp("gmail"), timeout=10) as client:
        assert client.recv(4096).startswith(b"220")
        sandbox.process.terminate()
        assert client.recv(4096).startswith(b"421")

    assert sandbox.process.wait(5) == 0
    assert not (tmp_path / "sandbox.json").exists()


def test_a_single_address_gives_each_provider_a_port_of_its_own(tmp_path: Path) -> None:
    with started(tmp_path, "--single-address") as sandbox:
        names = list(sandbox.description["providers"])
        places = [sandbox.smtp(name) for name in names]

        assert {address for address, _ in places} == {"127.0.0.1"}
        assert len({port for _, port in places}) == len(places)
        assert deliver(sandbox, "yahoo", "anna@yahoo.com") == 250
        host = "mta5.am0.yahoodns.net"
        answer = resolver(sandbox).resolve(f"_smtp._tcp.{host}", "SRV")
        assert answer[0].port == sandbox.smtp("yahoo")[1]


def test_fixed_ports_are_used_exactly(tmp_path: Path) -> None:
    with started(tmp_path) as sandbox:
        dns_port, http_port = sandbox.dns[1], int(sandbox.url.rpartition(":")[2])
        smtp_port = sandbox.smtp("gmail")[1]
    ports = ["--dns-port", dns_port, "--http-port", http_port, "--smtp-port", smtp_port]

    with started(tmp_path, *map(str, ports)) as again:
        assert again.dns[1] == dns_port
        assert again.url.endswith(f":{http_port}")
        assert again.smtp("gmail")[1] == smtp_port


@pytest.mark.parametrize("options", [(), ("--single-address",)])
def test_a_restarted_sandbox_is_where_it_was(tmp_path: Path, options: tuple[str, ...]) -> None:
    first = start(tmp_path, *options)
    first.process.kill()
    first.process.wait(10)

    with started(tmp_path, *options) as second:
        del first.description["pid"], second.description["pid"]
        assert second.description == first.description


def test_a_port_taken_meanwhile_is_given_up_where_any_would_do(tmp_path: Path) -> None:
    with started(tmp_path) as first:
        port = first.dns[1]
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port))
        taken.listen()

        with started(tmp_path) as second:
            assert second.dns[1] != port


@pytest.mark.parametrize("option", ["--dns-port", "--http-port"])
def test_a_taken_port_is_named_and_ends_the_start(tmp_path: Path, option: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]

        with pytest.raises(DidNotStart, match=rf"cannot listen on 127\.0\.0\.1:{port}"):
            start(tmp_path, option, str(port))


def test_a_state_folder_serves_one_sandbox_at_a_time(tmp_path: Path) -> None:
    with started(tmp_path) as sandbox:
        command = [sys.executable, "-m", "sandbox", "--state-dir", str(tmp_path)]
        second = subprocess.run(command, capture_output=True, text=True, timeout=30)

        assert second.returncode == 1
        assert "another sandbox works in" in second.stderr
        assert sandbox.get("/health") == {"status": "ok"}


def test_the_sink_counts_exactly_and_keeps_nothing(tmp_path: Path) -> None:
    with started(tmp_path, "--sink") as sandbox:
        for number in (1, 2, 1):
            deliver(sandbox, "gmail", "anna@gmail.com", number)

        counts = sandbox.counts(mailing="7")
        assert (counts["received"], counts["distinct"], counts["duplicates"]) == (3, 2, 1)
        (duplicate,) = sandbox.get("/api/duplicates")
        assert duplicate["rfc_message_id"] == "<1@x.example>"
        assert len(duplicate["copies"]) == 2
        assert sandbox.messages() == []
    assert not (tmp_path / "mail.log").exists()


def test_the_inbox_and_the_log_are_for_their_owner_alone(running: Sandbox) -> None:
    assert os.stat(running.folder / "mail.log").st_mode & 0o077 == 0
