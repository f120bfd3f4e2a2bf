"""A run as one page: what its findings say, figure by figure, in a single HTML file that opens offline."""

import html
import json
import math
import shlex
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from string import Template
from typing import Any
from urllib.parse import quote

import pandas as pd

from ablate.config.objectives import COLUMNS, cell
from ablate.config.trial_spec import LayerSpec
from ablate.errors import BadInput, WriteFailed, write_error
from ablate.files import write_atomic
from ablate.formatting import natural_sort_key
from ablate.reporting.findings import findings, write_tables
from ablate.reporting.plotly_charts import charts
from ablate.reporting.plotly_front import shown_trials
from ablate.reporting.plotly_panel import Panel
from ablate.reporting.run_results import Finding
from ablate.runs.run import Run
from ablate.runs.state import ENDED

HERE = Path(__file__).parent
FIRST = ("front", "confirmed", "progress", "sensitivity", "parameters", "layers", "scaling")
ORDER = (*FIRST, "volume", "ladder", "cells", "confusion", "failures")
ANSWERS = (
    "volume",
    "ladder",
    "sensitivity",
    "front",
)  # the first of them that has one gives the page's verdict
ROWS = 20  # of a table on the page; its file has all
LONG = ("layers", "error", "flags", "equation", "text", "reason")  # columns whose text may break into lines
PERCENT = {  # columns of shares in [0, 1]
    "verdicts": (
        "margin",
        *(name + end for name in ("slope", "gap", "mixed") for end in ("", "_low", "_high")),
        "smallest_slope",
    ),
    "gaps": ("accuracy_baseline", "accuracy_arm", "gap", "low", "high", "band_low", "band_high"),
    "ladder": ("mean", "low", "high", "gain", "gain_low", "gain_high", "cost", "cost_low", "cost_high"),
    "bought": ("mean", "low", "high"),
    "sensitivity": ("accuracy_cost", "accuracy_low", "accuracy_high"),
    "confusion": ("share",),
    "front": ("front_probability",),
}


def report(run: Run, to: Path | None = None) -> Path:
    """Write a run's page, RUN/report.html by default, and every table as CSV in a folder beside it; where the page is.

    The run may still be going on. The same ledger gives the same bytes. Raises BadInput where `to` cannot be
    a file, and WriteFailed on a full disk.
    """
    asked, to = to is not None, (to or run.path / "report.html").absolute()
    if to.is_dir():
        raise BadInput(f"--out must be a file, but {str(to)!r} is a folder; give {str(to / 'report.html')!r}")
    if to.exists() and not to.is_file():  # a device or a pipe would be replaced
        raise BadInput(f"--out must be a file, but {str(to)!r} is none; give another")
    found, tables = findings(run), tables_of(run, to)
    page = _page(run, found, tables.name)
    try:
        write_tables(found, tables)
        write_atomic(to, page.encode("utf-8", "backslashreplace"))  # names of files need not be Unicode
    except OSError as error:
        why = f"{str(to)!r}: {error.strerror}"
        if asked:
            raise write_error(
                error, f"--out must be a file that can be written, but {why}; give another"
            ) from None
        raise WriteFailed(f"the page could not be written to {why}") from None
    return to


def tables_of(run: Run, page: Path) -> Path:
    """The folder of the tables of a run's page: outside the run's folder there may be other pages."""
    return page.parent / ("tables" if page.parent == run.path else f"{page.stem}_tables")


