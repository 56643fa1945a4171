"""The statements of an import: scratch tables, the upsert of recipients, and their consent.

Rows are locked in the order of their keys, so that two imports of the same people wait for
each other instead of deadlocking. Nothing here ever changes a subscription that exists.
"""

from __future__ import annotations

from campaigns.models import UpdateMode

# DISCARD-free pooled connections may bring tables of an import that died in Python.
SCRATCH = """
DROP TABLE IF EXISTS pg_temp.import_rows, pg_temp.import_seen;
CREATE TEMP TABLE import_rows (
    address text NOT NULL, address_key text NOT NULL, domain text NOT NULL,
    attributes jsonb NOT NULL, outcome text NOT NULL DEFAULT 'unchanged'
);
CREATE TEMP TABLE import_seen (address_key text PRIMARY KEY);
"""
DROP_SCRATCH = "DROP TABLE IF EXISTS pg_temp.import_rows, pg_temp.import_seen"

EMPTY_ROWS = "TRUNCATE import_rows"
COPY_ROWS = "COPY import_rows (address, address_key, domain, attributes) FROM STDIN"
DROP_SEEN = """
DELETE FROM import_rows i USING import_seen s WHERE s.address_key = i.address_key
"""
REMEMBER_SEEN = "INSERT INTO import_seen SELECT address_key FROM import_rows"

_FILLED = (
    "(SELECT jsonb_object_agg(key, value) FROM jsonb_each(r.attributes) WHERE value <> '\"\"')"
)
_MERGED = {
    UpdateMode.OVERWRITE: "r.attributes || {new}.attributes",
    UpdateMode.FILL: f"r.attributes || {{new}}.attributes || coalesce({_FILLED}, '{{{{}}}}')",
    UpdateMode.SKIP: "r.attributes",
}


def upsert_recipients(mode: UpdateMode) -> str:
    merged = _MERGED[mode].format(new="excluded")
    return f"""
WITH written AS (
    INSERT INTO campaigns_recipient AS r (workspace_id, address, address_key, domain, attributes)
    SELECT %(workspace)s, address, address_key, domain, attributes
    FROM import_rows ORDER BY address_key
    ON CONFLICT (workspace_id, address_key) DO UPDATE
        SET attributes = {merged}, updated_at = now()
        WHERE r.attributes IS DISTINCT FROM {merged}
    RETURNING address_key, xmax = 0 AS is_new
)
UPDATE import_rows i SET outcome = CASE WHEN w.is_new THEN 'created' ELSE 'updated' END
FROM written w WHERE w.address_key = i.address_key
"""


#: Who is new on the list is subscribed; every subscription that exists stays as it is.
SUBSCRIBE = """
WITH subscribed AS (
    INSERT INTO campaigns_subscription (list_id, recipient_id, state, origin)
    SELECT %(list)s, r.id, 'subscribed', %(origin)s
    FROM import_rows i
    JOIN campaigns_recipient r
        ON r.workspace_id = %(workspace)s AND r.address_key = i.address_key
    ORDER BY r.id
    ON CONFLICT (list_id, recipient_id) DO NOTHING
    RETURNING recipient_id
)
UPDATE import_rows i SET outcome = 'updated'
FROM subscribed s JOIN campaigns_recipient r ON r.id = s.recipient_id
WHERE i.outcome = 'unchanged' AND r.address_key = i.address_key
"""


def would_change(mode: UpdateMode) -> str:
    merged = _MERGED[mode].format(new="i")
    return f"""
WITH fate AS (
    SELECT i.address_key,
           CASE WHEN r.id IS NULL THEN 'created'
                WHEN r.attributes IS DISTINCT FROM {merged} OR s.id IS NULL THEN 'updated'
                ELSE 'unchanged' END AS outcome
    FROM import_rows i
    LEFT JOIN campaigns_recipient r
        ON r.workspace_id = %(workspace)s AND r.address_key = i.address_key
    LEFT JOIN campaigns_subscription s ON s.list_id = %(list)s AND s.recipient_id = r.id
)
UPDATE import_rows i SET outcome = f.outcome FROM fate f WHERE f.address_key = i.address_key
"""


OUTCOMES = "SELECT outcome, count(*) FROM import_rows GROUP BY outcome"
NOT_RESUBSCRIBED = """
SELECT count(*)
FROM import_rows i
JOIN campaigns_recipient r ON r.workspace_id = %(workspace)s AND r.address_key = i.address_key
JOIN campaigns_subscription s
    ON s.list_id = %(list)s AND s.recipient_id = r.id AND s.state = 'unsubscribed'
"""
