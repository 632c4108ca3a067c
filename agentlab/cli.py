"""The command line `agentlab`: each verb reads its words, calls the library and prints what comes next."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from agentlab import __version__
from agentlab.cli_benches import bench
from agentlab.cli_board import board_app
from agentlab.cli_envs import envs_app
from agentlab.cli_mcp import mcp_app
from agentlab.cli_options import Json, Plain, Words, print_json
from agentlab.cli_replay import replay, report
from agentlab.cli_runs import carry_out, runs_app
from agentlab.cli_tasks import data, tasks
from agentlab.cli_tools import tools_app
from agentlab.cli_view import view
from agentlab.errors import AgentlabError

if TYPE_CHECKING:
    from agentlab.run_rows import Intake
    from agentlab.types import RunConfig

app = typer.Typer(
    help="Discover scaling laws that extrapolate.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(runs_app, name="runs")
app.add_typer(tools_app, name="tools")
app.add_typer(envs_app, name="envs")
app.add_typer(board_app, name="leaderboard")
app.add_typer(mcp_app, name="mcp")


def main() -> NoReturn:
    """Run the command line; a mistake of the user's ends in one line and its exit code."""
    try:
        code = app(standalone_mode=False)
    except AgentlabError as error:
        print(f"agentlab: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        sys.exit(1)
    except typer.TyperException as error:
        print(f"agentlab: {_one_line(error)}; see agentlab --help", file=sys.stderr)
        sys.exit(2)
    # Ctrl-C and typer.Exit come back as a code.
    if code == STOPPED:
        print("agentlab: stopped; `agentlab runs` lists what `agentlab runs resume` can continue", file=sys.stderr)
    sys.exit(code or 0)


STOPPED = 130


def _one_line(error: typer.TyperException) -> str:
    return " ".join(str(getattr(error, "format_message", lambda: error)()).split())


@app.callback(invoke_without_command=True)
def top(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    """Discover scaling laws that extrapolate."""
    if version:
        print(__version__)
        raise typer.Exit


@app.command()
def discover(
    words: Words = None,
    as_json: Json = False,
    plain: Plain = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would happen, and do nothing.")] = False,
    detach: Annotated[bool, typer.Option("--detach", help="Start it and come back at once.")] = False,
    key: Annotated[str, typer.Option(help="With --detach: the same key again finds the run that it started.")] = "",
) -> None:
    """Find a law: task=NAME, or data=FILE.csv target=COL features=A,B."""
    from agentlab.cli_detach import begin
    from agentlab.types import RunConfig
    from agentlab.words import UsageError, read_words, refuse_unused

    if key and not detach:
        raise UsageError("agentlab discover: --key goes with --detach; leave it out, or add --detach")
    config = read_words(words or [], RunConfig)
    refuse_unused(config)
    if detach and not dry_run:
        begin(config, key, as_json=as_json)
        return
    from agentlab.table import intake

    taken = intake(config)
    if dry_run:
        _dry_run(taken, config, as_json=as_json)
        return
    from agentlab import runs

    folder = runs.create(config, taken)
    print("\n".join([f"run {folder}", *taken.notes]), file=sys.stderr)
    carry_out(folder, as_json=as_json, plain=plain)


def _dry_run(taken: Intake, config: RunConfig, *, as_json: bool) -> None:
    from agentlab import experiments_open
    from agentlab.discover_open import check
    from agentlab.discover_plan import lines, plan_of, record
    from agentlab.types import DEFAULT_CANDIDATES

    check(config)
    experiments_open.check(config, taken.task)
    asked = plan_of(config, taken)
    task, rows = taken.task, taken.rows
    hidden = len(taken.holdout) if taken.holdout is not None else "the task's own" if task.holdout_file else "none"
    if as_json:
        plan = {"task": task.name, "rows": len(rows), "holdout": hidden, "groups": len(rows.groups)}
        choices = {"scale": task.scale, "residual": task.residual, "robust": task.robust, "max_params": task.max_params}
        models = {} if asked is None else record(asked)
        print_json(plan | choices | {"candidates": config.budget.candidates or DEFAULT_CANDIDATES} | models)
        return
    print(f"{task.name}: {len(rows)} rows to search on, hold-out {hidden}, {len(rows.groups)} group(s)")
    for note in taken.notes:
        print(note)
    print(f"features {', '.join(task.names)}; target {', '.join(task.targets)}")
    print(f"scale {task.scale}; residual {task.residual}; loss of the fits {task.robust}")
    print(f"up to {config.budget.candidates or DEFAULT_CANDIDATES} candidates of at most {task.max_params} parameters")
    if config.experiments:
        print(f"up to {config.experiments} runs, designed by {config.design}")
    if asked is not None:
        print("\n".join(lines(asked, config)))
    print("nothing was run; leave --dry-run out to start")


@app.command()
def fit(
    words: Words = None,
    law: Annotated[str, typer.Option(help="The formula; names that are not columns are parameters.")] = "",
    as_json: Json = False,
) -> None:
    """Fit one formula: agentlab fit DATA target=COL features=A,B --law "E + A/n**a"."""
    from agentlab.display import fitted
    from agentlab.fitting import bootstrap, fit_rows
    from agentlab.law import parse
    from agentlab.selection import fit_options, rounded
    from agentlab.table import intake
    from agentlab.types import EvaluationError, RunConfig
    from agentlab.words import UsageError, data_first, read_words

    if not law:
        raise UsageError('agentlab fit: no formula; give one with --law "E + A/n**a"')
    config = read_words(data_first(words or []), RunConfig, "agentlab fit")
    task, rows = (taken := intake(config)).task, taken.rows
    formula = parse(law, task.names)
    options = fit_options(task, 48, config.seed)
    found = fit_rows(formula, rows, options)
    if not found.ok:
        raise EvaluationError(f"{formula.text} does not fit: {found.reason}")
    intervals = bootstrap(formula, rows, found, draws=200, seed=config.seed, options=options)
    figures = {"formula": formula.text, "latex": formula.latex(), "key": formula.key, "n_params": formula.n_params}
    quality = [
        {
            "group": g,
            "target": t,
            "n": f.n,
            "residual_scale": f.sigma,
            "converged": f.converged,
            "condition": f.condition,
        }
        for (g, t), f in found.fits.items()
    ]
    answer = figures | {"params": rounded(found), "intervals": intervals, "fits": quality}
    if as_json:
        print_json(answer)
    else:
        print(fitted(answer))


@app.command()
def predict(
    run: Annotated[str, typer.Argument(help="A run id or its folder.")], words: Words = None, as_json: Json = False
) -> None:
    """Predict at new points: agentlab predict RUN data=POINTS.csv."""
    from agentlab.display import predictions
    from agentlab.predict import predict as at_points

    answer = at_points(run, words or [])
    if as_json:
        print_json(answer)
    else:
        if answer["by"] != "law":
            print(f"no law beats the baseline; predicted by: {answer['by']} (by=law for the law)", file=sys.stderr)
        print(predictions(answer))


@app.command()
def audit(
    words: Words = None,
    law: Annotated[str, typer.Option(help="The formula; names that are not columns are parameters.")] = "",
    as_json: Json = False,
) -> None:
    """Say what a law is worth: agentlab audit RUN, or agentlab audit DATA target=COL features=A,B --law FORMULA."""
    from agentlab.audit import audit as examine
    from agentlab.audit_files import record, write
    from agentlab.audit_page import summary
    from agentlab.audit_words import settings_of
    from agentlab.runs_asked import asked, plan_after

    it = asked("audit", words or [], law)
    card, case = examine(it.law, it.taken.task, it.taken.rows, settings_of(it.words), it.beside)
    out = Path(it.words.out) if it.words.out else it.folder or Path("audit")
    files, missing = write(card, case, out)
    print("\n".join([*it.taken.notes, *missing]), file=sys.stderr)
    if as_json:
        print_json(record(card) | {"files": files})
    else:
        after = plan_after(words or [], law) if card.cost else "agentlab runs"
        print(summary(card, files, after))


@app.command()
def plan(
    words: Words = None,
    law: Annotated[str, typer.Option(help="The formula, where no run is given.")] = "",
    flops: Annotated[float | None, typer.Option(help="The compute of the run to plan, in FLOPs.")] = None,
    flops_per: Annotated[str, typer.Option(help="What a run costs, over the features; 6*n*d unless told.")] = "",
    runs: Annotated[int, typer.Option(min=1, max=200, help="Next runs to design, where the task can make runs.")] = 8,
    spend: Annotated[float | None, typer.Option(help="FLOPs that the next runs may cost together.")] = None,
    rate: Annotated[str, typer.Option("--goodput", help="A served model: prompt=,output=,ttft=,tpot=,N=,..")] = "",
    as_json: Json = False,
) -> None:
    """Choose what to do, and the next runs: agentlab plan RUN --flops 1e23, or agentlab plan DATA .. --law LAW."""
    from dataclasses import asdict, replace

    from agentlab.audit import plan as choose
    from agentlab.audit_page import plan_page
    from agentlab.audit_words import settings_of
    from agentlab.runs_asked import asked, audit_after
    from agentlab.words import UsageError

    if rate:
        _goodput(words or [], rate, as_json=as_json)
        return
    it = asked("plan", words or [], law)
    settings = settings_of(it.words)
    compute = flops if flops is not None else settings.flops
    if compute is None or not 0 < compute < float("inf"):
        raise UsageError("agentlab plan: say how much compute there is, above 0: --flops 1e23")
    settings = replace(settings, flops=compute, flops_per=flops_per or settings.flops_per)
    found = choose(it.law, it.taken.task, it.taken.rows, settings)
    asked_next, told_next = None, ""
    if it.folder is not None and not law:
        from agentlab.experiments_plan import next_runs, page  # brings the whole loop along

        asked_next = next_runs(it.folder, compute, runs=runs, spend=spend)
        told_next = "" if asked_next is None else f"\n{page(asked_next, it.folder)}"
    if as_json:
        print_json(asdict(found) | ({} if asked_next is None else {"next_runs": [asdict(n) for n in asked_next]}))
    else:
        print(plan_page(found, audit_after(words or [], law, compute)))
        if told_next:
            print(told_next)


def _goodput(words: list[str], rate: str, *, as_json: bool) -> None:
    from agentlab import runs, runs_goodput
    from agentlab.words import UsageError

    if len(words) != 1:
        raise UsageError("agentlab plan --goodput: name one run: agentlab plan RUN --goodput prompt=..,output=..")
    folder = runs.find(words[0])
    found = runs_goodput.best_rate(folder, rate)
    if as_json:
        print_json(runs_goodput.record(*found))
    else:
        print(runs_goodput.page(*found, folder))


@app.command()
def doctor(as_json: Json = False) -> None:
    """Say what this machine has and what agentlab can use of it."""
    from agentlab.doctor import examine, records

    findings = examine()
    if as_json:
        print_json(records(findings))
        return
    for one in findings:
        print(f"{'ok ' if one.works else '-- '} {one.part:19s} {one.found}")
        if not one.works:
            print(f"    {'':19s} for {one.use}{': ' + one.remedy if one.remedy else ''}")
    print("\nnext: agentlab discover task=moe_leverage")


for _verb in (report, replay, view, tasks, data, bench):
    app.command()(_verb)
