"""Designed studies: their cells and trials without training, and a small ladder really trained."""

import contextlib
import json

import numpy as np
import pandas as pd
import pytest
from commands import run_ablate
from scipy import stats

from ablate.analysis import paired
from ablate.analysis.t_interval import mean_interval
from ablate.config.study_spec import StudySpec, load_study
from ablate.config.trial_spec import checked
from ablate.engine.plan import _check_tuned, plan
from ablate.errors import BadInput
from ablate.runs.record import blank_record
from ablate.search.experiment_design import Design

GROUPS = ["block0.attention", "block0.fc1", "head"]
ONE_SEED = {"tuning_seeds": 1, "grid_extension": 0}
STEPS = [
    {"name": "AdamW", "recipe": {"optimizer": "adamw"}, "tune": {"learning_rate": [1e-3, 2e-3, 4e-3]}},
    {"name": "absmean", "layer": {"beta": "absmean"}},
    {"name": "smoothing", "recipe": {"label_smoothing": 0.1}},
]


def study(**fields):
    layer = {"weights": "binary", "beta": 8.0} | fields.pop("layer", {})
    base = {
        "question": "?",
        "recipe": {"optimizer": "sgd"},
        "tune": {"learning_rate": [0.01, 0.1]},
        "seeds": 3,
        "steps": STEPS,
    }
    return checked(
        StudySpec,
        base | {"space": {"description": "d", "layer": layer, **fields.pop("space", {})}} | fields,
        "study",
    )


def answer(spec):
    """The middle rate is the best; smoothing adds a point, AdamW ten, and absmean a tenth of one a seed."""
    recipe, layer = spec.recipe, next(iter(spec.layers.values()), None)
    accuracy = 0.3 + 0.1 * (recipe.optimizer == "adamw") + 0.01 * (recipe.label_smoothing > 0)
    accuracy += 0.001 * spec.seed * (layer is None or layer.beta == "absmean")
    accuracy -= 0.05 * (recipe.learning_rate not in (0.1, 2e-3))
    results = {"status": "complete", "accuracy": accuracy, "loss": 1.0, "size_bytes": 1, "images": 10}
    return blank_record(spec, str(spec.seed)) | results | ({"test_accuracy": accuracy} if spec.test else {})


def run(design):
    specs = []
    while (spec := design.ask()) is not None:
        specs.append(spec)
        design.tell(answer(spec))
    return specs


def test_a_step_may_be_for_some_layer_groups():
    steps = [{"name": "head", "groups": ["head"]}, {"name": "blocks", "groups": ["block*"]}, {"name": "all"}]
    study_spec = study(design=["arms"], steps=steps)
    quantized = {name: list(cell.spec.layers) for name, cell in Design(study_spec, GROUPS).cells.items()}
    assert quantized == {"head": ["head"], "blocks": GROUPS[:2], "all": GROUPS}
    assert list(Design(study_spec, ["head"]).cells) == [
        "head",
        "all",
    ]  # read from a run that has not come to the others
    last = Design(study(design=["ladder"], steps=steps[:2]), GROUPS)
    assert (
        list(last.cells["base"].spec.layers) == GROUPS
        and list(last.cells["blocks"].spec.layers) == GROUPS[:2]
    )


def test_a_steps_groups_must_be_the_models(tiny_vit):
    steps = [{"name": "no such", "groups": ["blok*"]}]
    with pytest.raises(BadInput, match=r"pattern 'blok\*' matches no layer group; nearest: block"):
        plan(study(design=["arms"], steps=steps, model=str(tiny_vit)))


