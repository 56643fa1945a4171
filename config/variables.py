"""Every variable of the environment that Postroad reads, with its default and meaning.

`docs/settings.md` is made from this table; a test compares it with settings.py.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Variable:
    name: str
    default: str
    meaning: str


VARIABLES = (
    Variable("DATABASE_URL", "a local PostgreSQL", "postgres://user:password@host:port/name. PostgreSQL 15 or later."),
    Variable("REDIS_URL", "redis://127.0.0.1:6379/0", "Broker and counters. Redis 6.2 or Valkey; noeviction, appendonly."),
    Variable("SECRET_KEY", "none", "Signs sessions and links in mails, seals stored passwords. Required; keep it."),
    Variable("SECRET_KEY_FALLBACKS", "empty", "Former keys, by comma: their links and sealed passwords go on working."),
    Variable("DEBUG", "off", "Django's debug pages. Never on where others can reach it."),
    Variable("ALLOWED_HOSTS", "localhost, 127.0.0.1, [::1]", "Host names under which the web answers."),
    Variable("CSRF_TRUSTED_ORIGINS", "empty", "Origins such as https://mail.example.com, behind a proxy that ends TLS."),
    Variable("COOKIES_NEED_HTTPS", "off", "Send session and CSRF cookies over HTTPS only. On in production."),
    Variable("DATABASE_POOL_SIZE", "16", "Connections to PostgreSQL that one process may hold."),
    Variable("LOG_LEVEL", "INFO", "Level of the log on standard error."),
    Variable("POSTROAD_ROLE", "postroad", "The process's name as PostgreSQL shows it (application_name)."),
    Variable("POSTROAD_VAR", "var/", "Folder for all state of one machine."),
    Variable("POSTROAD_JOURNALS", "$POSTROAD_VAR/journals", "Folder of the workers' journals. Must outlive the process: a disk, not a tmpfs."),
    Variable("POSTROAD_HOST", "the host's name", "The name under which this host's journals are known. Keep it stable."),
    Variable("POSTROAD_FSYNC", "none", "`content`: flush the journal to the disk before content goes out, so that a power cut leaves no more doubt than a crash."),
    Variable("POSTROAD_SANDBOX", "off", "On: MX look-ups go to POSTROAD_DNS only, and nothing but loopback is connected to."),
    Variable("POSTROAD_DNS", "the system's", "The DNS server to ask for MX records, host:port."),
    Variable("POSTROAD_SANDBOX_URL", "empty", "Where the sandbox's inbox answers, for the link in the admin."),
    Variable("POSTROAD_PUBLIC_URL", "http://127.0.0.1:8000", "Base of the links in mails. HTTPS in production: one-click unsubscribe asks for it (RFC 8058)."),
    Variable("POSTROAD_FLOWER_URL", "empty", "Where Flower answers, for the link in the admin."),
    Variable("POSTROAD_TLS_VERIFY_RELAYS", "on, off in the sandbox", "Check the certificates of relays."),
    Variable("POSTROAD_PRIVATE_NETWORKS", "off", "On: recipients' mail servers may have private or loopback addresses. Off, a stranger's DNS cannot point Postroad at your own network."),
    Variable("POSTROAD_BATCH_SIZE", "200", "Messages in a batch, and so in one Celery task."),
    Variable("POSTROAD_DISPATCH_AHEAD", "16", "Bulk batches that may be published or taken at once, over all workers. About four for each delivery process."),
    Variable("POSTROAD_CONNECTIONS_PER_BATCH", "10", "SMTP connections that one batch asks for, at most."),
    Variable("POSTROAD_BATCH_SECONDS", "240", "A task ends after this; replies still due are awaited by the process."),
    Variable("POSTROAD_VISIBILITY_SECONDS", "900", "After this Redis hands an unacknowledged task to another worker, which finds its batch taken."),
    Variable("POSTROAD_REPUBLISH_SECONDS", "60", "A batch that nobody took for so long is published again: its task may be lost."),
    Variable("POSTROAD_DELIVERY_PROCESSES", "one for each core, at most 4", "Bulk delivery processes that bin/start runs."),
    Variable("FLOWER_BASIC_AUTH", "made by bin/start", "user:password of Flower."),
)  # fmt: skip
