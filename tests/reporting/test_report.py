"""A run as a page, in a real browser."""

import base64
import html
import json
import os
import re

import chromium
import numpy as np
import pandas as pd
import pytest
from commands import run_ablate

from ablate.config.study_spec import StudySpec, load_study
from ablate.config.trial_spec import LayerSpec, TrialSpec
from ablate.errors import BadInput
from ablate.reporting.html_report import report
from ablate.runs.ledger import append
from ablate.runs.locks import hold
from ablate.runs.provenance import add_resume
from ablate.runs.record import blank_record
from ablate.runs.run import create_run, load_run
from ablate.search.experiment_design import Design
from ablate.training.trial import trial_id

in_chromium = pytest.mark.skipif(chromium.NAME is None, reason="Chromium is not installed (Debian: chromium)")
EVIL = (
    "</script><script>document.title = 'hacked'</script><img src=x onerror=\"document.title='hacked'\">&amp;"
)
GROUPS = ["block0.attention", "block0.fc1", "block1.attention", "block1.fc1", "head"]
PAPER = {"paperWidth": 8.27, "paperHeight": 11.69, "marginLeft": 0.59, "marginRight": 0.59}  # A4 in inches
PAPER_PIXELS = 680  # of 96 an inch, between the margins
SPACE = {
    "name": "s",
    "description": "d",
    "objectives": ["accuracy", "size_bytes", "bitops"],
    "layer": {"weights": "full"},
}


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    with chromium.browser(tmp_path_factory.mktemp("chromium")) as found:
        yield found


def opened(address, file, **how):
    """The page, which has no fault and asked for nothing but itself."""
    page = chromium.Page(address, file, **how)
    assert not page.errors, page.errors
    assert {url for url in page.requests if not url.startswith("data:")} == {file.as_uri()}
    return page


def searched(path, trials, groups=GROUPS, question="which?", **fields):
    """A made-up run of a search.

    fields: of its records, values or functions of the trial's number and its full layers.
    """
    study = StudySpec(question=question, space=SPACE, trials=max(1, trials))
    provenance = {"classes": ["a", "b"], "versions": {"torch": "2"}, "command": ["ablate"]}
    run, random = create_run(path, study, provenance), np.random.default_rng(0)
    lines = []
    for i in range(trials):
        kinds = random.choice(["full", "binary", "ternary"], len(groups)) if i else ["full"] * len(groups)
        bits = int(random.choice([2, 4, 8]))
        layers = {
            g: LayerSpec(weights=k, activation_bits=bits)
            for g, k in zip(groups, kinds, strict=True)
            if k != "full"
        }
        spec, full = TrialSpec(layers=layers, seed=i), len(groups) - len(layers)
        record = blank_record(spec, trial_id(spec)) | {"status": "complete", "images": 100, "loss": 1.0}
        record |= {"accuracy": 0.5 + 0.2 * full / len(groups) + 0.1 * random.random()}
        record |= {"size_bytes": 10_000 * (1 + full) + i, "bitops": 10**9 * (1 + full) + i}
        record |= {key: value(i, full) if callable(value) else value for key, value in fields.items()}
        lines.append(json.dumps(record) + "\n")
    (path / "ledger.jsonl").write_text("".join(lines))
    return run


def text(page):
    """What a reader sees of a page's own text, without tags and scripts."""
    return html.unescape(re.sub(r"<style.*?</style>|<script.*?</script>|<[^>]+>", " ", page, flags=re.DOTALL))


@pytest.fixture(scope="module")
def page_of_a_search(finished, tmp_path_factory):
    return report(load_run(finished[0]), tmp_path_factory.mktemp("search") / "report.html")


@pytest.fixture(scope="module")
def page_of_a_design(simulated, tmp_path_factory):
    return report(load_run(simulated(0.10, 0.03)), tmp_path_factory.mktemp("design") / "page.html")


def point(page, index):
    """Where a trial's mark is in the window."""
    return page(f"""(() => {{
        const plot = document.getElementById("front-0"), box = plot.getBoundingClientRect();
        const trace = plot.data.find(trace => trace.customdata?.includes({index}));
        const at = trace.customdata.indexOf({index});
        const {{ xaxis, yaxis }} = plot._fullLayout;
        const x = xaxis._offset + xaxis.d2p(trace.x[at]), y = yaxis._offset + yaxis.d2p(trace.y[at]);
        return [box.x + x, box.y + y];
    }})()""")


