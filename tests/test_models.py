"""Chat models: a reply with its count, and every way to get none in one line that holds no key."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
import traceback
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import pytest
from scripted_model import Asked, Said, serving

from agentlab.errors import BackendError
from agentlab.models import (
    FRAME,
    KEY,
    SAID,
    TURN,
    Chat,
    LostReplyError,
    Message,
    Model,
    ModelError,
    Prompt,
    Reply,
    Schema,
    prompt_bound,
)
from agentlab.models_offline import Recorded, Scripted
from agentlab.models_records import read_reply
from agentlab.models_wait import Pace, pause, pause_asked

SECRET = "sk-very-secret-0123456789"  # noqa: S105 -- made up
OTHER = "hf_another\\secret-value"
ENV = {KEY: SECRET, "HF_TOKEN": OTHER, "EDITOR_KEYMAP": "vim"}
SCHEMA: Schema = {"type": "object", "properties": {"formula": {"type": "string"}}, "required": ["formula"]}


def ask(
    url: str,
    prompt: Prompt = "Say moss.",
    model: str = "scripted",
    deadline: float = 20.0,
    schema: Schema | None = None,
    **options: Any,
) -> Reply:
    async def once() -> Reply:
        async with Chat(url, model, env=ENV, deadline=deadline, **options) as chat:
            assert SECRET not in repr(chat)
            return await chat.complete(prompt, temperature=0.1, seed=7, max_tokens=5, schema=schema)

    return asyncio.run(once())


def failure(url: str, **options: Any) -> ModelError:
    """The error that a call ends with: one line, and no key in anything that could be printed of it."""
    with pytest.raises(ModelError) as told:
        ask(url, **options)
    error = told.value
    assert str(error).isprintable()
    assert error.exit_code == 5
    assert error.lost == isinstance(error, LostReplyError)
    for secret in (SECRET, OTHER):
        assert secret not in "".join(traceback.format_exception(error)) + repr(error)
    assert error.__context__ is None, "the client's error holds the request, and the request the key"
    return error


def test_a_reply_is_the_text_its_finish_and_the_servers_count() -> None:
    with serving(lambda asked: "moss" if "moss" in asked.text else "a b c d e f g h") as server:
        assert ask(server.url) == Reply("moss", "stop", server.receipts[0].tokens_in, 1)
        cut = ask(server.url, [Message("system", "Be brief."), Message("user", "Count.")])
    assert (cut.text, cut.finish, cut.tokens_out) == ("a b c d e ", "length", 5)
    sent = server.asked[0]
    assert (sent.key, sent.seed, sent.temperature, sent.max_tokens) == (SECRET, 7, 0.1, 5)
    assert set(sent.body) == {"model", "messages", "max_tokens", "temperature", "seed"}


def test_a_server_that_counts_nothing_is_booked_at_the_worst_case() -> None:
    with serving(lambda asked: Said("moss", usage=False)) as server:
        reply = ask(server.url, "äöü")
        wide = ask(server.url, "äöü", schema=SCHEMA)
    assert (reply.tokens_in, reply.tokens_out) == (FRAME + TURN + 6, 5) == (prompt_bound("äöü"), 5)
    assert wide.tokens_in == prompt_bound("äöü", SCHEMA) >= prompt_bound("äöü") + len(json.dumps(SCHEMA))


def test_tokens_that_the_server_had_in_its_cache_are_counted() -> None:
    with serving(lambda asked: Said("moss", cached=3)) as server:
        assert ask(server.url).tokens_cached == 3


def completion(**usage: object) -> dict[str, Any]:
    return {"choices": [{"message": {"content": "moss"}, "finish_reason": "stop"}], "usage": usage}


ODD: list[tuple[object, Reply | None]] = [
    (completion(prompt_tokens=2, completion_tokens=1), Reply("moss", "stop", 2, 1)),
    (completion(prompt_tokens="2", completion_tokens=-1), Reply("moss", "stop", 99, 50)),
    (completion(prompt_tokens=10**400, completion_tokens=True), Reply("moss", "stop", 99, 50)),
    (completion(prompt_tokens=2, prompt_tokens_details={"cached_tokens": 2}), Reply("moss", "stop", 2, 50, 2)),
    (completion(prompt_tokens=2, prompt_tokens_details={"cached_tokens": 3}), Reply("moss", "stop", 2, 50)),
    (completion(prompt_tokens=2, prompt_tokens_details=[7]), Reply("moss", "stop", 2, 50)),
    ({"choices": [{"message": {"content": None}}]}, Reply("", "stop", 99, 50)),
    ({"choices": [{"message": {"content": [{"text": "mo"}, 3, {"text": "ss"}]}}]}, Reply("moss", "stop", 99, 50)),
    ({"choices": [{"message": {"content": "\ud83d\ude00 \ud800"}, "finish_reason": "a\nb" + "c" * 99}]},
     Reply("😀 \ufffd", "a b" + "c" * 29, 99, 50)),
    ({"choices": [{"message": {"content": 5}}]}, None),
    ({"choices": [{"message": "moss"}]}, None),
    ({"choices": [{}]}, None),
    ({"choices": 5}, None),
    ({"choices": {"message": {}}}, None),
    ({}, None),
    ([], None),
    (None, None),
]  # fmt: skip


@pytest.mark.parametrize(("answer", "reply"), ODD, ids=range(len(ODD)))
def test_what_a_server_leaves_out_or_makes_up_is_the_worst_case_or_no_reply(
    answer: object, reply: Reply | None
) -> None:
    assert read_reply(answer, 99, 50) == reply


def test_a_prompt_that_no_request_can_hold_is_sent_without_its_broken_halves() -> None:
    with serving(lambda asked: "moss") as server:
        ask(server.url, "a column named \ud800")
    assert server.asked[0].text == "a column named \ufffd"
    assert prompt_bound("\ud800") == FRAME + TURN + 3


def test_a_busy_server_is_asked_again_and_a_broken_one_is_told() -> None:
    def answer(asked: Asked) -> Said:
        return Said("overloaded", status=503) if asked.number < 2 else Said("moss")

    with serving(answer) as server:
        assert ask(server.url).text == "moss"
    assert len(server.asked) == 3
    assert len(server.receipts) == 1
    with serving(lambda asked: Said(f"no room for {SECRET}", status=503)) as server:
        assert "refused" in str(failure(server.url))
    assert len(server.asked) == 4


REFUSALS: list[tuple[Said, str, str, int]] = [
    (Said(f"Incorrect API key provided: {SECRET}", status=401), "key refused", f"set {KEY}", 1),
    (Said("not for sk-very******", status=403), "key refused", f"set {KEY}", 1),
    (Said("gone", status=404), "no such model", "no /v1 in base_url= (gone)", 1),
    (Said(f"{'x' * 170} {SECRET}", status=400), "bad request", "x ***)", 1),
    (Said(f"{'x' * 170} {OTHER}", status=413), "bad request", "x ***)", 1),
    (Said(raw=json.dumps([{"input": OTHER}]), status=422), "bad request", '"***"', 1),
    (Said("a\x1b[31m\r\nb\u202e " + "c" * 999, status=418), "bad request", "a [31m b c", 1),
    (Said(raw=" " * 4090 + SECRET + "x" * 10**6, status=400), "bad request", "***", 1),
    (Said(raw="", status=405), "bad request", "without a word", 1),
    (Said(raw="<html>moved</html>", status=307, headers={"location": "http://127.0.0.1:9/"}),
     "bad request", "sends the call elsewhere", 1),
    (Said("wait", status=429), "rate limit", "wait", 2),
    (Said("wait", status=429, headers={"x-should-retry": "false"}), "rate limit", "wait", 1),
    (Said("slow", status=408), "time-out", "slow", 2),
    (Said("oops", status=500), "server error", "oops", 2),
    (Said("never", status=501), "server error", "never", 1),
    (Said(raw="<html>hello</html>"), "no chat completion", "no chat completion", 1),
    (Said(raw="{}"), "no chat completion", "no chat completion", 1),
    (Said(raw='{"choices": '), "no chat completion", "no chat completion", 1),
    (Said(raw='{"choices": 5}'), "no chat completion", "no chat completion", 1),
    (Said(raw="[]"), "no chat completion", "no chat completion", 1),
    (Said(raw='{"error": {"message": "no memory"}}'), "no chat completion", "(no memory)", 1),
    (Said(raw='{"a":' * 50_000), "no chat completion", "no chat completion", 1),
    (Said(raw='{"a": ' + "9" * 5000 + "}"), "no chat completion", "no chat completion", 1),
    (Said(raw="{}", headers={"content-encoding": "gzip"}), "no chat completion", "(compressed)", 1),
    (Said(raw="{ no", headers={"content-type": "text/html; charset=zlib"}), "no chat completion", "", 1),
    (Said(raw="{ no", status=400, headers={"content-type": "text/html; charset=zlib"}), "bad request", "{ no", 1),
    (Said(flood=2**30), "no chat completion", "longer than 8,388,608 bytes", 1),
    (Said(flood=2**30, status=500), "no chat completion", "longer than 8,388,608 bytes", 1),
]  # fmt: skip


def test_every_refusal_and_every_nonsense_has_its_name_and_one_line_without_a_key() -> None:
    now: list[Said] = []
    with serving(lambda asked: now[-1]) as server:
        for said, kind, words, tries in REFUSALS:
            now.append(said)
            before = len(server.asked)
            error = failure(server.url, retries=1)
            assert (error.kind, error.lost) == (kind, kind == "no chat completion"), said
            assert words in str(error)
            assert "sk-very" not in str(error)
            assert len(str(error)) < SAID + 200
            assert len(server.asked) - before == tries, said


def test_a_model_that_is_not_there_is_named() -> None:
    with serving(lambda asked: "moss") as server:
        error = failure(server.url, model="other", schema=SCHEMA)
    assert "'other'" in str(error)
    assert error.kind == "no such model"


def test_a_server_that_is_not_there_cost_nothing_and_a_slow_one_may_have() -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        error = failure(f"http://127.0.0.1:{sock.getsockname()[1]}/v1", retries=0)
    assert (error.kind, error.lost) == ("cannot be reached", False)
    with serving(lambda asked: Said("moss", delay=1.0)) as server:
        late = failure(server.url, deadline=0.2)
    assert (late.kind, late.lost) == ("time-out", True)
    assert "within 0.2 s" in str(late)
    assert len(server.asked) == 1


@pytest.mark.parametrize("status", [200, 429])
def test_an_answer_that_drips_ends_at_the_deadline(status: int) -> None:
    with serving(lambda asked: Said("{" + " " * 99, status=status, drip=0.1)) as server:
        assert failure(server.url, deadline=0.4).kind == "time-out"


def test_a_call_ends_at_once_where_the_server_asks_for_more_time_than_it_has() -> None:
    headers = iter([{"retry-after-ms": "60000"}, {"retry-after-ms": "x", "retry-after": "1e9"}])
    with serving(lambda asked: Said("later", status=429, headers=next(headers))) as server:
        for _ in range(2):
            error = failure(server.url, deadline=30.0)
            assert (error.kind, error.lost) == ("rate limit", False)
    assert len(server.asked) == 2


def against(talk: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]) -> tuple[ModelError, int]:
    """The error that a call ends with at a server that talks so over each connection, and how many there were."""

    async def run() -> tuple[ModelError, int]:
        heard = 0

        async def served(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal heard
            heard += 1
            await reader.readuntil(b"\r\n\r\n")
            await talk(reader, writer)
            writer.close()

        server = await asyncio.start_server(served, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        async with server, Chat(url, "scripted", env=ENV, deadline=20.0) as chat:
            with pytest.raises(ModelError) as told:
                await chat.complete("Say moss.", temperature=0.1, seed=7, max_tokens=5)
        return told.value, heard

    return asyncio.run(run())


@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{", b"SSH-2.0-OpenSSH\r\n"])
def test_what_may_have_cost_something_is_not_asked_twice(said: bytes) -> None:
    async def talk(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(said)
        await writer.drain()

    error, heard = against(talk)
    assert (error.kind, error.lost, heard) == ("broken connection", True, 1)


# ---- what a server does not take ----


def test_a_schema_is_sent_as_structured_output() -> None:
    with serving(lambda asked: "moss") as server:
        ask(server.url, schema=SCHEMA)
    form = {"name": "reply", "strict": True, "schema": SCHEMA}
    assert server.asked[0].body["response_format"] == {"type": "json_schema", "json_schema": form}


Part = tuple[str, Said]
FASTAPI = {"detail": [{"loc": ["body", "seed"], "msg": "Extra inputs are not permitted", "input": {"temperature": 1}}]}
PARTS: list[Part] = [
    *(("response_format", Said("unknown field", status=status)) for status in (400, 404, 422, 501)),
    ("seed", Said("Unrecognized request argument supplied: seed", status=400)),
    ("seed", Said(raw=json.dumps(FASTAPI), status=422)),
    ("temperature", Said("'temperature' does not support 0.1 with this model.", status=400)),
    ("temperature", Said(raw='{"error": {"message": "Unsupported value", "param": "temperature"}}', status=400)),
    ("stream_options", Said("include_usage is not known", status=400)),
]


@pytest.mark.parametrize(("part", "refusal"), PARTS, ids=range(len(PARTS)))
def test_a_part_that_a_server_refuses_is_left_out_from_then_on(part: str, refusal: Said) -> None:
    with serving(lambda asked: refusal if part in asked.body else "moss") as server:

        async def twice() -> list[Reply]:
            async with Chat(server.url, "scripted", env=ENV, stream=part == "stream_options") as chat:
                asked = {"temperature": 0.1, "seed": 7, "max_tokens": 5, "schema": SCHEMA}
                return [await chat.complete("Say moss.", **asked) for _ in range(2)]  # type: ignore[arg-type]

        assert [reply.text for reply in asyncio.run(twice())] == ["moss", "moss"]
    first, second, third = (set(asked.body) for asked in server.asked)
    assert first - second == first - third == {part}


def test_the_limit_of_a_reply_is_renamed_where_the_server_says_so_and_never_left_out() -> None:
    def answer(asked: Asked) -> Said | str:
        told = "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."
        return Said(told, status=400) if "max_tokens" in asked.body else "a b c d e f g"

    with serving(answer) as server:
        assert ask(server.url).tokens_out == 5
    with serving(lambda asked: Said("max_tokens is too large: 5", status=400)) as server:
        assert failure(server.url).kind == "bad request"
    assert len(server.asked) == 1


def test_a_schema_is_not_given_up_where_the_request_was_refused_for_something_else() -> None:
    def answer(asked: Asked) -> Said | str:
        return Said("the prompt is too long", status=400) if "long" in asked.text else "moss"

    with serving(answer) as server:

        async def run() -> None:
            async with Chat(server.url, "scripted", env=ENV) as chat:
                for text in ("long", "short"):
                    try:
                        await chat.complete(text, temperature=0.1, seed=7, max_tokens=5, schema=SCHEMA)
                    except ModelError as error:
                        assert error.kind == "bad request"  # noqa: PT017 - the second one has none

        asyncio.run(run())
    assert ["response_format" in asked.body for asked in server.asked] == [True, False, True]


# ---- streams ----


def test_a_stream_is_put_together_and_counted_by_its_last_piece() -> None:
    with serving(lambda asked: Said("a b c d e f g", cached=2)) as server:
        reply = ask(server.url, stream=True)
    assert reply == Reply("a b c d e ", "length", *server.receipts[0], 2)
    with serving(lambda asked: Said("moss", usage=False)) as server:
        assert ask(server.url, stream=True) == Reply("moss", "stop", prompt_bound("Say moss."), 5)


STREAMS: list[tuple[Said, str]] = [
    (Said("a b c d e f g", pieces=2), "broken connection"),
    (Said("a b c d e f g", pieces=2, polite=True), "broken connection"),
    (Said("a b c d e f g", pieces=0, polite=True), "broken connection"),
    (Said(raw='data: {"choices": [{"delta": {"content": "a"}}]}\n\ndata: {"error": {"message": "no memory"}}\n\n'),
     "broken connection"),
    (Said(raw="data: 5\n\n"), "broken connection"),
    (Said(raw="data: {\n\n"), "no chat completion"),
]  # fmt: skip


@pytest.mark.parametrize(("said", "kind"), STREAMS, ids=range(len(STREAMS)))
def test_a_stream_that_breaks_off_is_a_lost_reply(said: Said, kind: str) -> None:
    headers = {"content-type": "text/event-stream"}
    with serving(lambda asked: Said(**{**vars_of(said), "headers": headers})) as server:
        error = failure(server.url, stream=True)
    assert (error.kind, error.lost) == (kind, True)
    assert len(server.asked) == 1


def vars_of(said: Said) -> dict[str, Any]:
    return {name: getattr(said, name) for name in said.__slots__}


def test_streams_and_whole_answers_are_both_read_whichever_was_asked_for() -> None:
    whole = '{"choices": [{"message": {"content": "moss"}}]}'
    with serving(lambda asked: Said(raw=whole)) as server:
        assert ask(server.url, stream=True).text == "moss"
    odd = ': hello\r\ndata: {"choices": [{"delta": {"content": "mo\u2028"}}, 3]}\r\n\r\nevent: x\r\ndata:{"choices": '
    odd += '[{"delta": null, "finish_reason": "stop"}]}\r\n\r\ndata:\r\n\r\ndata: [DONE]\r\n\r\ndata: what'
    with serving(lambda asked: Said(raw=odd, headers={"content-type": "text/event-stream"})) as server:
        assert ask(server.url).text == "mo\u2028"


# ---- limits ----


def test_no_more_calls_are_under_way_than_may_be_and_the_others_wait_for_their_turn() -> None:
    with serving(lambda asked: Said("moss", delay=0.02)) as server:

        async def many() -> None:
            async with Chat(server.url, "scripted", env=ENV, at_once=3) as chat:
                calls = [chat.complete("Moss.", temperature=0.1, seed=i, max_tokens=5) for i in range(12)]
                assert {reply.text for reply in await asyncio.gather(*calls)} == {"moss"}

        asyncio.run(many())
    assert server.busiest == 3


def test_no_more_requests_start_in_a_minute_than_may_and_retries_count() -> None:
    def answer(asked: Asked) -> Said | str:
        return Said("later", status=429) if asked.number == 0 else "moss"

    with serving(answer) as server:

        async def run() -> None:
            async with Chat(server.url, "scripted", env=ENV, per_minute=3) as chat:
                for _ in range(2):
                    await chat.complete("Moss.", temperature=0.1, seed=7, max_tokens=5)
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.05):
                        await chat.complete("Moss.", temperature=0.1, seed=7, max_tokens=5)

        asyncio.run(run())
    assert len(server.asked) == 3


def test_a_retry_that_may_not_start_in_time_is_not_waited_for() -> None:
    with serving(lambda asked: Said("later", status=429)) as server:
        assert failure(server.url, per_minute=1, deadline=20.0).kind == "rate limit"
    assert len(server.asked) == 1


def test_a_pace_lets_so_many_start_in_any_minute() -> None:
    pace, starts = Pace(3), list[float]()
    for now in (0.0, 0.0, 1.0, 2.0, 2.0, 59.0, 200.0):
        wait = pace.wait(now)
        assert pace.start(now) == wait
        starts.append(now + wait)
    assert starts == [0.0, 0.0, 1.0, 60.0, 60.0, 61.0, 200.0]
    assert [Pace(None).start(0.0) for _ in range(99)] == [0.0] * 99


def test_pauses_grow_to_a_limit_and_spread_the_callers() -> None:
    firsts = [pause(1, seed) for seed in range(100)]
    assert 0.375 <= min(firsts) < 0.4
    assert 0.45 < max(firsts) <= 0.5
    assert [pause(tries, 0) for tries in (1, 2, 3, 4, 5, 6, 10**6)] == [0.5, 1.0, 2.0, 4.0, 8.0, 8.0, 8.0]
    assert 6.0 <= pause(9, -(2**70)) <= 8.0


ASKED: list[tuple[Mapping[str, str], float | None]] = [
    ({}, None),
    ({"retry-after": "3"}, 3.0),
    ({"retry-after": "3", "retry-after-ms": "20"}, 0.02),
    ({"retry-after": "-3"}, None),
    ({"retry-after": "nan"}, None),
    ({"retry-after": "inf"}, float("inf")),
    ({"retry-after": "soon"}, None),
    ({"retry-after": "Wed, 21 Oct 2015 07:28:30 GMT"}, 30.0),
    ({"retry-after": "Wed, 21 Oct 2015 07:27:00 GMT"}, None),
    ({"retry-after": "Wed, 99 Oct 2015 07:27:00 GMT"}, None),
]


@pytest.mark.parametrize(("headers", "seconds"), ASKED, ids=range(len(ASKED)))
def test_the_pause_that_a_server_asks_for_is_read_in_any_of_its_forms(
    headers: Mapping[str, str], seconds: float | None
) -> None:
    assert pause_asked(headers, datetime(2015, 10, 21, 7, 28, tzinfo=UTC)) == seconds


@pytest.mark.parametrize("limit", [{"at_once": 0}, {"per_minute": 0}, {"retries": -1}, {"deadline": 0.0}])
def test_a_limit_that_allows_nothing_is_refused(limit: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="above 0"):
        Chat("http://127.0.0.1:9/v1", "scripted", env={}, **limit)


# ---- where it is, and the key ----


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://host/v1", f"http://me:{SECRET}@host/v1", "http://h/v1?k=1"])
def test_an_address_that_is_none_or_holds_a_password_is_refused_before_any_call(url: str) -> None:
    with pytest.raises(BackendError) as told:
        Chat(url, "scripted", env={})
    assert SECRET not in str(told.value)


def test_the_hosted_service_asks_for_a_key_at_once() -> None:
    with pytest.raises(BackendError, match=f"set {KEY}"):
        Chat(None, "scripted", env={})


@pytest.mark.parametrize("key", ["sk-\u00e4bc", "sk-ab\ncd", "sk-\x00"])
def test_a_key_that_cannot_be_one_is_refused_without_being_told(key: str) -> None:
    with pytest.raises(BackendError) as told:
        Chat("http://127.0.0.1:9/v1", "scripted", env={KEY: key})
    assert KEY in str(told.value)
    assert key not in str(told.value)


def test_a_key_from_a_file_may_end_with_a_line_break() -> None:
    with serving(lambda asked: "moss") as server:

        async def once() -> None:
            async with Chat(server.url, "scripted", env={KEY: f"{SECRET}\n"}) as chat:
                await chat.complete("Moss.", temperature=0.1, seed=7, max_tokens=5)

        asyncio.run(once())
    assert server.asked[0].key == SECRET


def test_importing_the_module_does_not_import_the_client() -> None:
    code = "import sys, agentlab.models; sys.exit('openai' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# ---- models that are none ----


def said_by(model: Model, prompt: Prompt = "Say moss.", max_tokens: int = 5) -> Reply:
    return asyncio.run(model.complete(prompt, temperature=0.1, seed=7, max_tokens=max_tokens))


def test_a_scripted_model_answers_by_a_function_and_counts_four_characters_as_a_token() -> None:
    scripted = Scripted(lambda text, seed: f"{text} {seed}")
    assert said_by(scripted) == Reply("Say moss. 7", "stop", 3, 3)
    assert said_by(scripted, [Message("system", "Be brief."), Message("user", "Moss?")], 2) == Reply(
        "Be brief", "length", 4, 2
    )
    assert "no language model" in repr(scripted)
    failed = ModelError("rate limit", "model 'scripted': later")
    with pytest.raises(ModelError, match="later"):
        said_by(Scripted(lambda text, seed: failed))


def test_a_recorded_model_gives_what_is_on_record_and_nothing_more() -> None:
    moss, failed = Reply("moss", "stop", 1, 2, 1), LostReplyError("time-out", "late")
    recorded = Recorded([moss, failed, moss])
    assert said_by(recorded) == moss
    with pytest.raises(LostReplyError, match="late"):
        said_by(recorded)
    assert said_by(recorded) == moss
    with pytest.raises(ModelError, match="3 replies are on record, and another one is asked for"):
        said_by(recorded)
