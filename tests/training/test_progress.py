"""A training tells how far its epoch is, and the live view shows it."""

import pytest
from tiny_training import trained

from ablate.cli.live_view import progress as shown
from ablate.runs import progress
from ablate.runs.state import progress_now


@pytest.fixture
def heard(monkeypatch):
    """What a listener is told, without pauses."""
    reports = []
    monkeypatch.setattr(progress, "SECONDS", 0)
    progress.listen(reports.append)
    yield reports
    progress.listen(None)


def test_every_step_is_told(heard):
    """60 images in batches of 16, twice: the last batch of an epoch has 12."""
    trained()
    assert [now["epoch"] for now in heard] == [1] * 4 + [2] * 4
    assert [now["images"] for now in heard] == [16, 32, 48, 60] * 2
    assert {now["images_in_all"] for now in heard} == {60}
    assert not any(now["prepares"] for now in heard) and all(now["images_per_second"] > 0 for now in heard)
    views_left = [now["seconds_left"] * now["images_per_second"] for now in heard]
    assert views_left == pytest.approx([112, 96, 80, 68, 48, 32, 16, 4])  # 8 steps of 16


def test_an_epoch_that_image_views_cut_short(heard):
    trained(image_views=80)
    assert [(now["epoch"], now["images"], now["images_in_all"]) for now in heard][-1] == (2, 16, 16)


def test_it_is_told_once_a_second_and_only_to_a_listener(heard, monkeypatch):
    monkeypatch.setattr(progress, "SECONDS", 1e6)
    trained()
    progress.listen(None)
    monkeypatch.setattr(progress, "SECONDS", 0)
    trained()
    assert heard == []


def test_what_trials_share_is_called_so(heard):
    with progress.preparing():
        trained(epochs=1)
    assert all(now["prepares"] for now in heard)
    assert progress_now({"now": heard[1]}).startswith("preparing, epoch 1: 53%, ")


def test_the_live_view_shows_it():
    now = {
        "epoch": 3,
        "images": 420,
        "images_in_all": 1000,
        "images_per_second": 310.4,
        "seconds_left": 130.0,
    }
    trial = {
        "trial_id": "abc",
        "arm": "binary",
        "slot": 0,
        "attempt": 1,
        "epoch": 2,
        "epochs": 9,
        "accuracy": 0.5,
    }
    state = {
        "counts": {"failed": 0, "pruned": 0},
        "done": 0,
        "before": 0,
        "trials": 3,
        "waiting": 0,
        "deaths": 0,
        "spent": 9.0,
    }
    state |= {
        "status": "ending",
        "dashboard": "",
        "running": [{**trial, "now": {**now, "prepares": False}}, trial],
    }
    *_, first, second = map(str, shown(state).renderables)
    assert first.endswith("epoch 2/9  accuracy 50.0%  epoch 3: 42%, 310 images/s, about 2 min 10 s left")
    assert second.endswith("epoch 2/9  accuracy 50.0%")  # of an older version, or between two epochs
