"""The figures of a run, from its findings, as PDF and PNG."""

import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pandas as pd

from ablate.analysis.confusion import most_confused
from ablate.errors import BadInput
from ablate.formatting import describe_bounds, format_bytes, images_of, natural_sort_key, split_name
from ablate.labels import shortened
from ablate.paper_figures import (
    fig_confusion,
    fig_examples,
    fig_gap,
    fig_grid,
    fig_importance,
    fig_ladder,
    fig_layers,
    fig_pareto,
    fig_scaling,
    fig_sensitivity,
)
from ablate.paper_figures.confusion_info import confusion_info, square
from ablate.paper_figures.fonts import numbered
from ablate.paper_figures.gap_info import gap_info
from ablate.paper_figures.grid_info import learning_curves, surfaces
from ablate.paper_figures.importance_info import importance_info
from ablate.paper_figures.ladder_info import ladder_info
from ablate.paper_figures.pareto_info import pareto_info
from ablate.paper_figures.scaling_info import scaling_info
from ablate.paper_figures.sensitivity_info import sensitivity_info
from ablate.reporting import grid_findings
from ablate.reporting.run_results import Finding, RunResults
from ablate.runs.run import Run

TESTED = ("ladder", "grid", "volume", "scaling")  # figures of test accuracies
MAX_TRIALS = 30  # of a layer map
MAX_CLASSES = 50  # of a confusion matrix whose names can be read on a page
MAX_NAME = 60  # letters of a name in a title
MAX_BYTES = 60  # of a name in a file's name, which may have two of them and 255 bytes at most
MAX_EXAMPLES = 40  # images that a page holds


def draw(run: Run, findings: dict[str, Finding], to: Path | None = None) -> list[Path]:
    """Write each figure of a run's findings, as PDF and PNG.

    Args:
        run: The run.
        findings: By name, as `findings.findings` returns them; those that are missing are left out.
        to: A folder; the run's `figures` by default.

    Returns:
        The files, without their endings.

    Raises:
        OSError: A file cannot be written.
    """
    folder = to or run.path / "figures"
    model, data = (shortened(Path(name).name, 40) for name in (run.study.model, run.study.data))
    subject, tested = f"{model} on {data}", f", {images_of(run.study.test)}"
    with numbered():
        return [
            path
            for name, draw_figures in FIGURES.items()
            if findings.get(name)
            for path in draw_figures(run, findings[name], subject + tested * (name in TESTED), folder)
        ]


def _front(run: Run, finding: Finding, subject: str, to: Path) -> Iterator[Path]:
    trials, seeds = finding.tables["trials"], finding.tables["trials"]["seed"].nunique()
    title = f"{subject}, {len(trials)} trials, "
    title += f"{seeds} seeds" if seeds > 1 else f"seed {trials['seed'].iloc[0]}"
    info, details = pareto_info(trials, run.study.objectives, finding.tables), [_updates(run.candidates)]
    if len(info.spread):
        of_anchor = finding.tables["seed_range"]["n_seeds"].max()
        details.append(f"bars: the range over {of_anchor} seeds of an anchor")
    title += "\n" * any(details) + "; ".join(filter(None, details))
    if run.study.within:
        title += f"\n{describe_bounds(run.study.within)}"
    fig_pareto.draw(info, title, to / "pareto")
    yield to / "pareto"
    front = finding.tables["front"].drop_duplicates("trial_id").head(MAX_TRIALS)
    specs = run.records.drop_duplicates("trial_id").set_index("trial_id")["spec"][front["trial_id"]]
    if groups := sorted({group for spec in specs for group in spec["layers"]}, key=natural_sort_key):
        full = {"weights": "full"}
        weights = [[spec["layers"].get(group, full)["weights"] for group in groups] for spec in specs]
        labels = [f"{row['accuracy']:.1%}, {format_bytes(row['size_bytes'])}" for _, row in front.iterrows()]
        title = f"{subject}: {len(front)} of {len(trials)} trials, the front"
        fig_layers.draw(pd.DataFrame(weights, columns=groups), labels, title, to / "layers")
        yield to / "layers"


