"""The mailbox providers of the sandbox: names, domains, MX hosts, extensions and words.

A table and nothing else. Names and replies are those of the real providers, since a mailer
knows a provider by its MX names and understands a reply by its text. In the texts `{host}`,
`{peer}`, `{id}`, `{recipient}`, `{recipient_domain}`, `{rfc_message_id}` and `{size}` are
filled in; a text may hold several lines.

RFC 5321 section 4.2 (replies), RFC 3463 (enhanced status codes); the extensions' own RFCs
are named in `conversation`.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class MxHost:
    name: str
    preference: int


@dataclass(frozen=True, slots=True)
class Texts:
    """What a server says; the defaults are Postfix's words."""

    banner: str = "220 {host} ESMTP Postfix"
    greeting: str = "{host}"  #: first line of the answer to EHLO
    sender_ok: str = "250 2.1.0 Ok"
    recipient_ok: str = "250 2.1.5 Ok"
    go_ahead: str = "354 End data with <CR><LF>.<CR><LF>"
    chunk_ok: str = "250 2.0.0 Ok: {size} bytes received"
    accepted: str = "250 2.0.0 Ok: queued as {id}"
    goodbye: str = "221 2.0.0 Bye"
    temporary_failure: str = "451 4.3.2 <{recipient}>: Temporary server error, try again later"
    greylisted: str = (
        "451 4.7.1 <{recipient}>: Recipient address rejected: Greylisted, see "
        "https://postgrey.schweikert.ch/help/{recipient_domain}.html"
    )
    rate_limited: str = "421 4.7.28 {host} Error: too much mail from {peer}, try again later"
    over_quota: str = "552 5.2.2 <{recipient}>: Recipient address rejected: mailbox over quota"
    unknown_recipient: str = (
        "550 5.1.1 <{recipient}>: Recipient address rejected: User unknown in local recipient table"
    )
    closing: str = "421 4.3.2 {host} Service not available, closing transmission channel"
    content_refused: str = "554 5.7.1 {id}: Message content rejected, considered spam"
    too_big: str = "552 5.3.4 Message size exceeds fixed limit"


@dataclass(frozen=True, slots=True)
class Provider:
    """One mailbox provider. All its hosts share one loopback address."""

    name: str
    label: str
    hosts: tuple[MxHost, ...]
    domains: tuple[str, ...]
    extensions: tuple[str, ...]
    texts: Texts
    has_greylist: bool = False
    is_slow: bool = False

    keywords: frozenset[str] = field(init=False)
    size_limit_bytes: int = field(init=False)  #: what it announces by SIZE (RFC 1870)

    def __post_init__(self) -> None:
        words = [line.split() for line in self.extensions]
        object.__setattr__(self, "keywords", frozenset(keyword for keyword, *_ in words))
        size = next(int(values[0]) for keyword, *values in words if keyword == "SIZE")
        object.__setattr__(self, "size_limit_bytes", size)

    def offers(self, keyword: str) -> bool:
        return keyword in self.keywords


