"""What each layer group costs: the design, its table, the checkpoint, and a search that starts from it."""

import json
from io import StringIO

import numpy as np
import pandas as pd
import pytest
from commands import run_ablate
from rich.console import Console

from ablate import load_run, run_trial
from ablate.analysis.sensitivity import sensitivities
from ablate.cli import result_tables
from ablate.config.study_spec import StudySpec
from ablate.config.trial_spec import LayerSpec, Recipe, TrialSpec, checked
from ablate.errors import BadInput
from ablate.reporting.html_report import report
from ablate.runs.record import blank_record
from ablate.search.experiment_design import Design
from ablate.training.trial import checkpoint_spec

GROUPS = ["block0.attention", "block0.fc1", "head"]
COST = {"block0.attention": 0.02, "block0.fc1": 0.05, "head": 0.001}


def study(**fields):
    layer = {"weights": {"each": ["full", "binary", "ternary"]}, "activation_bits": [2, 8]}
    space = {"description": "d", "layer": layer, "fraction": [0.1, 0.5]}
    return checked(
        StudySpec, {"question": "?", "design": "sensitivity", "space": space, "seeds": 3} | fields, "study"
    )


def answer(spec):
    """Costs add up, ternary costs half, all three together a point more, and each seed has its own level."""
    costs = sum(
        COST[group] * (1 if layer.weights == "binary" else 0.5) for group, layer in spec.layers.items()
    )
    accuracy = 0.6 + 0.01 * spec.seed - costs - 0.01 * (len(spec.layers) == 3)
    return blank_record(spec, "x") | {"status": "complete", "accuracy": accuracy, "loss": 1 + costs}


def run_design(design):
    specs = []
    while (spec := design.ask()) is not None:
        specs.append(spec)
        design.tell(answer(spec))
    return specs


def test_each_layer_group_alone_and_left_out_alone():
    design = Design(study(), GROUPS)
    specs = run_design(design)
    assert len(design.cells) == 1 + 2 * (1 + 3 + 3) and len(specs) == 3 * len(design.cells) == design.size
    assert not any(spec.test for spec in specs)  # a search may go on from them
    assert {spec.fraction for spec in specs} == {0.5}
    assert {layer.activation_bits for spec in specs for layer in spec.layers.values()} == {8}
    kept = [spec.layers for spec in specs if len(spec.layers) == 2 and spec.seed == 0]
    assert len(kept) == 6 and {frozenset(GROUPS) - frozenset(layers) for layers in kept} == {
        frozenset([g]) for g in GROUPS
    }


def test_costs_are_paired_by_seed():
    design = Design(study(), GROUPS)
    run_design(design)
    costs = sensitivities(design.table()).set_index(["precision", "how", "group"])
    for group, cost in COST.items():
        assert costs.loc[("binary", "alone", group), "accuracy_cost"] == pytest.approx(cost)
        assert costs.loc[("ternary", "alone", group), "accuracy_cost"] == pytest.approx(cost / 2)
        assert costs.loc[("ternary", "alone", group), "loss_cost"] == pytest.approx(cost / 2)
        assert costs.loc[("binary", "last", group), "accuracy_cost"] == pytest.approx(cost + 0.01)
    assert costs.loc[("binary", "all", ""), "accuracy_cost"] == pytest.approx(sum(COST.values()) + 0.01)
    assert (costs["n"] == 3).all()
    assert costs["accuracy_low"].isna().all()  # the seeds' own levels cancel, and leave no noise


def test_a_cost_without_its_other_cell_is_unknown():
    table = pd.DataFrame({"role": "seed", "seed": [0, 1], "cell": "binary: only head"})
    costs = sensitivities(table.assign(accuracy=0.5, loss=1.0))
    assert costs["accuracy_cost"].isna().all() and costs["loss_cost"].isna().all()
    assert list(costs["n"]) == [0] and list(costs["group"]) == ["head"]


def test_costs_of_a_design_under_way():
    design = Design(study(seeds=1), GROUPS)
    for _ in range(3):
        design.tell(answer(design.ask()))
    costs = sensitivities(design.table())
    assert list(costs["accuracy_cost"].notna()) == [True, True] + [False] * 12
    assert costs.loc[:1, "accuracy_low"].isna().all()  # one seed has no interval


def test_a_sensitivity_stands_alone():
    for fields in (
        {"design": ["sensitivity", "factorial"]},
        {"reference": {"name": "r"}},
        {"steps": [{"name": "s"}]},
    ):
        with pytest.raises(BadInput):
            study(**fields)


def test_trials_begin_from_one_checkpoint(tiny_vit, tmp_path, monkeypatch):
    monkeypatch.setenv("ABLATE_CACHE", str(tmp_path))
    recipe = Recipe(epochs=0, full_epochs=2, bf16=False)
    full = TrialSpec(model=str(tiny_vit), fraction=0.05, recipe=recipe)
    before = run_trial(full)
    trained = run_trial(checkpoint_spec(full))
    assert checkpoint_spec(full).recipe == Recipe(epochs=2, bf16=False)
    assert (before["loss"], before["accuracy"]) == (
        trained["loss"],
        trained["accuracy"],
    )  # it is the checkpoint
    assert before["steps"] == 0 and before["curve"] == []
    low = run_trial(full.model_copy(update={"layers": {"block0.fc1": LayerSpec(weights="binary")}}))
    assert low["status"] == "complete" and low["loss"] != before["loss"]
    tuned = run_trial(full.model_copy(update={"recipe": Recipe(epochs=1, full_epochs=2, bf16=False)}))
    assert tuned["steps"] == trained["steps"] / 2 and tuned["loss"] != before["loss"]
    assert len(list((tmp_path / "teachers").glob("*.safetensors"))) == 1


