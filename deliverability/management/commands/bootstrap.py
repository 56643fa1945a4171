"""manage.py bootstrap: what a new installation needs before anybody can log in."""

from __future__ import annotations

import json
import secrets
from argparse import ArgumentParser
from typing import Any

from django.contrib.auth import get_user_model
from django.core.management.base import BaseCommand
from django.db import connection, transaction

from deliverability.models import Workspace

_LOCK = "postroad:bootstrap"


class Command(BaseCommand):
    help = (
        "Make the first superuser (its password is shown once) and the first workspace. "
        "Run again, it changes nothing."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--json", action="store_true", help="print one JSON object")

    def handle(self, *_: Any, **given: Any) -> None:
        with transaction.atomic():
            # Two first starts at once: one makes the password, the other says null.
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", [_LOCK])
            user, password = _superuser()
            workspace = _workspace()
        if given["json"]:
            said = {"username": user, "password": password, "workspace": workspace.slug}
            self.stdout.write(json.dumps(said))
        elif password:
            self.stdout.write(f"Log in as {user} with the password {password}")
            self.stdout.write("It is not shown again; `manage.py changepassword` sets another.")
        else:
            self.stdout.write(f"Nothing to do: {user} can log in, {workspace.slug} is there.")


def _superuser() -> tuple[str, str | None]:
    """The superuser's name, and the password if it was made just now."""
    users = get_user_model().objects
    there = users.filter(is_superuser=True, is_active=True).order_by("pk").first()
    if there is not None:
        return there.get_username(), None
    name = "admin"
    while users.filter(username=name).exists():
        name = f"admin-{secrets.token_hex(2)}"
    password = secrets.token_urlsafe(15)
    users.create_superuser(username=name, email="", password=password)
    return name, password


def _workspace() -> Workspace:
    first = Workspace.objects.order_by("pk").first()
    return first or Workspace.objects.create(slug="default", name="Default")
