"""The paper's Table 1: its counted cells, the source of every cell, a run's accuracies, its formats."""

import csv
import io
import json
import shutil
import statistics
import sys

import pytest
import torch
from rich.console import Console

from ablate import load_run
from ablate.cli import main
from ablate.config.study_spec import StudySpec
from ablate.config.trial_spec import checked
from ablate.data import datasets
from ablate.errors import BadInput
from ablate.hardware import cpus
from ablate.models import checkpoints
from ablate.profiling.latency import measure
from ablate.profiling.macs import Cost
from ablate.reporting import table1, table1_models, table1_render
from ablate.reporting.table1_arms import arms_of, is_printed
from ablate.reporting.table1_cells import COUNTED, Cell, Row, Table1
from ablate.reporting.table1_published import notes
from ablate.runs.ledger import append, read
from ablate.runs.lines import encode
from ablate.runs.run import create_run
from ablate.runs.writer import Writer
from ablate.search.experiment_design import Design
from ablate.training.run_trial import trial_steps
from ablate.training.trial import trial_id


def command(capsys, *arguments):
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as end:
        patch.setattr(sys, "argv", ["ablate", "table1", *map(str, arguments)])
        main.main()
    return end.value.code, capsys.readouterr()


@pytest.fixture(scope="module")
def designed(tiny_vit, tmp_path_factory):
    """A trained run of two arms and two seeds, tested at the end; one arm was tuned on another seed."""
    steps = [
        {"name": "full precision", "layer": {"weights": "full"}, "tune": {"learning_rate": [1e-3, 2e-3]}},
        {"name": "one bit", "layer": {"weights": "binary"}},
    ]
    fields = {"question": "?", "model": str(tiny_vit), "design": ["arms"], "seeds": 2, "steps": steps}
    fields |= {"tuning_seeds": 1, "grid_extension": 0}
    space = {"description": "d", "groups": ["block*"], "fraction": 0.02, "layer": {"weights": "full"}}
    recipe = {"epochs": 1, "bf16": False, "augment": False}
    study = checked(StudySpec, fields | {"space": space, "recipe": recipe}, "study")
    dataset, path = datasets.load("cifar10-mini"), tmp_path_factory.mktemp("designed") / "run"
    create_run(path, study, {})
    writer = Writer(path)
    design = Design(study, ["block0.attention", "block1.fc1"])
    while (spec := design.ask()) is not None:
        steps = trial_steps(spec, trial_id(spec, dataset), dataset)
        while True:
            try:
                next(steps)
            except StopIteration as end:
                outcome = end.value
                break
        writer.write(outcome.record, outcome.predictions, outcome.weights)
        design.tell(outcome.record)
    writer._lock.close()
    return load_run(path)


@pytest.fixture(scope="module")
def told(designed, finished):
    """The whole table with the accuracies of two runs, by the command line, without latencies."""
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as end:
        patch.setattr(
            sys,
            "argv",
            ["ablate", "table1", str(designed.path), str(finished[0]), "--seconds", "0", "--json"],
        )
        patch.setattr(sys, "stdout", out := io.TextIOWrapper(io.BytesIO()))
        main.main()
    assert end.value.code == 0
    out.seek(0)
    return json.loads(out.read())


@pytest.fixture(scope="module")
def table(told):
    """The same as a Table1: its JSON leaves nothing out."""
    rows = [
        Row(row["name"], row["beside"], {n: Cell(**cell) for n, cell in row["cells"].items()})
        for row in told["rows"]
    ]
    table = Table1(rows, told["notes"], {key: told[key] for key in ("device", "threads", "batch")})
    assert table.plain() == told
    return table


def cells(told, name):
    (found,) = [row["cells"] for row in told["rows"] if row["name"] == name]
    return found


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "parameters", "mib", "gmacs"),
    [
        ("ViT-B/16", 85_806_346, 327.33, 17.59),
        ("ViT-B/16, 1-bit classifier (section 2.4)", 85_806_346, 327.33, 17.59),
        ("ViT-B/16, 1-bit encoder (section 2.2)", 85_806_346, 327.33, 17.59),
        ("ResNet-18", 11_181_642, 42.65, 1.82),
        ("VGG-16", 134_301_514, 512.32, 15.52),
    ],
)
def test_counted_cells_are_the_papers(told, name, parameters, mib, gmacs):
    found = cells(told, name)
    assert found["parameters"]["value"] == parameters
    assert round(found["state"]["value"] / 2**20, 2) == mib and found["state"]["value"] == 4 * parameters
    assert found["macs"]["value"] == pytest.approx(gmacs * 1e9, rel=0.005)
    assert all(type(found[key]["value"]) is int for key in COUNTED)
    assert {cell["source"] for cell in found.values()} == {"counted"}


