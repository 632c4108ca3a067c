"""Prices of models: what ships holds none, the user's file is read strictly, and the worst case bounds every call."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentlab.models_prices import SHIPPED, VARIABLE, Price, PriceError, Prices, read_prices, user_file

AMOUNT = st.floats(0, 1000)
TOKENS = st.integers(0, 10**7)


def reading(path: Path, text: str) -> Prices:
    path.write_text(text, encoding="utf-8")
    return read_prices({VARIABLE: str(path)})


def test_what_ships_holds_no_price_and_an_example_that_can_be_read(tmp_path: Path) -> None:
    assert read_prices({"XDG_CONFIG_HOME": str(tmp_path)}).models == {}
    lines = SHIPPED.read_text(encoding="utf-8").splitlines()
    example = "\n".join(line[2:] for line in lines if line.startswith(("# [", "# ")) and ("=" in line or "[" in line))
    example = example[example.index("[") :]
    assert reading(tmp_path / "p.toml", example).of("name-of-the-model") == Price(0.5, 2.0, 0.1, 0.0)


def test_the_users_file_is_named_by_the_environment_or_lies_in_the_config_folder(tmp_path: Path) -> None:
    text = '["org/model-4.1"]\ninput = 1\noutput = 2.5\n'
    lying = tmp_path / "agentlab" / "prices.toml"
    lying.parent.mkdir()
    lying.write_text(text + "cached = 0.5\ncall = 0.01\n", encoding="utf-8")
    env = {"XDG_CONFIG_HOME": str(tmp_path)}
    assert read_prices(env).of("org/model-4.1") == Price(1.0, 2.5, 0.5, 0.01)
    named = tmp_path / "mine.toml"
    named.write_text(text, encoding="utf-8")
    prices = read_prices(env | {VARIABLE: str(named)})
    assert prices.of("org/model-4.1") == Price(1.0, 2.5, 1.0, 0.0)
    assert prices.of("model-4.1") is None
    assert str(named) in prices.advice
    assert user_file({}) == Path("~/.config/agentlab/prices.toml").expanduser()


def test_a_call_costs_its_tokens_by_kind() -> None:
    price = Price(input=1.0, output=10.0, cached=0.1, call=0.5)
    assert price.usd(1_000_000, 0, 0) == 1.5
    assert price.usd(1_000_000, 400_000, 200_000) == pytest.approx(0.6 + 0.04 + 2.0 + 0.5)
    assert price.worst(1_000_000, 200_000) == 3.5
    assert Price(input=1.0, output=0.0, cached=2.0).worst(1_000_000, 0) == 2.0


@given(AMOUNT, AMOUNT, AMOUNT, AMOUNT, TOKENS, TOKENS, st.data())
def test_no_call_within_its_bounds_costs_more_than_the_worst_case(
    input_: float, output: float, cached: float, call: float, most_in: int, most_out: int, data: st.DataObject
) -> None:
    price = Price(input_, output, cached, call)
    tokens_in = data.draw(st.integers(0, most_in))
    tokens_cached, tokens_out = data.draw(st.integers(0, tokens_in)), data.draw(st.integers(0, most_out))
    assert 0 <= price.usd(tokens_in, tokens_cached, tokens_out) <= price.worst(most_in, most_out)


BAD = [
    ("[m]\ninput = 1\n", "'m': output is missing; write output = USD per million tokens"),
    ("[m]\ninput = -1\noutput = 1\n", "'m': input = -1 is no price; write an amount of USD, 0 or more"),
    ("[m]\ninput = nan\noutput = 1\n", "input = nan is no price"),
    ("[m]\ninput = 1\noutput = inf\n", "output = inf is no price"),
    ('[m]\ninput = 1\noutput = "2 USD"\n', "output = 2 USD is no price"),
    ("[m]\ninput = true\noutput = 1\n", "input = True is no price"),
    (f"[m]\ninput = {'9' * 400}\noutput = 1\n", "is no price"),
    ("[m]\ninput = 1\noutput = 1\ncashed = 1\n", "unknown key 'cashed'; did you mean 'cached'?"),
    ("[model-4.1]\ninput = 1\noutput = 1\n", "holds a table '1'; a name with a dot stands in quotes: [\"model-4.1\"]"),
    ("m = 3\n", "'m' is no table; write [\"NAME OF THE MODEL\"] above input and output"),
    ("[m\n", "no TOML"),
    ("m = " + "[" * 5000, "no TOML"),
]


@pytest.mark.parametrize(("text", "words"), BAD, ids=range(len(BAD)))
def test_what_is_no_price_is_told_in_one_line_with_the_file(text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "prices.toml"
    with pytest.raises(PriceError) as told:
        reading(path, text)
    assert words in str(told.value)
    assert str(told.value).startswith(str(path))
    assert "\n" not in str(told.value)


def test_a_file_that_is_named_must_be_there_and_be_text(tmp_path: Path) -> None:
    with pytest.raises(PriceError, match=f"cannot be read.*correct {VARIABLE}"):
        read_prices({VARIABLE: str(tmp_path / "none.toml")})
    with pytest.raises(PriceError, match="cannot be read"):
        read_prices({VARIABLE: str(tmp_path)})
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(PriceError, match="no TOML"):
        read_prices({VARIABLE: str(tmp_path / "bytes.toml")})