@pytest.mark.parametrize("name", ["paper", "paper_micro"])
def test_the_papers_studies_ask_what_the_paper_says(name):
    """Sections 2.2 (the linear layers of the encoder) and 2.4 (the classifier), beta = 8 and mean|W|, SGD."""
    cells = Design(load_study(name), GROUPS).cells
    one_bit = {name: cell for name, cell in cells.items() if name.startswith("1-bit")}
    settings = {
        name: ([*cell.spec.layers], next(iter(cell.spec.layers.values())).beta)
        for name, cell in one_bit.items()
    }
    assert settings == {
        f"1-bit {part}, beta = {text}": (groups, beta)
        for part, groups in (("classifier", ["head"]), ("encoder", GROUPS[:2]))
        for text, beta in (("8", 8.0), ("mean |W|", "absmean"))
    }
    assert {layer.weights for cell in one_bit.values() for layer in cell.spec.layers.values()} == {"binary"}
    assert {cell.spec.recipe.optimizer for cell in cells.values()} == {"sgd"} and not cells[
        "full precision"
    ].spec.layers
    assert {*cells} - {*one_bit} == {"full precision", "int8 encoder", "int4 encoder"}


def test_a_ladder_has_its_rungs_and_what_they_share_is_trained_once():
    design = Design(
        study(design=["ladder", "leave-one-out"], reference={"name": "fp", "layer": {"weights": "full"}}),
        GROUPS,
    )
    names = [
        "base",
        "AdamW",
        "absmean",
        "smoothing",
        "all",
        "all but: AdamW",
        "all but: absmean",
        "all but: smoothing",
        "fp",
    ]
    assert list(design.cells) == names
    assert design.cells["base"].spec.recipe.optimizer == "sgd" and not design.cells["fp"].spec.layers
    assert design.cells["absmean"].spec == design.cells["all but: smoothing"].spec
    specs = run(design)
    # "all" is the top rung, and "all but: smoothing" the one below it: 7 cells of their own
    assert design.least == 2 * (2 * 3 + 3) + 5 * (3 * 3 + 3) and design.ask() is None and not design.waits
    assert len(specs) == design.size == design.least + 2 * 3  # SGD's rate is the highest: one more is tried
    assert len({spec.model_dump_json() for spec in specs}) == len(specs)


def test_a_ladder_beside_arms_has_cells_for_both():
    names = ["base", "AdamW", "absmean", "smoothing", "only: AdamW", "only: absmean", "only: smoothing"]
    for designs in (["ladder", "arms"], ["ladder", "one-factor", "arms"]):
        cells = Design(study(design=designs), GROUPS).cells
        assert list(cells) == names
        assert (
            cells["absmean"].spec.recipe.optimizer == "adamw"
            and cells["only: absmean"].spec.recipe.optimizer == "sgd"
        )
    assert list(Design(study(design="arms"), GROUPS).cells) == names[1:4]


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"design": "ladder", "reference": {"name": "AdamW"}}, "AdamW"),
        ({"design": "arms", "reference": {"name": "absmean"}}, "absmean"),
        ({"design": "one-factor", "reference": {"name": "base"}}, "base"),
        ({"design": ["ladder", "leave-one-out"], "steps": [{"name": "all"}]}, "all"),
    ],
)
def test_no_cell_takes_the_place_of_another(fields, name):
    with pytest.raises(
        BadInput, match=f"the cells of a design must differ in their names, but two are called '{name}'"
    ):
        Design(study(**fields), GROUPS)


def test_asking_takes_as_long_for_the_last_trial_as_for_the_first(monkeypatch):
    """Counted, not timed: each of 512 trials is serialised once by `ask` and once by `tell`."""
    written = []
    monkeypatch.setattr(
        "ablate.search.experiment_design.key_of", lambda spec: written.append(spec) or spec.model_dump_json()
    )
    layer = {"weights": {"each": ["full", "binary"]}}
    design = Design(study(design="factorial", steps=[], tune={}, layer=layer, seeds=64), GROUPS)
    assert len(run(design)) == 512 and len(written) == 2 * 512


def test_its_size_is_known_without_a_look_at_every_cell():
    """As a driver asks for it after each record; cells come to share trials, and grids grow."""
    steps = [{"name": f"x{i}", "recipe": {"label_smoothing": 0.1 * i}} for i in range(4)]
    design = Design(study(design="arms", steps=steps, **ONE_SEED | {"grid_extension": 1}), GROUPS)
    sizes = []
    while (spec := design.ask()) is not None:
        design.tell(answer(spec))
        sizes.append(design.size)
        assert sizes[-1] == len(design._tried) + 3 * len({*design._kinds.values()})
        assert design.may_grow == any(tuning.may_grow for tuning in design._tunings.values())
    assert sizes[0] < sizes[-1] == len(design.records) and not design.may_grow


