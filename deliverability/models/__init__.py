from deliverability.models.limits import ConnectionSlot, DailyGrant
from deliverability.models.reputation import Tally
from deliverability.models.sources import Pool, Source, SourceKind, SourceState, TlsMode
from deliverability.models.suppression import EVERYTHING, Suppression
from deliverability.models.workspace import Hold, Membership, Role, Workspace, workspaces_for

__all__ = [
    "EVERYTHING",
    "ConnectionSlot",
    "DailyGrant",
    "Hold",
    "Membership",
    "Pool",
    "Role",
    "Source",
    "SourceKind",
    "SourceState",
    "Suppression",
    "Tally",
    "TlsMode",
    "Workspace",
    "workspaces_for",
]