def test_packed_files_and_bit_operations_by_hand(told):
    """12 blocks of 768: 84,934,656 weights in the encoder's linear layers, each used once a token of 197."""
    weights, tokens, full = 12 * 12 * 768**2, 197, cells(told, "ViT-B/16")
    assert full["bitops"]["value"] == full["macs"]["value"] * 32 * 32
    for name, bits in (("1-bit encoder (section 2.2)", 1), ("int8 encoder", 8), ("int4 encoder", 4)):
        found = cells(told, f"ViT-B/16, {name}")
        saved = full["packed"]["value"] - found["packed"]["value"]
        assert saved == pytest.approx(weights * (32 - bits) / 8, rel=0.005)
        assert full["bitops"]["value"] - found["bitops"]["value"] == weights * tokens * (32 * 32 - 8 * bits)
    head = cells(told, "ViT-B/16, 1-bit classifier (section 2.4)")
    assert full["bitops"]["value"] - head["bitops"]["value"] == 7680 * (32 * 32 - 8)


def test_every_printed_cell_is_quoted_to_the_digit(told):
    printed = [row for row in told["rows"] if row["name"].endswith("as printed")]
    assert [row["beside"] for row in printed] == ["1-bit ViT", "ViT", "Resnet 18", "VGG16"]
    assert [row["cells"]["accuracy"]["printed"] for row in printed] == ["0.405", "0.986", "0.948", "0.936"]
    assert [row["cells"]["latency"]["value"] for row in printed] == [0.010, 0.297, 0.054, 0.032]
    for row in printed:
        assert {cell["source"] for cell in row["cells"].values()} == {"quoted"}
        assert {*row["cells"]} == {"accuracy", "state", "latency", "macs", "parameters"}
    assert (
        printed[3]["cells"]["parameters"]["value"] == 134_300_000
        and printed[3]["cells"]["macs"]["value"] == 15_520_000_000
    )


def test_each_printed_row_stands_above_ours(told):
    groups = [row["beside"] for row in told["rows"]]
    assert groups == sorted(groups, key=["1-bit ViT", "ViT", "Resnet 18", "VGG16"].index)
    for name in dict.fromkeys(groups):
        assert told["rows"][groups.index(name)]["name"] == f"{name}, as printed"


def test_a_runs_arms_with_their_tested_accuracies(told, designed):
    records = designed.records
    for cell, arm, beside in (("full precision", "full", "ViT"), ("one bit", "binary", "1-bit ViT")):
        tested = records[(records["arm"] == arm) & records["test_accuracy"].notna()]
        (row,) = [row for row in told["rows"] if row["name"] == f"tiny-vit in place of ViT-B/16, {cell}"]
        accuracy = row["cells"]["accuracy"]
        assert row["beside"] == beside and accuracy["source"] == "measured"
        assert accuracy["split"] == "test, half A"
        assert accuracy["n"] == len(tested) == 2 and accuracy["value"] == pytest.approx(
            tested["test_accuracy"].mean()
        )
        assert accuracy["sd"] == pytest.approx(statistics.stdev(tested["test_accuracy"]))
        for name, field in (
            ("packed", "size_bytes"),
            ("macs", "macs"),
            ("bitops", "bitops"),
            ("parameters", "parameters"),
        ):
            assert row["cells"][name]["value"] == tested.iloc[0][field]


def test_a_model_that_is_none_of_the_papers_says_so(told, designed):
    """And one with the paper's counts does not: of ViT-B/16, wherever its files are."""
    arms = {arm.cost.parameters: arm for arm in arms_of(designed)[0]}
    (parameters,) = arms  # both arms are of one model
    (note,) = [note for note in told["notes"] if "tiny-vit" in note]
    assert note.startswith(f"tiny-vit is no ViT-B/16: it has {parameters / 1e6:.2f} M parameters and ")
    vit, resnet = cells(told, "ViT-B/16"), cells(told, "ResNet-18")
    for found, name, same in (
        (vit, "ViT", True),
        (vit, "1-bit ViT", True),
        (resnet, "Resnet 18", True),
        (resnet, "ViT", False),
    ):
        assert (
            is_printed(Cost(*(found[key]["value"] for key in ("parameters", "macs", "bitops"))), name) == same
        )


def test_of_a_search_the_best_of_each_kind_on_validation_images(told, finished):
    records = load_run(finished[0]).records
    best = records.groupby("arm")["accuracy"].max()
    found = [
        row["cells"]["accuracy"]
        for row in told["rows"]
        if row["cells"].get("accuracy", {}).get("split") == "validation"
    ]
    assert sorted(cell["value"] for cell in found) == sorted(best) and {cell["n"] for cell in found} == {1}