def _updates(records: pd.DataFrame) -> str:
    """How many updates the complete trials had, where that is known, and in full precision before them."""
    complete = records[(records["status"] == "complete") & records["steps"].notna()]
    if not len(complete):
        return ""
    epochs = complete["spec"].map(lambda spec: spec["recipe"].get("full_epochs", 0))
    counts = [_extremes(complete["steps"].astype(int)), _extremes(epochs)]
    unit = "epoch" if counts[1] == "1" else "epochs"
    before = f", after {counts[1]} {unit} in full precision" if epochs.any() else ""
    return f"{counts[0]} updates{before}"


def _extremes(counts: pd.Series) -> str:
    return " to ".join(dict.fromkeys(f"{end:,}" for end in (counts.min(), counts.max())))


def _ladder(run: Run, finding: Finding, subject: str, to: Path) -> Iterator[Path]:
    rungs, seeds = finding.tables["ladder"], finding.tables["ladder_seeds"]
    title = f"{subject}, one paired seed"
    if rungs["n"].max() > 1:
        title = f"{subject}, {rungs['n'].max()} paired seeds; 95 % intervals, simultaneous over "
        title += f"{rungs['means'].max()} means and over {rungs['contrasts'].max()} contrasts"
        title += "\ngrey numbers and costs: not told from 0"
    reference = run.study.reference.name if run.study.reference else None
    fig_ladder.draw(ladder_info(rungs, seeds, reference), title, to / "ladder")
    yield to / "ladder"


def _sensitivity(run: Run, finding: Finding, subject: str, to: Path) -> Iterator[Path]:
    costs, seeds = finding.tables["sensitivity"], finding.tables["sensitivity"]["n"].max()
    joint = f"95 % intervals, simultaneous over {costs['contrasts'].max()} contrasts"
    paired = f"{seeds} paired seeds, {joint}" if seeds > 1 else "one seed"
    title = f"{subject}: cost of a layer group, {paired}"
    fig_sensitivity.draw(sensitivity_info(costs), title, to / "sensitivity")
    yield to / "sensitivity"


def _volume(run: Run, finding: Finding, subject: str, to: Path) -> Iterator[Path]:
    gaps, verdicts = finding.tables["gaps"], finding.tables["verdicts"]
    if gaps.empty:  # no size has a trial of both arms yet
        return
    title = f"{subject}, {verdicts['seeds'].max()} paired seeds, simultaneous 95 % intervals"
    fig_gap.draw(gap_info(gaps, verdicts), verdicts["margin"].iloc[0], title, to / "gap")
    yield to / "gap"


def _grid(run: Run, finding: Finding, subject: str, to: Path) -> Iterator[Path]:
    tables, seeds = finding.tables, finding.tables["paired"]["seed"].nunique()
    paired = f"{seeds} paired seeds" if seeds > 1 else "one seed"
    title = f"{subject}, {paired}: gap to full precision in points"
    title += "\ngrey: its simultaneous 95 % interval holds 0; hatched: not trained to the end"
    fig_grid.draw(surfaces(tables["surface"], tables["lengths"]), title, to / "grid")
    yield to / "grid"
    title = f"{subject}, {seeds} seeds, 95 % intervals; filled: the best length on validation images"
    fig_grid.draw_curves(learning_curves(tables["learning"], tables["lengths"]), title, to / "lengths")
    yield to / "lengths"
    yield from _volume(run, grid_findings.at_best_lengths(finding), subject, to)


def _scaling(run: Run, finding: Finding, subject: str, to: Path) -> Iterator[Path]:
    tables = finding.tables
    curves = scaling_info(tables["points"], tables["bands"], tables["laws"])
    seeds = tables["points"]["seed"].nunique()
    title = f"{subject}, {seeds} seeds" if seeds > 1 else f"{subject}, one seed"
    kinds = {curve.rejected for curve in curves.values() if len(curve.band)}
    if False in kinds:
        title += "; laws with 95\u00a0% bands by bootstrap"
    if True in kinds:
        title += "; where lack of fit rejects the law, means with 95\u00a0% intervals"
    fig_scaling.draw(curves, title, to / "scaling")
    yield to / "scaling"


def _parameters(run: Run, finding: Finding, subject: str, to: Path) -> Iterator[Path]:
    table = finding.tables["parameters"]
    title = f"{subject}, {table['trials'].max()} trials: what sets the best tenth apart in each objective"
    fig_importance.draw(importance_info(table), title, to / "importance")
    yield to / "importance"


