"""What people do to deliverability's tables. `scope` and `large` are the base of every admin."""

from deliverability.admin import access, pools, reputation, suppression

__all__ = ["access", "pools", "reputation", "suppression"]
