from __future__ import annotations

import pytest

from sandbox.conversation import Conversation, Ending
from sandbox.memory import GreylistMemory
from sandbox.providers import PROVIDERS
from sandbox.reception import Delays, Memory, Reception
from sandbox.records import Accepted, Refused

NOW = 1_800_000_000.0
ENVELOPE = b"MAIL FROM:<me@x.example>\r\nRCPT TO:<%s>\r\n"
CONTENT = b"Message-ID: <1@x.example>\r\nSubject: Hello\r\n\r\nHello\r\n"


class Client:
    """Talks to a conversation, and keeps what came of it."""

    def __init__(self, provider: str = "catchall", memory: Memory | None = None) -> None:
        chosen = next(each for each in PROVIDERS if each.name == provider)
        self.memory = memory or Memory(GreylistMemory(4.0))
        reception = Reception(chosen, self.memory, Delays())
        self.conversation = Conversation(reception, host="mx.x.test", peer="127.0.0.1", now=NOW)
        self.now = NOW
        if provider != "slow":
            assert self.codes() == ["220"]
            assert self.says(b"EHLO client.example\r\n")[-1] == "250"

    def says(self, data: bytes) -> list[str]:
        """The codes of the replies, one for each reply."""
        self.conversation.receive(data, self.now)
        return self.codes()

    def codes(self) -> list[str]:
        replies = self.conversation.output.decode().splitlines()
        self.conversation.output.clear()
        return [line[:3] for line in replies if line[3:4] == " "]

    def sends(self, recipient: bytes, content: bytes = CONTENT) -> list[str]:
        """The codes of one transaction; content is sent only when asked for."""
        codes = self.says(b"RSET\r\n" + ENVELOPE % recipient)[1:]
        if codes[-1] != "250":
            return codes
        codes += self.says(b"DATA\r\n")
        return codes + self.says(content + b".\r\n")

    @property
    def accepted(self) -> list[Accepted]:
        return [each for each in self.conversation.records if isinstance(each, Accepted)]

    @property
    def refused(self) -> list[Refused]:
        return [each for each in self.conversation.records if isinstance(each, Refused)]


def test_a_pipelined_transaction_is_answered_in_order() -> None:
    client = Client()

    codes = client.says(ENVELOPE % b"anna@x.example" + b"DATA\r\n" + CONTENT + b".\r\nQUIT\r\n")

    assert codes == ["250", "250", "354", "250", "221"]
    assert client.conversation.ending is Ending.CLOSE
    (message,) = client.accepted
    assert message.content == CONTENT
    assert message.return_path == "me@x.example"
    assert message.recipients == ("anna@x.example",)


def test_the_same_conversation_comes_out_byte_by_byte() -> None:
    client = Client()
    sent = ENVELOPE % b"anna@x.example" + b"DATA\r\n" + CONTENT + b".\r\nRSET\r\n"

    codes = [code for byte in sent for code in client.says(bytes([byte]))]

    assert codes == ["250", "250", "354", "250", "250"]
    assert client.accepted[0].content == CONTENT


def test_chunks_are_put_together() -> None:
    client = Client()

    codes = client.says(
        ENVELOPE % b"anna@x.example" + b"BDAT 5\r\nA: b\r" + b"BDAT 6 LAST\r\n\n\r\n.\r\n"
    )

    assert codes == ["250", "250", "250", "250"]
    assert client.accepted[0].content == b"A: b\r\n\r\n.\r\n"


def test_an_empty_last_chunk_ends_the_message() -> None:
    client = Client()

    codes = client.says(ENVELOPE % b"a@x.example" + b"BDAT 6\r\nA: b\r\n" + b"BDAT 0 LAST\r\n")

    assert codes == ["250"] * 4
    assert client.accepted[0].content == b"A: b\r\n"


def test_a_chunk_nobody_wants_is_still_swallowed() -> None:
    client = Client()

    assert client.says(b"BDAT 6 LAST\r\nQUIT\r\nNOOP\r\n") == ["503", "250"]


def test_a_chunk_for_refused_recipients_is_swallowed() -> None:
    client = Client()

    codes = client.says(ENVELOPE % b"unknown@x.example" + b"BDAT 6 LAST\r\nA: b\r\nNOOP\r\n")

    assert codes == ["250", "550", "554", "250"]
    assert not client.accepted


def test_a_chunk_without_a_size_ends_the_conversation() -> None:
    client = Client()

    assert client.says(ENVELOPE % b"a@x.example" + b"BDAT x\r\nQUIT\r\n") == ["250", "250", "501"]
    assert client.conversation.ending is Ending.CLOSE


def test_data_after_a_chunk_is_out_of_order() -> None:
    client = Client()

    assert client.says(ENVELOPE % b"a@x.example" + b"BDAT 2\r\nabDATA\r\n")[-1] == "503"


