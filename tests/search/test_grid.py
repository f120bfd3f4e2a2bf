"""Grids of data and updates: which trials they have, and in which order."""

import json
import math

import pandas as pd
import pytest
from commands import run_ablate

from ablate.config.study_spec import StudySpec
from ablate.config.trial_spec import checked
from ablate.errors import BadInput
from ablate.runs.record import blank_record
from ablate.search.experiment_design import Design
from ablate.search.grid import interpolated

GROUPS = ["block0.attention", "block0.fc1"]
SIZES, LENGTHS = [0.01, 0.1, 1.0], [1000, 4000, 16_000]
RATES = [1e-3, 2e-3, 4e-3]


def study(space=None, **fields):
    axes = {"fraction": SIZES, "recipe": {"image_views": LENGTHS}, "layer": {"weights": "full"}}
    base = {
        "question": "?",
        "design": "grid",
        "seeds": 2,
        "tuning_seeds": 2,
        "tune": {"learning_rate": RATES},
        "recipe": {"schedule": "wsd"},
        "steps": [{"name": "full"}, {"name": "binary", "layer": {"weights": "binary"}}],
        "space": {"description": "d", **axes, **(space or {})},
    }
    return checked(StudySpec, base | fields, "study")


def answer(spec, best=lambda spec: 2e-3):
    accuracy = 0.5 - 0.01 * abs(math.log(spec.recipe.learning_rate / best(spec)))
    results = {"status": "complete", "accuracy": accuracy, "images": round(1000 * spec.fraction)}
    return blank_record(spec, str(spec.seed)) | results | ({"test_accuracy": accuracy} if spec.test else {})


def run(design, best=lambda spec: 2e-3):
    specs = []
    while (spec := design.ask()) is not None:
        specs.append(spec)
        design.tell(answer(spec, best))
    return specs


def place(spec):
    return spec.fraction, spec.recipe.image_views


def test_the_corners_are_tuned_and_the_others_follow_them():
    design = Design(study(), GROUPS)
    assert design.size == design.least == 2 * (4 * 3 * 2 + 5 * 2) + 2 * 9 * 2
    specs = run(design)
    assert len(specs) == design.size == design.least
    tuned = [spec for spec in specs if not spec.test]
    corners = [spec for spec in tuned if place(spec) in {(f, t) for f in (0.01, 1.0) for t in (1000, 16_000)}]
    assert len(corners) == 48 and tuned[:12] == corners[:12]
    assert {spec.seed for spec in tuned} == {2, 3} and {spec.recipe.learning_rate for spec in corners} == {
        *RATES
    }
    others = [spec for spec in specs if spec not in corners]
    assert {spec.recipe.learning_rate for spec in others} == {2e-3}


def test_a_seed_is_trained_longer_and_longer():
    paired = [spec for spec in run(Design(study(), GROUPS)) if spec.test]
    order = [(spec.seed, spec.recipe.image_views) for spec in paired]
    assert order == sorted(order) and len(order) == 36


def test_rates_between_the_corners_are_interpolated():
    rates = {(0.01, 1000): 4e-3, (0.01, 16_000): 1e-3, (1.0, 1000): 4e-3, (1.0, 16_000): 1e-3}
    specs = run(Design(study(grid_extension=0), GROUPS), lambda spec: rates.get(place(spec), 9.0))
    found = {place(spec): spec.recipe.learning_rate for spec in specs if spec.test}
    assert {place[1]: rate for place, rate in found.items()} == {1000: 4e-3, 4000: 2e-3, 16_000: 1e-3}


