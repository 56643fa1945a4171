"""The engine's tables, to look at: what is sent is changed by campaigns and operators, not here."""

from mailer.admin import engine, messages

__all__ = ["engine", "messages"]
