"""Users' text on the command line: files of Windows' editors, names that are markup, full disks."""

import os
import resource
import signal
import subprocess
import sys

import pandas as pd
import pytest

from ablate.cli import main
from ablate.cli.console import make_console, print_rows
from ablate.config.search_space import load_space
from ablate.errors import BadInput
from ablate.reporting.csv_tables import read_csv
from ablate.reporting.findings import write_tables
from ablate.reporting.run_results import Finding
from ablate.reporting.table1_render import MARKDOWN, _escaped

SPACE = 'description = "größe"\r\nobjectives = ["accuracy"]\r\n[layer]\r\nweights = ["full",\t"binary"]\r\n'


@pytest.mark.parametrize("name", ["mine.toml", "mine.TOML", "größe 1.Toml", "mine"])
def test_a_file_may_begin_with_a_byte_order_mark_and_end_in_capitals(name, tmp_path):
    (tmp_path / name).write_bytes(SPACE.encode("utf-8-sig"))
    assert load_space(str(tmp_path / name)).description == "größe"


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (SPACE.encode("utf-16"), "it is UTF-16"),
        (SPACE.encode("latin-1"), "it must be UTF-8"),
        (None, "Is a directory"),
    ],
)
def test_other_encodings_and_folders_are_refused_by_name(content, told, tmp_path):
    (tmp_path / "mine.toml").mkdir() if content is None else (tmp_path / "mine.toml").write_bytes(content)
    with pytest.raises(BadInput, match=told):
        load_space(str(tmp_path / "mine.toml"))


def test_a_path_without_its_ending_is_told_the_ending(tmp_path):
    (tmp_path / "mine.toml").write_text(SPACE)
    with pytest.raises(BadInput, match=r"did you mean '.*mine\.toml'"):
        load_space(str(tmp_path / "mine"))


def test_names_are_no_markup_in_the_terminal(capsys, monkeypatch):
    monkeypatch.setattr("ablate.cli.console.console", make_console())
    names = ["photo[copy].png", "[red]x[/y]", ":cat:", "größe"]
    print_rows([{"name": name} for name in [*names, "a\x1b[31mb\nc"]], False)
    assert capsys.readouterr().out.split() == ["name", *names, r"a\x1b[31mb\nc"]


@pytest.mark.long
def test_a_terminal_without_a_letter_shows_its_number(finished, tmp_path):
    (tmp_path / "größe [b]").symlink_to(finished[0])
    how = {
        "cwd": tmp_path,
        "capture_output": True,
        "text": True,
        "env": {**os.environ, "PYTHONIOENCODING": "ascii"},
    }
    done = subprocess.run([sys.executable, "-m", "ablate", "status", "größe [b]"], **how)
    assert done.returncode == 0 and r"In gr\xf6\xdfe [b]: " in done.stdout, done.stderr


def test_names_survive_a_table(tmp_path):
    names = ["=1+1", "a,b", 'a"b', "a\nb", "a\rb", "größe", " a ", "NA", ""]
    [file] = write_tables({"f": Finding("", tables={"names": pd.DataFrame({"name": names})})}, tmp_path)
    assert list(read_csv(file, texts=["name"])["name"]) == names
    other = pd.read_csv(file, keep_default_na=False)[
        "name"
    ]  # has an apostrophe before what would be computed
    assert list(other) == ["'=1+1", *names[1:]]


def test_names_survive_markdown_and_latex():
    assert MARKDOWN.sub(r"\\\1", "a|b *c* _d_ e_f [g] <h>") == r"a\|b \*c\* \_d\_ e_f \[g\] \<h>"
    # After \\ a row must not begin with an option.
    assert _escaped("[a] *b--c\n& 5 %") == r"{[}a{]} {*}b-{}-c\textbackslash{}n\& 5 \%"


def small_files(size):
    """From here on no file may grow beyond so many bytes, as on a full disk."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


@pytest.mark.long
@pytest.mark.parametrize(
    "command",
    [
        ["report"],
        ["figures"],
        ["export", "--max-size-bytes", "999999999", "--to", "packed"],
        ["push", "--max-size-bytes", "999999999", "--to", "./packed"],
    ],
    ids=" ".join,
)
def test_a_full_disk_is_a_failure_and_no_bad_input(command, finished, tmp_path):
    verb, *options = command
    for name in ("study.toml", "ledger.jsonl", "provenance.json", "weights"):
        (tmp_path / "run").mkdir(exist_ok=True)
        (tmp_path / "run" / name).symlink_to(finished[0] / name)
    how = {"cwd": tmp_path, "capture_output": True, "text": True, "preexec_fn": lambda: small_files(100)}
    done = subprocess.run([sys.executable, "-m", "ablate", verb, "run", *options], **how)
    assert done.returncode == 1 and "File too large" in done.stderr.splitlines()[-1], done.stderr
    assert "Traceback" not in done.stderr
    left = {path.name for path in tmp_path.iterdir()}
    assert verb not in ("export", "push") or left == {"run"}


def test_the_page_says_where_its_tables_are(finished, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(
        sys, "argv", ["ablate", "report", str(finished[0]), "--out", str(tmp_path / "x.html")]
    )
    monkeypatch.setattr("ablate.cli.console.console", make_console())
    with pytest.raises(SystemExit) as end:
        main.main()
    assert end.value.code == 0 and "its tables are beside it in x_tables/" in capsys.readouterr().out
    assert (tmp_path / "x_tables" / "trials.csv").exists()
