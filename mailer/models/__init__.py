from mailer.models.attempt import Attempt
from mailer.models.batch import Batch, BatchState, WorkerJournal
from mailer.models.content import Content
from mailer.models.mailing import Expansion, Mailing, MailingCount, MailingDelta, MailingKind
from mailer.models.message import Message
from mailer.models.route import Route, RouteState

__all__ = [
    "Attempt",
    "Batch",
    "BatchState",
    "Content",
    "Expansion",
    "Mailing",
    "MailingCount",
    "MailingDelta",
    "MailingKind",
    "Message",
    "Route",
    "RouteState",
    "WorkerJournal",
]