def _page(run: Run, found: dict[str, Finding], tables: str) -> str:
    from plotly.offline import get_plotlyjs  # a quarter of a second

    names = [*(name for name in ORDER if name in found), *(name for name in found if name not in ORDER)]
    panels = {name: charts(name, found[name], run.study) for name in names}
    answer = next((name for name in ANSWERS if found[name].sentence), "")
    sections = [
        _section(name, found[name], panels[name], name == answer, tables)
        for name in names
        if found[name].applies
    ]
    figures = {f"{name}-{i}": panel for name in names for i, panel in enumerate(panels[name])}
    drawings = {
        name: {"data": panel.data, "layout": panel.layout | {"height": panel.height}}
        for name, panel in figures.items()
    }
    data = {"figures": drawings, "run": shlex.quote(run.path.name)} | _trials(run, found["front"])
    return Template(_part("html")).substitute(
        name=_text(run.path.name),
        question=_text(run.study.question),
        state=_text(_state(run)),
        verdict=_verdict(found, answer),
        sections="\n".join(
            [*sections, _provenance(run), _apart([each for each in found.values() if not each.applies])]
        ),
        version=version("ablate-vit"),
        css=_part("css"),
        data=json.dumps(data, allow_nan=False, separators=(",", ":")).replace(
            "<", "\\u003c"
        ),  # no text ends the script
        plotly=get_plotlyjs(),
        script=_part("js"),
    )


def _part(kind: str) -> str:
    return (HERE / f"report.{kind}").read_text(encoding="utf-8")


def _state(run: Run) -> str:
    """How far the run is, as of its last sign of life."""
    records, state = run.records, run.state
    asked = max(state.get("trials", run.study.trials), len(records))
    kinds = records["status"].value_counts()
    counts = ", ".join(f"{kinds[name]} {name}" for name in ("complete", "failed", "pruned") if name in kinds)
    told = f"{run.path.name}: {len(records):,} of {asked:,} trials recorded" + (
        f" ({counts})" if counts else ""
    )
    if state:
        at = f", as of {datetime.fromtimestamp(state['heartbeat'], UTC):%Y-%m-%d %H:%M:%S} UTC"
        under_way = f", {len(state['running'])} under way" if state["running"] else ""
        status = (
            "its driver is gone"
            if state["status"] not in ENDED and not run.alive
            else state["status"] + under_way
        )
        told += f"; {status}{at}"
    return f"{told}."


def _verdict(found: dict[str, Finding], answer: str) -> str:
    if not answer:
        return f"<p>No answer yet: {_text('; '.join(found['front'].notes))}.</p>"
    said = [found[answer].sentence]
    if answer == "volume":  # the numbers come with the figure
        said = [
            sentence.split(";")[0].rstrip(".") + "."
            for sentence in found[answer].tables["verdicts"]["sentence"]
        ]
    return "".join(f"<p>{_text(_capital(sentence))}</p>" for sentence in said)


def _section(name: str, finding: Finding, panels: list[Panel], told: bool, tables: str) -> str:
    """A question, its answer, figures, what cannot be said and why, and tables."""
    parts = [f'<section id="{_text(name)}"><h2>{_text(finding.title)}</h2>']
    if finding.sentence and not (told and name == "front"):  # its sentence is just above
        verdicts = finding.tables.get("verdicts")
        said = [finding.sentence] if verdicts is None else verdicts["sentence"]
        parts += [f"<p>{_text(_capital(sentence))}</p>" for sentence in said]
    if panels:
        figures = [
            f'<figure class="{"wide" * panel.wide}"><h3>{_text(_capital(panel.title))}</h3><div id="{name}-{i}"></div></figure>'
            for i, panel in enumerate(panels)
        ]
        parts.append(f'<div class="panels">{"".join(figures)}</div>')
    if name == "front" and panels:
        parts.append(
            '<p class="state hint">A click on a trial, here or in the table, pins it.</p><div id="pinned" hidden></div>'
        )
    if finding.notes:
        parts.append(_notes(list(finding.notes)))
    parts += [
        _table(table, rows, name in ("front", "failures"))
        for table, rows in _shown(name, finding).items()
        if len(rows)
    ]
    if files := [
        f'<a href="{quote(tables)}/{file}.csv">{file}.csv</a>'
        for file, rows in finding.tables.items()
        if len(rows)
    ]:
        parts.append(f'<p class="csv">All rows: {", ".join(files)}</p>')
    return "\n".join([*parts, "</section>"])