def test_of_a_confirmed_search_the_seeds_that_were_tested(finished, tmp_path, monkeypatch):
    """Two binary settings were confirmed: validation chooses between them, the test images measure."""
    monkeypatch.setattr(table1, "entries", lambda: [])  # the run's rows alone
    shutil.copytree(finished[0], tmp_path / "run")
    searched = load_run(tmp_path / "run").records.to_dict("records")
    members = [record for record in read(finished[0] / "ledger.jsonl") if "binary" in record["arm"]][:2]
    assert len(members) == 2 and {record["arm"] for record in members} == {"binary"}
    for member, accuracy, tested in zip(members, (0.3, 0.4), ((0.9, 0.8), (0.5, 0.7)), strict=True):
        for seed, test_accuracy in enumerate(tested, 1):
            again = {
                "spec": member["spec"] | {"seed": seed, "test": True},
                "seed": seed,
                "accuracy": accuracy,
            }
            again |= {"test_accuracy": test_accuracy, "trial_id": f"{member['trial_id']}-{seed}"}
            append(tmp_path / "run" / "ledger.jsonl", member | again)
    rows = [
        row for row in table1.table1([load_run(tmp_path / "run")], seconds=0).rows if "accuracy" in row.cells
    ]
    (row,) = [row for row in rows if not row.quoted]
    accuracy = row.cells["accuracy"]
    assert row.beside == "1-bit ViT" and row.name.endswith(
        f"among those confirmed, of {len(searched)} trials"
    )
    assert (accuracy.value, accuracy.n, accuracy.split) == (pytest.approx(0.6), 2, "test")
    assert row.cells["packed"].value == members[1]["size_bytes"]


def test_an_arm_takes_the_place_of_the_model_that_it_is(designed, monkeypatch):
    """With the tiny ViT for ViT-B/16: the arm has its counts, and so an accuracy for its row."""
    arm = arms_of(designed)[0][0]
    monkeypatch.setattr(table1, "entries", lambda: [table1_models.Entry("ViT", "ViT", arm.build)])
    names = [row.name for row in table1.table1([designed], seconds=0).rows]
    assert "tiny-vit in place of ViT-B/16, full precision" in names and "ViT" not in names
    assert "ViT" in [row.name for row in table1.table1(seconds=0).rows]


def test_latencies_are_measured_packed_and_divided_by_the_batch(designed, monkeypatch):
    timed = []
    monkeypatch.setattr(
        table1_models.latency, "measure", lambda *a, **how: timed.append(measure(*a, **how)) or timed[-1]
    )
    for arm in arms_of(designed)[0]:
        size_bytes, found = table1_models.measure(*arm.build(), seconds=0.05, batch=4)
        assert abs(size_bytes - arm.size_bytes) < 200  # as it was recorded, but for the names of the classes
        assert found["latency"].source == "measured" and found["latency"].n == timed[0].n >= 5
        assert found["latency"].value == timed[0].median_ms / 4 > 0
        assert ("returned" in found) == torch.cuda.is_available()
        timed.clear()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="a CPU's call returns when its work is done")
def test_a_clock_that_does_not_wait_reads_less():
    model = checkpoints.load("vgg16:random", datasets.CIFAR10).eval().cuda()
    waited, not_waited = (
        measure(model, (224, 224), batch=64, seconds=0.5, wait=wait).median_ms for wait in (True, False)
    )
    assert not_waited < waited / 2


def test_notes_say_why_the_size_stays_and_what_the_printed_times_would_mean(told):
    notes = " ".join(told["notes"])
    assert (
        "327.33" in notes
        and "fp32" in notes
        and "random weights" in notes
        and "convolutions are not quantized" in notes
    )
    assert "3,518" in notes  # 2 * 17.59e9 / 0.010e-3 s
    assert "synchronising" in notes and "8.5 times" in notes and "0.6 times" in notes


def test_notes_tell_a_measured_queue_from_one_that_is_not():
    with_gpu, without, untimed = (
        " ".join(notes(runs=True, gpu=gpu, timed=t)) for gpu, t in ((True, "x"), (False, "x"), (True, ""))
    )
    assert "measured here, without synchronising" in with_gpu and "It takes a GPU" not in with_gpu
    assert "It takes a GPU, and there is none here" in without and "Latency" not in untimed


