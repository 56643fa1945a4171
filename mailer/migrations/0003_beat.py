"""Beat's entries: operators may edit their intervals in the admin afterwards."""

from django.db import migrations

ENTRIES = [
    ("mailer: due messages and dispatch", "mailer.tick", 2, "seconds"),
    ("mailer: rescue of dead workers", "mailer.rescue", 15, "seconds"),
    ("mailer: account, old batches, partitions", "mailer.clean", 30, "seconds"),
    ("mailer: conservation law", "mailer.conserve", 60, "seconds"),
]


def add(apps, _schema_editor):
    interval_model = apps.get_model("django_celery_beat", "IntervalSchedule")
    task_model = apps.get_model("django_celery_beat", "PeriodicTask")
    for name, task, every, period in ENTRIES:
        interval, _ = interval_model.objects.get_or_create(every=every, period=period)
        # A tick that nobody could run in time is worth nothing: the next one does its work.
        task_model.objects.get_or_create(
            name=name, defaults={"task": task, "interval": interval, "expire_seconds": 60}
        )


def remove(apps, _schema_editor):
    task_model = apps.get_model("django_celery_beat", "PeriodicTask")
    task_model.objects.filter(name__in=[name for name, *_ in ENTRIES]).delete()


class Migration(migrations.Migration):
    dependencies = [
        ("mailer", "0002_partitioned"),
        ("django_celery_beat", "0019_alter_periodictasks_options"),
    ]
    operations = [migrations.RunPython(add, remove)]
