"""Runs and the leaderboard as a page: one HTML file that opens from disk, or a live view while a run goes."""