@pytest.mark.long
@in_chromium
def test_hover_shows_a_trials_layers_and_a_click_pins_it(finished, page_of_a_search, address):
    records = load_run(finished[0]).records.set_index("trial_id")
    with opened(address, page_of_a_search) as page:
        assert page("document.querySelector('h1').textContent") == "does it work?"
        pinned = page("document.getElementById('pinned').textContent")
        trials = page("JSON.parse(document.getElementById('data').textContent).trials")
        index = next(
            i
            for i, trial in enumerate(trials)
            if trial["id"] not in pinned and records.loc[trial["id"], "spec"]["layers"]
        )
        trial = trials[index]
        page("document.getElementById('front-0').scrollIntoView()")
        page.mouse(*point(page, index))
        told = page("document.querySelector('#front-0 .hoverlayer').textContent")
        assert trial["id"] in told and trial["numbers"][0] in told
        assert trial["words"].split(";")[0] in told
        page.mouse(*point(page, index), click=True)
        assert trial["id"] in page("document.getElementById('pinned').textContent")
        cells = page("[...document.querySelectorAll('.map td[title]')].map(cell => cell.title)")
        layers = records.loc[trial["id"], "spec"]["layers"]
        asked = {
            name: f"{layer['weights']}, {layer['activation_bits']}-bit activations"
            for name, layer in layers.items()
        }
        assert {
            cell.partition(": ")[0]: cell.partition(": ")[2] for cell in cells if ": full" not in cell
        } == asked
        last = "[...document.querySelectorAll('button[data-trial]')].at(-1)"
        page(f"{last}.click()")
        assert page(f"{last}.textContent") in page("document.querySelector('#pinned h3').textContent")
        assert not page.errors


OUTSIDE = """(right, within) => [...document.querySelectorAll(within)]
    .filter(e => e.getBoundingClientRect().right > right)
    .map(e => e.tagName + "." + e.className + ": " + e.textContent.slice(0, 40))"""


@pytest.mark.long
@in_chromium
@pytest.mark.parametrize("which", ["page_of_a_search", "page_of_a_design"])
def test_a_phone_holds_the_page(which, address, request):
    file = request.getfixturevalue(which)
    with opened(address, file, width=360, height=740, touch=True) as page:
        assert page("document.documentElement.scrollWidth") <= 360
        wide = "[...document.querySelectorAll('main *, header *')]"
        wide += ".filter(e => !e.closest('.table, svg, .js-plotly-plot'))"
        assert page(f"{wide}.every(e => e.getBoundingClientRect().right <= 361)")
        assert page(
            "[...document.querySelectorAll('.main-svg')].every(e => e.getBoundingClientRect().right <= 361)"
        )


@pytest.mark.long
@in_chromium
@pytest.mark.parametrize("which", ["page_of_a_search", "page_of_a_design"])
def test_paper_holds_the_page(which, address, request):
    file = request.getfixturevalue(which)
    with opened(address, file) as page:
        drawn = "[...document.querySelectorAll('.js-plotly-plot')]"
        drawn += ".map(plot => plot.querySelector('.main-svg').clientWidth)"
        before = page(drawn)
        page(f"window.printed = []; addEventListener('beforeprint', () => printed.push(...{drawn}))")
        pdf = base64.b64decode(page.call("Page.printToPDF", **PAPER)["data"])
        assert pdf.startswith(b"%PDF") and len(re.findall(rb"/Type\s*/Page\b", pdf)) >= 2
        assert page("printed.length") == len(before) > 0
        assert max(page("printed")) <= PAPER_PIXELS < max(before)
        page("new Promise(done => setTimeout(done, 500))")
        assert page(drawn) == before  # on the screen all is as it was
        assert not page.errors
    with opened(
        address, file, width=PAPER_PIXELS
    ) as page:  # what the paper's own layout makes of the words and tables
        page.call("Emulation.setEmulatedMedia", media="print")
        page(
            "document.querySelectorAll('details').forEach(each => each.open = true)"
        )  # as a reader may have left them
        assert page(f"({OUTSIDE})({PAPER_PIXELS + 1}, 'main *:not(.js-plotly-plot *), header *')") == []
        assert page(
            "[...document.querySelectorAll('.hint')].every(e => getComputedStyle(e).display === 'none')"
        )


def test_the_answer_comes_first(page_of_a_design):
    page = page_of_a_design.read_text()
    verdict = text(re.search(r'<div class="verdict">.*?</div>', page, re.DOTALL)[0])
    assert "Binary: shrinks: the gap to full shrinks with data" in verdict and "Ternary: constant" in verdict
    sections = re.findall(r'<section id="(\w+)"', page)
    assert sections == [
        *(
            "front",
            "progress",
            "scaling",
            "volume",
            "cells",
            "confusion",
            "failures",
            "provenance",
            "apart",
        )
    ]
    assert "What is each step worth? The study is no ladder." in text(page)
    assert "Which parameter matters? The cells of the design" in text(page)


