"""What the command line prints of a study before it runs, and of a run."""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from ablate.cli.console import console, short, table
from ablate.config.study_spec import StudySpec
from ablate.execution.ray_cluster import Resources
from ablate.formatting import count
from ablate.runs.run import Run
from ablate.runs.state import how_to_go_on
from ablate.search.fractional_factorial import APART

if TYPE_CHECKING:  # they load torch
    from ablate.engine.gate import Check
    from ablate.engine.plan import Plan


def dry_run(asked: StudySpec, as_json: bool, resources: Resources, known: Sequence[Path] = ()) -> None:
    """The layer groups, the size of the space, the anchors and the cost, and whether a trial would be ended by its limit."""
    from ablate.engine.estimate import estimate
    from ablate.engine.gate import gate
    from ablate.engine.plan import plan
    from ablate.engine.warm_start import reuse

    planned = plan(asked)
    reuse(known, planned)
    checks = gate(planned)
    result = {"checks": [asdict(check) for check in checks]} | estimate(planned)
    for notice in planned.notices:
        print(notice, file=sys.stderr)
    if as_json:
        return print(json.dumps(result, indent=1))
    searched = [row["layer group"] for row in result["groups"] if row["searched"]]
    console.print(
        f"Layer groups ({len(searched)} of {len(result['groups'])} searched): {', '.join(searched)}",
        highlight=False,
    )
    console.print(_images(**result["images"]), highlight=False, soft_wrap=True)
    for line in _checks(checks, planned):
        console.print(line, highlight=False, soft_wrap=True)
    table(result["anchors"], False)
    if resolution := result.get("resolution"):
        told = f"A fraction: {asked.points} of {result['points_of_all']:,} points, of resolution {resolution}"
        console.print(f"{told}: {APART[resolution]}.", highlight=False, soft_wrap=True)
    console.print(f"Points of the space: {count(result['points'])}", highlight=False)
    views = f"{result['trials']} trials, {result['image_views']:,} image views at {result['images_per_second_of_a_cpu']} a second"
    if asked.confirm:
        console.print(
            f"Then {asked.confirm} more for each member of the front, not counted here:", highlight=False
        )
    minutes = f"about {result['minutes']:.0f} minutes" if result["minutes"] >= 1.5 else "a minute or less"
    console.print(f"{views} and CPU: {minutes} on {result['cpus']} CPUs", highlight=False)
    longest, limit = (
        result["minutes_of_longest_trial"] / resources.cpus_per_trial,
        resources.minutes_per_trial,
    )
    if longest > limit and not resources.gpus_per_trial:
        end = f"is ended after {limit:g}, as failed; give more --minutes-per-trial, --cpus-per-trial or a GPU"
        where = f"{resources.cpus_per_trial} of these CPUs"
        console.print(
            f"A trial takes about {longest:.0f} minutes on {where}, but {end}",
            highlight=False,
            soft_wrap=True,
        )


def _checks(checks: "Sequence[Check]", planned: "Plan") -> list[str]:
    """What was found, but for what standard error has already."""
    said = {*planned.dataset.notes, *planned.notices}
    return [f"{check.about.capitalize()}: {check.found}" for check in checks if check.found not in said]


def _images(in_memory: tuple[int, int], model_takes: tuple[int, int], by_the_models_processor: bool) -> str:
    """At what size images are decoded, and what becomes of them; sizes are (height, width)."""
    has, takes = (f"{width} x {height}" for height, width in (in_memory, model_takes))
    if by_the_models_processor:
        return f"Images: each decoded to {has} pixels, resized and cropped as the model's image processor does it"
    return f"Images: {has} pixels" + (
        "" if has == takes else f", brought to the model's {takes} batch by batch"
    )


def outcome(run: Run, as_json: bool) -> None:
    """A run's progress, its failures and its front."""
    from ablate.analysis import pareto
    from ablate.cli import live_view

    counts = {name: int((run.records["status"] == name).sum()) for name in ("complete", "failed", "pruned")}
    if as_json:
        front = pareto.front_of(run.searched, run.study.directions, run.study.within)
        rows = (
            front.astype(object).where(front.notna(), None).to_dict("records")
        )  # to_json rounds, up to Infinity
        told = {
            "run": str(run.path),
            "state": run.state,
            "trials": counts,
            "within": run.study.within,
            "front": rows,
        }
        return print(json.dumps(told, indent=1))
    if run.state:
        console.print(live_view.progress(run.state | {"done": len(run.records), "counts": counts}))
    if run.state.get("running") and not run.alive:
        state = run.state | {"run": short(run.path)}
        console.print(f"Its driver is gone: {how_to_go_on(state)}", highlight=False, soft_wrap=True)
    if reason := run.state.get("reason"):
        state = run.state | {"run": short(run.path)}
        stopped = f"The study stopped: {reason}; {how_to_go_on(state)}"
        console.print(stopped, highlight=False, markup=False, soft_wrap=True)
    for _, record in run.records[run.records["status"] == "failed"].iterrows():
        console.print(f"  {record['trial_id']} failed: {record['error']}", highlight=False, soft_wrap=True)
    console.print(live_view.front(run.searched, run.study.directions, run.study.within))
    if (run.path / "tables" / "latency.csv").exists():
        console.print(live_view.latencies(run.path / "tables" / "latency.csv"))
    if (run.path / "tables" / "sensitivity.csv").exists():
        console.print(live_view.sensitivities(run.path / "tables" / "sensitivity.csv"))
    if (run.path / "tables" / "confirmed.csv").exists():
        console.print(live_view.confirmed(run.path / "tables" / "confirmed.csv"))
    tables = ("tables/front.csv", "tables/confirmed.csv", "tables/sensitivity.csv", "tables/latency.csv")
    written = [
        name
        for name in ("report.html", "figures/pareto.png", "figures/sensitivity.png", *tables, "ledger.jsonl")
        if (run.path / name).exists()
    ]
    console.print(f"In {short(run.path)}: {', '.join(written)}", soft_wrap=True, highlight=False)
