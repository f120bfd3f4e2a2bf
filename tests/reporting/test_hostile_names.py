"""What a user called something appears as it is, wherever it is shown; figures: `tests/paper_figures`."""

import csv
import html
import io
import json
import re
from html.parser import HTMLParser

import hostile_names
import pandas as pd
import pytest
from hypothesis import given, settings
from markdown_it import MarkdownIt
from rich.cells import cell_len

from ablate.cli import result_tables
from ablate.cli.console import make_console, print_json, print_line, print_rows
from ablate.config.study_spec import StudySpec
from ablate.labels import (
    FORMULA,
    MAX_TAG,
    ascii_tag,
    from_spreadsheet_cell,
    left_to_right,
    one_line,
    spreadsheet_cell,
)
from ablate.reporting.csv_tables import read_csv, to_csv
from ablate.reporting.html_report import report
from ablate.reporting.plotly_panel import escaped, escaped_lines
from ablate.reporting.table1_cells import Cell, Row, Table1
from ablate.reporting.table1_render import LATEX, terminal, typeset
from ablate.runs.run import create_run

any_name = given(hostile_names.names)
few = settings(derandomize=True, deadline=None, max_examples=60)
COMPUTED = ("=", "+", "-", "@", "\t", "\r", "\uff1d", "\uff0b", "\uff0d", "\uff20")


def encodable(text):
    """A text as pandas can hold it, and a file in UTF-8."""
    return text.encode("utf-8", "backslashreplace").decode()


@few
@any_name
def test_a_cell_of_a_spreadsheet_is_not_computed_and_reads_back(name):
    cell = spreadsheet_cell(name)
    assert not cell.startswith(COMPUTED) and from_spreadsheet_cell(cell) == name
    assert cell == name or FORMULA.match(name)  # only these have an apostrophe


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("tables")


@few
@any_name
def test_a_table_keeps_a_name(folder, name):
    name = encodable(name)
    table = pd.DataFrame({"name": [name, "x"], "value": [-0.5, None], f"{name} 1": [1, 2]})
    (folder / "x.csv").write_bytes(to_csv(table))
    rows = list(csv.reader(io.StringIO((folder / "x.csv").read_bytes().decode(), newline="")))
    assert not any(cell.startswith(COMPUTED) for row in rows for cell in (row[0], row[2]))
    if "\x00" not in name:  # which pandas takes for the end of a cell
        read = read_csv(folder / "x.csv", texts=["name"], numbers=["value"])
        assert list(read["name"]) == [name, "x"] and list(read.columns)[2] == f"{name} 1"
        assert read["value"].dropna().tolist() == [-0.5]


def printed(capsys, monkeypatch, show):
    """What is printed on a wide terminal."""
    console = make_console()
    console.width = 1000
    monkeypatch.setattr("ablate.cli.console.console", console)
    show(console)
    return capsys.readouterr().out


@pytest.mark.parametrize("name", hostile_names.NAMES)
def test_the_terminal_shows_a_name(name, capsys, monkeypatch, tmp_path):
    costs = {"how": "alone", "precision": "binary", "accuracy_cost": 0.1, "accuracy_high": 0.2}
    costs["group"] = encodable(name)
    (tmp_path / "costs.csv").write_bytes(to_csv(pd.DataFrame([costs])))
    table1 = Table1([Row(name, "ViT", {"macs": Cell(1, "counted")})], [name])

    def show(console):
        print_line(name)
        print_rows([{"name": name}], False)
        console.print(terminal(table1))
        if is_read:
            console.print(result_tables.sensitivities(tmp_path / "costs.csv"))

    shown, is_read = one_line(name).strip(), cell_len(name) > 0 and "\x00" not in name
    lines = printed(capsys, monkeypatch, show).split("\n")
    assert sum(shown in line for line in lines) >= (5 if is_read else 3)  # rich drops what has no width
    assert not any(one_line(line) != line for line in lines)


@pytest.mark.parametrize("name", hostile_names.NAMES)
def test_json_has_a_name(name, capsys):
    print_json([{"class": name}])
    assert json.loads(capsys.readouterr().out) == [{"class": name}]


@few
@any_name
def test_a_tag_of_a_metric_is_printable_ascii(name):
    tag = ascii_tag(name)
    assert tag.isascii() and tag.isprintable() and len(tag) <= MAX_TAG


def test_tags_of_different_names_differ():
    assert len({ascii_tag(name) for name in hostile_names.NAMES}) == len(hostile_names.NAMES)


@few
@any_name
def test_plotly_reads_no_markup_in_a_name(name):
    text = escaped(name)
    assert "<" not in text and html.unescape(text) == one_line(name)
    lines = escaped_lines(name, 10).split("<br>")
    assert "<" not in "".join(lines)
    assert html.unescape("".join(lines)).replace(" ", "") == one_line(name).replace(" ", "")


@few
@any_name
def test_markdown_reads_no_markup_in_a_name(name):
    table = Table1([Row(name, "ViT", {"macs": Cell(1, "counted")})], [f"x{name}x"])
    page = MarkdownIt().enable("table").render(typeset(table, "markdown"))
    cell, note = (re.search(f"<{tag}>(.*?)</{tag}>", page, re.DOTALL)[1] for tag in ("td", "li"))
    assert "<" not in cell + note
    assert html.unescape(cell).strip() == one_line(name).strip()
    assert html.unescape(note) == one_line(f"x{name}x")


@few
@any_name
def test_tex_reads_no_command_in_a_name(name):
    tex = typeset(Table1([Row(name, "ViT", {"macs": Cell(1, "counted")})], []), "latex")
    cell = tex.split("\\toprule\n")[1].split("\n")[1].split(" & ")[0]
    tokens = sorted(LATEX.values(), key=len, reverse=True)
    parts = re.split("(" + "|".join(map(re.escape, tokens)) + ")", re.sub(r"([-'])\{\}", r"\1", cell))
    assert not any(letter in LATEX for plain in parts[::2] for letter in plain)
    letters = {text: letter for letter, text in LATEX.items()}
    assert "".join(letters.get(part, part) for part in parts) == one_line(name)


class Page(HTMLParser):
    """The tags of a page, the text of its headings, and its data."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.texts, self.open = set(), {}, ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.add((tag, *(name for name, _ in attributes if name.startswith("on"))))
        self.open = tag

    def handle_data(self, text):
        self.texts[self.open] = self.texts.get(self.open, "") + text


@pytest.mark.long
def test_a_page_shows_a_question_as_it_is(tmp_path):
    question = encodable(" ".join(name for name in hostile_names.NAMES if one_line(name) == name))
    space = {"name": "s", "description": "d", "objectives": ["accuracy"], "layer": {"weights": "full"}}
    run = create_run(tmp_path / "=<b>r[1]", StudySpec(question=question, space=space), {"classes": ["a"]})
    page = Page(report(run).read_text(encoding="utf-8"))
    assert page.texts["h1"].strip() == question.strip()
    assert page.texts["title"].startswith("=<b>r[1]: ") and "=<b>r[1]" in page.texts["code"]
    assert {tag for tag, *handlers in page.tags if handlers} == set() and ("b",) not in page.tags


def test_what_follows_an_arabic_name_stays_on_its_right():
    assert left_to_right("قطة") == "\u200eقطة\u200e" and left_to_right("a猫") == "a猫"
