"""How a study ends: its state says what happened, and the command says it in a line, with the right exit code."""

import pytest

from ablate import cluster, load_run
from ablate.cluster import Resources
from ablate.driver import Driver
from ablate.errors import AblateError, BadInput
from ablate.plan import plan
from ablate.run import create_run
from ablate.study import drive
from ablate.study_spec import load_study


@pytest.fixture(scope="module")
def ray_of_one():
    with cluster.connected(Resources(concurrency=1)) as (_, resources):
        yield resources


def driven(path, text, resources, view=None):
    """A study in a Ray that is there already."""
    path.mkdir()
    (path / "tiny.toml").write_text(text)
    planned = plan(load_study(str(path / "tiny.toml")))
    run = create_run(path / "run", planned.study, {})
    writer = cluster.writer_of(run.path)
    return drive(run, planned, [], writer, None, resources, "", view)


@pytest.mark.parametrize("fault", [RuntimeError("it broke\nhere"), BadInput("it broke"), OSError(5, "it broke")])
@pytest.mark.parametrize("stage", ["ask", "tell", "judge", "watch", "view"])
def test_a_failure_of_the_study_is_no_interruption(stage, fault, ray_of_one, tiny_study, tmp_path, monkeypatch, capsys):
    def fail(*given):
        raise fault

    view = fail if stage == "view" else None
    if stage != "view":
        monkeypatch.setattr(Driver, stage, fail)
    text = tiny_study.replace("trials = 4", "trials = 4\nearly_stopping = {reduction = 2}").replace("epochs = 1", "epochs = 2")
    with pytest.raises(AblateError) as told:
        driven(tmp_path / "work", text, ray_of_one, view)
    print(str(told.value))
    run = load_run(tmp_path / "work" / "run")
    print(run.state["status"], run.state.get("reason"))