def test_the_page_says_with_which_commit_a_run_went_on(tmp_path):
    run = searched(tmp_path / "run", 2)
    add_resume(run.path, {"model_sha256": "abc"})
    known = json.loads((run.path / "provenance.json").read_text())["resumed"][0]
    changed = " with changes that are not committed" if known["git_dirty"] else ""
    assert (
        f"{known['started_at']} at commit {known['git_commit'] or 'not known'}{changed}"
        in report(run).read_text()
    )


def test_every_table_is_beside_the_page(page_of_a_design):
    page, tables = page_of_a_design.read_text(), page_of_a_design.parent / "page_tables"
    for name in re.findall(r'href="page_tables/(\w+\.csv)"', page):
        assert len(pd.read_csv(tables / name)), name
    assert {"verdicts", "gaps", "laws", "trials", "front", "hypervolume"} <= {
        path.stem for path in tables.iterdir()
    }


def test_the_same_ledger_gives_the_same_bytes(finished, page_of_a_search, tmp_path):
    again = report(load_run(finished[0]), tmp_path / page_of_a_search.name)
    assert again.read_bytes() == page_of_a_search.read_bytes()


def climbed(path, seeds=5):
    """A made-up run of the built-in ladder: accuracies of each rung, and the noise of a seed."""
    study = load_study("ladder").model_copy(update={"seeds": seeds, "data": "cifar10-mini"})
    run = create_run(path, study, {"classes": ["a", "b"]})
    design, random = Design(run.study, GROUPS), np.random.default_rng(0)
    order = {step.name: i for i, step in enumerate(run.study.steps, 1)}
    while spec := design.ask():
        cell = next(name for name, each in design.cells.items() if each.spec.layers == spec.layers)
        accuracy = 0.4 + 0.02 * order.get(cell, 0) + 0.1 * (not spec.layers) + random.normal(0, 0.005)
        record = blank_record(spec, trial_id(spec)) | {
            "status": "complete",
            "accuracy": accuracy,
            "loss": 1.0,
            "images": 10,
        }
        record |= {"size_bytes": 1000 if spec.layers else 30_000} | (
            {"test_accuracy": accuracy} if spec.test else {}
        )
        append(run.path / "ledger.jsonl", record)
        design.tell(record)
    return load_run(path)


@pytest.mark.long
@in_chromium
@pytest.mark.parametrize("seeds", [5, 1])
def test_a_ladder_is_drawn_rung_by_rung(tmp_path, address, seeds):
    run = climbed(tmp_path / "run", seeds)
    with opened(address, report(run), width=360) as page:
        shown = page("document.querySelector('#ladder').textContent")
        assert all(step.name in re.sub(r"\s+", " ", shown) for step in run.study.steps)
        assert page("document.querySelector('.verdict').textContent").startswith("From the paper's recipe at")
        assert page("document.documentElement.scrollWidth") <= 360
        assert len(pd.read_csv(run.path / "tables" / "design.csv")) > len(run.study.steps) * seeds
        assert ("noise alone" in shown) == (seeds == 1)
        assert "design over" not in page("document.querySelector('main').innerText")


@pytest.mark.long
@in_chromium
def test_nothing_in_a_run_is_html_or_code(tmp_path, address):
    run = searched(tmp_path / "run", 30, [f"{EVIL}{i}" for i in range(3)], EVIL, error=EVIL)
    lines = (run.path / "ledger.jsonl").read_text().splitlines()
    broken = json.loads(lines[-1]) | {"status": "failed", "accuracy": None, "trial_id": EVIL}
    append(run.path / "ledger.jsonl", broken)
    with opened(address, report(load_run(run.path))) as page:
        assert page("document.querySelector('h1').textContent") == EVIL
        assert page("document.title").endswith(EVIL)
        assert not page("document.querySelector('img')")
        assert EVIL in page("document.querySelector('#failures').textContent")
        assert EVIL[:20] in page("document.querySelector('#layers').textContent")


def test_every_name_is_escaped(tmp_path):
    page = report(searched(tmp_path / "run", 3, [f"{EVIL}{i}" for i in range(2)], EVIL)).read_text()
    assert EVIL[:20] not in page and html.escape(EVIL)[:30] in page