_GMAIL = Provider(
    name="gmail",
    label="Gmail",
    hosts=(
        MxHost("gmail-smtp-in.l.google.com", 5),
        MxHost("alt1.gmail-smtp-in.l.google.com", 10),
        MxHost("alt2.gmail-smtp-in.l.google.com", 20),
        MxHost("alt3.gmail-smtp-in.l.google.com", 30),
        MxHost("alt4.gmail-smtp-in.l.google.com", 40),
    ),
    domains=("gmail.com", "googlemail.com"),
    extensions=(
        "SIZE 157286400",
        "8BITMIME",
        "STARTTLS",
        "ENHANCEDSTATUSCODES",
        "PIPELINING",
        "CHUNKING",
        "SMTPUTF8",
    ),
    texts=Texts(
        banner="220 mx.google.com ESMTP {id} - gsmtp",
        greeting="mx.google.com at your service, [{peer}]",
        sender_ok="250 2.1.0 OK {id} - gsmtp",
        recipient_ok="250 2.1.5 OK {id} - gsmtp",
        go_ahead="354 Go ahead {id} - gsmtp",
        chunk_ok="250 2.0.0 OK {id} - gsmtp",
        accepted="250 2.0.0 OK  {id} - gsmtp",
        goodbye="221 2.0.0 closing connection {id} - gsmtp",
        temporary_failure="451 4.3.2 Mail server temporarily rejected message. {id} - gsmtp",
        greylisted="451 4.7.1 Greylisted, please try again later. {id} - gsmtp",
        rate_limited=(
            "421-4.7.28 Gmail has detected an unusual rate of unsolicited mail originating from\n"
            "421-4.7.28 your IP address [{peer}]. To protect our users from spam, mail sent\n"
            "421-4.7.28 from your IP address has been temporarily rate limited. For more\n"
            "421-4.7.28 information, go to\n"
            "421 4.7.28  https://support.google.com/mail/?p=UnsolicitedRateLimitError {id} - gsmtp"
        ),
        over_quota=(
            "552-5.2.2 The recipient's inbox is out of storage space and inactive. Please direct\n"
            "552-5.2.2 the recipient to\n"
            "552 5.2.2  https://support.google.com/mail/?p=OverQuotaPerm {id} - gsmtp"
        ),
        unknown_recipient=(
            "550-5.1.1 The email account that you tried to reach does not exist. Please try\n"
            "550-5.1.1 double-checking the recipient's email address for typos or\n"
            "550-5.1.1 unnecessary spaces. For more information, go to\n"
            "550 5.1.1  https://support.google.com/mail/?p=NoSuchUser {id} - gsmtp"
        ),
        closing="421 4.3.0 Temporary System Problem.  Try again later. {id} - gsmtp",
        content_refused=(
            "554-5.7.1 [{peer}] Gmail has detected that this message is likely\n"
            "554-5.7.1 unsolicited mail. To reduce the amount of spam sent to Gmail, this\n"
            "554-5.7.1 message has been blocked. For more information, go to\n"
            "554 5.7.1  https://support.google.com/mail/?p=UnsolicitedMessageError {id} - gsmtp"
        ),
        too_big=(
            "552-5.3.4 Your message exceeded Google's message size limits. For more information,\n"
            "552-5.3.4 visit\n"
            "552 5.3.4  https://support.google.com/mail/?p=MaxSizeError {id} - gsmtp"
        ),
    ),
)

_OUTLOOK = Provider(
    name="outlook",
    label="Outlook",
    hosts=(
        MxHost("outlook-com.olc.protection.outlook.com", 5),
        MxHost("hotmail-com.olc.protection.outlook.com", 10),
    ),
    domains=("outlook.com", "hotmail.com", "live.com", "msn.com"),
    extensions=(
        "SIZE 49283072",
        "PIPELINING",
        "DSN",
        "ENHANCEDSTATUSCODES",
        "STARTTLS",
        "8BITMIME",
        "BINARYMIME",
        "CHUNKING",
        "SMTPUTF8",
    ),
    texts=Texts(
        banner="220 {host} Microsoft ESMTP MAIL Service ready [{id}]",
        greeting="{host} Hello [{peer}]",
        sender_ok="250 2.1.0 Sender OK",
        recipient_ok="250 2.1.5 Recipient OK",
        go_ahead="354 Start mail input; end with <CRLF>.<CRLF>",
        chunk_ok="250 2.0.0 {size} octets received",
        accepted=(
            "250 2.6.0 {rfc_message_id} [InternalId={id}, Hostname={host}] {size} bytes in 0.041 "
            "Queued mail for delivery -> 250 2.1.5"
        ),
        goodbye="221 2.0.0 Service closing transmission channel",
        temporary_failure=(
            "451 4.3.2 Temporary server error. Please try again later ATTR17 [{host}]"
        ),
        greylisted="451 4.7.1 Greylisted, please try again later [{host}]",
        rate_limited=(
            "451 4.7.650 The mail server [{peer}] has been temporarily rate limited due to IP "
            "reputation. For e-mail delivery information, see https://postmaster.live.com (S843) "
            "[{host}]"
        ),
        over_quota=(
            "552 5.2.2 Requested mail action aborted: exceeded storage allocation "
            "(S2017062302) [{host}]"
        ),
        unknown_recipient=(
            "550 5.1.1 Requested action not taken: mailbox unavailable (S2017062302) [{host}]"
        ),
        closing="421 4.3.2 Service not available, closing transmission channel [{host}]",
        content_refused=(
            "554 5.7.1 Message not accepted: content matched a spam filter rule (AS3110) [{host}]"
        ),
        too_big="552 5.3.4 Message size exceeds fixed maximum message size [{host}]",
    ),
)

