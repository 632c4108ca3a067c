"""Fetches a task's rows from the Hugging Face hub into the data folder, and checks that they are the rows it means."""

from __future__ import annotations

import csv
import hashlib
import io
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx2

from agentlab.files import write_whole
from agentlab.types import AgentlabError, Source

SERVER = "https://datasets-server.huggingface.co"
"""The hub's service of rows; the environment's AGENTLAB_HUB names another one."""

PAGE = 100
"""Rows a request: the service gives no more."""

TIMEOUT = 30.0


class HubError(AgentlabError):
    """Rows that could not be fetched, or are not the rows that the task means."""

    exit_code = 5


def fetch(source: Source, columns: Sequence[str], place: Path) -> list[Path]:
    """Write train.csv and test.csv into `place` and return their paths; files are whole or not there.

    Raises:
        HubError: the hub cannot be reached, or its rows are not those the task was made from.
    """
    texts = {}
    for split, expected in (("train", source.train), ("test", source.test)):
        rows = list(_rows(source, split))
        _check(source, split, rows, columns, expected)
        texts[split] = _as_csv(rows, columns)
        if split == "train" and source.digest and digest(rows, columns) != source.digest:
            raise HubError(
                f"{source.dataset} ({source.config}, train): these are not the rows this task was made from; nothing "
                f"was written: take them from their source, and put them into {place / 'train.csv'}"
            )
    try:
        place.mkdir(parents=True, exist_ok=True)
        return [_write(place / f"{split}.csv", text) for split, text in texts.items()]
    except OSError as exc:
        raise HubError(f"{place}: {exc.strerror}; set AGENTLAB_DATA to a folder that can be written") from exc


def _rows(source: Source, split: str) -> Iterator[Mapping[str, Any]]:
    server = os.environ.get("AGENTLAB_HUB", SERVER)
    what = {"dataset": source.dataset, "config": source.config, "split": split}
    start, total = 0, 1
    with httpx2.Client(timeout=TIMEOUT) as client:
        while start < total:
            try:
                answer = client.get(f"{server}/rows", params={**what, "offset": start, "length": PAGE})
                answer.raise_for_status()
                told = answer.json()
                page, total = [one["row"] for one in told["rows"]], int(told["num_rows_total"])
            except (httpx2.HTTPError, ValueError, KeyError, TypeError) as exc:
                raise HubError(
                    f"{server}: rows of {source.dataset} cannot be read ({type(exc).__name__}); go online, or set "
                    "AGENTLAB_DATA to a folder that holds them"
                ) from exc
            yield from page
            start += max(len(page), 1)


def _check(
    source: Source, split: str, rows: Sequence[Mapping[str, Any]], columns: Sequence[str], expected: int
) -> None:
    where = f"{source.dataset} ({source.config}, {split})"
    if not rows:
        raise HubError(f"{where}: the hub gave no rows; see whether the data set is still there")
    missing = [c for c in columns if c not in rows[0]]
    if missing:
        raise HubError(f"{where}: there is no column {missing[0]!r} on the hub; it holds {', '.join(rows[0])}")
    if expected and len(rows) != expected:
        raise HubError(f"{where}: {len(rows)} rows on the hub, {expected} expected; nothing was written")


def digest(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> str:
    """SHA-256 of the rows, whatever their order: cells at ten significant digits, a line a row, lines sorted."""
    lines = sorted(",".join(_cell(row[c]) for c in columns) for row in rows)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _cell(value: object) -> str:
    try:
        return f"{float(str(value)):.10g}"
    except ValueError:
        return str(value)


def _as_csv(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([row[c] for c in columns] for row in rows)
    return text.getvalue()


def _write(path: Path, text: str) -> Path:
    write_whole(path, text)
    return path
