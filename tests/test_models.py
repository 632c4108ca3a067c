"""Chat models: a reply with its count, and every way to get none in one line that holds no key."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import traceback

import pytest
from scripted_model import Asked, Said, serving

from agentlab.errors import BackendError
from agentlab.models import FRAME, KEY, TURN, Chat, LostReplyError, Message, Prompt, Reply, prompt_bound

SECRET = "sk-very-secret-0123456789"  # noqa: S105 -- made up
ENV = {KEY: SECRET}


def ask(
    url: str, prompt: Prompt = "Say moss.", model: str = "scripted", deadline: float = 20.0, retries: int = 3
) -> Reply:
    async def once() -> Reply:
        async with Chat(url, model, env=ENV, deadline=deadline, retries=retries) as chat:
            assert SECRET not in repr(chat)
            return await chat.complete(prompt, temperature=0.1, seed=7, max_tokens=5)

    return asyncio.run(once())


def failure(url: str, **options: object) -> BackendError:
    """The error that a call ends with: one line, and no key in anything that could be printed of it."""
    with pytest.raises(BackendError) as told:
        ask(url, **options)  # type: ignore[arg-type]
    error = told.value
    assert "\n" not in str(error)
    assert SECRET not in "".join(traceback.format_exception(error)) + repr(error)
    assert error.__context__ is None, "the client's error holds the request, and the request the key"
    return error


def test_a_reply_is_the_text_its_finish_and_the_servers_count() -> None:
    with serving(lambda asked: "moss" if "moss" in asked.text else "a b c d e f g h") as server:
        assert ask(server.url) == Reply("moss", "stop", server.receipts[0].tokens_in, 1)
        cut = ask(server.url, [Message("system", "Be brief."), Message("user", "Count.")])
    assert (cut.text, cut.finish, cut.tokens_out) == ("a b c d e ", "length", 5)
    sent = server.asked[0]
    assert (sent.key, sent.seed, sent.temperature, sent.max_tokens) == (SECRET, 7, 0.1, 5)


def test_a_server_that_counts_nothing_is_booked_at_the_worst_case() -> None:
    with serving(lambda asked: Said("moss", usage=False)) as server:
        reply = ask(server.url, "äöü")
    assert (reply.tokens_in, reply.tokens_out) == (FRAME + TURN + 6, 5) == (prompt_bound("äöü"), 5)


def test_a_busy_server_is_asked_again_and_a_broken_one_is_told() -> None:
    def answer(asked: Asked) -> Said:
        return Said("overloaded", status=503) if asked.number < 2 else Said("moss")

    with serving(answer) as server:
        assert ask(server.url).text == "moss"
    assert len(server.asked) == 3
    assert len(server.receipts) == 1
    with serving(lambda asked: Said(f"no room for {SECRET}", status=503)) as server:
        assert "refused" in str(failure(server.url))


REFUSALS = (
    (Said(f"Incorrect API key provided: {SECRET}", status=401), f"set {KEY}"),
    (Said(f"{'x' * 170} {SECRET}", status=400), "refused"),
    (Said(raw="<html>hello</html>"), "no chat completion"),
    (Said(raw="{}"), "no chat completion"),
    (Said(raw='{"choices": '), "no chat completion"),
    (Said(raw="[]"), "no chat completion"),
)


def test_a_refusal_or_nonsense_is_one_line_without_the_key() -> None:
    with serving(lambda asked: REFUSALS[asked.number][0]) as server:
        for _, words in REFUSALS:
            error = failure(server.url)
            assert words in str(error)
            assert "sk-very" not in str(error)
            assert error.exit_code == 5
    assert len(server.asked) == len(REFUSALS)


def test_a_model_that_is_not_there_is_named() -> None:
    with serving(lambda asked: "moss") as server:
        assert "'other'" in str(failure(server.url, model="other"))


def test_a_server_that_is_not_there_cost_nothing_and_a_slow_one_may_have() -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        error = failure(f"http://127.0.0.1:{sock.getsockname()[1]}/v1", retries=0)
    assert "cannot be reached" in str(error)
    assert not isinstance(error, LostReplyError)
    with serving(lambda asked: Said("moss", delay=1.0)) as server:
        late = failure(server.url, deadline=0.2)
    assert isinstance(late, LostReplyError)
    assert "within 0.2 s" in str(late)
    assert len(server.asked) == 1


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://host/v1", f"http://me:{SECRET}@host/v1", "http://h/v1?k=1"])
def test_an_address_that_is_none_or_holds_a_password_is_refused_before_any_call(url: str) -> None:
    with pytest.raises(BackendError) as told:
        Chat(url, "scripted", env={})
    assert SECRET not in str(told.value)


def test_the_hosted_service_asks_for_a_key_at_once() -> None:
    with pytest.raises(BackendError, match=f"set {KEY}"):
        Chat(None, "scripted", env={})


def test_importing_the_module_does_not_import_the_client() -> None:
    code = "import sys, agentlab.models; sys.exit('openai' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