@pytest.mark.parametrize(
    ("fields", "refused"),
    [
        ({"steps": [{"name": "a", "recipe": {"learning_rate": 0.3}}]}, "'a' does with learning_rate"),
        (
            {"steps": [{"name": "a", "recipe": {"ema": 0.9}, "tune": {"ema": [0.8, 0.9]}}]},
            "'a' does with ema",
        ),
        ({"steps": [*STEPS[:1], {"name": "b", "recipe": {"learning_rate": 0.3}}]}, "'b' does"),
        (
            {"steps": [], "design": "factorial", "space": {"recipe": {"learning_rate": [0.1, 0.2]}}},
            "0.1' does",
        ),
        ({"steps": [{"name": "a", "recipe": {"learning_rate": 0.3}}, STEPS[0]]}, ""),
    ],
)
def test_what_a_cell_sets_is_not_tuned_away(fields, refused):
    design = Design(study(**{"design": "ladder"} | fields), GROUPS)
    cells = {"AdamW": design.cells["AdamW"]} if not refused else design.cells
    with pytest.raises(BadInput, match=refused) if refused else contextlib.nullcontext():
        _check_tuned(cells)


def test_each_cell_is_tuned_on_seeds_of_its_own_and_tested_with_the_others():
    specs = run(Design(study(design="ladder"), GROUPS))
    tuning, paired_ones = [s for s in specs if not s.test], [s for s in specs if s.test]
    assert {s.seed for s in tuning} == {3, 4, 5} and {s.seed for s in paired_ones} == {0, 1, 2}
    assert specs[: len(tuning)] == tuning  # what waits for a tuning comes later
    assert {(s.recipe.optimizer, s.recipe.learning_rate) for s in paired_ones} == {
        ("sgd", 0.1),
        ("adamw", 2e-3),
    }


def test_a_step_that_only_tunes_has_trials_of_its_own():
    steps = [
        {"name": "low", "tune": {"learning_rate": [0.1, 0.2]}},
        {"name": "high", "tune": {"learning_rate": [1.0, 2.0]}},
    ]
    design = Design(study(design="arms", steps=steps, seeds=1, **ONE_SEED), GROUPS)
    specs = run(design)
    assert [spec.recipe.learning_rate for spec in specs if not spec.test] == [0.1, 0.2, 1.0, 2.0]
    assert len(specs) == design.size == 6


@pytest.mark.parametrize(
    ("first", "second", "most", "trained"),
    [
        ([0.1, 0.2], [0.1, 0.2, 0.3], 7, 5),
        ([0.1, 0.2], [0.2, 0.1], 4, 4),
        ([1e-3], [], 2, 2),
        ([0.1, 0.2], [0.3], 6, 6),
    ],
)
def test_cells_that_differ_in_what_they_tune_share_what_coincides(first, second, most, trained):
    """The same learning rate is the best of both lists in the first row, which no one knows before."""
    steps = [
        {"name": str(i), "tune": {"learning_rate": rates} if rates else {}}
        for i, rates in enumerate((first, second))
    ]
    design = Design(study(design="arms", steps=steps, seeds=2, tune={}, **ONE_SEED), GROUPS)
    assert design.size == design.least == most and len(run(design)) == trained == design.size


def test_it_waits_for_a_tuning_under_way():
    design = Design(study(design="arms", steps=STEPS[:1]), GROUPS)
    pending = [design.ask() for _ in range(9)]
    assert design.ask() is None and design.waits and len(design.pending) == 9
    failed = [blank_record(spec, "x") for spec in pending]
    for record in failed:
        design.tell(record)
    assert not design.waits and design.ask().recipe.learning_rate == 1e-3  # all failed: the first


@pytest.mark.parametrize("failed", [None, np.nan])  # as in a ledger, and as in a table of it
def test_a_choice_that_failed_is_not_the_best(failed):
    first = Design(study(design="arms", steps=STEPS[:1]), GROUPS)
    records = [answer(spec) for spec in run(first)]
    for record in records:
        if record["spec"]["recipe"]["learning_rate"] == 1e-3:
            record |= {"status": "failed", "accuracy": failed}
    table = Design(first.study, GROUPS, records).table()
    assert list(table[table["role"] == "seed"]["status"]) == ["complete"] * 3


