"""What the pages share: sections with their figures and tables, the template, and the way to the disk.

A page is the Jinja template report.html, which escapes every name. report.css and report.js go into it.
"""

from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from ablate.errors import BadInput, WriteFailed, write_error
from ablate.files import write_atomic
from ablate.paths import local_path
from ablate.reporting.findings import write_tables
from ablate.reporting.html_tables import HtmlTable, html_tables
from ablate.reporting.plotly_panel import Panel
from ablate.reporting.run_results import Finding

HERE = Path(__file__).parent


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


def checked_page(to: str | Path) -> Path:
    """The absolute path of a page that is to be written. Raises BadInput where no file can be there."""
    page = local_path(to).absolute()
    if page.is_dir():
        inside = str(page / "report.html")
        raise BadInput(f"--out must be a file, but {str(page)!r} is a folder; give {inside!r}")
    if page.exists() and not page.is_file():  # a device or a pipe would be replaced
        raise BadInput(f"--out must be a file, but {str(page)!r} is none; give another")
    return page


def write_page(page: Path, text: str, answers: dict[str, Finding], tables: Path, *, is_option: bool) -> None:
    """Write a page, and the tables of its findings into a folder.

    Raises:
        BadInput: The page cannot be written where `--out` says; is_option: whether it says so.
        WriteFailed: The disk is full or cannot be written.
    """
    try:
        write_tables(answers, tables)
        write_atomic(page, text.encode("utf-8", "backslashreplace"))  # names of files need not be Unicode
    except OSError as error:
        reason = f"{str(page)!r}: {error.strerror}"
        if not is_option:
            raise WriteFailed(f"the page could not be written to {reason}") from None
        rule = f"--out must be a file that can be written, but {reason}; give another"
        raise write_error(error, rule) from None


def drawings(panels: dict[str, list[Panel]]) -> dict[str, Any]:
    """The figures of a page for report.js, by the ids of their elements."""
    return {
        f"{name}-{i}": {"data": panel.data, "layout": {**panel.layout, "height": panel.height}}
        for name, those in panels.items()
        for i, panel in enumerate(those)
    }


def render(**values: Any) -> str:
    """A page of the template report.html, with its style and its scripts."""
    from plotly.offline import get_plotlyjs  # takes a quarter of a second

    return _template().render(
        version=version("ablate-vit"),
        css=(HERE / "report.css").read_text(encoding="utf-8"),
        plotly=get_plotlyjs(),
        script=(HERE / "report.js").read_text(encoding="utf-8"),
        **values,
    )


def _template() -> Template:
    environment = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["sentence_case"] = sentence_case
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":")}
    return environment.get_template("report.html")


def section(name: str, finding: Finding, panels: list[Panel], is_answer: bool) -> Section:
    """A section of a page.

    Args:
        name: Of the finding.
        finding: The finding.
        panels: Its figures.
        is_answer: Whether the page begins with its sentence.
    """
    sentences = []
    # The verdict on top of the page repeats the sentence of the front, which comes right below it.
    if finding.sentence and not (is_answer and name == "front"):
        verdicts = finding.tables.get("verdicts")
        sentences = [finding.sentence] if verdicts is None else list(verdicts["sentence"])
    return Section(
        name=name,
        title=finding.title,
        sentences=[sentence_case(sentence) for sentence in sentences],
        figures=[
            Figure(f"{name}-{i}", sentence_case(panel.title), panel.wide) for i, panel in enumerate(panels)
        ],
        notes=[note(text) for text in finding.notes],
        tables=html_tables(name, finding),
        files=[file for file, rows in finding.tables.items() if len(rows)],
    )


def note(text: str) -> str:
    return f"{sentence_case(text.rstrip('.'))}."


def sentence_case(text: str) -> str:
    return text[:1].upper() + text[1:]
