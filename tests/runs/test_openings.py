"""The list of who opened half B: it informs, and never stops a run."""

from pathlib import Path

import pytest

from ablate.config.study_spec import StudySpec
from ablate.data import datasets
from ablate.runs import openings
from ablate.runs.run import create_run

SPACE = {"description": "d", "layer": {"weights": {"each": ["full", "binary"]}}}
MINI = datasets.load("cifar10-mini")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ABLATE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def study(**fields):
    return StudySpec.model_validate({"question": "?", "space": SPACE, "confirm": 1, "final": True, **fields})


def test_another_study_hears_who_opened_it_and_when():
    assert openings.notice(study(), MINI) == ""
    openings.add(study(), MINI, Path("/runs/one"))
    said = openings.notice(study(seed=1), MINI)
    assert "opened before, by /runs/one on 20" in said and "optimistic" in said and "\n" not in said
    openings.add(study(seed=1), MINI, Path("/runs/two"))
    openings.add(study(seed=2), MINI, Path("/runs/three"))
    assert (
        "by /runs/three on 20" in (said := openings.notice(study(seed=4), MINI)) and "and 2 before it" in said
    )


def test_a_run_is_noted_once_and_its_own_settings_are_no_news(cache, tmp_path):
    for _ in range(3):
        openings.add(study(), MINI, tmp_path / "run")
    assert (cache / openings.FILE).read_bytes().count(b"\n") == 1
    again = study(name="other", question="again?", trials=40, hours=1.0)
    assert openings.notice(again, MINI) == ""
    written = create_run(tmp_path / "run", study(), {}).study  # as a resume reads it
    assert openings.notice(written, MINI) == "" and written.final is True


def test_other_test_images_are_not_concerned():
    openings.add(study(), MINI, Path("/runs/one"))
    half = datasets.Split(MINI.test.images[:500], MINI.test.labels[:500])
    other = datasets.Dataset(MINI.classes, MINI.train, MINI.validation, half, "other")
    assert openings.notice(study(seed=1), other) == ""
    same = datasets.Dataset(MINI.classes, MINI.validation, MINI.train, MINI.test, "other")
    assert openings.notice(study(seed=1), same)  # what is trained on does not matter


def test_a_file_that_cannot_be_used_is_no_failure(cache, monkeypatch):
    cache.write_text("a file where the folder should be")
    openings.add(study(), MINI, Path("/runs/one"))
    assert openings.notice(study(seed=1), MINI) == ""
    cache.unlink()
    openings.add(study(), MINI, Path("/runs/one"))
    content = (cache / openings.FILE).read_bytes()
    (cache / openings.FILE).write_bytes(b"\xff\n{}\n" + content + content[:40])
    assert "by /runs/one on" in openings.notice(study(seed=1), MINI)
    monkeypatch.setenv("ABLATE_CACHE", "~nobody-of-this-name/cache")
    openings.add(study(), MINI, Path("/runs/one"))
    assert openings.notice(study(seed=1), MINI) == ""