def _confusion(run: Run, finding: Finding, subject: str, to: Path) -> Iterator[Path]:
    results, tables = RunResults(run), finding.tables
    names = _slugs(map(str, dict.fromkeys(tables["confusion"]["model"])))
    classes = most_confused(tables["confusion"], results.classes, MAX_CLASSES)
    subset = ""
    if len(classes) < len(results.classes):
        subset = f"; the {len(classes)} of {len(results.classes):,} classes that are confused most"
    for name, rows in tables["confusion"].groupby("model", sort=False):
        path = to / f"confusion_{names[str(name)]}"
        split = tables["examples"]["split"].iloc[0]
        title = f"{subject} ({split}): {shortened(str(name), MAX_NAME)}{subset}"
        fig_confusion.draw(confusion_info(rows, classes), title, path)
        yield path
    yield from _confusion_differences(tables, names, classes, subset, to)
    yield from _examples(results, tables["examples"], names, to)


def _confusion_differences(
    tables: dict[str, pd.DataFrame], names: dict[str, str], classes: list[str], subset: str, to: Path
) -> Iterator[Path]:
    """names: the models, the baseline first, each with its part of a file's name."""
    (baseline, baseline_slug), *others = names.items()
    for name, slug in others:
        differences = tables["confusion_difference"]
        matrix = square(differences[differences["model"] == name], "difference", classes)
        shown = [shortened(model, MAX_NAME) for model in (name, baseline)]
        title, pairs = f"{' less '.join(shown)}{subset}", None  # of the first seed
        if "confused_more" in tables:
            pairs = tables["confused_more"][tables["confused_more"]["model"] == name]
            seeds, tested = (
                pairs["seed"].nunique(),
                tables["confused_more"].groupby(["model", "class", "other"]),
            )
            repeated = f"on each of {seeds} seeds" if seeds > 1 else "of one seed"
            title += f"; framed: p < 5 % over the images, by Holm over {tested.ngroups} pairs, {repeated}"
        path = to / f"confusion_{slug}_less_{baseline_slug}"
        fig_confusion.draw_difference(matrix, pairs, title, path)
        yield path


def _examples(results: RunResults, examples: pd.DataFrame, names: dict[str, str], to: Path) -> Iterator[Path]:
    """Draw nothing where the images are missing or have changed, or come from a user's code or the hub."""
    from ablate.data.datasets import is_at_hand

    study = results.run.study
    if not is_at_hand(study.data):  # a figure is drawn without importing or downloading anything
        return
    from ablate.training.trial import load_data  # loads torch, which no other figure needs

    try:
        dataset = load_data(study.data, study.model)
    except BadInput:  # the run's folder may be on another machine than the images
        return
    if dataset.digest != results.digest:
        return
    is_validation = examples["split"].iloc[0] == split_name(False)
    images = (dataset.validation if is_validation else dataset.tested(study.test)).images
    for (name, right), rows in examples.groupby(["model", "right"], sort=False):
        kind = "right" if right else "wrong"
        path = to / f"examples_{kind}_{names[str(name)]}"
        classes = "each class" if len(rows) <= MAX_EXAMPLES else f"each of {MAX_EXAMPLES} classes"
        split = examples["split"].iloc[0]
        title = (
            f"{shortened(str(name), MAX_NAME)}: the first image of {classes} that it gets {kind} ({split})"
        )
        fig_examples.draw(rows.head(MAX_EXAMPLES), images, title, path)
        yield path


def _slugs(names: Iterable[str]) -> dict[str, str]:
    """Each name as a part of a file's name; no two are alike, also where case does not count."""
    slugs: dict[str, str] = {}
    taken: set[str] = set()
    for name in names:
        slug = whole = re.sub(r"\W+", "_", name).encode()[:MAX_BYTES].decode(errors="ignore")
        number = len(slugs)
        while slug.casefold() in taken:
            slug, number = f"{whole}_{number}", number + 1
        slugs[name] = slug
        taken.add(slug.casefold())
    return slugs


FIGURES: dict[str, Callable[[Run, Finding, str, Path], Iterator[Path]]] = {
    "ladder": _ladder,
    "sensitivity": _sensitivity,
    "grid": _grid,
    "volume": _volume,
    "scaling": _scaling,
    "front": _front,
    "parameters": _parameters,
    "confusion": _confusion,
}
