"""Questions to which one of the made-up tools, or one of our own, is the answer, in other words than the tools use.

Paraphrases come from tables of their own; a test holds that none of their words is one of the generator's.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

from retrieval_tools import FORMATS, Made

LEVELS = ("own words", "misspelt", "verb", "object", "every word", "situation", "two tools", "our servers")
"""own words: the tool's words in another order. misspelt: the same with two letters swapped in each long word.
verb, object: that part paraphrased. every word: verb, object and domain paraphrased. situation: the same, and what is
wanted follows from a situation that names no action. two tools: two wishes, verbs paraphrased, two right answers.
our servers: questions of a person to agentlab's own servers, among the thousand others.
"""

_DOMAINS = """
calendar: diary
mail: correspondence
storage: disk space
spreadsheet: workbook
payments: billing
weather: meteorology
repository: codebase
helpdesk: customer support
music: audio
contacts: acquaintances
database: SQL engine
cluster: compute farm
laboratory: wet bench
translation: localisation
pictures: photography
staff: human resources
warehouse: stockroom
shipping: delivery
survey: opinion poll
models: neural networks
"""
_OBJECTS = """
event: appointment
reminder: nudge
attendee: guest
room: venue
holiday: vacation
message: letter
thread: conversation
attachment: enclosure
label: tag
template: boilerplate
file: upload
folder: directory
version: revision
backup: safety copy
quota: allowance
sheet: tab
cell: box
formula: expression
chart: plot
invoice: bill
refund: money back
charge: debit
payout: disbursement
dispute: chargeback
forecast: outlook
station: observation post
alert: warning
record: logbook line
map: cartography
branch: line of development
commit: changeset
issue: bug
release: published build
comment: remark
ticket: complaint
agent: representative
queue: waiting line
answer: reply
playlist: mix
track: song
album: long player
artist: musician
lyric: verse
person: individual
group: circle
company: firm
note: jotting
table: relation
index: lookup structure
view: saved select
user: login
node: machine
container: pod
job: batch task
volume: mounted partition
secret: credential
sample: specimen
assay: measurement protocol
instrument: apparatus
report: write-up
reagent: chemical
glossary: terminology
phrase: wording
language: tongue
project: undertaking
memory: earlier renderings
image: photo
gallery: collection
frame: border
caption: subtitle
filter: effect
employee: worker
shift: working hours
salary: pay
review: appraisal
item: article
shelf: rack
supplier: vendor
pallet: skid
count: stocktaking
parcel: package
route: itinerary
carrier: courier
address: destination
customs: duties
question: prompt
response: feedback
panel: audience
segment: slice
checkpoint: saved weights
dataset: training corpus
experiment: trial
metric: evaluation figure
prediction: inference output
"""


def _table(text: str) -> dict[str, str]:
    return dict(line.split(": ") for line in text.strip().splitlines())


DOMAIN_WORDS, OBJECT_WORDS = _table(_DOMAINS), _table(_OBJECTS)

VERB_WORDS = {
    "get": ("Show me {o} {a} in the {d}", "Pull {o} {a} out of the {d}"),
    "list": ("Enumerate the {d} by {o}", "Give an overview of the {d}, {o} after {o}"),
    "create": ("Make a {o} named {t} in the {d}", "Produce the {o} {t} in the {d}"),
    "update": ("Edit {o} {a} in the {d} so that it says {t}", "Rename {o} {a} of the {d} to {t}"),
    "delete": ("Erase {o} {a} in the {d}", "Scrap {o} {a} of the {d}"),
    "search": ("Hunt the {d} for a {o} with {t}", "Locate the {o} on {t} in the {d}"),
    "export": ("Dump {o} {a} of the {d} to {f}", "Save {o} {a} of the {d} as {f}"),
    "share": ("Send {o} {a} of the {d} to {m}", "Forward {o} {a} of the {d} to {m}"),
    "schedule": ("Plan {o} {a} of the {d} for {w}", "Arrange {o} {a} of the {d} on {w}"),
    "compare": ("Contrast {o} {a} with {b} in the {d}", "Distinguish {o} {a} from {b} in the {d}"),
}
SITUATIONS = {
    "get": "What does the {o} {a} in our {d} say at the moment?",
    "list": "Nobody here knows any longer which {o} and which other {o} our {d} holds.",
    "create": "Our {d} still lacks a {o} named {t}, which is a pity.",
    "update": "The {o} {a} in the {d} says something wrong; {t} is what it ought to say.",
    "delete": "Nobody wants the {o} {a} in the {d} any more.",
    "search": "Somewhere in the {d} there ought to be a {o} on {t}.",
    "export": "I would like to work at home with the {o} {a} of the {d} as {f}.",
    "share": "{m} ought to see the {o} {a} from the {d} as well.",
    "schedule": "The {o} {a} in the {d} is due on {w}.",
    "compare": "In which ways do the {o} {a} and the {o} {b} of the {d} differ?",
}
WITHHELD, REFERRED = 0.2, 0.15
"""Shares of the questions that leave out what the tool needs, and that begin with a number of something else."""

OWN_WORDS = "In the {d}, for the {o}: {v} {rest}"
_REST = {
    "list": "",
    "create": "{t}",
    "search": "{t}",
    "update": "{a} {t}",
    "export": "{a} {f}",
    "share": "{a} {m}",
    "schedule": "{a} {w}",
    "compare": "{a} {b}",
}

OURS = (
    ("How good is this one equation on my measured runs?", ("fit.law",)),
    ("Try a whole batch of candidate equations at once and judge them on hidden larger runs", ("fit.laws",)),
    ("how far off is the equation when it is only shown the small experiments?", ("fit.scores",)),
    ("put two equations next to each other and say whether one is significantly better", ("fit.compare",)),
    ("error bars on the coefficients by resampling whole runs", ("fit.refit",)),
    ("several finalists look equally good, help me pick one", ("fit.choose",)),
    ("does the equation do any better than simply copying the nearest run?", ("fit.baselines",)),
    ("could a search among so many equations have won by chance alone?", ("fit.luck",)),
    ("rewrite the equation in fewer symbols", ("algebra.simplify",)),
    ("what does the curve tend to as the model gets huge?", ("algebra.limits",)),
    ("differentiate the expression with respect to the token count", ("algebra.derivative",)),
    ("is the loss guaranteed to go down when we add data?", ("algebra.monotonicity",)),
    ("are the dimensions of this expression consistent?", ("algebra.units",)),
    ("are these two expressions secretly the same?", ("algebra.equivalent",)),
    ("typeset the equation for my paper", ("algebra.latex",)),
    ("turn the equation into code that I can import", ("algebra.python",)),
    ("what is in this csv file?", ("data.describe",)),
    ("keep only the experiments with more than a billion tokens", ("data.filter",)),
    ("add the ratio of tokens to parameters to my spreadsheet", ("data.derive",)),
    ("how much compute do sparse networks save against dense ones?", ("data.leverage",)),
    ("How much GPU memory and how many floating point operations will this network cost?", ("train.estimate",)),
    ("Launch the optimisation of a small mixture of experts in the background", ("train.start",)),
    ("block until the network has been trained", ("train.wait",)),
    ("plot how the error went down over the steps", ("train.curve",)),
    ("make the text that the networks learn from", ("train.corpus",)),
    ("how surprised is the network by this paragraph?", ("infer.perplexity",)),
    ("let the model complete a sentence", ("infer.generate",)),
    ("measure tokens per second at different batch sizes", ("infer.latency",)),
    ("convert our checkpoint so that vLLM can load it", ("infer.export",)),
    ("chance that at least one of ten attempts solves the problem", ("infer.pass_at_k",)),
)
"""Written by hand once, as somebody would ask who does not know the tools, and not changed after a measurement."""


@dataclass(frozen=True, slots=True)
class Query:
    """A question, the full names of the right tools, and the arguments that it gives for the first of them.

    `withheld` is set where the question leaves out a value that the tool needs, so that asking back is right.
    """

    text: str
    level: str
    right: tuple[str, ...]
    arguments: dict[str, str] = field(default_factory=dict)
    withheld: bool = False


def queries(tools: Sequence[Made], count: int, seed: int = 0) -> list[Query]:
    """`count` questions of each level (half as many of two tools; our own once each)."""
    rng = random.Random(seed)  # noqa: S311 -- no secrets here
    asked = [Query(text, "our servers", right) for text, right in OURS]
    for level in LEVELS[:6]:
        asked += [_query(made, level, rng) for made in rng.sample(list(tools), count)]
    for _ in range(count // 2):
        first, second = (_query(made, "verb", rng) for made in rng.sample(list(tools), 2))
        asked.append(Query(f"{first.text}. Then {second.text}", "two tools", first.right + second.right))
    return asked


def _query(made: Made, level: str, rng: random.Random) -> Query:
    values = _values(rng)
    withheld = made.verb != "list" and rng.random() < WITHHELD
    said = values | (dict.fromkeys("abtfmw", "") if withheld else {})
    thing = OBJECT_WORDS[made.object] if level in ("object", "every word", "situation") else made.object
    domain = DOMAIN_WORDS[made.domain] if level in ("every word", "situation") else made.domain
    if level in ("own words", "misspelt", "object"):
        rest = _REST.get(made.verb, "{a}").format(**said)
        text = OWN_WORDS.format(d=domain, o=thing, v=made.verb, rest=rest)
    else:
        form = SITUATIONS[made.verb] if level == "situation" else rng.choice(VERB_WORDS[made.verb])
        text = form.format(d=domain, o=thing, **said)
    if level == "misspelt":
        text = " ".join(_misspelt(word, rng) if word.strip(",:").isalpha() else word for word in text.split())
    # A number of another thing before those that are meant: who takes the first number calls wrongly.
    reference = "" if withheld or rng.random() >= REFERRED else f"Re ZZ-{rng.randrange(1000, 10000)}: "
    arguments = {} if withheld else _arguments(made, values)
    return Query(reference + " ".join(text.split()), level, (made.tool.full_name,), arguments, withheld)


def _values(rng: random.Random) -> dict[str, str]:
    def one() -> str:
        return f"{rng.choice('BCDFGH')}{rng.choice('KLMNPQ')}-{rng.randrange(1000, 10000)}"

    first, second = one(), one()
    text = f'"{rng.choice(("Spring", "Autumn", "Northern", "Second"))} {rng.choice(("Harbour", "Garden", "Bridge"))}"'
    mail = f"{rng.choice(('ana', 'bo', 'chi'))}@example.org"
    day = f"2027-{rng.randrange(1, 13):02d}-{rng.randrange(1, 29):02d}"
    return {"a": first, "b": second, "t": text, "f": rng.choice(FORMATS), "m": mail, "w": day}


def _arguments(made: Made, values: dict[str, str]) -> dict[str, str]:
    meant = {"title": "t", "text": "t", "format": "f", "address": "m", "date": "w", "second_id": "b"}
    return {name: values[meant.get(name, "a")].strip('"') for name in made.tool.schema["required"]}


def _misspelt(word: str, rng: random.Random) -> str:
    """Two neighbouring letters inside a word of five or more swapped."""
    if len(word) < 5:
        return word
    at = rng.randrange(1, len(word) - 3)
    return word[:at] + word[at + 1] + word[at] + word[at + 2 :]