def test_beyond_the_corners_a_rate_is_that_of_the_nearest():
    at = {"image_views": [1000, 4000], "fraction": [0.01, 0.1]}
    specs = run(Design(study(tune_at=at), GROUPS), lambda spec: 1e-3 if place(spec)[1] == 4000 else 2e-3)
    found = {place(spec): spec.recipe.learning_rate for spec in specs if spec.test}
    assert found[1.0, 16_000] == found[0.1, 16_000] == found[0.01, 4000]
    assert found[1.0, 1000] == found[0.01, 1000] == 2e-3


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ((1, 10), 1.0),
        ((10, 10), 2.0),
        ((100, 10), 4.0),
        ((100, 1000), 16.0),
        ((10, 100), 4.0),
        ((5000, 1), 4.0),
    ],
)
def test_interpolation_is_bilinear_in_the_logarithms(place, value):
    corners = {(1, 10): 1.0, (100, 10): 4.0, (1, 1000): 4.0, (100, 1000): 16.0}
    tuned = {corner: {"learning_rate": rate} for corner, rate in corners.items()}
    assert interpolated(tuned, place) == {"learning_rate": value}


def test_a_grid_beyond_whose_edge_a_rate_is_better_is_extended_at_that_corner_alone():
    def best(spec):
        return 8e-3 if place(spec) == (1.0, 16_000) else 2e-3

    design = Design(study(), GROUPS)
    assert design.may_grow
    specs = run(design, best)
    high = {place(spec) for spec in specs if spec.recipe.learning_rate > 4e-3 and not spec.test}
    assert (1.0, 16_000) in high and not high & {(0.01, 1000), (1.0, 1000), (0.01, 16_000)}
    assert len(specs) == design.size > design.least and not design.may_grow


def test_without_anything_to_tune_each_cell_still_has_its_tuning_seeds():
    design = Design(study(tune={}), GROUPS)
    specs = run(design)
    assert len(specs) == design.size == design.least == 2 * 9 * (2 + 2)
    assert {spec.seed for spec in specs if not spec.test} == {2, 3}


@pytest.mark.parametrize("at", [0, 1, 20, 48, 60, 90])
def test_a_grid_that_is_told_its_records_goes_on(at):
    whole = run(Design(study(), GROUPS))
    told = [answer(spec) for spec in whole[:at]]
    again = Design(study(), GROUPS, told)
    assert [*whole[:at], *run(again)] == whole and again.size == len(whole)


def test_cells_wait_for_corners_under_way():
    design = Design(study(), GROUPS)
    asked = []
    while (spec := design.ask()) is not None:
        asked.append(spec)
    assert len(asked) == 48 and design.waits
    for spec in reversed(asked):
        design.tell(answer(spec))
    assert len(run(design)) == design.least - 48


def test_a_longer_grid_has_the_trials_of_a_shorter_one():
    at = {"image_views": LENGTHS[:2]}
    short = study(space={"recipe": {"image_views": LENGTHS[:2]}}, tune_at=at)
    design = Design(study(tune_at=at), GROUPS)
    known = run(Design(short, GROUPS))
    assert all(map(design.holds, known))
    told = Design(study(tune_at=at), GROUPS, [answer(spec) for spec in known])
    further = run(told)
    assert {spec.recipe.image_views for spec in further} == {16_000}
    assert told.size == len(known) + len(further) == design.least
    seeds = [spec.model_copy(update={"seed": spec.seed + 4}) for spec in known]
    tests = [spec.model_copy(update={"test": "B"}) for spec in known]
    assert not any(map(design.holds, [*seeds, *tests]))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"design": ["grid", "arms"]}, "a grid design stands alone"),
        ({"space": {"fraction": 0.5}}, "two values of fraction or more, but got 0.5"),
        ({"space": {"recipe": {}}}, "two values of image_views or more, but got None"),
        (
            {"space": {"recipe": {"image_views": {"low": 10, "high": 20}}}},
            "two values of image_views or more",
        ),
        ({"space": {"layer": {"weights": ["full", "int8"]}}}, "weights has choices; make an arm of each"),
        (
            {"tune": {"learning_rate": [0.1], "weight_decay": [0.0, 0.1]}},
            "tune.weight_decay must be numbers above 0",
        ),
        ({"tune": {"optimizer": ["sgd", "adamw"]}}, "tune.optimizer must be numbers above 0"),
        (
            {"tune": {"momentum": [0.0, 0.9]}, "steps": [{"name": "a", "tune": {"momentum": [0.5, 0.9]}}]},
            "tune.momentum must be numbers above 0",
        ),
        ({"tune": {"epochs": [1, 2]}}, "but tune has epochs"),
        ({"tune": {"batch_size": [32, 64]}}, "equal numbers of updates, but tune has batch_size"),
        ({"tune_at": {"fraction": [0.01, 0.5]}}, "tune_at.fraction must be values of the grid, but got 0.5"),
        ({"design": "arms", "tune_at": {"fraction": [0.01, 1.0]}}, "tune_at is for a grid"),
        ({"steps": []}, r"needs \[\[steps\]\]"),
        ({"steps": [{"name": "long", "recipe": {"image_views": 9}}]}, "step 'long' sets its own"),
    ],
)
def test_what_is_no_grid_is_refused(fields, message):
    with pytest.raises(BadInput, match=message):
        study(**fields)