@pytest.mark.parametrize(
    ("commands", "codes"),
    [
        (b"RCPT TO:<a@x.example>\r\n", ["503"]),
        (b"DATA\r\n", ["503"]),
        (b"MAIL FROM:<a@x.example>\r\nMAIL FROM:<a@x.example>\r\n", ["250", "503"]),
        (b"MAIL FROM:<a@x.example>\r\nDATA\r\n", ["250", "503"]),
        (b"MAIL FROM:a@x.example\r\n", ["501"]),
        (b"MAIL FROM:<a>\r\n", ["501"]),
        (b"MAIL FROM:<>\r\n", ["250"]),
        (b"mail from:<a@x.example> body=8bitmime size=10\r\n", ["250"]),
        (b"MAIL FROM:<a@x.example> SIZE=99999999999\r\n", ["552"]),
        (b"MAIL FROM:<a@x.example> SIZE=x\r\n", ["555"]),
        (b"MAIL FROM:<a@x.example> BODY=BINARYMIME\r\n", ["555"]),
        (b"MAIL FROM:<a@x.example> RET=HDRS ENVID=x\r\n", ["250"]),
        ("MAIL FROM:<ä@x.example>\r\n".encode(), ["553"]),
        ("MAIL FROM:<ä@x.example> SMTPUTF8\r\n".encode(), ["250"]),
        (b"MAIL FROM:<a@x.example>\r\nRCPT TO:<>\r\n", ["250", "501"]),
        (b"MAIL FROM:<a@x.example>\r\nRCPT TO:<postmaster>\r\n", ["250", "250"]),
        (b'MAIL FROM:<a@x.example>\r\nRCPT TO:<"a>b"@x.example>\r\n', ["250", "250"]),
        (b"MAIL FROM:<a@x.example>\r\nRCPT TO:<@r.example:a@x.example>\r\n", ["250", "250"]),
        (b"MAIL FROM:<a@x.example>\r\nRCPT TO:<a@x.example> NOTIFY=NEVER\r\n", ["250", "250"]),
        (b"MAIL FROM:<a@x.example>\r\nRCPT TO:<a@x.example> FOO=BAR\r\n", ["250", "555"]),
        (b"MAIL FROM:<" + b"a" * 65 + b"@x.example>\r\n", ["501"]),
        (
            b"NOOP\r\nRSET\r\nVRFY a\r\nEXPN a\r\nBREW\r\n\r\n",
            ["250", "250", "252", "502"] + ["500"] * 2,
        ),
        (b"EHLO\r\nHELO\r\nHELO x\r\n", ["501", "501", "250"]),
        (b"x" * 5000 + b"\r\nNOOP\r\n", ["500", "250"]),
    ],
)
def test_commands_get_the_replies_they_deserve(commands: bytes, codes: list[str]) -> None:
    assert Client().says(commands) == codes


def test_mail_needs_a_greeting_first() -> None:
    client = Client()
    client.conversation.tls_is_up("TLSv1.3")

    assert client.says(b"MAIL FROM:<a@x.example>\r\n") == ["503"]


def test_rset_forgets_the_transaction() -> None:
    client = Client()

    assert client.says(ENVELOPE % b"a@x.example" + b"RSET\r\nDATA\r\n") == ["250"] * 3 + ["503"]


def test_a_bare_lf_ends_the_conversation() -> None:
    client = Client()

    assert client.says(b"NOOP\nNOOP\r\n") == ["521"]
    assert client.conversation.ending is Ending.CLOSE


def test_a_bare_lf_cannot_smuggle_a_second_message() -> None:
    client = Client()
    smuggled = b"A: b\r\n\r\nHi\n.\nMAIL FROM:<evil@x.example>\nRCPT TO:<b@x.example>\nDATA\n\r\n"

    assert client.sends(b"anna@x.example", smuggled) == ["250", "250", "354", "250"]
    (message,) = client.accepted
    assert message.content == smuggled


def test_errors_without_end_end_the_conversation() -> None:
    client = Client()

    codes = client.says(b"BREW\r\n" * 30)

    assert codes == ["500"] * 21 + ["421"]
    assert client.conversation.ending is Ending.CLOSE


def test_refused_recipients_are_no_errors_of_a_client_that_pipelines() -> None:
    client = Client()

    codes = client.says((ENVELOPE % b"unknown@x.example" + b"DATA\r\nRSET\r\n") * 30)

    assert codes == ["250", "550", "554", "250"] * 30


def test_what_stands_behind_starttls_is_dropped() -> None:
    client = Client()

    assert client.says(b"STARTTLS\r\nMAIL FROM:<evil@x.example>\r\n") == ["220"]
    assert client.conversation.ending is Ending.START_TLS
    client.conversation.tls_is_up("TLSv1.3")

    assert client.says(b"EHLO client.example\r\nRCPT TO:<a@x.example>\r\n") == ["250", "503"]


def test_starttls_is_not_offered_twice() -> None:
    client = Client()
    client.says(b"STARTTLS\r\n")
    client.conversation.tls_is_up("TLSv1.3")

    client.conversation.receive(b"EHLO client.example\r\n", NOW)

    assert b"STARTTLS" not in client.conversation.output