def test_csv(table):
    rows = list(csv.DictReader(io.StringIO(table1_render.typeset(table, "csv"))))
    assert [row["model"] for row in rows] == [row.name for row in table.rows]
    assert {row["accuracy_split"] for row in rows} == {
        row.cells["accuracy"].split or "" if "accuracy" in row.cells else "" for row in table.rows
    }
    vit = next(row for row in rows if row["model"] == "ViT-B/16")
    assert vit["parameters"] == "85806346" and vit["parameters_source"] == "counted" and vit["latency"] == ""


def test_markdown(table):
    text = table1_render.typeset(table, "markdown")
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len(lines) == len(table.rows) + 2 and len({line.count("|") for line in lines}) == 1
    assert any("327.33 c" in line and "13.49 c" in line for line in lines) and "| 0.405 q |" in text
    assert all(note in text for note in table.notes)


def test_latex(table):
    text = table1_render.typeset(table, "latex")
    for word in (
        r"\toprule",
        r"\midrule",
        r"\bottomrule",
        r"\begin{tabular}{lrrrrrrr}",
        r"$\pm$",
        r"\textasciicircum{}",
    ):
        assert word in text
    lines = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert len(lines) == len(table.rows) + 1 and {line.count("&") for line in lines} == {7}
    assert not set("_%#") & set(text.replace(r"\_", "").replace(r"\%", "").replace(r"\#", ""))


def test_the_terminal_marks_every_cell(table):
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(table1_render.terminal(table))
    text = console.export_text()
    (line,) = [line for line in text.splitlines() if line.startswith("ViT, as printed")]
    assert line.split() == [
        "ViT,",
        "as",
        "printed",
        "0.986",
        "q",
        "327.33",
        "q",
        "0.297",
        "q",
        "17.59",
        "q",
        "85.81",
        "q",
    ]
    assert "c counted, m measured here" in text


def test_in_80_columns_no_number_is_cut(table):
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(table1_render.terminal(table))
    lines = console.export_text().splitlines()
    assert max(map(len, lines)) <= 80
    for number in ("85.81 q", "11.18 q", "134.3 q", "327.33 q", "0.297 q"):
        assert any(number in line for line in lines), number


@pytest.mark.long
def test_failed_seeds_are_told(designed, tmp_path):
    shutil.copytree(designed.path, tmp_path / "some")
    ledger = tmp_path / "some" / "ledger.jsonl"
    records = read(ledger)
    tested = [record for record in records if record["arm"] == "binary" and record["spec"]["test"]]

    def fail(record):
        record |= {"status": "failed", "accuracy": None, "test_accuracy": None, "error": "NonFinite: as if"}
        ledger.write_bytes(b"".join(map(encode, records)))
        return table1.table1([load_run(tmp_path / "some")], seconds=0)

    some = fail(tested[0])
    (row,) = [row for row in some.rows if row.name == "tiny-vit in place of ViT-B/16, one bit"]
    assert row.cells["accuracy"].n == 1 and row.cells["accuracy"].failed == 1
    assert "(test, half A, n 1, 1 failed)" in table1_render.typeset(some, "markdown")
    (line,) = [
        line
        for line in csv.DictReader(io.StringIO(table1_render.typeset(some, "csv")))
        if line["model"] == row.name
    ]
    assert line["accuracy_n"] == line["accuracy_failed"] == "1"
    none = fail(tested[1])
    assert not [row for row in none.rows if row.name == "tiny-vit in place of ViT-B/16, one bit"]
    assert none.notes[0] == "No row: one bit, all 2 seeds of which failed."


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--format", "html"], "unknown format 'html'; known: csv, latex, markdown, text"),
        (["--seconds", "-1"], "seconds must be from 0 to 3600, but got -1.0"),
        (["--seconds", "nan"], "seconds must be from 0 to 3600, but got nan"),
        (["--batch", "0"], "batch must be from 1 to 4096 images, but got 0"),
        (["--threads", "0"], f"--threads must be 1 to {cpus()}, the number of CPUs here, but got 0"),
        (["--threads", "9999"], "the number of CPUs here, but got 9999"),
        (
            ["--json", "--format", "latex"],
            "--json is a format of its own, but --format is 'latex'; give one of them",
        ),
        (["nowhere"], "does not exist"),
    ],
)
def test_bad_input(capsys, arguments, part):
    code, printed = command(capsys, *arguments)
    assert (
        code == 2
        and part in printed.err
        and printed.err.startswith("ablate: ")
        and printed.err.count("\n") == 1
    )


def test_a_run_without_a_complete_trial_is_refused(designed, tmp_path):
    create_run(tmp_path / "run", designed.study, {})
    with pytest.raises(BadInput, match="must have a complete trial"):
        table1.table1([load_run(tmp_path / "run")], seconds=0)
