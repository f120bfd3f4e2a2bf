"""The command line: `ablate study`, `resume` and `status`, and what every command goes through.

Heavy modules are imported where they are used: `ablate --help` needs neither torch nor ray.
"""

import os
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext, suppress
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from pydantic import ValidationError

from ablate.cli import data_commands, model_commands, run_commands
from ablate.cli.console import Json, console_on, only_json, short
from ablate.config.objectives import OBJECTIVES
from ablate.config.samplers import SAMPLERS
from ablate.config.search_space import load_space
from ablate.config.study_spec import Step, StudySpec, load_study
from ablate.config.trial_spec import checked
from ablate.errors import DISK, AblateError, BadInput, Interrupted
from ablate.labels import one_line

if TYPE_CHECKING:
    from ablate.runs.run import Run

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
for commands in (data_commands, run_commands, model_commands):
    app.add_typer(commands.app)
Address = Annotated[str | None, typer.Option(help="HOST:PORT of a Ray cluster to join.")]
CpusPerTrial = Annotated[int, typer.Option(help="CPUs, and threads, of a trial.")]
GpusPerTrial = Annotated[
    float | None, typer.Option(help="GPUs of a trial, fractions share one; by default 1 where there are any.")
]
Concurrency = Annotated[int | None, typer.Option(help="Trials at once; as many as fit by default.")]
MinutesPerTrial = Annotated[
    float, typer.Option(help="A trial that takes longer is ended and counts as failed.")
]
Storage = Annotated[
    str | None,
    typer.Option(
        help="A folder that all nodes share, or a URI: trials go on from their last validated epoch."
    ),
]
DashboardHost = Annotated[
    str, typer.Option(help="Address that the Ray dashboard binds to; 0.0.0.0 shows it to the network.")
]
MaxFailed = Annotated[float, typer.Option(help="Exit 1 when a larger share of the trials failed.")]


