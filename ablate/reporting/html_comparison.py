"""Runs side by side as one page, in a single HTML file that opens offline."""

import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from ablate.reporting.comparison import Comparison, comparison
from ablate.reporting.comparison_findings import comparison_findings
from ablate.reporting.html_page import checked_page, drawings, note, render, section, write_page
from ablate.reporting.plotly_comparison import comparison_panels
from ablate.reporting.run_results import Finding
from ablate.runs.run import Run

PAGE = "comparison.html"
QUESTION = "How do these runs compare?"


def compare(runs: Sequence[Run], to: str | Path | None = None) -> tuple[Path, Path]:
    """Write a page that compares runs, and its tables as CSV in a folder beside it.

    Args:
        runs: Two or more, which may still be going on.
        to: The page; comparison.html in the working directory by default.

    Returns:
        The page, and the folder of the tables.

    Raises:
        BadInput: The runs have nothing in common that compares, or `to` cannot be a file.
        WriteFailed: The disk is full or cannot be written.
    """
    page = checked_page(PAGE if to is None else to)
    compared = comparison(runs)
    answers, tables = comparison_findings(compared), page.with_name(f"{page.stem}_tables")
    write_page(page, _page(compared, answers, tables.name, page), answers, tables, is_option=to is not None)
    return page, tables


def _page(compared: Comparison, answers: dict[str, Finding], tables: str, page: Path) -> str:
    panels = {name: comparison_panels(name, finding, compared) for name, finding in answers.items()}
    names = [*compared.runs]
    paths = [os.path.relpath(results.run.path, page.parent) for results in compared.runs.values()]
    questions = {label: results.run.study.question for label, results in compared.runs.items()}
    verdict = [answers[name].sentence for name in ("hypervolumes", "differences") if answers[name].sentence]
    return render(
        name=" and ".join(names),
        question=QUESTION,
        state=f"{len(names)} runs: {', '.join(names)}.",
        tested="",
        verdict=verdict or [note(answers["hypervolumes"].notes[0])],
        sections=[
            section(name, finding, panels[name], is_answer=False)
            for name, finding in answers.items()
            if finding.applies
        ],
        tables_folder=quote(os.fsencode(tables)),
        provenance=questions,
        command=f"ablate report {shlex.join(paths)}",
        study="",
        not_asked=[],
        data={"figures": drawings(panels), "trials": []},
    )