NOTHING_SAID = {
    "empty": (0, {}, "there is no complete trial"),
    "all failed": (
        8,
        {"status": "failed", "accuracy": None, "size_bytes": None, "bitops": None, "error": "NaN loss"},
        "8 failed",
    ),
    "one trial": (1, {}, "a course needs two complete trials"),
    "constant": (
        30,
        {"accuracy": 0.5, "size_bytes": 1000, "bitops": 10},
        "all 30 complete trials are alike in accuracy, size_bytes, bitops: none is better",
    ),
    "constant accuracy": (30, {"accuracy": 0.1}, "all are alike in accuracy"),
    "nothing": (30, {"accuracy": 0.0, "size_bytes": 0, "bitops": 0}, "a course needs two that differ"),
}


@pytest.mark.long
@in_chromium
@pytest.mark.parametrize("name", NOTHING_SAID)
def test_where_nothing_can_be_said_the_page_says_why(name, tmp_path, address):
    trials, fields, reason = NOTHING_SAID[name]
    file = report(load_run(searched(tmp_path / "run", trials, **fields).path))
    told = text(file.read_text())
    assert reason.lower() in told.lower()
    assert not re.search(r"\b(nan|inf|None|NaT)\b", told.replace("NaN loss", ""))
    with opened(address, file):
        pass


@pytest.mark.long
@pytest.mark.parametrize("seeds, sizes", [(1, 5), (3, 1), (2, 2)])
def test_a_design_of_too_little_says_so(simulated, tmp_path, seeds, sizes):
    run = load_run(simulated(0.1, 0.0, seeds))
    ledger = run.path / "ledger.jsonl"
    kept = sorted(run.records["fraction"].unique())[:sizes]
    lines = [
        line for line in ledger.read_text().splitlines(keepends=True) if json.loads(line)["fraction"] in kept
    ]
    ledger.write_text("".join(lines))
    told = text(report(load_run(run.path), tmp_path / "report.html").read_text())
    number = f"{'is' if sizes == 1 else 'are'} {sizes}"
    too_few = f"a trend over data needs 3 sizes of the training set or more, but there {number}"
    assert ("two paired seeds" if seeds == 1 else too_few) in told.lower()
    assert not re.search(r"\b(nan|inf|None)\b", told)


def test_a_live_run_says_how_far_it_is(tmp_path):
    run = searched(tmp_path / "run", 5)
    state = {
        "status": "running",
        "host": "elsewhere",
        "trials": 9,
        "counts": {},
        "running": [{}],
        "heartbeat": 1795418830.6,
    }
    run.write_state(state)
    assert (
        "5 of 9 trials recorded (5 complete); its driver is gone, as of 2026-11-23 07:27:10 UTC."
        in report(run).read_text()
    )
    import socket

    run.write_state(state | {"host": socket.gethostname()})
    with hold(run.path, "driver"):
        assert (
            "5 of 9 trials recorded (5 complete); running, 1 in training, as of 2026"
            in report(run).read_text()
        )


@pytest.mark.long
@in_chromium
def test_two_thousand_trials_fit(tmp_path, address):
    groups = [f"block{i}.{part}" for i in range(12) for part in ("attention", "fc1", "fc2")] + ["head"]
    file = report(searched(tmp_path / "run", 2000, groups))
    assert file.stat().st_size < 8e6
    with opened(address, file) as page:
        assert page("document.querySelectorAll('#front-0 .point').length") >= 2000


@pytest.mark.long
def test_bad_input_is_one_line(tmp_path):
    for options in ([str(tmp_path)], []):
        done = run_ablate(tmp_path, "report", *options)
        assert done.returncode == 2 and done.stderr.count("\n") == 1 and "RUN" in done.stderr
    with pytest.raises(BadInput, match="--out must be a file"):
        report(searched(tmp_path / "run", 1), tmp_path)


@pytest.mark.long
def test_the_command_writes_the_page_of_the_newest_run(tmp_path):
    searched(tmp_path / "runs" / "one", 3)
    done = run_ablate(tmp_path, "report")
    assert done.returncode == 0 and "runs/one/report.html" in done.stdout, done.stderr
    assert (tmp_path / "runs" / "one" / "tables" / "trials.csv").exists()
    assert not list((tmp_path / "runs" / "one").glob(".*"))


def test_a_page_replaces_no_pipe(finished, tmp_path):
    os.mkfifo(pipe := tmp_path / "pipe")
    with pytest.raises(BadInput, match="--out must be a file, but"):
        report(load_run(finished[0]), pipe)
    assert pipe.is_fifo()