_YAHOO = Provider(
    name="yahoo",
    label="Yahoo",
    hosts=(
        MxHost("mta5.am0.yahoodns.net", 1),
        MxHost("mta6.am0.yahoodns.net", 1),
        MxHost("mta7.am0.yahoodns.net", 1),
    ),
    domains=("yahoo.com", "ymail.com", "rocketmail.com", "aol.com"),
    extensions=("PIPELINING", "SIZE 41943040", "8BITMIME", "STARTTLS"),
    texts=Texts(
        banner="220 {host} ESMTP ready",
        greeting="{host}",
        sender_ok="250 sender <> ok",
        recipient_ok="250 recipient <{recipient}> ok",
        go_ahead="354 go ahead",
        chunk_ok="250 ok",
        accepted="250 ok dirdel",
        goodbye="221 {host}",
        temporary_failure="451 4.3.2 Internal server error",
        greylisted="451 4.7.1 Message temporarily deferred, greylisted - {host}",
        rate_limited=(
            "421 4.7.0 [TSS04] Messages from {peer} temporarily deferred due to unexpected volume "
            "or user complaints - 4.16.55.1; see https://postmaster.yahooinc.com/error-codes"
        ),
        over_quota="552 5.2.2 <{recipient}>: mailbox is over quota (#5.2.2) - {host}",
        unknown_recipient=(
            "550 5.1.1 delivery error: dd This user doesn't have a {recipient_domain} account "
            "({recipient}) [0] - {host}"
        ),
        closing="421 Service not available, closing transmission channel - {host}",
        content_refused=(
            "554 5.7.1 Message not allowed - [PH01] Email not accepted for policy reasons. "
            "Please visit https://postmaster.yahooinc.com/error-codes"
        ),
        too_big="552 5.3.4 message size exceeds limit - {host}",
    ),
)

_APPLE = Provider(
    name="apple",
    label="iCloud",
    hosts=(MxHost("mx01.mail.icloud.com", 10), MxHost("mx02.mail.icloud.com", 10)),
    domains=("icloud.com", "me.com", "mac.com"),
    extensions=("PIPELINING", "SIZE 28311552", "8BITMIME", "STARTTLS"),
    texts=Texts(
        banner="220 {host} ESMTP",
        temporary_failure="451 4.3.2 Service unavailable - try again later",
        rate_limited=(
            "421 4.7.1 Messages to {recipient} deferred due to excessive volume. Try again later - "
            "https://support.apple.com/en-us/HT204137"
        ),
        over_quota="552 5.2.2 <{recipient}>: user is overquota",
        unknown_recipient="550 5.1.1 <{recipient}>: user does not exist",
        closing="421 4.7.0 {host} Error: too many errors",
        content_refused=(
            "554 5.7.1 [CS01] Message rejected due to local policy. Please visit "
            "https://support.apple.com/en-us/HT204137"
        ),
    ),
)

_POSTFIX_EXTENSIONS = (
    "PIPELINING",
    "SIZE 52428800",
    "STARTTLS",
    "ENHANCEDSTATUSCODES",
    "8BITMIME",
    "DSN",
    "SMTPUTF8",
    "CHUNKING",
)

_CORPORATE = Provider(
    name="corporate",
    label="Corporate, greylisting",
    hosts=(MxHost("mx1.corp.example", 10), MxHost("mx2.corp.example", 20)),
    domains=("corp.example", "acme.example", "globex.example", "initech.example"),
    extensions=_POSTFIX_EXTENSIONS,
    texts=Texts(),
    has_greylist=True,
)

_SLOW = Provider(
    name="slow",
    label="Slow",
    hosts=(MxHost("mx.slow.example", 10),),
    domains=("slow.example",),
    extensions=("SIZE 20971520",),
    texts=Texts(banner="220 {host} ESMTP, have patience"),
    is_slow=True,
)

_CATCH_ALL = Provider(
    name="catchall",
    label="Everyone else",
    hosts=(MxHost("mx.catchall.test", 10),),
    domains=("*.example", "*.test"),
    extensions=_POSTFIX_EXTENSIONS,
    texts=Texts(),
)

CATCH_ALL_ZONES = ("example", "test")  #: reserved for such use by RFC 2606

PROVIDERS = (_GMAIL, _OUTLOOK, _YAHOO, _APPLE, _CORPORATE, _SLOW, _CATCH_ALL)
CATCH_ALL = _CATCH_ALL
