"""What the command line prints about a study before it runs, and about a run."""

import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ablate.cli.console import console, print_json, print_line, print_rows, relative_path
from ablate.config.study_spec import StudySpec
from ablate.execution.ray_cluster import Resources
from ablate.formatting import format_count
from ablate.runs.run import Run
from ablate.runs.state import ENDED, State, how_to_go_on
from ablate.search.fractional_factorial import APART

if TYPE_CHECKING:  # they load torch
    from ablate.engine.gate import Check
    from ablate.engine.plan import Plan

# What a run's folder may hold for its reader, in the order in which `status` lists it.
OUTPUTS = (
    "report.html",
    "figures/pareto.png",
    "figures/sensitivity.png",
    "tables/front.csv",
    "tables/confirmed.csv",
    "tables/sensitivity.csv",
    "tables/latency.csv",
    "ledger.jsonl",
)


def dry_run(study: StudySpec, as_json: bool, resources: Resources, known: Sequence[Path] = ()) -> None:
    """Check a study and print its layer groups, anchors and cost, without training it.

    Args:
        study: The study.
        as_json: Print JSON.
        resources: What a trial may use.
        known: Runs whose trials the study would reuse.
    """
    from ablate.engine.energy_check import check_energy
    from ablate.engine.estimate import estimate
    from ablate.engine.gate import gate
    from ablate.engine.plan import plan
    from ablate.engine.warm_start import reuse

    check_energy(study, resources)
    planned = plan(study)
    _, reused = reuse(known, planned)
    checks = gate(planned)
    result = {"checks": [asdict(check) for check in checks]} | estimate(planned, resources)
    result["known"] = len(reused)
    for notice in planned.notices:
        print(notice, file=sys.stderr)
    if as_json:
        return print_json(result)
    searched = [row["layer group"] for row in result["groups"] if row["searched"]]
    print_line(f"Layer groups ({len(searched)} of {len(result['groups'])} searched): {', '.join(searched)}")
    print_line(_describe_images(**result["images"]))
    for line in _describe_checks(checks, planned):
        print_line(line)
    print_rows(result["anchors"], as_json=False)
    for line in _describe_cost(result, study, resources):
        print_line(line)
    if reused:
        print_line(f"Of other runs {len(reused)} trials are known and will not be trained again")


def outcome(run: Run, as_json: bool) -> None:
    """Print a run's progress, its failed trials, its front and its output files.

    Args:
        run: The run, which may still be going on.
        as_json: Print JSON.
    """
    statuses = ("complete", "failed", "pruned")
    counts = {name: int((run.records["status"] == name).sum()) for name in statuses}
    if as_json:
        return _print_outcome_as_json(run, counts)
    from ablate.cli import live_view, result_tables

    if run.state:
        console.print(live_view.progress({**run.state, "done": len(run.records), "counts": counts}))
    state: State = {**run.state, "run": relative_path(run.path)}
    alive = run.alive
    if state.get("running") and not alive:
        print_line(f"The driver of this run has died: {how_to_go_on(state)}")
    if alive and not run.state:
        print_line("This run has just begun: no trial is in training yet")
    elif alive and run.state["status"] not in ENDED:
        end = f"`kill -INT {state['pid']}` there ends it as Ctrl-C does"
        print_line(f"Its driver is process {state['pid']} on {state['host']}; {end}")
    if reason := state.get("reason"):
        print_line(f"The study stopped: {reason}; {how_to_go_on(state)}")
    for _, record in run.records[run.records["status"] == "failed"].iterrows():
        print_line(f"  {record['trial_id']} failed: {record['error']}")
    console.print(result_tables.front(run.candidates, run.study.directions, run.study.within))
    tables = {
        "latency": result_tables.latencies,
        "sensitivity": result_tables.sensitivities,
        "confirmed": result_tables.confirmed,
    }
    for name, table in tables.items():
        if (path := run.path / "tables" / f"{name}.csv").exists():
            try:
                rows = table(path)
            except (OSError, ValueError) as error:  # a folder that was copied in part
                print_line(f"Left out: {relative_path(path)} cannot be read: {error}")
            else:
                console.print(rows)
    if run.tested:
        print_line(run.tested)
    written = [name for name in OUTPUTS if (run.path / name).exists()]
    print_line(f"In {relative_path(run.path)}: {', '.join(written)}")


def _print_outcome_as_json(run: Run, counts: dict[str, int]) -> None:
    from ablate.analysis import pareto

    front = pareto.front_of(run.candidates, run.study.directions, run.study.within)
    # Not `to_json`, which rounds numbers.
    rows = front.astype(object).where(front.notna(), None).to_dict("records")
    result = {"run": str(run.path), "state": run.state, "trials": counts, "tested": run.tested}
    print_json(result | {"within": run.study.within, "front": rows})


def _describe_checks(checks: "Sequence[Check]", planned: "Plan") -> list[str]:
    """What the checks found, except what standard error already has."""
    printed = {*planned.dataset.notes, *planned.notices}
    return [f"{check.about.capitalize()}: {check.found}" for check in checks if check.found not in printed]


def _describe_images(
    in_memory: tuple[int, int], model_takes: tuple[int, int], by_the_models_processor: bool
) -> str:
    """The size at which images are decoded, and how they reach the model. Sizes are (height, width)."""
    decoded, taken = (f"{width} x {height}" for height, width in (in_memory, model_takes))
    if by_the_models_processor:
        return f"Images: {decoded} pixels, each resized and cropped as the model's image processor does it"
    resized = "" if decoded == taken else f", resized to the model's {taken} batch by batch"
    return f"Images: {decoded} pixels{resized}"


def _describe_cost(result: dict[str, Any], study: StudySpec, resources: Resources) -> list[str]:
    lines = []
    if resolution := result.get("resolution"):
        part = f"{study.points} of {result['points_of_all']:,} points, of resolution {resolution}"
        lines.append(f"Fractional factorial: {part}: {APART[resolution]}.")
    lines.append(f"Points of the space: {format_count(result['points'])}")
    if study.confirm:
        lines.append(
            f"The {study.confirm} further trials for each member of the front are not included below."
        )
    views = f"{result['image_views']:,} image views (an evaluated image counts as a third)"
    trials = f"{result['trials']} trials, {views}"
    if result["may_grow"]:
        trials = f"At least {trials}, and more where a tuned choice lies on the edge of its grid"
    minutes = f"about {result['minutes']:.0f} minutes" if result["minutes"] >= 1.5 else "a minute or less"
    rate = f"at {result['images_per_second_of_a_cpu']} images a second per CPU"
    lines.append(f"{trials}: {minutes} on {result['cpus']} CPUs, {rate}")
    if study.hours is not None:
        lines.append(f"No trial starts after {study.hours:g} hours, whether or not all of these have")
    longest = result["minutes_of_longest_trial"] / resources.cpus_per_trial
    limit = resources.minutes_per_trial
    if longest > limit and not resources.gpus_per_trial:
        duration = f"A trial takes about {longest:.0f} minutes on {resources.cpus_per_trial} of these CPUs"
        advice = "increase --minutes-per-trial or --cpus-per-trial, or use a GPU"
        lines.append(f"{duration}, but is ended after {limit:g} and recorded as failed; {advice}")
    return lines