@app.callback(invoke_without_command=True)
def top(
    context: typer.Context,
    show: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    """Which layers of a Vision Transformer may become 1-bit, at what accuracy, and is the data to blame?

    Example: ablate study --space layers_bits
    """
    if show:
        print(version("ablate-vit"))
        raise typer.Exit
    if context.invoked_subcommand is None:
        print(context.get_help())


@app.command()
def study(
    study: Annotated[
        str, typer.Argument(help="A built-in study's name, or the path of a TOML file.")
    ] = "default",
    space: Annotated[
        str | None, typer.Option(help="Search space: a name, or the path of a TOML file.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="A bundled name, a save_pretrained folder, or a hub name.")
    ] = None,
    data: Annotated[str | None, typer.Option(help="Dataset: a name, or imagefolder:PATH.")] = None,
    trials: Annotated[int | None, typer.Option(help="Trials to run.")] = None,
    hours: Annotated[
        float | None, typer.Option(help="Start no trial after this many hours, none that confirms either.")
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(help="Epochs of each trial, in place of a study's image_views, too.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the search and of every trial.")] = None,
    objectives: Annotated[
        str | None, typer.Option(help=f"Some of {', '.join(OBJECTIVES)}; comma-separated.")
    ] = None,
    sampler: Annotated[
        str | None,
        typer.Option(help=f"What proposes trials: {', '.join(SAMPLERS)}, or your own module:name."),
    ] = None,
    early_stopping: Annotated[
        int | None,
        typer.Option(help="Of the trials at a rung the best 1/N go on, the others end; 0 for none."),
    ] = None,
    early_stopping_over: Annotated[
        str | None,
        typer.Option(help="What grows from rung to rung: epochs, or the fraction of a trial's images."),
    ] = None,
    confirm: Annotated[
        int | None, typer.Option(help="Further seeds for each member of the front, tested.")
    ] = None,
    max_size_bytes: Annotated[
        int | None, typer.Option(help="Train nothing whose packed model is counted to be larger.")
    ] = None,
    max_latency_ms: Annotated[
        float | None, typer.Option(help="Train nothing whose layers together take longer.")
    ] = None,
    min_accuracy: Annotated[
        float | None, typer.Option(help="What is less accurate is not on the front; from 0 to 1.")
    ] = None,
    known: Annotated[
        list[Path] | None,
        typer.Option(metavar="RUN", help="Its trials count as done where they are this study's; repeatable."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="The run's folder; a new one below runs/ by default.")
    ] = None,
    address: Address = None,
    cpus_per_trial: CpusPerTrial = 1,
    gpus_per_trial: GpusPerTrial = None,
    concurrency: Concurrency = None,
    minutes_per_trial: MinutesPerTrial = 120,
    storage: Storage = None,
    dashboard_host: DashboardHost = "127.0.0.1",
    max_failed: MaxFailed = 0.5,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be run, and its cost; run nothing.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Search a space and end with a Pareto front. Example: ablate study --space layers_bits --max-size-bytes 2000000"""
    changes: dict[str, Any] = {
        "space": space,
        "model": model,
        "data": data,
        "trials": trials,
        "hours": hours,
        "seed": seed,
    }
    changes |= {
        "sampler": sampler,
        "confirm": confirm,
        "max_size_bytes": max_size_bytes,
        "max_latency_ms": max_latency_ms,
        "min_accuracy": min_accuracy,
    }
    if early_stopping == 0 and early_stopping_over is None:
        changes["early_stopping"] = "none"
    elif rule := {
        key: v for key, v in (("reduction", early_stopping), ("over", early_stopping_over)) if v is not None
    }:
        changes["early_stopping"] = rule
    if objectives is not None:
        changes["objectives"] = tuple(name.strip() for name in objectives.split(","))
    asked = _override(study, {key: value for key, value in changes.items() if value is not None}, epochs)
    limits = (
        address,
        cpus_per_trial,
        gpus_per_trial,
        concurrency,
        minutes_per_trial,
        storage,
        dashboard_host,
    )
    if dry_run:
        return _dry_run(asked, limits, as_json, known or [])
    note = console_on(stderr=as_json)
    space_name = f"Space {asked.space.name}" if asked.space.name else "Its space"
    note.print(f"{asked.question}\n{space_name}: {asked.space.description}", highlight=False, soft_wrap=True)
    _run(lambda **how: _study().run_study(asked, out, known=known or [], **how), limits, max_failed, as_json)


@app.command()
def sensitivity(
    study: Annotated[
        str, typer.Argument(help="Whose space, model, data and recipe: a name, or a TOML file.")
    ] = "default",
    space: Annotated[
        str | None, typer.Option(help="Search space: a name, or the path of a TOML file.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="A bundled name, a save_pretrained folder, or a hub name.")
    ] = None,
    data: Annotated[str | None, typer.Option(help="Dataset: a name, or imagefolder:PATH.")] = None,
    epochs: Annotated[
        int | None,
        typer.Option(
            help="Epochs of each trial once layers are quantized, 1 by default; 0 for none, which is cheap."
        ),
    ] = None,
    full_epochs: Annotated[
        int | None,
        typer.Option(
            help="Epochs in full precision before, done once a seed; the study's epochs by default."
        ),
    ] = None,
    as_study: Annotated[
        bool,
        typer.Option(
            "--as-study", help="Train by the study's own recipe, so that it may go on with --known."
        ),
    ] = False,
    seeds: Annotated[int, typer.Option(help="Paired seeds; intervals need two or more.")] = 1,
    seed: Annotated[int | None, typer.Option(help="The first of them.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="The run's folder; a new one below runs/ by default.")
    ] = None,
    address: Address = None,
    cpus_per_trial: CpusPerTrial = 1,
    gpus_per_trial: GpusPerTrial = None,
    concurrency: Concurrency = None,
    minutes_per_trial: MinutesPerTrial = 120,
    storage: Storage = None,
    dashboard_host: DashboardHost = "127.0.0.1",
    max_failed: MaxFailed = 0.5,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be run, and its cost; run nothing.")
    ] = False,
    as_json: Json = False,
) -> None:
    """What each layer group costs alone, before any search. Example: ablate sensitivity --space layers_bits --epochs 0"""
    base = _override(
        study,
        {
            key: v
            for key, v in (("space", space), ("model", model), ("data", data), ("seed", seed))
            if v is not None
        },
        None,
    )
    recipe, searched = base.recipe.model_dump(), base.space
    if as_study and (epochs, full_epochs) != (None, None):
        raise BadInput(
            "--as-study trains by the study's own recipe; leave out --epochs and --full-epochs, or --as-study"
        )
    if not as_study:
        before = base.recipe.epochs if full_epochs is None else full_epochs
        length = {"epochs": 1 if epochs is None else epochs, "full_epochs": before, "image_views": None}
        recipe |= length
        searched = base.space.model_copy(
            update={"recipe": {k: v for k, v in base.space.recipe.items() if k not in length}}
        )
    parts = {
        "name": "sensitivity",
        "question": "What does each layer group cost, one at a time?",
        "space": searched,
    }
    parts |= {
        "objectives": base.objectives,
        "model": base.model,
        "data": base.data,
        "seed": base.seed,
        "seeds": seeds,
    }
    parts |= {"recipe": recipe}
    asked = checked(StudySpec, parts | {"design": "sensitivity"}, "options")
    limits = (
        address,
        cpus_per_trial,
        gpus_per_trial,
        concurrency,
        minutes_per_trial,
        storage,
        dashboard_host,
    )
    if dry_run:
        return _dry_run(asked, limits, as_json)
    _run(lambda **how: _study().run_study(asked, out, **how), limits, max_failed, as_json)


@app.command()
def resume(
    run: Annotated[Path, typer.Argument(help="The run's folder.")],
    trials: Annotated[
        int | None, typer.Option(help="Trials in all; more than recorded extends a finished run.")
    ] = None,
    hours: Annotated[float | None, typer.Option(help="Start no trial after this many hours in all.")] = None,
    address: Address = None,
    cpus_per_trial: CpusPerTrial = 1,
    gpus_per_trial: GpusPerTrial = None,
    concurrency: Concurrency = None,
    minutes_per_trial: MinutesPerTrial = 120,
    storage: Storage = None,
    dashboard_host: DashboardHost = "127.0.0.1",
    max_failed: MaxFailed = 0.5,
    as_json: Json = False,
) -> None:
    """Go on with a run on the data and model that it began with, or extend it. Example: ablate resume RUN --trials 24"""
    limits = (
        address,
        cpus_per_trial,
        gpus_per_trial,
        concurrency,
        minutes_per_trial,
        storage,
        dashboard_host,
    )

    def go_on(**how: Any) -> "Run":
        from ablate.engine.resume import resume_study

        resumed, torn = resume_study(run, trials=trials, hours=hours, **how)
        if torn:
            print(
                f"The ledger's last line was torn; its {torn} bytes were cut off and its trial ran again.",
                file=sys.stderr,
            )
        return resumed

    _run(go_on, limits, max_failed, as_json)


@app.command()
def status(
    run: Annotated[
        Path | None, typer.Argument(help="The run's folder; the newest below runs/ by default.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Progress, failures and the front so far, also while the study runs. Example: ablate status"""
    from ablate.cli.status import outcome
    from ablate.runs.run import latest_run, load_run

    outcome(load_run(run) if run else latest_run(), as_json)


def main() -> NoReturn:
    """Run the command line: exits 0, 1 when the work failed, 2 on bad input, 130 when interrupted."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # what matters of a checkpoint is said by us
    _open_streams()
    reconfigure = sys.stdout.reconfigure  # type: ignore[union-attr]
    reconfigure(
        line_buffering=True, errors="backslashreplace"
    )  # a pipe sees each line at once, whatever its letters
    try:
        code = app(standalone_mode=False) or 0
        if code == 130:
            raise KeyboardInterrupt
    except AblateError as error:
        code = _say(error, 2 if isinstance(error, BadInput) else 130 if isinstance(error, Interrupted) else 1)
    except OSError as error:
        said = f"{error.strerror}: {str(error.filename)[:80]!r}" if error.filename else error
        code = _say(said, 1 if error.errno in DISK else 2)
    except KeyboardInterrupt:
        code = _say("interrupted", 130)
    except typer.TyperException as error:
        got = (
            f", but got {cause.errors()[0]['input']!r}"
            if isinstance(cause := error.__cause__, ValidationError)
            else ""
        )
        code = _say(error.format_message() + got, 2)
    sys.exit(code)


def _run(start: Callable[..., "Run"], limits: tuple[Any, ...], max_failed: float, as_json: bool) -> None:
    """Run a study under a live view, and show how it ended."""
    if not 0 <= max_failed <= 1:
        raise BadInput(
            f"--max-failed must be a share from 0 to 1, but got {max_failed:g}; 0.5 is half of the trials"
        )
    note = console_on(stderr=as_json)
    note.print("Loading the model and starting Ray ...", highlight=False)
    resources = _resources(limits)
    from ablate.cli import live_view
    from ablate.cli.status import outcome
    from ablate.runs.run import Run

    try:
        with only_json() if as_json else nullcontext(), live_view.StudyView(note) as live:
            run = start(resources=resources, view=live)
    except Interrupted as error:
        outcome(Run(error.run), as_json)
        raise
    except KeyboardInterrupt as late:  # once more, while the last tables were written or Ray was left
        if isinstance(late.__context__, Interrupted):
            raise late.__context__ from None
        raise
    outcome(run, as_json)
    failed = int((run.records["status"] == "failed").sum())
    if failed > max_failed * len(run.records):
        raise AblateError(
            f"{failed} of {len(run.records)} trials failed; `ablate status {shlex.quote(short(run.path))}` says why"
        )


def _resources(limits: tuple[Any, ...]) -> Any:
    """The options on resources, checked."""
    from ablate.execution.ray_cluster import Resources, check_address

    resources = checked(Resources, dict(zip(Resources.model_fields, limits, strict=True)), "options")
    check_address(resources.address)
    return resources


def _study() -> Any:
    """The module with the heavy imports, when it is needed."""
    from ablate.engine import run_study

    return run_study


def _override(name: str, changes: dict[str, Any], epochs: int | None) -> StudySpec:
    """The study with the command line's options in place of its fields, checked as a whole."""
    base = load_study(name)
    if "space" in changes:
        changes |= {"space": load_space(changes["space"])} | (
            {} if "objectives" in changes else {"objectives": ()}
        )
    if epochs is not None:
        changes |= _for_so_many(epochs, base.model_copy(update=changes))
    if isinstance(rule := changes.get("early_stopping"), dict) and base.early_stopping:
        other = rule.get("over", base.early_stopping.over) != base.early_stopping.over
        changes["early_stopping"] = (
            base.early_stopping.model_dump(exclude={"first", "rungs"} if other else None) | rule
        )
    return checked(StudySpec, {**dict(base), **changes}, "study")


def _for_so_many(epochs: int, study: StudySpec) -> dict[str, Any]:
    """The study's fields that say how long a trial is trained, with `epochs` in place of whatever they say."""

    def others(fields: Mapping[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in fields.items() if key not in ("epochs", "image_views")}

    def freed(step: Step) -> Step:
        return step.model_copy(update={"recipe": others(step.recipe), "tune": others(step.tune)})

    return {
        "recipe": others(dict(study.recipe)) | {"epochs": epochs},
        "space": study.space.model_copy(update={"recipe": others(study.space.recipe)}),
        "tune": others(study.tune),
        "steps": tuple(map(freed, study.steps)),
        "reference": study.reference and freed(study.reference),
    }


def _dry_run(asked: StudySpec, limits: tuple[Any, ...], as_json: bool, known: Sequence[Path] = ()) -> None:
    from ablate.cli.status import dry_run

    dry_run(asked, as_json, _resources(limits), known)


def _open_streams() -> None:
    """Standard streams that were closed lead to /dev/null, or the next file that is opened would be one of them."""
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(number, True)
    os.close(number)
    sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", closefd=False)


def _say(error: object, code: int) -> int:
    with suppress(OSError):  # the exit code says it, too
        print("ablate: " + one_line(" ".join(str(error).split())), file=sys.stderr)
    return code
