"""Messages and attempts: range-partitioned by day, without foreign keys.

The tables are made in SQL, since Django knows neither partitions nor keys that span the
partition's column. Partitions of single days are made by mailer/partitions.py.
"""

import uuid

import django.db.models.functions.datetime
from django.db import migrations, models

FORWARD = """
CREATE SEQUENCE mailer_message_id_seq AS bigint CACHE 1;
CREATE TABLE mailer_message (
    id bigint NOT NULL DEFAULT nextval('mailer_message_id_seq'),
    mailing_id bigint NOT NULL,
    recipient_id bigint,
    content_id bigint,
    queued_at timestamptz NOT NULL DEFAULT statement_timestamp(),
    due_at timestamptz,
    settled_at timestamptz,
    mailing_day date NOT NULL,
    attempts smallint NOT NULL DEFAULT 0 CHECK (attempts >= 0),
    failures smallint NOT NULL DEFAULT 0 CHECK (failures >= 0),
    state varchar(10) NOT NULL CONSTRAINT message_state_known CHECK (state IN
        ('waiting', 'delivered', 'bounced', 'expired', 'suppressed', 'cancelled', 'in_doubt', 'dead')),
    dedup_key varchar(200) NOT NULL,
    address varchar(320) NOT NULL,
    recipient_domain varchar(255) NOT NULL,
    reason varchar(60) NOT NULL DEFAULT '',
    context jsonb NOT NULL DEFAULT '{}',
    PRIMARY KEY (mailing_day, id),
    CONSTRAINT message_once_per_mailing UNIQUE (mailing_day, mailing_id, dedup_key),
    CONSTRAINT message_due_only_waiting CHECK (due_at IS NULL OR state = 'waiting')
) PARTITION BY RANGE (mailing_day);
ALTER SEQUENCE mailer_message_id_seq OWNED BY mailer_message.id;
CREATE INDEX message_due ON mailer_message (due_at) WHERE due_at IS NOT NULL;
CREATE INDEX message_exceptional ON mailer_message (mailing_id, state)
    WHERE state IN ('bounced', 'expired', 'suppressed', 'cancelled', 'in_doubt', 'dead');

CREATE TABLE mailer_attempt (
    message_id bigint NOT NULL,
    mailing_id bigint NOT NULL,
    batch_id bigint NOT NULL,
    source_id bigint,
    at timestamptz NOT NULL,
    mailing_day date NOT NULL,
    journal_id uuid NOT NULL,
    attempt_no smallint NOT NULL CHECK (attempt_no >= 1),
    reply_code smallint NOT NULL,
    provider varchar(60) NOT NULL,
    mx_host varchar(255) NOT NULL,
    outcome varchar(12) NOT NULL,
    phase varchar(8) NOT NULL,
    enhanced varchar(12) NOT NULL,
    reason varchar(60) NOT NULL,
    scope varchar(16) NOT NULL,
    rule varchar(80) NOT NULL,
    reply varchar(2000) NOT NULL,
    PRIMARY KEY (mailing_day, message_id, attempt_no)
) PARTITION BY RANGE (mailing_day);
CREATE INDEX attempt_of_mailing ON mailer_attempt (mailing_id, at)
    WHERE outcome <> 'accepted';
"""

BACKWARD = """
DROP TABLE mailer_attempt;
DROP TABLE mailer_message;
"""


class Migration(migrations.Migration):
    dependencies = [("mailer", "0001_initial")]

    operations = [
        migrations.SeparateDatabaseAndState(
            database_operations=[migrations.RunSQL(FORWARD, BACKWARD)],
            state_operations=[
                migrations.CreateModel(
                    name="Message",
                    fields=[
                        (
                            "id",
                            models.BigAutoField(
                                auto_created=True,
                                primary_key=True,
                                serialize=False,
                                verbose_name="ID",
                            ),
                        ),
                        ("mailing_day", models.DateField()),
                        ("mailing_id", models.BigIntegerField()),
                        (
                            "dedup_key",
                            models.CharField(
                                help_text="The recipient for a campaign, the request for transactional mail.",
                                max_length=200,
                            ),
                        ),
                        ("recipient_id", models.BigIntegerField(null=True)),
                        ("address", models.CharField(max_length=320)),
                        ("recipient_domain", models.CharField(max_length=255)),
                        (
                            "content_id",
                            models.BigIntegerField(
                                help_text="Null: the mailing's content.", null=True
                            ),
                        ),
                        ("context", models.JSONField(default=dict)),
                        (
                            "state",
                            models.CharField(
                                help_text="See mailer/core/lifecycle.py.", max_length=10
                            ),
                        ),
                        (
                            "due_at",
                            models.DateTimeField(
                                help_text="Deferred until; null while in a batch.", null=True
                            ),
                        ),
                        (
                            "queued_at",
                            models.DateTimeField(
                                db_default=django.db.models.functions.datetime.Now()
                            ),
                        ),
                        ("attempts", models.PositiveSmallIntegerField(default=0)),
                        (
                            "failures",
                            models.PositiveSmallIntegerField(
                                default=0,
                                help_text="Attempts that count against it: being throttled does not.",
                            ),
                        ),
                        (
                            "reason",
                            models.CharField(
                                default="", help_text="Of the last outcome.", max_length=60
                            ),
                        ),
                        ("settled_at", models.DateTimeField(null=True)),
                    ],
                ),
                migrations.CreateModel(
                    name="Attempt",
                    fields=[
                        ("message_id", models.BigIntegerField(primary_key=True, serialize=False)),
                        ("mailing_day", models.DateField()),
                        ("attempt_no", models.PositiveSmallIntegerField()),
                        ("mailing_id", models.BigIntegerField()),
                        ("batch_id", models.BigIntegerField()),
                        ("journal_id", models.UUIDField(default=uuid.uuid4)),
                        ("at", models.DateTimeField()),
                        ("source_id", models.BigIntegerField(null=True)),
                        ("provider", models.CharField(max_length=60)),
                        ("mx_host", models.CharField(max_length=255)),
                        ("outcome", models.CharField(max_length=12)),
                        ("phase", models.CharField(max_length=8)),
                        ("reply_code", models.PositiveSmallIntegerField()),
                        ("enhanced", models.CharField(max_length=12)),
                        ("reply", models.CharField(max_length=2000)),
                        ("reason", models.CharField(max_length=60)),
                        ("scope", models.CharField(max_length=16)),
                        ("rule", models.CharField(max_length=80)),
                    ],
                ),
            ],
        ),
    ]
