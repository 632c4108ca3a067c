"""How the leaderboard's tables came to be, step by step, as Alembic runs it."""
