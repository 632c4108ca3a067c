"""What happens where a service that a test needs is missing: a skip with the reason, and under CI a failure."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from conftest import missing


def test_a_missing_service_skips_the_test_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="no PostgreSQL here"):
        missing("PostgreSQL")


def test_a_missing_service_fails_under_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="CI must provide PostgreSQL"):
        missing("PostgreSQL")


def test_a_program_that_is_there_is_used(need: Callable[[str, str], str]) -> None:
    assert need("bash", "bash").endswith("/bash")
