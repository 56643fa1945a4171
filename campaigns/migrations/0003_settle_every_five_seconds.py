"""The beat entry that finishes campaigns and revives expansions; operators edit it in the admin."""

from django.db import migrations
from django.utils import timezone

NAME, TASK = "campaigns: finished campaigns, stalled expansions", "campaigns.settle"


def add(apps, _schema_editor):
    intervals = apps.get_model("django_celery_beat", "IntervalSchedule").objects
    five_seconds = {"every": 5, "period": "seconds"}
    every = intervals.filter(**five_seconds).first() or intervals.create(**five_seconds)
    apps.get_model("django_celery_beat", "PeriodicTask").objects.get_or_create(
        name=NAME,
        defaults={
            "task": TASK,
            "interval": every,
            "queue": "upkeep",
            "expire_seconds": 60,
            "description": "Finishes campaigns whose mailing is finished, and hands expansions "
            "that stand still to a worker again.",
        },
    )
    _announce(apps)


def remove(apps, _schema_editor):
    apps.get_model("django_celery_beat", "PeriodicTask").objects.filter(name=NAME).delete()
    _announce(apps)


def _announce(apps):
    """Migrations send no signals: tell a running beat to read its schedule again."""
    apps.get_model("django_celery_beat", "PeriodicTasks").objects.update_or_create(
        ident=1, defaults={"last_update": timezone.now()}
    )


class Migration(migrations.Migration):
    dependencies = [
        ("campaigns", "0002_imports_and_expansion"),
        ("django_celery_beat", "0019_alter_periodictasks_options"),
    ]

    operations = [migrations.RunPython(add, remove)]
