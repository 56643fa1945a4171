"""What marketers see and do."""

from campaigns.admin import audience, audit, campaign, imports, messages, template

__all__ = ["audience", "audit", "campaign", "imports", "messages", "template"]