def _apart(findings: list[Finding]) -> str:
    if not findings:
        return ""
    notes = _notes([f"{finding.title} {_capital('; '.join(finding.notes))}" for finding in findings])
    return f'<section id="apart"><h2>What this run was not made to say</h2>{notes}</section>'


def _notes(notes: list[str]) -> str:
    items = [f"<li>{_text(_capital(note.rstrip('.')))}.</li>" for note in notes]
    return f'<ul class="notes">{"".join(items)}</ul>'


def _shown(name: str, finding: Finding) -> dict[str, pd.DataFrame]:
    """The tables that stand on the page itself."""
    tables = finding.tables
    if not finding or name == "progress":
        return {}
    if name == "front":
        trials = shown_trials(tables["trials"]).reset_index(drop=True)
        rows = trials[trials["front"]].sort_values("accuracy", ascending=False)
        columns = [key for key in ("seed", "fraction") if trials[key].nunique() > 1]
        rows = rows.assign(trial=[f"{i}:{trial}" for i, trial in rows["trial_id"].items()])
        numbers = list(trials.loc[:, "accuracy":"layers"])[:-1]
        return {
            "front": rows[["trial", *numbers, "front_probability", *columns, "layers"]].dropna(
                axis=1, how="all"
            )
        }
    if name == "confusion":
        table = tables["confusion"]
        wrong = table[(table["label"] != table["predicted"]) & (table["count"] > 0)]
        return {"confusion": wrong.sort_values("count", ascending=False, kind="stable")}
    if name == "volume":
        return {
            key: tables[key].drop(columns="sentence", errors="ignore")
            for key in ("verdicts", "gaps", "needed", "bought")
        }
    return dict(list(tables.items())[:1])


def _table(name: str, rows: pd.DataFrame, unfolded: bool) -> str:
    """A table of at most ROWS rows, folded where it only repeats a figure in numbers."""
    left = [column in LONG or not pd.api.types.is_numeric_dtype(rows[column]) for column in rows]
    looks = ["long" if column in LONG else "text" * text for column, text in zip(rows, left, strict=True)]
    head = "".join(
        f'<th class="{look}">{_text(_heading(name, column))}</th>'
        for look, column in zip(looks, rows, strict=True)
    )
    body = [
        "".join(
            f'<td class="{look}">{_cell(name, *pair)}</td>'
            for look, pair in zip(looks, row.items(), strict=True)
        )
        for row in rows.head(ROWS).to_dict("records")
    ]
    lines = "".join(f"<tr>{line}</tr>" for line in (head, *body))
    table = f'<div class="table"><table>{lines}</table></div>'
    count = (
        f"the first {ROWS} of {len(rows):,} rows"
        if len(rows) > ROWS
        else f"{len(rows)} row{'s' * (len(rows) > 1)}"
    )
    if unfolded:
        return table + f'<p class="csv">{_capital(count)}.</p>' * (len(rows) > ROWS)
    return f"<details><summary>Table: {name} ({count})</summary>{table}</details>"


def _heading(table: str, column: str) -> str:
    if table == "front" and column in COLUMNS:
        return COLUMNS[column]
    return column.replace("_", " ") + (" (%)" if column in PERCENT.get(table, ()) else "")


