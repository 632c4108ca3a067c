"""Scripted models that play a language model which writes laws: a competent one, and one of no use.

They are no language models: what they say is written here and depends on how often they were asked alone. A competent
one knows the law that was planted, and gives it only after many wrong replies, in good form and in bad.
"""

from __future__ import annotations

import itertools
import json
import random
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

from scripted_model import Asked

Answer: TypeAlias = Callable[[Asked], str]
Item: TypeAlias = Mapping[str, object]

AFTER = 20
"""Wrong replies before the first right one."""

LISTED = re.compile(r"^- (\d+): (.+)$", re.MULTILINE)
OBJECTIVE = re.compile(r"^- (\d+): .*?; objective (\S+),", re.MULTILINE)


# ---- what is asked ----


def wants_laws(asked: Asked) -> bool:
    """Whether a request asks for proposals, and not for a vote."""
    return '"proposals"' in asked.text


def vote(asked: Asked) -> str:
    """The two best of the laws that a request lists; a shrug where it lists none."""
    listed = sorted((float(objective), int(number)) for number, objective in OBJECTIVE.findall(asked.text))
    chosen = ", ".join(str(number) for _, number in listed[:2])
    return f"They extrapolate best.\nanswer = {chosen}" if chosen else "I cannot tell."


def parents(asked: Asked) -> list[tuple[int, str]]:
    """The laws that a request shows, by their number."""
    return [(int(number), text.split("; objective")[0].strip()) for number, text in LISTED.findall(asked.text)]


# ---- good form and bad ----


def plain(items: Sequence[Item]) -> str:
    """As it was asked for."""
    return json.dumps({"proposals": list(items)})


def fenced(items: Sequence[Item]) -> str:
    """In a fence."""
    return f"```json\n{json.dumps({'proposals': list(items)}, indent=1)}\n```"


def in_prose(items: Sequence[Item]) -> str:
    """With words before and after."""
    return f"Looking at the residuals, I would try this:\n\n{plain(items)}\n\nThe first one should extrapolate well."


def trailing_comma(items: Sequence[Item]) -> str:
    """With a comma too many."""
    return plain(items).replace("]}", ",]}")


def single_quotes(items: Sequence[Item]) -> str:
    """As Python writes it."""
    return repr({"proposals": [dict(item) for item in items]})


def thinking(items: Sequence[Item]) -> str:
    """After a train of thought that it tells."""
    return f"<think>The exponent of {{n}} looks too small [see above].</think>\n{plain(items)}"


def bare_list(items: Sequence[Item]) -> str:
    """Without the object around the list."""
    return json.dumps(list(items))


FORMS = (plain, fenced, in_prose, trailing_comma, single_quotes, thinking, bare_list)
"""All that a tolerant reader understands, one after the other."""

LOST = (
    "I would rather look at the data first. Could you plot the residuals for me?",
    '{"proposals": [{"formula": "E + A/(n**a", "idea": "a saturating power of the si',
)
"""Replies of which nothing can be used."""


# ---- a competent model ----


def competent(truth: str, wrong: Sequence[str], after: int = AFTER) -> Answer:
    """A scripted model that writes formulas: `after` replies without the truth, then every second one with it.

    `wrong` are other laws, used in turn; every fifth reply edits a parent, and every tenth is of no use.
    """
    return _scripted([{"formula": truth, "idea": "the form that was missing"}], _laws(wrong), after, edits=True)


def competent_programs(truth: str, wrong: Sequence[str], after: int = AFTER) -> Answer:
    """The same for a model that writes programs, whose texts these are."""
    right = [{"program": truth, "idea": "the form that was missing"}]
    return _scripted(right, [{"program": text, "idea": "another form"} for text in wrong], after, edits=False)


def _laws(texts: Sequence[str]) -> list[Item]:
    return [{"formula": text, "idea": "another form"} for text in texts]


def _scripted(right: Sequence[Item], wrong: Sequence[Item], after: int, *, edits: bool) -> Answer:
    numbers = itertools.count()
    waiting = itertools.cycle(wrong)

    def answer(asked: Asked) -> str:
        if not wants_laws(asked):
            return vote(asked)
        number = next(numbers)
        form = FORMS[number % len(FORMS)]
        if number >= after:
            # Said again in other forms: a reply can be lost.
            return form(right if (number - after) % 2 == 0 else [next(waiting)])
        if number % 10 == 3:
            return LOST[number // 10 % len(LOST)]
        if edits and number % 5 == 4:
            return form([*_edits(asked), next(waiting)])
        return form([next(waiting)])

    return answer


def _edits(asked: Asked) -> list[Item]:
    """An edit of the first parent with a power in it: one power gets a logarithm."""
    for number, text in parents(asked):
        for found in re.finditer(r"\b([A-Za-z]\w*)\*\*[A-Za-z]\w*", text):
            if text.count(found[0]) == 1:
                put = f"{found[0]}*log({found[1]})"
                return [{"parent": number, "find": found[0], "replace": put, "idea": "a slower power"}]
    return []


# ---- a model of no use ----


def useless(seed: int, names: Sequence[str]) -> Answer:
    """A scripted model whose replies are all valid JSON, and whose laws are poor, known already, or none at all."""
    numbers = itertools.count()

    def answer(asked: Asked) -> str:
        if not wants_laws(asked):
            return vote(asked)
        number = next(numbers)
        dice = random.Random(seed * 1_000_003 + number)  # noqa: S311 - a script, no secret
        kinds = [POOR[(number + i) % len(POOR)] for i in range(3)]
        return plain([{"formula": kind(dice, names), "idea": "a guess"} for kind in kinds])

    return answer


def _guess(dice: random.Random, names: Sequence[str]) -> str:
    """A law that nobody would write, new nearly every time."""
    parts = []
    for i in range(dice.randint(1, 2)):
        x, y = dice.choice(names), dice.choice(names)
        shapes = (f"tanh(b{i}*{x})", f"exp(-b{i}*{x}/{y})", f"1/(b{i} + {x})", f"abs(log({x}) - b{i})")
        powers = (f"{x}**{dice.randint(2, 4)}", f"sqrt({y})", f"log({y})**{dice.randint(2, 4)}", f"sigmoid({x} - {y})")
        parts.append(f"A{i}*{dice.choice(shapes)}*{dice.choice(powers)}")
    return f"E {dice.choice('+-')} " + " + ".join(parts)


def _known(dice: random.Random, names: Sequence[str]) -> str:
    return f"E + A*{dice.choice(names)}**a"


def _none(dice: random.Random, names: Sequence[str]) -> str:
    x = dice.choice(names)
    return dice.choice((f"E + A/({x}", f"E + A*softplus({x})", f"A{{{x}}}^a", "3.2", f"loss = {x} = 2", ""))


def _rich(_dice: random.Random, names: Sequence[str]) -> str:
    return " + ".join(f"c{i}*log({names[i % len(names)]})**{i + 1}" for i in range(40))


POOR: tuple[Callable[[random.Random, Sequence[str]], str], ...] = (_guess, _guess, _known, _guess, _none, _guess, _rich)
"""What it writes, in turn: mostly laws that must be fitted to be found poor."""
