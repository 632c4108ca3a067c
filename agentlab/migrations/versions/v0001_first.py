"""The first tables: submissions, looks at hold-outs, incidents that nobody can change, submitters, second hold-outs."""

# ruff: noqa: INP001 -- Alembic finds it by its path
from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_FORBID = (
    "CREATE TRIGGER incidents_no_{0} BEFORE {0} ON incidents "
    "BEGIN SELECT RAISE(ABORT, 'the incident log is append-only'); END"
)
_REFUSE = (
    "CREATE FUNCTION incidents_refuse() RETURNS trigger AS "
    "$$ BEGIN RAISE EXCEPTION 'the incident log is append-only'; END $$ LANGUAGE plpgsql"
)
_REFUSED = (
    "CREATE TRIGGER incidents_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON incidents "
    "FOR EACH STATEMENT EXECUTE FUNCTION incidents_refuse()"
)


def upgrade() -> None:
    """Make the tables, and the triggers that keep the incident log as it is."""
    op.create_table(
        "submissions",
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("id", sa.String(24), nullable=False, unique=True),
        sa.Column("received", sa.String(32), nullable=False),
        sa.Column("submitter", sa.String(64), nullable=False),
        sa.Column("task", sa.String(100), nullable=False),
        sa.Column("version", sa.String(12), nullable=False),
        sa.Column("law", sa.Text, nullable=False),
        sa.Column("key", sa.Text, nullable=False),
        sa.Column("method", sa.Text, nullable=False),
        sa.Column("declared", sa.Integer, nullable=False),
        sa.Column("finished", sa.Integer, nullable=False),
        sa.Column("note", sa.Text, nullable=False),
        sa.Column("level", sa.String(16), nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("figures", sa.Text, nullable=False),
        sa.Column("payload", sa.LargeBinary, nullable=False),
    )
    op.create_index("submissions_task", "submissions", ["task"])
    op.create_table(
        "looks",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("submission", sa.String(24), nullable=False),
        sa.Column("sealed", sa.String(8), nullable=False),
        sa.Column("submitter", sa.String(64), nullable=False),
        sa.Column("task", sa.String(100), nullable=False),
        sa.Column("date", sa.String(32), nullable=False),
        sa.UniqueConstraint("submission", "sealed"),
    )
    op.create_table(
        "incidents",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("date", sa.String(32), nullable=False),
        sa.Column("submission", sa.String(24), nullable=False),
        sa.Column("submitter", sa.String(64), nullable=False),
        sa.Column("task", sa.String(100), nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("found", sa.Text, nullable=False),
    )
    op.create_table(
        "submitters",
        sa.Column("name", sa.String(64), primary_key=True),
        sa.Column("token", sa.String(64), nullable=False, unique=True),
        sa.Column("date", sa.String(32), nullable=False),
    )
    op.create_table(
        "seconds",
        sa.Column("task", sa.String(100), primary_key=True),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("date", sa.String(32), nullable=False),
    )
    if op.get_bind().dialect.name == "postgresql":
        op.execute(_REFUSE)
        op.execute(_REFUSED)
    else:
        op.execute(_FORBID.format("UPDATE"))
        op.execute(_FORBID.format("DELETE"))


def downgrade() -> None:
    """Drop everything; the incident log goes with it."""
    for name in ("seconds", "submitters", "incidents", "looks", "submissions"):
        op.drop_table(name)
    if op.get_bind().dialect.name == "postgresql":
        op.execute("DROP FUNCTION incidents_refuse()")
