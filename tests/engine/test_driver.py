"""The driver's own part of a study, without Ray."""

import numpy as np
import pytest
from PIL import Image

from ablate.cli.live_view import progress
from ablate.config.study_spec import StudySpec, load_study
from ablate.engine.controller import Driver
from ablate.engine.plan import plan
from ablate.engine.resume import _extended
from ablate.errors import BadInput
from ablate.execution.ray_cluster import Resources
from ablate.runs.ledger import append
from ablate.runs.record import blank_record
from ablate.runs.run import create_run, load_run
from ablate.training.trial import trial_id


def test_trials_are_those_of_the_images_that_were_planned_with(tiny_vit, tmp_path):
    """Their workers have these, whatever has become of the folder, which is not read again for each trial."""
    rng = np.random.default_rng(0)
    for label in "ab":
        (tmp_path / "images" / label).mkdir(parents=True)
        for i in range(4):
            image = rng.integers(0, 256, (32, 32, 3), np.uint8)
            Image.fromarray(image).save(tmp_path / "images" / label / f"{i}.png")
    names = {"model": str(tiny_vit), "data": f"imagefolder:{tmp_path / 'images'}"}
    planned = plan(load_study("default").model_copy(update=names))
    driver = Driver(
        create_run(tmp_path / "run", planned.study, {}), planned, [], Resources(concurrency=1), "", None
    )
    driver.state["spent"] = 0.0
    (tmp_path / "images" / "a" / "0.png").write_bytes((tmp_path / "images" / "b" / "0.png").read_bytes())
    name, spec = driver.ask()
    assert name == trial_id(spec, planned.dataset) != trial_id(spec)


def test_a_design_is_counted_as_it_grows(tiny_vit, tmp_path):
    """Two rates, a further one beyond the better, and the paired trial: at least 3 trials, and then 4."""
    space = {"description": "d", "layer": {"weights": "full"}}
    tuned = {"tune": {"learning_rate": [0.01, 0.1]}, "tuning_seeds": 1, "grid_extension": 2}
    study = StudySpec(question="?", model=str(tiny_vit), space=space, design="factorial", **tuned)
    planned, records = plan(study), []
    run = create_run(tmp_path / "run", planned.study, {})
    driver = Driver(run, planned, [], Resources(concurrency=1), "", None)
    counts = [(driver.state["trials"], driver.state["may_grow"])]
    driver.state |= {"spent": 0.0, "done": 0, "running": []}
    assert planned.study.trials == 3 and "0/at least 3 trials done" in str(
        progress(driver.state).renderables[0]
    )
    while (proposal := driver.ask()) is not None:
        name, spec = proposal
        results = {
            "status": "complete",
            "accuracy": 0.5 + (spec.recipe.learning_rate == 0.1),
            "size_bytes": 1,
        }
        records.append(blank_record(spec, name) | results)
        append(run.path / "ledger.jsonl", records[-1])
        driver.tell(records[-1])
        counts.append((driver.state["trials"], driver.state["may_grow"]))
    assert counts == [(3, True), (3, True), (4, True), (4, False), (4, False)] and not driver.exhausted
    assert _extended(load_run(run.path), None, None) == planned.study
    again = plan(planned.study, records)
    assert again.study == planned.study
    driver = Driver(run, again, records, Resources(concurrency=1), "", None)
    driver.state["spent"] = 0.0
    assert driver.ask() is None and driver.state["trials"] == len(records) == 4
    run.write_state(driver.state | {"status": "finished"})
    assert _extended(load_run(run.path), None, None) == planned.study
    with pytest.raises(BadInput, match="--hours limits trials that are left, but the run has all of its 4"):
        _extended(load_run(run.path), None, 5.0)