@pytest.mark.parametrize("at", [0, 1, 7, 20])
def test_a_design_that_is_told_the_records_goes_on(at):
    whole = run(Design(study(design="ladder"), GROUPS))
    assert whole[:at] + run(Design(study(design="ladder"), GROUPS, [answer(s) for s in whole[:at]])) == whole


def test_choices_of_the_space_are_crossed():
    space = {"fraction": [0.1, 1.0]}
    design = Design(study(design="arms", steps=STEPS[:2], space=space, tune={}), GROUPS)
    assert list(design.cells) == [
        f"{step}, fraction {f}" for step in ("AdamW", "absmean") for f in (0.1, 1.0)
    ]
    design = Design(
        study(design="factorial", steps=[], layer={"weights": ["full", "binary"]}, space=space, seeds=1),
        GROUPS,
    )
    # the layer's beta has no effect where all is full
    assert [(bool(c.spec.layers), c.spec.fraction) for c in design.cells.values()] == [
        (quantized, fraction) for fraction in (0.1, 1.0) for quantized in (False, True)
    ]


def test_with_wsd_the_shorter_trainings_come_first():
    steps = [{"name": name, "recipe": {"ema": ema}} for name, ema in [("plain", 0.0), ("averaged", 0.99)]]
    space = {"description": "d", "layer": {"weights": "full"}, "recipe": {"epochs": [8, 2]}}
    fields = {"design": "arms", "seeds": 1, "steps": steps, "space": space, "tune": {}}

    def epochs(schedule):
        return [
            spec.recipe.epochs for spec in run(Design(study(recipe={"schedule": schedule}, **fields), []))
        ]

    assert epochs("wsd") == [2, 2, 8, 8] and epochs("cosine") == [8, 2, 8, 2]


def test_bad_designs():
    for fields, said in (
        ({"design": "ladder", "steps": []}, "needs \\[\\[steps\\]\\]"),
        ({"design": "factorial"}, "and only they do"),
        ({"design": "search"}, "parts of a design"),
        ({"design": "stairs"}, "stairs"),
        ({"design": "ladder", "steps": STEPS + STEPS[:1]}, "must differ in their names"),
        ({"design": "ladder", "steps": [{"name": "a", "recipe": {"epoch": 1}}]}, "epoch"),
        ({"design": "ladder", "steps": [{"name": "a", "layer": {"weights": "none"}}]}, "weights"),
        ({"design": "ladder", "tune": {"learning_rate": []}}, "one value or more"),
        ({"design": "ladder", "tune": {"learning_rate": [-1.0]}}, "learning_rate"),
    ):
        with pytest.raises(BadInput, match=said):
            study(**fields)
    with pytest.raises(BadInput, match="the values of its space must be fixed"):
        study(design="ladder", space={"fraction": [0.1, 1.0]})
    with pytest.raises(BadInput, match="list the choices of fraction"):
        Design(study(design="arms", space={"fraction": {"low": 0.1, "high": 1.0}}), GROUPS)
    with pytest.raises(BadInput, match="may be less than full"):
        Design(study(design="sensitivity", steps=[], tune={}, layer={"weights": "full"}), GROUPS)
    with pytest.raises(BadInput, match="exclude each other"):
        Design(study(design="ladder", layer={"activation_bits": 1, "signed": False}), GROUPS)


