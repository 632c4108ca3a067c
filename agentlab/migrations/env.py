"""Runs the migrations on the connection that the leaderboard has opened; without one on the board that is meant."""

from __future__ import annotations

from alembic import context
from sqlalchemy import Connection

from agentlab.leaderboard_store import metadata, open_engine


def _run(connection: Connection) -> None:
    context.configure(connection=connection, target_metadata=metadata, transactional_ddl=True)
    with context.begin_transaction():
        context.run_migrations()


def _main() -> None:
    given = context.config.attributes.get("connection")
    if given is not None:
        _run(given)
        return
    with open_engine(context.config.get_main_option("sqlalchemy.url")).begin() as connection:
        _run(connection)


_main()
