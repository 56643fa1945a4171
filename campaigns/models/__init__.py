from campaigns.models.access import AuditEntry
from campaigns.models.audience import List, Recipient, Subscription, SubscriptionState
from campaigns.models.campaign import Campaign, CampaignPriority
from campaigns.models.imports import Import, ImportState, RejectedRow, UpdateMode
from campaigns.models.template import Template, TemplateVersion

__all__ = [
    "AuditEntry",
    "Campaign",
    "CampaignPriority",
    "Import",
    "ImportState",
    "List",
    "Recipient",
    "RejectedRow",
    "Subscription",
    "SubscriptionState",
    "Template",
    "TemplateVersion",
    "UpdateMode",
]
