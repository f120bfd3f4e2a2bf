"""The figures of a run, from its findings: tables in, pictures out."""

import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pandas as pd

from ablate.analysis.confusion import most_confused
from ablate.errors import BadInput
from ablate.formatting import describe_bounds, format_bytes, natural_sort_key
from ablate.labels import shortened
from ablate.paper_figures import (
    fig_confusion,
    fig_examples,
    fig_gap,
    fig_importance,
    fig_ladder,
    fig_layers,
    fig_pareto,
    fig_scaling,
    fig_sensitivity,
)
from ablate.reporting.run_results import Finding, RunResults
from ablate.runs.run import Run

MOST = 30  # trials of a layer map
CLASSES = 50  # of a confusion matrix whose names can be read on a page
EXAMPLES = 40  # images that a page holds


def draw(run: Run, found: dict[str, Finding], to: Path | None = None) -> list[Path]:
    """Write each figure that the findings carry, as PDF and PNG; their paths without the ending.

    to: a folder, the run's `figures` by default.
    """
    to = to or run.path / "figures"
    about = f"{shortened(Path(run.study.model).name, 40)} on {shortened(Path(run.study.data).name, 40)}"
    return [
        path for name, one in FIGURES.items() if found.get(name) for path in one(run, found[name], about, to)
    ]


def _front(run: Run, found: Finding, about: str, to: Path) -> Iterator[Path]:
    trials, objectives = found.tables["trials"], run.study.objectives
    seeds = trials["seed"].nunique()
    title = f"{about}, {len(trials)} trials, " + (
        f"{seeds} seeds" if seeds > 1 else f"seed {trials['seed'].iloc[0]}"
    )
    title += f"\n{describe_bounds(run.study.within)}" if run.study.within else ""
    fig_pareto.draw(trials, objectives, title, to / "pareto")
    yield to / "pareto"
    front = found.tables["front"].drop_duplicates("trial_id").head(MOST)
    specs = run.records.drop_duplicates("trial_id").set_index("trial_id")["spec"][front["trial_id"]]
    if groups := sorted({group for spec in specs for group in spec["layers"]}, key=natural_sort_key):
        rows = [
            [spec["layers"].get(group, {"weights": "full"})["weights"] for group in groups] for spec in specs
        ]
        labels = [f"{row['accuracy']:.1%}, {format_bytes(row['size_bytes'])}" for _, row in front.iterrows()]
        fig_layers.draw(
            pd.DataFrame(rows, columns=groups),
            labels,
            f"{about}: {len(front)} of {len(trials)} trials, the front",
            to / "layers",
        )
        yield to / "layers"


def _ladder(run: Run, found: Finding, about: str, to: Path) -> Iterator[Path]:
    rungs, seeds = found.tables["ladder"], found.tables["ladder_seeds"]
    title = f"{about}, {rungs['n'].max()} paired seeds, mean and 95 % interval"
    reference = run.study.reference.name if run.study.reference else None
    fig_ladder.draw(rungs.dropna(subset="mean"), seeds, title, to / "ladder", reference)
    yield to / "ladder"


def _sensitivity(run: Run, found: Finding, about: str, to: Path) -> Iterator[Path]:
    costs = found.tables["sensitivity"]
    groups = [group for group in dict.fromkeys(costs["group"]) if group]
    seeds = costs["n"].max()
    title = f"{about}: cost of a layer group, " + (
        f"{seeds} paired seeds, 95 % intervals" if seeds > 1 else "one seed"
    )
    fig_sensitivity.draw(costs, groups, title, to / "sensitivity")
    yield to / "sensitivity"


def _volume(run: Run, found: Finding, about: str, to: Path) -> Iterator[Path]:
    gaps, verdicts = found.tables["gaps"], found.tables["verdicts"]
    title = f"{about}, {verdicts['seeds'].max()} paired seeds, 95 % intervals"
    fig_gap.draw(gaps, verdicts, title, to / "gap")
    yield to / "gap"


def _scaling(run: Run, found: Finding, about: str, to: Path) -> Iterator[Path]:
    points = found.tables["points"]
    title = f"{about}, {points['seed'].nunique()} seeds; 95 % bands by bootstrap"
    fig_scaling.draw(points, found.tables["bands"], found.tables["laws"], title, to / "scaling")
    yield to / "scaling"


def _parameters(run: Run, found: Finding, about: str, to: Path) -> Iterator[Path]:
    table = found.tables["parameters"]
    title = f"{about}, {table['trials'].max()} trials: what sets the best tenth apart in each objective"
    fig_importance.draw(table, title, to / "importance")
    yield to / "importance"


def _confusion(run: Run, found: Finding, about: str, to: Path) -> Iterator[Path]:
    matrices = {str(name): rows for name, rows in found.tables["confusion"].groupby("model", sort=False)}
    baseline, *others = slugs = _slugs(matrices)
    classes = most_confused(found.tables["confusion"], known := RunResults(run).classes, CLASSES)
    some = (
        f"; the {len(classes)} of {len(known):,} classes that are confused most"
        if len(classes) < len(known)
        else ""
    )
    for name, rows in matrices.items():
        path = to / f"confusion_{slugs[name]}"
        fig_confusion.draw(rows, f"{about}: {name}{some}", path, classes)
        yield path
    for name in others:
        rows = found.tables["confusion_difference"][found.tables["confusion_difference"]["model"] == name]
        path, more = to / f"confusion_{slugs[name]}_less_{slugs[baseline]}", found.tables.get("confused_more")
        title, pairs = f"{name} less {baseline}{some}", None  # of the first seed
        if more is not None:
            pairs = more[more["model"] == name]
            seeds = pairs["seed"].nunique()
            title += "; framed: p < 5 % over the images, " + (
                f"on each of {seeds} seeds" if seeds > 1 else "of one seed"
            )
        fig_confusion.draw_difference(rows, pairs, title, path, classes)
        yield path
    from ablate.data.datasets import is_users_code

    if is_users_code(run.study.data):  # figures are drawn without importing it
        return
    try:
        from ablate.training.trial import load_data  # it loads torch, which no other figure needs

        dataset = load_data(run.study.data, run.study.model)
    except BadInput:  # the images need not be where the run's folder was moved
        return
    if dataset.digest != RunResults(run).digest:  # other images by now
        return
    images = getattr(dataset, found.tables["examples"]["split"].iloc[0]).images
    for (name, right), rows in found.tables["examples"].groupby(["model", "right"], sort=False):
        kind = "right" if right else "wrong"
        path = to / f"examples_{kind}_{slugs[str(name)]}"
        which = "each class" if len(rows) <= EXAMPLES else f"each of {EXAMPLES} classes"
        fig_examples.draw(
            rows.head(EXAMPLES), images, f"{name}: the first image of {which} that it gets {kind}", path
        )
        yield path


def _slugs(names: Iterable[str]) -> dict[str, str]:
    """Each name as a part of a file's name: none as long as a disk allows, and no two alike."""
    found: dict[str, str] = {}
    for name in names:
        slug = re.sub(r"\W+", "_", name)[:60]
        found[name] = f"{slug}_{len(found)}" if slug in found.values() else slug
    return found


FIGURES: dict[str, Callable[[Run, Finding, str, Path], Iterator[Path]]] = {
    "ladder": _ladder,
    "sensitivity": _sensitivity,
    "volume": _volume,
    "scaling": _scaling,
    "front": _front,
    "parameters": _parameters,
    "confusion": _confusion,
}
