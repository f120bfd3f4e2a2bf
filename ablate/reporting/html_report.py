"""A run as one page: its findings, figure by figure, in a single HTML file that opens offline."""

import os
import shlex
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

from ablate.config.study_spec import StudySpec
from ablate.reporting.findings import findings
from ablate.reporting.grid_findings import slope_sentences
from ablate.reporting.html_page import (
    checked_page,
    drawings,
    note,
    render,
    section,
    sentence_case,
    write_page,
)
from ablate.reporting.html_provenance import provenance_terms, study_command
from ablate.reporting.html_trials import trials_data
from ablate.reporting.plotly_charts import charts
from ablate.reporting.run_results import Finding
from ablate.runs.run import Run
from ablate.runs.state import ENDED, at_least

SEARCHED = ("front", "confirmed", "progress", "sensitivity", "parameters", "layers", "scaling")
ORDER = ("grid", *SEARCHED, "volume", "ladder", "cells", "confusion", "failures")
ANSWERS = (
    "grid",
    "volume",
    "ladder",
    "sensitivity",
    "front",
)  # the first that has a sentence gives the verdict


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
    page = checked_page(run.path / "report.html" if to is None else to)
    answers, tables = findings(run), tables_of(run, page)
    write_page(page, _page(run, answers, tables.name), answers, tables, is_option=to is not None)
    return page


def tables_of(run: Run, page: Path) -> Path:
    """The folder of the tables of a run's page; outside the run's folder it has the name of the page."""
    return page.parent / ("tables" if page.parent == run.path else f"{page.stem}_tables")


def _page(run: Run, findings: dict[str, Finding], tables: str) -> str:
    names = [*(name for name in ORDER if name in findings), *(name for name in findings if name not in ORDER)]
    panels = {name: charts(name, findings[name], run.study) for name in names}
    answer = next((name for name in ANSWERS if findings[name].sentence), "")
    data = {
        "figures": drawings(panels),
        "run": shlex.quote(run.path.name),
        **trials_data(run, findings["front"]),
    }
    return render(
        name=run.path.name,
        question=run.study.question,
        state=_state(run),
        tested=run.tested,
        verdict=_verdict(findings, answer, run.study),
        sections=[
            section(name, findings[name], panels[name], name == answer)
            for name in names
            if findings[name].applies
        ],
        tables_folder=quote(os.fsencode(tables)),
        provenance=provenance_terms(run),
        command=study_command(run),
        study=(run.path / "study.toml").read_text(encoding="utf-8-sig"),
        not_asked=_not_asked(list(findings.values())),
        data=data,
    )


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


def _verdict(findings: dict[str, Finding], answer: str, study: StudySpec) -> list[str]:
    """answer: the name of the finding that gives the verdict, "" where none has a sentence."""
    if not answer:
        return [f"No answer yet: {'; '.join(findings['front'].notes)}."]
    if answer == "grid":  # and its verdicts
        return list(map(sentence_case, slope_sentences(findings[answer].tables["effects"], study)))
    if answer == "volume":  # its numbers come with its figure
        sentences = findings[answer].tables["verdicts"]["sentence"]
        return [sentence_case(sentence.split(";")[0].rstrip(".")) + "." for sentence in sentences]
    return [sentence_case(findings[answer].sentence)]


def _not_asked(findings: list[Finding]) -> list[str]:
    """A note for each question that the study does not ask."""
    return [
        note(f"{finding.title} {sentence_case('; '.join(finding.notes))}")
        for finding in findings
        if not finding.applies
    ]