def test_a_distilled_trial_has_a_teacher_that_began_from_the_checkpoint(tiny_vit, tmp_path, monkeypatch):
    monkeypatch.setenv("ABLATE_CACHE", str(tmp_path))
    recipe = Recipe(epochs=1, full_epochs=1, distill=0.5, bf16=False)
    spec = TrialSpec(
        model=str(tiny_vit), fraction=0.02, recipe=recipe, layers={"block0.fc1": LayerSpec(weights="ternary")}
    )
    assert run_trial(spec)["status"] == "complete"
    assert len(list((tmp_path / "teachers").glob("*.safetensors"))) == 2  # the checkpoint, and the teacher


STUDY = """
question = "?"
model = "{model}"
trials = 2
[recipe]
epochs = 1
bf16 = false
[space]
description = "two layer groups"
groups = ["block*.fc1"]
fraction = 0.02
[space.layer]
weights = {{ each = ["full", "binary"] }}
activation_bits = [4, 8]
"""


@pytest.fixture(scope="module")
def measured(own_ray, tiny_vit, tmp_path_factory):
    """A folder with a study and a run of its sensitivities by the study's own recipe."""
    folder = tmp_path_factory.mktemp("sensitivity")
    (folder / "s.toml").write_text(STUDY.format(model=tiny_vit))
    done = run_ablate(folder, "sensitivity", "s.toml", "--as-study", "--out", "costs")
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


def test_what_is_said_of_a_run_under_way(tmp_path):
    table = pd.DataFrame(
        {"precision": ["binary"] * 3, "group": ["", "a", "b"], "how": ["all", "alone", "alone"]}
    )
    table.assign(accuracy_cost=[0.03, 0.01, np.nan], accuracy_high=[np.nan, 0.03, np.nan]).to_csv(
        tmp_path / "costs.csv", index=False
    )
    console = Console(record=True, file=StringIO())
    console.print(result_tables.sensitivities(tmp_path / "costs.csv"))
    rows = [line.split() for line in console.export_text().splitlines()[-3:]]
    assert rows == [["a", "1.0", "±2.0", "-"], ["b", "-", "-"], ["all", "of", "them", "3.0"]]


@pytest.mark.long
def test_the_command_shows_a_table_and_a_figure(measured):
    folder, said = measured
    lines = said.splitlines()
    head = next(i for i, line in enumerate(lines) if line.startswith("layer group"))
    assert [line.split()[0] for line in lines[head + 1 : head + 4]] == ["block0.fc1", "block1.fc1", "all"]
    costs = pd.read_csv(folder / "costs" / "tables" / "sensitivity.csv")
    assert (
        list(costs["how"]) == ["all", "alone", "alone", "last", "last"]
        and costs["accuracy_cost"].notna().all()
    )
    assert (folder / "costs" / "figures" / "sensitivity.png").stat().st_size > 10_000
    records = [json.loads(line) for line in (folder / "costs" / "ledger.jsonl").read_text().splitlines()]
    assert len(records) == 4  # with two groups one alone is the other left out


@pytest.mark.slow
def test_a_search_goes_on_from_it(measured):
    folder, _ = measured
    done = run_ablate(folder, "study", "s.toml", "--known", "costs", "--out", "found", "--concurrency", "1")
    assert done.returncode == 0, done.stderr
    before, after = (
        [json.loads(line) for line in (folder / name / "ledger.jsonl").read_text().splitlines()]
        for name in ("costs", "found")
    )
    assert sorted(r["trial_id"] for r in after[:4]) == sorted(r["trial_id"] for r in before)
    assert (
        len(after) == 6 and len({record["trial_id"] for record in after}) == 6
    )  # two of its own, none twice
    for record in after:
        assert (folder / "found" / "predictions" / f"{record['trial_id']}.npz").exists()
    again = run_ablate(folder, "resume", "found", "--trials", "7", "--concurrency", "1")
    assert again.returncode == 0, again.stderr
    records = (folder / "found" / "ledger.jsonl").read_text().splitlines()
    assert len({json.loads(line)["trial_id"] for line in records}) == 7


@pytest.mark.long
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["s.toml", "--known", "costs", "--epochs", "2"], "recipe.epochs is 1 there and 2 here"),
        (["s.toml", "--known", "costs", "--seed", "3"], "seed is 0 there and 3 here"),
        (["s.toml", "--known", "costs", "--dry-run", "--seed", "3"], "seed is 0 there and 3 here"),
        (["s.toml", "--known", "nowhere"], "does not exist"),
        (["s.toml", "--known", "costs", "--objectives", "accuracy,latency_ms"], "without latency_ms"),
    ],
)
def test_what_cannot_be_reused_is_refused(measured, options, message):
    folder, _ = measured
    done = run_ablate(folder, "study", *options, "--out", "refused")
    assert done.returncode == 2 and message in done.stderr and done.stderr.count("\n") <= 1, done.stderr
    assert not (folder / "refused").exists()


def test_the_page_answers_with_the_costs(measured):
    folder, _ = measured
    page = report(load_run(folder / "costs"), folder / "page.html").read_text()
    assert "What does each layer group cost, one at a time?" in page and "<p>Binary costs" in page
    assert "ith fewer than two paired seeds no cost has an interval" in page
    assert 'id="sensitivity-0"' in page and 'id="sensitivity-1"' in page
    shown = set(pd.read_csv(folder / "page_tables" / "confusion.csv")["model"])
    assert shown == {"full", "binary"}  # and not every cell
