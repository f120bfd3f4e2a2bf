"""Half B of the test images is opened by --final alone, and the records, files and texts say so."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from commands import run_ablate
from PIL import Image

from ablate import load_run
from ablate.config.study_spec import StudySpec, load_study
from ablate.config.trial_spec import TrialSpec
from ablate.data import datasets
from ablate.data.dataset import DIGESTS
from ablate.engine.resume import resume_study
from ablate.execution.ray_cluster import Resources
from ablate.reporting.run_results import RunResults
from ablate.reporting.table1_arms import arms_of
from ablate.runs.ledger import read, trial_of
from ablate.runs.run import Run, write_study
from ablate.search.experiment_design import Design
from ablate.training.trial import trial_id

RESULTS = Path(__file__).parents[2] / "results"
DESIGN = """
question = "does it work?"
model = "{model}"
design = "arms"
seeds = {seeds}
[recipe]
epochs = 1
bf16 = false
[space]
description = "tiny"
fraction = 0.02
layer = {{ weights = "binary" }}
[[steps]]
name = "full precision"
layer = {{ weights = "full" }}
[[steps]]
name = "one bit"
"""


@pytest.fixture(scope="module")
def both(own_ray, tiny_vit, tmp_path_factory):
    """A design run without --final, with it, and another with it: their folder, and what each said."""
    folder, said = tmp_path_factory.mktemp("final"), {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ABLATE_CACHE", str(folder / "cache"))
        (folder / "tiny.toml").write_text(DESIGN.format(model=tiny_vit, seeds=2))
        (folder / "other.toml").write_text(DESIGN.format(model=tiny_vit, seeds=1))
        runs = {"open": ["tiny.toml"], "final": ["tiny.toml", "--final"], "other": ["other.toml", "--final"]}
        for name, words in runs.items():
            said[name] = run_ablate(folder, "study", *words, "--concurrency", "1", "--out", name)
            assert said[name].returncode == 0, said[name].stderr
        yield folder, said


@pytest.mark.long
@pytest.mark.parametrize(("name", "half"), [("open", "A"), ("final", "B")])
def test_a_study_is_tested_on_its_half_and_on_no_image_of_the_other(both, name, half):
    run = load_run(both[0] / name)
    split = datasets.load("cifar10-mini").tested(half)
    assert len(run.records) == 4 and {spec["test"] for spec in run.records["spec"]} == {half}
    for record in read(run.path / "ledger.jsonl"):
        with np.load(run.path / "predictions" / f"{record['trial_id']}.npz") as file:
            assert {*file} == {f"{s}_{kind}" for s in ("validation", "test") for kind in ("logits", "labels")}
            logits, labels = file["test_logits"], file["test_labels"]
        assert logits.shape == (500, 10) and np.array_equal(labels, split.labels)
        assert (logits.argmax(axis=1) == labels).mean() == pytest.approx(record["test_accuracy"], abs=1e-6)
    assert f"final = {str(half == 'B').lower()}" in (run.path / "study.toml").read_text()
    assert {*RunResults(run).design["test"]} == {half}


@pytest.mark.long
def test_the_model_is_the_same_whatever_it_is_tested_on(both):
    """The two runs differ in ids and test accuracies alone, so half B had no part in the training."""
    opened, final = (load_run(both[0] / name).records for name in ("open", "final"))
    assert not {*opened["trial_id"]} & {*final["trial_id"]}
    key = ["arm", "seed"]
    pairs = opened.merge(final, on=key)
    assert len(pairs) == 4
    assert (pairs["accuracy_x"] == pairs["accuracy_y"]).all() and (pairs["loss_x"] == pairs["loss_y"]).all()
    assert (pairs["test_loss_x"] != pairs["test_loss_y"]).all()


@pytest.mark.long
def test_what_was_opened_is_said(both):
    folder, said = both
    assert "Test accuracies are of half A of the test images." in said["open"].stdout
    assert "Test accuracies are of half B of the test images, which this run opened." in said["final"].stdout
    assert all("opened before" not in said[name].stderr for name in ("open", "final"))
    assert said["other"].stderr.count("opened before") == 1  # it does not refuse
    assert f"by {folder / 'final'} on 20" in said["other"].stderr
    assert (folder / "cache" / "openings.jsonl").read_text().count("\n") == 2
    for command in ("status", "report", "figures"):
        printed = run_ablate(folder, command, "final")
        assert printed.stdout.count("which this run opened") == 1, printed.stderr
    told = json.loads(run_ablate(folder, "status", "final", "--json").stdout)
    assert told["tested"].startswith("Test accuracies are of half B")
    assert "which this run opened" in (folder / "final" / "report.html").read_text()
    assert "all on half A of the test images" in run_ablate(folder, "figures", "open").stdout
    assert [arm.accuracy.split for arm in arms_of(load_run(folder / "final"))[0]] == ["test, half B"] * 2


@pytest.mark.long
def test_a_complete_final_run_opens_nothing_again(both, logged):
    folder = both[0]
    before = (
        (folder / "final" / "ledger.jsonl").read_bytes(),
        (folder / "cache" / "openings.jsonl").read_bytes(),
    )
    resume_study(folder / "final", resources=Resources(concurrency=1))
    after = (
        (folder / "final" / "ledger.jsonl").read_bytes(),
        (folder / "cache" / "openings.jsonl").read_bytes(),
    )
    assert before == after
    assert logged().count(f"opened before, by {folder / 'other'}") == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["default"],
            "but a search tests nothing without confirm; give --confirm 3, say, or leave final out",
        ),
        (["one.toml"], "final needs half B of the test images, but that of 'imagefolder:"),
        (["whole.toml"], 'final must be true or false, but got "none"'),
    ],
)
def test_final_is_refused_where_it_opens_nothing(tiny_vit, tmp_path, words, message):
    study = DESIGN.format(model=tiny_vit, seeds=1)
    (tmp_path / "one.toml").write_text(f'data = "imagefolder:pets"\n{study}')
    (tmp_path / "whole.toml").write_text(f'final = "none"\n{study}')
    for i, folder in enumerate(f"{split}/{name}" for split in ("train", "val", "test") for name in "ab"):
        (tmp_path / "pets" / folder).mkdir(parents=True)
        Image.new("RGB", (32, 32), (40 * i, 0, 0)).save(tmp_path / "pets" / folder / "0.png")
    final = [] if words == ["whole.toml"] else ["--final"]
    for more in ([], ["--dry-run"]):
        done = run_ablate(tmp_path, "study", *words, *final, *more)
        assert done.returncode == 2 and message in done.stderr, done.stderr
        assert done.stderr.splitlines()[-1].startswith("ablate: ") and "Traceback" not in done.stderr
    assert not (tmp_path / "runs").exists()


def test_a_sensitivity_design_has_nothing_to_open():
    space = {"description": "d", "layer": {"weights": {"each": ["full", "binary"]}}}
    with pytest.raises(ValueError, match="a sensitivity design tests nothing; leave it out"):
        StudySpec(question="?", space=space, design="sensitivity", final=True)


@pytest.mark.parametrize("name", ["ladder", "final_cpu", "paper_micro"])
def test_a_run_of_an_older_version_goes_on_with_all_test_images(tmp_path, name):
    """Its trials are found again and nothing is left to propose, also after study.toml is rewritten."""
    shutil.copytree(RESULTS / name, tmp_path / "run")
    before = Run(tmp_path / "run").study
    write_study(tmp_path / "run", before)  # as a resume does
    run = load_run(tmp_path / "run")
    assert run.study == before and run.study.test is True
    records = read(run.path / "ledger.jsonl")
    groups = json.loads((run.path / "provenance.json").read_text()).get("layer_groups")
    groups = groups or list(dict.fromkeys(group for record in records for group in record["spec"]["layers"]))
    assert Design(run.study, groups, records).ask() is None
    table = RunResults(run).design
    paired = table[table["role"] == "seed"]
    assert {*paired["test"]} == {True} and paired["test_accuracy"].notna().all()
    assert run.tested == ""


def test_a_study_file_without_the_field_is_new(tmp_path):
    shutil.copy(RESULTS / "ladder" / "study.toml", tmp_path / "study.toml")
    assert load_study(str(tmp_path / "study.toml")).test == "A"


def test_the_ids_of_the_committed_ledgers_are_what_they_were(monkeypatch):
    """Of every trial whose model comes with the package. CIFAR-10 stands in by its digest."""
    load = datasets.load
    cifar10 = SimpleNamespace(digest=DIGESTS["cifar10"], classes=datasets.CIFAR10, notes=(), mirrored=())
    monkeypatch.setattr(
        datasets, "load", lambda name, *more: cifar10 if name == "cifar10" else load(name, *more)
    )
    seen = 0
    for ledger in sorted(RESULTS.rglob("ledger.jsonl")):
        for record in read(ledger):
            if record["spec"]["model"] == "vit-micro":
                assert trial_id(trial_of(record)) == record["trial_id"], ledger
                seen += record["spec"]["test"] is True
    assert seen > 200


def test_what_is_tested_is_part_of_a_trials_id():
    specs = [TrialSpec(test=test) for test in (False, True, "A", "B")]
    assert len({trial_id(spec) for spec in specs}) == 4
    with pytest.raises(ValueError, match="test"):
        TrialSpec(test="C")
    with pytest.raises(ValueError, match="test"):
        TrialSpec(test=1)
