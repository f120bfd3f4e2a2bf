"""A run's folder that was copied in part: what cannot be read is left out, and said."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
from commands import run_ablate

from ablate.cli.status import outcome
from ablate.config.study_spec import StudySpec
from ablate.reporting.csv_tables import read_csv, to_csv
from ablate.reporting.html_provenance import provenance_terms
from ablate.reporting.run_results import RunResults
from ablate.runs.run import create_run

ENDS = {f"{name}{end}": [0.5] for name in ("accuracy", "test_accuracy") for end in ("", "_low", "_high")}
TABLES = {
    "latency": {"trial_id": ["0012"], "latency_ms_summed": [1.0], "latency_ms_measured": [None]},
    "sensitivity": {
        "how": ["alone"],
        "precision": ["binary"],
        "group": ["NA"],
        "accuracy_cost": [0.125],
        "accuracy_high": [0.25],
    },
    "confirmed": {"trial_id": ["0012"], "on_front": [True], "search_accuracy": [0.5], "n": [3], **ENDS},
}
DAMAGES = {
    "empty": lambda data: b"",
    "a line": lambda data: b"\n",
    "half": lambda data: data[: len(data) // 2],
    "without its end": lambda data: data[:-1],
    "zeros": lambda data: bytes(len(data)),
    "other bytes": lambda data: b"\xff\xfe\x00abc\n",
    "other JSON": lambda data: b"null\n",
}


@pytest.fixture
def run(tmp_path):
    space = {"name": "s", "description": "d", "objectives": ["accuracy"], "layer": {"weights": "full"}}
    run = create_run(tmp_path / "run", StudySpec(question="which?", space=space), {"classes": ["a", "b"]})
    for name, columns in TABLES.items():
        (run.path / "tables").mkdir(exist_ok=True)
        (run.path / "tables" / f"{name}.csv").write_bytes(to_csv(pd.DataFrame(columns)))
    (run.path / "predictions").mkdir()
    logits = {"validation_logits": np.eye(2), "validation_labels": np.arange(2)}
    np.savez_compressed(run.path / "predictions" / "0012.npz", **logits)
    return run


def test_whole_tables_are_shown(run, capsys):
    outcome(run, False)
    said = capsys.readouterr().out
    assert "Left out" not in said and said.count("0012") == 2
    assert "12.5 ±12.5" in said and "NA" in said and "no longer on the front" not in said


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
@pytest.mark.parametrize("name", TABLES)
def test_status_leaves_out_a_damaged_table(name, damage, run, capsys):
    file = run.path / "tables" / f"{name}.csv"
    file.write_bytes(damage(file.read_bytes()))
    outcome(run, False)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("Left out")]
    assert len(lines) == 1 and f"{name}.csv cannot be read: " in lines[0]


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_damaged_predictions_and_provenance_are_as_none(damage, run):
    assert RunResults(run).predicted("0012") is not None and RunResults(run).classes == ["a", "b"]
    for file in (run.path / "predictions" / "0012.npz", run.path / "provenance.json"):
        file.write_bytes(damage(file.read_bytes()))
    assert RunResults(run).predicted("0012") is None and RunResults(run).classes == []
    assert provenance_terms(run)["started"] == "not known"


def test_a_number_that_is_a_text_is_no_number(tmp_path):
    (tmp_path / "x.csv").write_bytes(b"a,b\n1,x\n,2\n")
    read = read_csv(tmp_path / "x.csv", numbers=["a"])
    assert read["a"].tolist()[0] == 1 and read["a"].isna()[1] and read["b"].tolist() == ["x", "2"]
    for wrong, told in ((["b"], "no numbers"), (["c"], "no column 'c'")):
        with pytest.raises(ValueError, match=told):
            read_csv(tmp_path / "x.csv", numbers=wrong)


@pytest.mark.long
def test_export_refuses_damaged_weights(finished, tmp_path):
    shutil.copytree(finished[0], tmp_path / "run", ignore=shutil.ignore_patterns(".tune"))
    header = next((tmp_path / "run" / "weights").glob("*/config.json"))
    header.write_text(json.dumps({}))
    trial = header.parent.name
    done = run_ablate(tmp_path, "export", "run", "--trial", trial, "--to", "out")
    assert done.returncode == 2 and f"{trial} of 'run' may have been copied in part" in done.stderr
    assert not (tmp_path / "out").exists()