def test_one_content_for_several_recipients_is_one_record() -> None:
    client = Client()

    client.says(
        ENVELOPE % b"a@x.example"
        + b"RCPT TO:<unknown@x.example>\r\nRCPT TO:<b@x.example>\r\nDATA\r\n"
        + CONTENT
        + b".\r\n"
    )

    assert [each.recipients for each in client.accepted] == [("a@x.example", "b@x.example")]
    assert [each.recipients for each in client.refused] == [("unknown@x.example",)]


def test_a_content_over_the_announced_size_is_refused() -> None:
    client = Client("slow")
    limit = 20971520
    for sent in (b"", b"EHLO c\r\n", b"MAIL FROM:<>\r\n", b"RCPT TO:<a@x.example>\r\n"):
        client.conversation.receive(sent, NOW)
        client.conversation.reply_is_due(NOW)
    client.conversation.receive(b"DATA\r\n", NOW)
    client.conversation.reply_is_due(NOW)
    client.codes()

    client.conversation.receive(b"x" * limit + b"x\r\n.\r\n", NOW)
    client.conversation.reply_is_due(NOW)

    assert client.codes() == ["552"]
    assert not client.accepted


def test_a_recipient_deferred_twice_is_accepted_then_and_deferred_again_for_the_next() -> None:
    client = Client()

    codes = [client.sends(b"tempfail-2@x.example")[1] for _ in range(6)]

    assert codes == ["451", "451", "250", "451", "451", "250"]


def test_a_content_is_deferred_for_each_message_alone() -> None:
    client = Client()

    codes = [client.sends(b"tempfail-data-1@x.example")[-1] for _ in range(3)]
    other = client.sends(b"tempfail-data-1@x.example", b"Message-ID: <2@x.example>\r\n\r\n")

    assert codes == ["451", "250", "250"]
    assert other[-1] == "451"


@pytest.mark.parametrize(
    ("recipient", "code"), [(b"unknown-1@x.example", 550), (b"full@x.example", 552)]
)
def test_a_refused_recipient_is_recorded_with_the_words(recipient: bytes, code: int) -> None:
    client = Client()
    client.says(ENVELOPE % recipient)

    (refusal,) = client.refused
    assert refusal.code == code
    assert refusal.recipients == (recipient.decode(),)


@pytest.mark.parametrize("recipient", [b"421-x@x.example", b"ratelimit@x.example"])
def test_a_421_ends_the_conversation_and_what_follows_is_not_read(recipient: bytes) -> None:
    client = Client()

    assert client.says(ENVELOPE % recipient + b"RCPT TO:<b@x.example>\r\n") == ["250", "421"]
    assert client.conversation.ending is Ending.CLOSE


def test_a_lost_reply_is_cut_after_the_message_is_kept() -> None:
    client = Client()

    assert client.sends(b"lost-reply@x.example") == ["250", "250", "354"]
    assert client.conversation.ending is Ending.CUT
    assert len(client.accepted) == 1


@pytest.mark.parametrize("command", [b"DATA\r\nA", b"BDAT 100 LAST\r\nA"])
def test_a_content_that_is_cut_is_not_kept(command: bytes) -> None:
    client = Client()

    client.says(ENVELOPE % b"disconnect-in-data@x.example" + command)

    assert client.conversation.ending is Ending.CUT
    assert not client.accepted


def test_a_refused_content_is_not_kept() -> None:
    client = Client()

    assert client.sends(b"reject-data@x.example")[-1] == "554"
    assert not client.accepted
    assert client.refused[0].code == 554


def test_a_slow_reply_holds_up_what_follows_but_not_the_message() -> None:
    client = Client()

    codes = client.says(ENVELOPE % b"slow-30@x.example" + b"DATA\r\n" + CONTENT + b".\r\nNOOP\r\n")

    assert codes == ["250", "250", "354"]
    assert len(client.accepted) == 1
    assert client.conversation.delayed is not None
    assert client.conversation.delayed[0] == 30
    client.conversation.reply_is_due(NOW + 30)
    assert client.codes() == ["250", "250"]


def test_every_reply_of_the_slow_provider_is_late() -> None:
    client = Client("slow")
    assert client.codes() == []

    client.conversation.reply_is_due(NOW)

    assert client.codes() == ["220"]
    assert client.says(b"EHLO c\r\nNOOP\r\n") == []
    client.conversation.reply_is_due(NOW)
    assert client.codes() == ["250"]


def test_the_corporate_server_greylists_and_then_accepts() -> None:
    client = Client("corporate")

    assert client.sends(b"anna@acme.example")[1] == "451"
    client.now = NOW + 5
    assert client.sends(b"anna@acme.example") == ["250", "250", "354", "250"]


def test_a_server_without_chunking_knows_no_bdat() -> None:
    client = Client("yahoo")

    assert client.says(ENVELOPE % b"a@yahoo.com" + b"BDAT 2 LAST\r\n")[-1] == "502"


def test_shutting_down_says_421() -> None:
    client = Client()

    client.conversation.shut_down()

    assert client.codes() == ["421"]
    assert client.conversation.ending is Ending.CLOSE
