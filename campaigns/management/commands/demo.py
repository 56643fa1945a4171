"""manage.py demo: a first campaign against the sandbox."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from campaigns import tasks
from campaigns.demo import setup
from campaigns.demo.setup import OnlyInSandbox
from campaigns.imports import ImportRefused
from campaigns.launch import LaunchRefused


class Command(BaseCommand):
    help = (
        "Prepare a workspace with sources, recipients and a newsletter, and launch it into the "
        "sandbox. Run again, it launches another campaign to the same list."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--recipients", type=int, default=2_000, metavar="N")
        parser.add_argument("--seed", type=int, default=1, help="other people for another seed")
        parser.add_argument("--json", action="store_true", help="print one JSON object")

    def handle(self, *_: Any, **given: Any) -> None:
        if not 1 <= given["recipients"] <= 1_000_000:
            raise CommandError("--recipients lies between 1 and 1,000,000.", returncode=2)
        try:
            demo = setup.prepare_and_launch(
                given["recipients"], seed=given["seed"], now=timezone.now()
            )
        except (OnlyInSandbox, ImportRefused, LaunchRefused) as problem:
            raise CommandError(str(problem), returncode=2) from problem
        tasks.publish(demo.next)
        campaign = demo.campaign
        said = {
            "campaign": campaign.pk,
            "mailing": campaign.mailing_id,
            "workspace": campaign.workspace.slug,
        }
        if given["json"]:
            self.stdout.write(json.dumps(said))
            return
        report = demo.report
        self.stdout.write(
            f"“{campaign.name}” is being sent to the sandbox: {report.created:,} recipients "
            f"imported, {report.unchanged:,} there already, {report.rejected:,} rows set aside."
        )
        self.stdout.write(f"Watch it: manage.py campaign status {campaign.pk} --follow")