GRID = """
question = "data or updates?"
model = "{model}"
design = "grid"
tuning_seeds = 1
grid_extension = 0
tune = {{ learning_rate = [1e-3, 1e-2] }}
tune_at = {{ image_views = [20, 40] }}
[recipe]
schedule = "wsd"
warmup_views = 10
bf16 = false
[space]
description = "all"
objectives = ["accuracy"]
groups = ["block*"]
fraction = [0.02, 0.04]
[space.layer]
weights = "full"
[space.recipe]
image_views = [20, 40]
[[steps]]
name = "full"
[[steps]]
name = "binary"
layer = {{ weights = "binary" }}
"""


@pytest.mark.long
def test_fractions_of_as_many_images_are_refused(tiny_vit, tmp_path):
    study = GRID.format(model=tiny_vit).replace("[0.02, 0.04]", "[0.02, 0.0201]")
    (tmp_path / "grid.toml").write_text(study)
    done = run_ablate(tmp_path, "study", "grid.toml", "--dry-run")
    assert done.returncode == 2 and "0.02 and 0.0201 are both" in done.stderr


@pytest.mark.slow
def test_a_grid_is_trained_drawn_and_extended(tiny_vit, tmp_path):
    (tmp_path / "grid.toml").write_text(GRID.format(model=tiny_vit))

    def ablate(*words, code=0):
        done = run_ablate(tmp_path, *words)
        assert done.returncode == code, done.stderr
        return done

    plan = json.loads(ablate("study", "grid.toml", "--dry-run", "--json").stdout)
    assert plan["trials"] == 2 * (4 * 2 + 4) and not plan["may_grow"] and plan["known"] == 0
    ablate("study", "grid.toml", "--out", "run")
    done = ablate("figures", "run")
    assert "binary: over images, compared at equal image views, its gap: inconclusive" in done.stdout
    assert {path.name for path in (tmp_path / "run" / "figures").glob("*.png")} >= {"grid.png", "lengths.png"}
    extended = ["grid.toml", "--set", "space.recipe.image_views=[20, 40, 160]", "--known", "run"]
    plan = json.loads(ablate("study", *extended, "--dry-run", "--json").stdout)
    assert plan["trials"] == 24 + 2 * 2 * 2 and plan["known"] == 24
    ablate("study", *extended, "--out", "longer")
    ledgers = [(tmp_path / run / "ledger.jsonl").read_bytes().splitlines() for run in ("run", "longer")]
    assert ledgers[1][:24] == ledgers[0] and len(ledgers[1]) == 32
    design = pd.read_csv(tmp_path / "longer" / "tables" / "design.csv")
    assert design["status"].eq("complete").all() and len(design) == 32
    before = (tmp_path / "longer" / "ledger.jsonl").read_bytes()
    ablate("resume", "longer")
    assert (tmp_path / "longer" / "ledger.jsonl").read_bytes() == before
    other = ablate("study", *extended, "--seed", "5", "--out", "other", code=2).stderr
    assert "none is of this design's cells and seeds" in other and not (tmp_path / "other").exists()
