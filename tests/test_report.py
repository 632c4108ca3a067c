"""The report of a run: every figure says where it stands on record, nothing is loaded, every text is escaped."""

from __future__ import annotations

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest
from finished_runs import finished

from agentlab.replay import Run, open_run
from agentlab.report import blocks_of, card_of, write
from agentlab.report_html import html
from agentlab.report_markdown import markdown
from agentlab.report_parts import Code, Grid, Para, Row, Sourced
from agentlab.report_reproduce import command

MARKED = {"code", "pre", "math", "svg", "time", "style", "title", "head"}
"""Elements whose digits are no figures of the run, or, in a drawing, those of the figure around it."""

KINDS = ("law", "finalist", "baselines", "luck", "entry")
"""Kinds of records that a report quotes."""

REF = re.compile(r"t\d+(-\d+)?|r\d+:\d+(-\d+)?|h|m|[ack]:[\w.]+|f:[\w.]+")


class Loose(HTMLParser):
    """Finds digits of a page that stand neither in a value with its reference nor in a marked element."""

    def __init__(self) -> None:
        super().__init__()
        self.inside: list[tuple[str, bool]] = []
        self.found: list[str] = []
        self.refs: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if (ref := given.get("data-ref")) is not None:
            assert REF.fullmatch(ref), ref
            self.refs.add(ref)
        if tag != "meta":
            marked = tag in MARKED or (ref is not None and tag != "figure") or given.get("class") == "ref"
            self.inside.append((tag, marked))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Shapes of a drawing hold no text."""

    def handle_endtag(self, tag: str) -> None:
        while self.inside and self.inside.pop()[0] != tag:
            pass

    def handle_data(self, data: str) -> None:
        if re.search(r"\d", data) and not any(marked for _, marked in self.inside):
            self.found.append(data)


def loose(page: str) -> list[str]:
    """The texts of a page that hold a figure without a reference."""
    parser = Loose()
    parser.feed(page)
    return parser.found


def loose_lines(text: str) -> list[str]:
    """Lines of Markdown that hold a figure without a reference; a row, an item or a sentence may have it at its end."""
    text, _, _ = text.partition("## References")
    text = re.sub(r"^(`{3,})\n.*?^\1$|\$\$.*?\$\$|`[^`\n]*`", "", text, flags=re.MULTILINE | re.DOTALL)
    end = rf"\[(?:{REF.pattern})\]"
    found = []
    for line in text.splitlines():
        closed = re.search(rf"{end} ?\|?$", line) is not None
        whole = closed and (line.startswith(("| ", "- ")) or len(re.findall(end, line)) == 1)
        rest = re.sub(rf"[^ |]*\N{{NO-BREAK SPACE}}{end}|{end}", "", line)
        found += [line] if re.search(r"\d", rest) and not whole else []
    return found


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run whose folder holds its audit."""
    folder = tmp_path_factory.mktemp("audited") / "plain.csv-001"
    shutil.copytree(finished("plain", tmp_path_factory), folder)
    run = open_run(folder)
    (folder / "audit.json").write_text(json.dumps(card_of(run, folder)))
    return run


def reported(run: Run, out: Path) -> tuple[str, str]:
    paths = write(run, out)
    assert [p.name for p in paths][:2] == ["report.md", "report.html"]
    return paths[0].read_text(), paths[1].read_text()


def test_every_figure_of_a_report_says_where_it_stands_on_record(plain: Run, tmp_path: Path) -> None:
    text, page = reported(plain, tmp_path)
    assert loose(page) == []
    assert loose_lines(text) == []
    parser = Loose()
    parser.feed(page)
    assert {"h", "m", "f:rows.npz"} < parser.refs
    assert any(ref.startswith("a:battery.") for ref in parser.refs)