def test_the_ladder_is_paired_by_seed():
    design = Design(
        study(design=["ladder", "leave-one-out"], reference={"name": "fp", "layer": {"weights": "full"}}),
        GROUPS,
    )
    run(design)
    table = design.table()
    assert len(table) == 9 * 3 + 2 * 3 * 3 + 7 * 3 * 3 and not table["accuracy"].isna().any()
    rungs = paired.ladder(table, ["base", *(step["name"] for step in STEPS)], "fp").set_index("rung")
    assert list(rungs.index) == ["base", "AdamW", "absmean", "smoothing", "fp"] and (rungs["n"] == 3).all()
    assert np.isnan(rungs.loc["base", "gain"]) and rungs.loc["AdamW", "gain"] == pytest.approx(0.1)
    absmean = rungs.loc["absmean"]  # gains 0, 0.001 and 0.002
    assert absmean["gain"] == pytest.approx(0.001) and absmean["contrasts"] == 7
    t = stats.t.ppf(1 - 0.05 / 2 / 7, 2)  # Bonferroni over 4 gains and 3 costs
    assert absmean["gain_high"] == pytest.approx(0.001 + t * 0.001 / 3**0.5, rel=1e-6)
    assert rungs.loc["smoothing", "cost"] == pytest.approx(0.01) and rungs.loc[
        "AdamW", "cost"
    ] == pytest.approx(0.1)
    assert rungs.loc["AdamW", "learning_rate"] == 2e-3 and np.isnan(rungs.loc["fp", "cost"])


def test_intervals_of_too_few():
    assert mean_interval([0.5]) == (0.5, -np.inf, np.inf)
    assert np.isnan(mean_interval([np.nan])).all()
    assert mean_interval([1.0, np.nan, 1.0]) == (1.0, 1.0, 1.0)


def test_the_built_in_designs_have_cells():
    design = Design(load_study("ladder"), GROUPS)
    assert len(design.study.steps) >= 8 and design.study.seeds >= 5


LADDER = """
question = "which step?"
model = "{model}"
design = ["ladder", "leave-one-out"]
seeds = 2
tune = {{ learning_rate = [1e-3, 1e-2] }}
tuning_seeds = 2
grid_extension = 1
[recipe]
epochs = 1
bf16 = false
[space]
description = "all"
objectives = ["accuracy"]
groups = ["block*"]
fraction = 0.02
[space.layer]
weights = "binary"
beta = 8.0
[[steps]]
name = "absmean"
layer = {{ beta = "absmean" }}
[[steps]]
name = "no warm-up"
recipe = {{ warmup = 0.0 }}
[reference]
name = "full"
layer = {{ weights = "full" }}
"""


@pytest.mark.slow
def test_a_ladder_is_trained_and_drawn(tiny_vit, tmp_path):
    (tmp_path / "ladder.toml").write_text(LADDER.format(model=tiny_vit))

    def ablate(*words, code=0):
        done = run_ablate(tmp_path, *words)
        assert done.returncode == code, done.stderr
        return done

    plan = json.loads(ablate("study", "ladder.toml", "--dry-run", "--json").stdout)
    assert (
        plan["trials"] == 5 * 6 and plan["may_grow"]
    )  # base, absmean, no warm-up (= all), all but absmean, full; all but no warm-up = absmean
    refused = ablate("study", "ladder.toml", "--trials", "3", code=2).stderr
    assert refused.startswith("ablate: trials must be the design's 30") and refused.count("\n") == 1
    ablate("study", "ladder.toml", "--out", "run")
    design, ladder = (
        pd.read_csv(tmp_path / "run" / "tables" / f"{name}.csv") for name in ("design", "ladder")
    )
    assert list(ladder["rung"]) == ["base", "absmean", "no warm-up", "full"] and (ladder["n"] == 2).all()
    assert design[design["role"] == "seed"]["test_accuracy"].notna().all()
    assert design[design["role"] == "tune"]["test_accuracy"].isna().all()
    assert (tmp_path / "run" / "figures" / "ladder.png").stat().st_size > 10_000
    # The best of two rates lies on an edge, so that each of five cells has tried one more with both seeds.
    assert (design[design["role"] == "tune"].groupby("cell").size() == 6).all()
    state = json.loads((tmp_path / "run" / "state.json").read_text())
    assert state["trials"] == state["done"] == 40 and state["status"] == "finished" and not state["may_grow"]
    assert "the trials of a design are its own" in ablate("resume", "run", "--trials", "50", code=2).stderr
    ledger = (tmp_path / "run" / "ledger.jsonl").read_bytes()
    ablate("resume", "run")  # a design that has grown is over, too
    assert (tmp_path / "run" / "ledger.jsonl").read_bytes() == ledger