def _cell(table: str, column: str, value: Any) -> str:
    """A value as HTML."""
    if column == "trial":
        index, _, trial = value.partition(":")
        return f'<button data-trial="{index}">{_text(trial)}</button>'
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return "unbounded" if value in (math.inf, -math.inf) else ""
    if table == "front" and column in COLUMNS:
        return _text(cell(column, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{100 * value:.1f}" if column in PERCENT.get(table, ()) else f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else _text(value)


def _trials(run: Run, front: Finding) -> dict[str, Any]:
    """What a pinned trial shows: `layers` indexes `kinds`, group by group; 0 is full precision."""
    if not front:
        return {"trials": [], "groups": []}
    names = list(run.study.objectives)
    rows = shown_trials(front.tables["trials"])
    specs = run.records.drop_duplicates("trial_id").set_index("trial_id")["spec"]
    groups = sorted({group for spec in specs for group in spec["layers"]}, key=natural_sort_key)
    kinds: dict[str, int] = {json.dumps({"weights": "full"}): 0}
    kept = {folder.name for folder in (run.path / "weights").glob("*")}
    trials = []
    for row in rows.to_dict("records"):
        layers = specs[row["trial_id"]]["layers"]
        told = [
            json.dumps(_kind(layers[group]) if group in layers else {"weights": "full"}) for group in groups
        ]
        trials.append(
            {
                "id": row["trial_id"],
                "words": row["layers"],
                "numbers": [cell(name, row[name]) for name in names]
                + [str(row["seed"]), f"{row['fraction']:g}"],
                "layers": [kinds.setdefault(kind, len(kinds)) for kind in told],
                "kept": row["trial_id"] in kept,
            }
        )
    order = rows.reset_index(drop=True)
    best = order[order["front"]][names[0]]
    first = order.index[order["knee"]]
    direction = run.study.directions[names[0]]
    return {
        "columns": [COLUMNS[name] for name in names] + ["seed", "fraction of the data"],
        "groups": groups,
        "kinds": [json.loads(kind) for kind in kinds],
        "trials": trials,
        "first": int(first[0] if len(first) else best.idxmax() if direction == "max" else best.idxmin()),
    }


def _kind(layer: dict[str, Any]) -> dict[str, Any]:
    """A layer group's precision as the page shows it; what is as it always is goes without saying."""
    if layer["weights"] == "full":
        return {"weights": "full"}
    usual = LayerSpec().model_dump() | {"activation_bits": None}
    more = {
        key: f"{value:.3g}" if isinstance(value, float) else value
        for key, value in layer.items()
        if value != usual[key]
    }
    bits = more.pop("activation_bits", None)
    kind = {"weights": more.pop("weights"), "activation_bits": bits}
    return kind | ({"more": ", ".join(f"{key} {value}" for key, value in more.items())} if more else {})


def _provenance(run: Run) -> str:
    """Where the numbers come from, and the command that asks the same question again."""
    try:
        known = json.loads((run.path / "provenance.json").read_text(encoding="utf-8-sig"))
    except (OSError, ValueError):
        known = {}
    study, name = run.study, run.path.name
    seeds = f"{study.seed}" + (f" to {study.seed + study.seeds - 1}, paired" if study.seeds > 1 else "")
    rows = {
        "model": study.model,
        "data": study.data,
        "sha256 of the data": known.get("dataset_sha256"),
        "seeds": seeds,
    }
    rows |= {"commit": _commit(known), "started": known.get("started_at")}
    if again := known.get("resumed"):
        rows["resumed"] = ", ".join(
            f"{each['started_at']} at commit {_commit(each) or 'not known'}" for each in again
        )
    rows |= {key: known[key] for key in ("hardware", "versions") if key in known}
    rows |= {"started as": shlex.join(map(str, known["command"]))} if known.get("command") else {}
    told = [
        (key, ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else value)
        for key, value in rows.items()
    ]
    terms = "".join(
        f"<dt>{_text(key)}</dt><dd>{_text('not known' if value is None else value)}</dd>"
        for key, value in told
    )
    anew = f"ablate study {shlex.quote(f'{name}/study.toml')} --out {shlex.quote(f'{name}-again')}"
    asked = _text((run.path / "study.toml").read_text(encoding="utf-8-sig"))
    return (
        f'<section id="provenance"><h2>Where do the numbers come from?</h2><dl>{terms}</dl><p>The same question again:</p>'
        f"<pre>{_text(anew)}</pre><details><summary>The study as it was asked</summary><pre>{asked}</pre></details></section>"
    )


def _commit(known: dict[str, Any]) -> str | None:
    """The commit of a provenance, and that there were changes beside it."""
    commit = known.get("git_commit")
    return f"{commit} with changes that are not committed" if commit and known.get("git_dirty") else commit


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _text(value: Any) -> str:
    return html.escape(str(value))