def test_references_lead_to_lines_and_fields_that_hold_the_value(plain: Run, tmp_path: Path) -> None:
    _, page = reported(plain, tmp_path)
    card = json.loads((tmp_path / "audit.json").read_text())
    lines = (plain.folder / "trace.jsonl").read_text().splitlines()
    for ref, shown in re.findall(r'<span class="v" data-ref="([^"]+)"[^>]*>([^<]*)<', page):
        if ref.startswith("a:"):
            value = card
            for name in ref[2:].split("."):
                value = value[int(name)] if isinstance(value, list) else value[name]
        elif line := re.fullmatch(r"t(\d+)", ref):
            assert json.loads(lines[int(line[1]) - 1])["kind"] in ("law", "finalist", "baselines", "luck", "entry"), (
                shown
            )
    law = plain.of("law")[0]
    assert f'data-ref="t{law["trace_line"]}" title="t{law["trace_line"]}">{law["dev"]["are"]:.3%}<' in page


def test_a_figure_without_a_reference_is_found(plain: Run) -> None:
    blocks = blocks_of(plain, card_of(plain, plain.folder))
    assert loose(html("x", [*blocks, Para(["It errs by 3%."])])) == ["It errs by 3%."]
    assert loose_lines(markdown([*blocks, Para(["It errs by 3%."])])) == ["It errs by 3%."]
    row = Grid(["what"], [Row(["7 rows"])])
    assert loose(html("x", [row])) == ["7 rows"]
    assert loose_lines(markdown([row])) == ["| 7 rows |"]
    assert loose(html("x", [Para([Sourced("7", "t3"), " rows of ", Code("x2")])])) == []


def test_a_report_begins_with_the_verdict_and_the_decision_and_shows_blanks(plain: Run, tmp_path: Path) -> None:
    text, page = reported(plain, tmp_path)
    places = [page.index(w) for w in ("The law predicts", "Decision", "<math", "Errors", "The battery", "Checklist")]
    assert places == sorted(places)
    assert "____" in page
    assert "nobody says it" in text
    for name in ("What was tried", "Rejected", "Finalists", "Training runs and cost", "How to reproduce"):
        assert f">{name}<" in page or name == "Rejected"
    assert "agentlab discover data=" in text
    assert page.count("<svg") >= 4


def test_a_page_loads_nothing_and_knows_dark_and_print(plain: Run, tmp_path: Path) -> None:
    _, page = reported(plain, tmp_path)
    assert not re.findall(r"""(?:src|href)=["'](?!#)|url\(|@import|<script|<link""", page)
    assert "default-src 'none'" in page
    assert "prefers-color-scheme:dark" in page
    assert "@media print" in page
    assert len(page) < 500_000


def test_what_others_wrote_is_escaped(plain: Run, tmp_path: Path) -> None:
    card = card_of(plain, plain.folder)
    assert card is not None
    evil = "<script>alert(1)</script>`*x*`"
    card["verdict"][1], card["facts"][0]["value"], card["rivals"][0]["name"] = evil, evil, evil
    blocks = blocks_of(plain, card)
    page, text = html(evil, [*blocks, Para([Code(evil)])]), markdown([*blocks, Para([Code(evil)])])
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)" in page
    outside = re.sub(r"`[^`\n]*`", "", text)
    assert "<script" not in outside.replace("\\<", "")


@pytest.mark.parametrize("kind", ["programs", "training"])
def test_reports_of_programs_and_of_training_runs_have_their_figures_referred_to(
    kind: str, bwrap: str, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    run = open_run(finished(kind, tmp_path_factory))
    # Without the audit, which takes a while: that of a program is not there at all.
    blocks = blocks_of(run, None)
    page, text = html("x", blocks), markdown(blocks)
    assert loose(page) == []
    assert loose_lines(text) == []
    assert ("def fit(X" in text) is (kind == "programs")
    if kind == "training":
        loss = run.experiments()[0]
        assert f'data-ref="t{loss["trace_line"]}"' in page
        assert "simulated: nothing was trained" in page


def test_the_command_of_a_run_starts_the_same_run(plain: Run) -> None:
    import shlex  # noqa: PLC0415

    from agentlab.types import RunConfig  # noqa: PLC0415
    from agentlab.words import read_words  # noqa: PLC0415

    again = read_words(shlex.split(command(plain.config))[2:], RunConfig)
    kept = {k: getattr(plain.config, k) for k in ("data", "target", "features", "holdout", "budget", "seed", "window")}
    assert {k: getattr(again, k) for k in kept} == kept
