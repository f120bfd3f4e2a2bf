"""A run as one page: its findings, figure by figure, in a single HTML file that opens offline.

The page is the Jinja template report.html, which escapes every name. report.css and report.js go into it.
"""

import os
import shlex
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from ablate.errors import BadInput, WriteFailed, write_error
from ablate.files import write_atomic
from ablate.paths import local_path
from ablate.reporting.findings import findings, write_tables
from ablate.reporting.html_provenance import provenance_terms, study_command
from ablate.reporting.html_tables import HtmlTable, html_tables
from ablate.reporting.html_trials import trials_data
from ablate.reporting.plotly_charts import charts
from ablate.reporting.plotly_panel import Panel
from ablate.reporting.run_results import Finding
from ablate.runs.run import Run
from ablate.runs.state import ENDED, at_least

HERE = Path(__file__).parent
SEARCHED = ("front", "confirmed", "progress", "sensitivity", "parameters", "layers", "scaling")
ORDER = (*SEARCHED, "volume", "ladder", "cells", "confusion", "failures")
ANSWERS = ("volume", "ladder", "sensitivity", "front")  # the first that has a sentence gives the verdict


@dataclass(frozen=True)
class Figure:
    """A figure of the page: the id of its element, its title, and whether it takes the width of the page."""

    id: str
    title: str
    wide: bool


@dataclass(frozen=True)
class Section:
    """A question of the page: its answer, figures and tables; `files` are the names of its CSV files."""

    name: str
    title: str
    sentences: list[str]
    figures: list[Figure]
    notes: list[str]
    tables: list[HtmlTable]
    files: list[str]


def report(run: Run, to: str | Path | None = None) -> Path:
    """Write a run's page, and every table as CSV in a folder beside it. The same ledger gives the same bytes.

    Args:
        run: The run, which may still be going on.
        to: The page; RUN/report.html by default.

    Returns:
        The page.

    Raises:
        BadInput: `to` cannot be a file.
        WriteFailed: The disk is full or cannot be written.
    """
    page = local_path(run.path / "report.html" if to is None else to).absolute()
    if page.is_dir():
        inside = str(page / "report.html")
        raise BadInput(f"--out must be a file, but {str(page)!r} is a folder; give {inside!r}")
    if page.exists() and not page.is_file():  # a device or a pipe would be replaced
        raise BadInput(f"--out must be a file, but {str(page)!r} is none; give another")
    answers, tables = findings(run), tables_of(run, page)
    text = _page(run, answers, tables.name)
    try:
        write_tables(answers, tables)
        write_atomic(page, text.encode("utf-8", "backslashreplace"))  # names of files need not be Unicode
    except OSError as error:
        reason = f"{str(page)!r}: {error.strerror}"
        if to is None:
            raise WriteFailed(f"the page could not be written to {reason}") from None
        rule = f"--out must be a file that can be written, but {reason}; give another"
        raise write_error(error, rule) from None
    return page


def tables_of(run: Run, page: Path) -> Path:
    """The folder of the tables of a run's page; outside the run's folder it has the name of the page."""
    return page.parent / ("tables" if page.parent == run.path else f"{page.stem}_tables")


def _page(run: Run, findings: dict[str, Finding], tables: str) -> str:
    from plotly.offline import get_plotlyjs  # takes a quarter of a second

    names = [*(name for name in ORDER if name in findings), *(name for name in findings if name not in ORDER)]
    panels = {name: charts(name, findings[name], run.study) for name in names}
    answer = next((name for name in ANSWERS if findings[name].sentence), "")
    drawings: dict[str, Any] = {
        f"{name}-{i}": {"data": panel.data, "layout": {**panel.layout, "height": panel.height}}
        for name in names
        for i, panel in enumerate(panels[name])
    }
    return _template().render(
        name=run.path.name,
        question=run.study.question,
        state=_state(run),
        tested=run.tested,
        verdict=_verdict(findings, answer),
        sections=[
            _section(name, findings[name], panels[name], name == answer)
            for name in names
            if findings[name].applies
        ],
        tables_folder=quote(os.fsencode(tables)),
        provenance=provenance_terms(run),
        command=study_command(run),
        study=(run.path / "study.toml").read_text(encoding="utf-8-sig"),
        not_asked=_not_asked(list(findings.values())),
        version=version("ablate-vit"),
        data={"figures": drawings, "run": shlex.quote(run.path.name), **trials_data(run, findings["front"])},
        css=(HERE / "report.css").read_text(encoding="utf-8"),
        plotly=get_plotlyjs(),
        script=(HERE / "report.js").read_text(encoding="utf-8"),
    )


def _template() -> Template:
    environment = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["sentence_case"] = _sentence_case
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":")}
    return environment.get_template("report.html")


def _state(run: Run) -> str:
    """How far the run is, as of its last heartbeat."""
    records, state = run.records, run.state
    planned = max(state.get("trials", run.study.trials), len(records))
    text = f"{run.path.name}: {len(records):,} of {at_least(state)}{planned:,} trials recorded"
    by_status = records["status"].value_counts()
    statuses = [name for name in ("complete", "failed", "pruned") if name in by_status]
    if statuses:
        text += f" ({', '.join(f'{by_status[name]} {name}' for name in statuses)})"
    if not state:
        return f"{text}."
    if state["status"] not in ENDED and not run.alive:
        status = "its driver is gone"
    elif state["running"]:
        status = f"{state['status']}, {len(state['running'])} in training"
    else:
        status = state["status"]
    return f"{text}; {status}, as of {datetime.fromtimestamp(state['heartbeat'], UTC):%Y-%m-%d %H:%M:%S} UTC."


def _verdict(findings: dict[str, Finding], answer: str) -> list[str]:
    """answer: the name of the finding that gives the verdict, "" where none has a sentence."""
    if not answer:
        return [f"No answer yet: {'; '.join(findings['front'].notes)}."]
    if answer == "volume":  # its numbers come with its figure
        sentences = findings[answer].tables["verdicts"]["sentence"]
        return [_sentence_case(sentence.split(";")[0].rstrip(".")) + "." for sentence in sentences]
    return [_sentence_case(findings[answer].sentence)]


def _section(name: str, finding: Finding, panels: list[Panel], is_answer: bool) -> Section:
    sentences = []
    # The verdict on top of the page repeats the sentence of the front, which comes right below it.
    if finding.sentence and not (is_answer and name == "front"):
        verdicts = finding.tables.get("verdicts")
        sentences = [finding.sentence] if verdicts is None else list(verdicts["sentence"])
    return Section(
        name=name,
        title=finding.title,
        sentences=[_sentence_case(sentence) for sentence in sentences],
        figures=[
            Figure(f"{name}-{i}", _sentence_case(panel.title), panel.wide) for i, panel in enumerate(panels)
        ],
        notes=[_note(note) for note in finding.notes],
        tables=html_tables(name, finding),
        files=[file for file, rows in finding.tables.items() if len(rows)],
    )


def _not_asked(findings: list[Finding]) -> list[str]:
    """A note for each question that the study does not ask."""
    return [
        _note(f"{finding.title} {_sentence_case('; '.join(finding.notes))}")
        for finding in findings
        if not finding.applies
    ]


def _note(text: str) -> str:
    return f"{_sentence_case(text.rstrip('.'))}."


def _sentence_case(text: str) -> str:
    return text[:1].upper() + text[1:]
