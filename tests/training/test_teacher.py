"""The teacher: which trial it is, and how it is trained once and cached."""

import threading

import pytest
from safetensors.torch import load_file
from tiny_training import PLAIN, net, splits

from ablate import LayerSpec, run_trial
from ablate.config.trial_spec import Recipe, TrialSpec
from ablate.data import datasets
from ablate.data.datasets import Split
from ablate.errors import BadInput, NonFinite
from ablate.models import loading
from ablate.training import teacher_cache as teachers
from ablate.training.rerun import compare
from ablate.training.trainer import train
from ablate.training.trial import build, resolved, teacher_spec, trial_id

BINARY = LayerSpec(weights="binary")
SHORT = {"epochs": 1, "bf16": False}


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ABLATE_CACHE", str(tmp_path))
    return tmp_path / "teachers"


def distilled(tiny_vit, **recipe):
    layers = {"block1.fc1": BINARY}
    return TrialSpec(
        model=str(tiny_vit),
        layers=layers,
        fraction=0.02,
        recipe=Recipe(**SHORT, **{"distill": 0.5, **recipe}),
    )


def test_the_teacher_is_the_full_arm_of_the_same_seed_and_subset(tiny_vit):
    student = distilled(tiny_vit, temperature=7.0, distill_blocks=1.0, ema=0.9, progressive="linear")
    student = student.model_copy(update={"test": True})
    full = TrialSpec(model=str(tiny_vit), fraction=0.02, recipe=Recipe(**SHORT, ema=0.9))
    assert teacher_spec(student) == resolved(full) and trial_id(teacher_spec(student)) == trial_id(full)
    assert teacher_spec(student.model_copy(update={"seed": 5})).seed == 5


@pytest.mark.long
def test_a_teacher_is_trained_once(tiny_vit, cache, monkeypatch):
    spec = distilled(tiny_vit)
    first = run_trial(spec)
    (file,) = cache.glob("*.safetensors")
    assert first["status"] == "complete" and not list(cache.glob("*.part"))
    dataset = datasets.load(spec.data)
    chosen = datasets.subset(dataset.train.labels, spec.fraction, spec.seed)
    split = Split(dataset.train.images[chosen], dataset.train.labels[chosen])
    full = build(teacher_spec(spec), dataset.classes)
    list(
        train(
            full,
            split,
            split,
            spec.recipe.model_copy(update={"distill": 0.0}),
            loading.preprocess(spec.model),
            0,
        )
    )
    assert all(value.equal(full.state_dict()[key]) for key, value in load_file(file).items())
    written = file.stat().st_mtime_ns
    assert all(row["same"] for row in compare(first)) and file.stat().st_mtime_ns == written
    assert first["loss"] != run_trial(distilled(tiny_vit, distill=0.0))["loss"]
    file.write_bytes(file.read_bytes()[:1000])  # damaged: trained again
    assert all(row["same"] for row in compare(first)) and file.stat().st_mtime_ns != written
    itself = run_trial(spec.model_copy(update={"layers": {}}))
    assert (
        itself["arm"] == "full"
        and itself["status"] == "complete"
        and len(list(cache.glob("*.safetensors"))) == 1
    )


def test_two_that_want_the_same_teacher_train_it_once(cache, monkeypatch):
    calls = []
    monkeypatch.setattr(teachers.trainer, "train", lambda *a, **how: calls.append(1) or iter(()))
    wanted = ("name", splits(), Recipe(), PLAIN, 0)
    both = [
        threading.Thread(target=teachers.teacher, args=(wanted[0], net("full"), *wanted[1:]))
        for _ in range(2)
    ]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join()
    assert calls == [1]
    teachers.teacher("another", net("full"), *wanted[1:])
    assert calls == [1, 1]


def test_a_teacher_is_not_reused_after_its_code_changed(tmp_path):
    """The sources include every module that decides a training, and a change to one of them counts."""
    sources = teachers.source_files()
    training = {"trainer", "loss", "optim", "progressive", "compilation", "trial"}
    others = {"quantizers", "bitlinear", "quantize", "integer_linear", "datasets", "mirrored", "decoding"}
    others |= {
        "checkpoints",
        "heads",
        "loading",
        "preprocessing",
        "image_processors",
        "layer_groups",
        "unquantizable",
    }
    assert {f"{name}.py" for name in training | others} <= {file.name for file in sources}
    for folder in ("before", "same", "after"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "loss.py").write_text("loss = 0" if folder != "after" else "loss = 1")
    before, same, after = (
        teachers.code_digest((tmp_path / f / "loss.py",)) for f in ("before", "same", "after")
    )
    assert before == same != after


def ends(error):
    """A training that yields one epoch, and then ends so."""

    def some(*args, **how):
        yield next(train(*args, **how))
        raise error

    return some


def test_a_teacher_goes_on_from_its_last_epoch(cache, monkeypatch):
    wanted = (splits(), Recipe(epochs=3, batch_size=16, ema=0.9, bf16=False), PLAIN, 0)
    whole, left = teachers.teacher("whole", net("full"), *wanted), []
    monkeypatch.setattr(teachers.trainer, "train", ends(KeyboardInterrupt))
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            teachers.teacher("cut short", net("full"), *wanted)
    monkeypatch.setattr(
        teachers.trainer, "train", lambda *a, **how: (left.append(e) or e for e in train(*a, **how))
    )
    resumed = teachers.teacher("cut short", net("full"), *wanted)
    assert [epoch.epoch for epoch in left] == [3] and not list(cache.glob("*.pt"))
    assert all(value.equal(whole.state_dict()[key]) for key, value in resumed.state_dict().items())


def test_nothing_is_kept_of_a_teacher_that_diverged(cache, monkeypatch):
    monkeypatch.setattr(teachers.trainer, "train", ends(NonFinite("training loss is nan")))
    with pytest.raises(NonFinite):
        teachers.teacher("name", net("full"), splits(), Recipe(bf16=False), PLAIN, 0)
    assert [path.suffix for path in cache.iterdir()] == [".lock"]


def test_a_cache_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("ABLATE_CACHE", str(tmp_path / "file"))
    with pytest.raises(BadInput, match="set ABLATE_CACHE to another folder"):
        teachers.teacher("name", net("full"), splits(), Recipe(), PLAIN, 0)
