"""The driver's own part of a study, without Ray."""

import numpy as np
from PIL import Image

from ablate.config.study_spec import load_study
from ablate.engine.controller import Driver
from ablate.engine.plan import plan
from ablate.execution.ray_cluster import Resources
from ablate.runs.run import create_run
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
