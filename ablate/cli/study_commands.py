"""The commands that train: study, sensitivity and resume. Heavy modules are imported where they are used."""

import shlex
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ablate.cli import completion
from ablate.cli.assignments import parse_all
from ablate.cli.console import c_stdout_to_stderr, make_console, relative_path
from ablate.cli.options import (
    DryRun,
    Json,
    MaxFailed,
    OutFolder,
    RayOptions,
    RunFolder,
    SetField,
    SubjectOptions,
    Track,
    expand_options,
)
from ablate.cli.overrides import check_used, override_study, sensitivity_study
from ablate.cli.streams import outlive_terminal
from ablate.cli.study_options import SearchOptions, Study
from ablate.config.study_spec import StudySpec
from ablate.errors import AblateError, Interrupted
from ablate.labels import one_line
from ablate.paths import local_path
from ablate.tracking.destination import installed

if TYPE_CHECKING:
    from ablate.runs.run import Run

app = typer.Typer()


@app.command()
@expand_options
def study(
    subject: SubjectOptions,
    search: SearchOptions,
    ray: RayOptions,
    study: Study = "default",
    known: Annotated[
        list[Path] | None,
        typer.Option(
            parser=local_path,
            metavar="RUN",
            help="Reuse the matching trials of another run, such as a smaller grid; may be repeated.",
            autocompletion=completion.runs,
        ),
    ] = None,
    set_field: SetField = None,
    out: OutFolder = None,
    max_failed: MaxFailed = 0.5,
    track: Track = None,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Run a search or a designed study.

    A search ends with the Pareto front of its trials. Options replace the fields of the study's file.

    Example: ablate study --space layers_bits --max-size-bytes 2000000 --set recipe.learning_rate=3e-4
    """
    overrides = subject.overrides() | search.overrides()
    spec = override_study(study, overrides, search.epochs, parse_all(set_field))
    if dry_run:
        return _dry_run(spec, ray, as_json, known or [])
    space = f"Space {spec.space.name}" if spec.space.name else "Its space"
    opening = f"{one_line(spec.question)}\n{space}: {one_line(spec.space.description)}"
    _run(_start(spec, out, known=known or []), ray, max_failed, track, as_json, opening)


@app.command()
@expand_options
def sensitivity(
    subject: SubjectOptions,
    ray: RayOptions,
    study: Study = "default",
    epochs: Annotated[
        int | None,
        typer.Option(
            metavar="N", help="Epochs after the layers are quantized; 0 is cheap.", show_default="1"
        ),
    ] = None,
    full_epochs: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Epochs in full precision before, once per seed.",
            show_default="as many as the study has in all",
        ),
    ] = None,
    as_study: Annotated[
        bool,
        typer.Option("--as-study", help="Train by the study's own recipe, to be reused by study --known."),
    ] = False,
    seeds: Annotated[
        int, typer.Option(metavar="N", help="Number of paired seeds; intervals need at least two.")
    ] = 1,
    seed: Annotated[int | None, typer.Option(metavar="N", help="The first seed.")] = None,
    set_field: SetField = None,
    out: OutFolder = None,
    max_failed: MaxFailed = 0.5,
    track: Track = None,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Measure what each layer group costs in accuracy.

    Each layer group is quantized alone, and left out alone. Space, model, data and recipe are the study's.

    Example: ablate sensitivity --space layers_bits --epochs 0
    """
    overrides = subject.overrides() | ({} if seed is None else {"seed": seed})
    assignments = parse_all(set_field)
    check_used(assignments, as_study)
    base = override_study(study, overrides, assignments=assignments)
    spec = sensitivity_study(base, seeds, epochs, full_epochs, as_study)
    if dry_run:
        return _dry_run(spec, ray, as_json)
    _run(_start(spec, out), ray, max_failed, track, as_json)


@app.command()
@expand_options
def resume(
    ray: RayOptions,
    run: RunFolder,
    trials: Annotated[
        int | None, typer.Option(metavar="N", help="Total number of trials; extends a finished run.")
    ] = None,
    hours: Annotated[
        float | None, typer.Option(metavar="HOURS", help="Start no trial after this time in total.")
    ] = None,
    max_failed: MaxFailed = 0.5,
    track: Track = None,
    as_json: Json = False,
) -> None:
    """Continue an interrupted run, or extend a finished one.

    The dataset and the model must be those that the run began with.

    Example: ablate resume RUN --trials 24
    """

    def start(**options: Any) -> "Run":
        from ablate.engine.resume import resume_study

        resumed, torn = resume_study(run, trials=trials, hours=hours, **options)
        if torn:
            message = f"The last line of the ledger was incomplete: {torn} bytes were removed"
            print(f"{message}, and its trial ran again.", file=sys.stderr)
        return resumed

    _run(start, ray, max_failed, track, as_json)


def _start(spec: StudySpec, out: Path | None, **options: Any) -> Callable[..., "Run"]:
    """A function that starts a study, and imports what it needs only then."""

    def start(**more: Any) -> "Run":
        from ablate.engine.run_study import run_study

        return run_study(spec, out, **options, **more)

    return start


def _run(
    start: Callable[..., "Run"],
    ray: RayOptions,
    max_failed: float,
    track: list[str] | None,
    as_json: bool,
    opening: str = "",
) -> None:
    """Run a study under a live view, and print its outcome."""
    for text in track or []:
        installed(text)  # before anything is loaded
    outlive_terminal(as_json)
    console = make_console(stderr=as_json)
    console.print(f"{opening}\nLoading the model and starting Ray ...".lstrip(), soft_wrap=True)
    resources = ray.resources()
    from ablate.cli.live_view import StudyView
    from ablate.cli.status import outcome
    from ablate.runs.run import Run

    try:
        with c_stdout_to_stderr() if as_json else nullcontext(), StudyView(console) as view:
            run = start(resources=resources, view=view, track=track or [])
    except Interrupted as error:
        outcome(Run(error.run), as_json)
        raise
    except KeyboardInterrupt as second:  # a second Ctrl-C, while tables were written or Ray was shut down
        if isinstance(second.__context__, Interrupted):
            raise second.__context__ from None
        raise
    outcome(run, as_json)
    n_failed = int((run.records["status"] == "failed").sum())
    if n_failed > max_failed * len(run.records):
        command = f"ablate status {shlex.quote(relative_path(run.path))}"
        raise AblateError(f"{n_failed} of {len(run.records)} trials failed; `{command}` shows why")


def _dry_run(spec: StudySpec, ray: RayOptions, as_json: bool, known: list[Path] | None = None) -> None:
    from ablate.cli.status import dry_run

    dry_run(spec, as_json, ray.resources(), known or [])
