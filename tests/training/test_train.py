"""The training loop, and trials as records of it."""

import logging

import numpy as np
import pytest
import torch
from tiny_training import PLAIN, splits
from torch import nn

from ablate import run_trial
from ablate.config.trial_spec import LayerSpec, Recipe, TrialSpec
from ablate.data import datasets
from ablate.errors import BadInput, NonFinite
from ablate.training.augmentation import _reflect, augment
from ablate.training.checkpoint_store import Storage
from ablate.training.loss import Objective
from ablate.training.optim import length, rate
from ablate.training.rerun import compare
from ablate.training.run_trial import trial_steps
from ablate.training.trainer import _batches, train
from ablate.training.trial import resolved, trial_id


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 16), nn.GELU(), nn.Linear(16, 2))


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize("bf16", [True, False])
def test_it_learns(optimizer, bf16):
    recipe = Recipe(epochs=6, batch_size=16, optimizer=optimizer, learning_rate=0.01, bf16=bf16)
    epochs = list(train(net(), splits(), splits(), recipe, PLAIN, seed=0))
    assert [epoch.epoch for epoch in epochs] == [1, 2, 3, 4, 5, 6]
    assert epochs[-1].accuracy == 1.0 and epochs[-1].loss < epochs[0].loss


def test_the_seed_decides_everything():
    def curve(seed):
        return [epoch.loss for epoch in train(net(), splits(), splits(), Recipe(bf16=False), PLAIN, seed)]

    assert curve(0) == curve(0) != curve(1)


def test_as_many_steps_whatever_the_number_of_images():
    """200 views in batches of 16 are 13 steps: the last epoch of 60 images, or of 24, is a part of one."""
    for n, whole in ((60, 4), (24, 7), (200, 1)):
        recipe = Recipe(image_views=200, epochs=99, batch_size=16, bf16=False)
        epochs = list(train(net(), splits(n), splits(), recipe, PLAIN, 0))
        assert length(recipe, n) == (13, whole) and [epoch.epoch for epoch in epochs] == list(
            range(1, whole + 1)
        )
        assert epochs[-1].state["schedule"]["last_epoch"] == 13


@pytest.mark.parametrize(
    ("n", "sizes"), [(33, [16, 17]), (17, [17]), (34, [16, 16, 2]), (32, [16, 16]), (1, [1])]
)
def test_a_single_image_that_is_left_over_joins_the_step_before(n, sizes):
    batches = [len(batch) for batch in _batches(np.arange(n), 16)]
    assert batches == sizes and length(Recipe(epochs=3, batch_size=16), n) == (3 * len(sizes), 3)
    assert [len(batch) for batch in _batches(np.arange(3), 1)] == [1, 1, 1]


def test_batch_normalisation_needs_two_images_a_step():
    def normalised():
        return nn.Sequential(nn.Flatten(), nn.Linear(192, 8), nn.BatchNorm1d(8), nn.Linear(8, 2))

    recipe = Recipe(epochs=1, batch_size=16, bf16=False)
    [ended] = train(normalised(), splits(33), splits(1), recipe, PLAIN, 0)
    assert ended.state["schedule"]["last_epoch"] == 2
    for n, size in ((33, 1), (1, 16)):
        alone = recipe.model_copy(update={"batch_size": size})
        with pytest.raises(
            BadInput,
            match=r"2 images or more a step, but a step would have 1: Expected .* set batch_size = 2",
        ):
            next(train(normalised(), splits(n), splits(2), alone, PLAIN, 0))
        assert list(train(net(), splits(n), splits(2), alone, PLAIN, 0))


def test_validating_less_often_changes_nothing_else():
    often, seldom = (
        {
            e.epoch: e.loss
            for e in train(
                net(), splits(), splits(), Recipe(epochs=5, validate_every=n, bf16=False), PLAIN, 0
            )
        }
        for n in (1, 2)
    )
    assert list(seldom) == [2, 4, 5] and seldom.items() <= often.items()


def test_the_loss_is_logged_every_200_batches(caplog):
    caplog.set_level(logging.INFO, "ablate")
    recipe = Recipe(epochs=7, batch_size=1, learning_rate=1e-5, bf16=False)
    ended = list(train(net(), splits(), splits(), recipe, PLAIN, seed=0))
    lines = [record.getMessage() for record in caplog.records]
    assert [line.rpartition(" ")[0] for line in lines] == [
        f"step {n} of 420: training loss" for n in (200, 400)
    ]
    assert (
        ended[-1].train_loss < float(lines[1].split()[-1]) < float(lines[0].split()[-1]) < ended[0].train_loss
    )


def test_nan_names_the_metric_and_the_step():
    with pytest.raises(NonFinite, match=r"training loss is (nan|inf) at step 2 of 8"):
        list(
            train(
                net(),
                splits(),
                splits(),
                Recipe(learning_rate=1e30, batch_size=16, warmup=0, clip_norm=None),
                PLAIN,
                0,
            )
        )


def test_schedule():
    rates = [rate(step, 100, Recipe(warmup=0.1)) for step in range(100)]
    assert rates[:3] == pytest.approx([0.1, 0.2, 0.3]) and rates[9] == rates[10] == 1.0
    assert rates[55] == pytest.approx(0.5) and 0 < rates[99] < 0.001
    assert rate(0, 1, Recipe(warmup=0)) == 1.0


def test_augmentation_shifts_and_flips_and_reflects():
    image = torch.arange(64, dtype=torch.uint8).reshape(1, 1, 8, 8).expand(200, 3, 8, 8)
    out = augment(image, np.random.default_rng(0))
    assert out.shape == image.shape and out.dtype == torch.uint8
    kinds = {bytes(o.numpy().tobytes()) for o in out}
    assert len(kinds) == 18  # 3 shifts down x 3 across x 2 flips
    for part, kinds in (("shift", 9), ("flip", 2)):
        apart = augment(image, np.random.default_rng(0), part)
        assert len({bytes(o.numpy().tobytes()) for o in apart}) == kinds
    same = (augment(image, np.random.default_rng(0), "shift") == out).flatten(1).all(1)
    assert 60 < same.sum() < 140  # those that are not flipped: the draws are the same
    assert _reflect(np.arange(-2, 7), 5).tolist() == [2, 1, 0, 1, 2, 3, 4, 3, 2]


def test_a_trial_leaves_a_record(tiny_vit):
    spec = TrialSpec(
        model=str(tiny_vit),
        layers={"block0.fc1": LayerSpec(weights="binary")},
        fraction=0.02,
        recipe=Recipe(epochs=2, bf16=False),
        test=True,
    )
    record = run_trial(spec)
    assert (
        record["status"] == "complete"
        and record["arm"] == "binary"
        and record["images"] == 80
        and record["steps"] == 4
    )
    assert 0 < record["accuracy"] < 1 and 0 < record["test_accuracy"] < 1 and len(record["curve"]) == 2
    assert record["curve"][-1]["accuracy"] == record["accuracy"]
    assert all(row["same"] for row in compare(record))
    assert record["trial_id"] == trial_id(spec) != trial_id(spec.model_copy(update={"seed": 1}))


def test_views_in_place_of_epochs(tiny_vit):
    spec = TrialSpec(
        model=str(tiny_vit), fraction=0.05, recipe=Recipe(image_views=300, validate_every=9, bf16=False)
    )
    record = run_trial(spec)
    assert (record["status"], record["images"], record["steps"], record["epochs"]) == ("complete", 200, 5, 2)
    assert [row["epoch"] for row in record["curve"]] == [2] and record["accuracy"] == record["curve"][0][
        "accuracy"
    ]
    other = spec.model_copy(update={"recipe": spec.recipe.model_copy(update={"epochs": 7})})
    assert trial_id(other) == trial_id(spec) == record["trial_id"]  # epochs say nothing where views do


def test_no_training_still_measures(tiny_vit):
    record = run_trial(TrialSpec(model=str(tiny_vit), recipe=Recipe(epochs=0)))
    assert (
        record["status"] == "complete"
        and record["steps"] == 0
        and record["curve"] == []
        and record["accuracy"] is not None
    )


def test_a_fault_of_the_training_is_a_failed_record(tiny_vit):
    recipe = Recipe(epochs=3, learning_rate=1e30, clip_norm=None, warmup=0, bf16=False)
    record = run_trial(TrialSpec(model=str(tiny_vit), fraction=0.05, recipe=recipe))
    assert record["status"] == "failed" and record["accuracy"] is None
    assert record["error"].startswith("NonFinite: ") and "step" in record["error"]


def test_an_unknown_group_is_refused(tiny_vit):
    with pytest.raises(BadInput, match=r"unknown layer group 'block9.fc1'; did you mean 'block1.fc1'"):
        run_trial(TrialSpec(model=str(tiny_vit), layers={"block9.fc1": LayerSpec(weights="binary")}))


@pytest.mark.parametrize(
    "options",
    [
        {"size": {"height": 32, "width": 32}},
        {"size": {"height": 48, "width": 40}, "image_mean": [0.4, 0.5, 0.6]},
        {"size": {"height": 24, "width": 24}, "resample": 3},
        {"size": {"shortest_edge": 40}, "do_center_crop": True, "crop_size": {"height": 36, "width": 36}},
        {"size": {"height": 32, "width": 32}, "do_normalize": False},
        {"size": {"height": 32, "width": 32}, "do_resize": False, "do_rescale": False},
    ],
)
def test_images_are_processed_as_the_models_processor_does(tmp_path, options):
    from transformers import AutoImageProcessor, BitImageProcessor, ViTImageProcessor

    from ablate.models.loading import preprocess

    (ViTImageProcessor if "crop_size" not in options else BitImageProcessor)(**options).save_pretrained(
        tmp_path
    )
    images = torch.from_numpy(datasets.load("cifar10-mini").train.images[:4].transpose(0, 3, 1, 2).copy())
    theirs = AutoImageProcessor.from_pretrained(tmp_path)(list(images), return_tensors="pt")["pixel_values"]
    ours = preprocess(str(tmp_path))(images)
    assert ours.shape == theirs.shape
    torch.testing.assert_close(ours, theirs.float(), atol=1e-5, rtol=1e-5)


def test_the_id_of_a_trial_follows_contents_not_names(tiny_vit, tmp_path):
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in tiny_vit.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    spec = TrialSpec(model=str(tiny_vit))
    assert trial_id(spec) == trial_id(spec.model_copy(update={"model": str(copy)}))
    assert trial_id(spec) == trial_id(resolved(spec))
    config = (copy / "config.json").read_text()
    (copy / "config.json").write_text(config.replace('"hidden_act": "gelu"', '"hidden_act": "relu"'))
    assert trial_id(spec) != trial_id(spec.model_copy(update={"model": str(copy)}))
    assert trial_id(spec) != trial_id(spec.model_copy(update={"fraction": 0.5}))


def test_any_fault_is_a_failed_record(tiny_vit, monkeypatch):
    for error in (MemoryError(), TypeError("two\nlines")):
        monkeypatch.setattr(
            "ablate.training.trial_runner.train", lambda *a, error=error, **k: (_ for _ in ()).throw(error)
        )
        record = run_trial(TrialSpec(model=str(tiny_vit), fraction=0.01))
        assert record["status"] == "failed" and record["error"] in ("MemoryError: ", "TypeError: two")


@pytest.mark.long
def test_a_kept_state_goes_on_as_if_nothing_had_happened(tiny_vit, tmp_path):
    """After any epoch, through a file: the same curve, logits and weights to the last bit."""
    dataset = datasets.load("cifar10-mini")
    spec = TrialSpec(
        model=str(tiny_vit),
        layers={"block0.fc1": LayerSpec(weights="ternary")},
        fraction=0.05,
        recipe=Recipe(epochs=3, bf16=False),
    )
    storage = Storage.tried(str(tmp_path / "kept"))

    def outcome(state, stop_after=None):
        steps = trial_steps(spec, "name", dataset, state=state)
        try:
            while True:
                epoch = next(steps)
                storage.save("name", epoch.state)
                if epoch.epoch == stop_after:
                    return None
        except StopIteration as end:
            return end.value

    whole = outcome(None)
    for epoch in (1, 2, 3):
        outcome(None, stop_after=epoch)
        resumed = outcome(storage.load("name"))
        assert resumed.record["status"] == "complete"
        assert resumed.record | {"train_seconds": 0, "started_at": ""} == whole.record | {
            "train_seconds": 0,
            "started_at": "",
        }
        assert resumed.weights == whole.weights
        np.testing.assert_array_equal(
            resumed.predictions["validation_logits"], whole.predictions["validation_logits"]
        )
    kept = storage.load("name")
    kept["model"] = {f"was.{key}": value for key, value in kept["model"].items()}  # of another transformers
    assert outcome(kept).record["curve"] == whole.record["curve"]
    (tmp_path / "kept" / "name.pt").write_bytes(b"torn")
    assert storage.load("name") is None
    storage.drop("name")
    storage.drop("name")
    assert storage.load("name") is None and not list((tmp_path / "kept").iterdir())


def test_distorted_and_mixed_images_come_from_the_seed_and_continue_to_the_bit():
    recipe = Recipe(epochs=3, batch_size=16, bf16=False, distort=True, mix=0.8)

    def weights(state=None, model=None):
        model = model or net()
        states = [epoch.state for epoch in train(model, splits(), splits(), recipe, PLAIN, 0, None, state)]
        return torch.cat([parameter.flatten() for parameter in model.parameters()]), states

    whole, _ = weights()
    torch.manual_seed(99)
    begun = net()
    state = next(train(begun, splits(), splits(), recipe, PLAIN, 0)).state
    assert torch.equal(weights(state, net())[0], whole)
    plain = [
        *train(other := net(), splits(), splits(), Recipe(epochs=3, batch_size=16, bf16=False), PLAIN, 0)
    ]
    assert len(plain) == 3
    assert not torch.equal(torch.cat([parameter.flatten() for parameter in other.parameters()]), whole)


@pytest.mark.parametrize("policy", ["randaugment", "trivialaugment", "autoaugment", None])
def test_policies_draw_from_the_seed_and_continue_to_the_bit(policy):
    recipe = Recipe(
        epochs=2, batch_size=16, bf16=False, policy=policy or "none", erase=0.0 if policy else 1.0
    )

    def trained(recipe, state=None):
        torch.manual_seed(99)
        model = net()
        assert [*train(model, splits(), splits(), recipe, PLAIN, 0, None, state)]
        return torch.cat([parameter.flatten() for parameter in model.parameters()])

    torch.manual_seed(99)
    state = next(train(net(), splits(), splits(), recipe, PLAIN, 0)).state
    whole = trained(recipe)
    torch.manual_seed(5)
    assert torch.equal(trained(recipe, state), whole)
    assert not torch.equal(trained(recipe.model_copy(update={"policy": None, "erase": 0.0})), whole)


def test_the_last_tenth_of_the_steps_sees_whole_images(monkeypatch):
    seen = []  # dimensions of the targets of each step
    call = Objective.__call__
    monkeypatch.setattr(Objective, "__call__", lambda self, x, y: seen.append(y.ndim) or call(self, x, y))
    recipe = Recipe(epochs=5, batch_size=15, bf16=False, mix=1.0)  # 20 steps
    list(train(net(), splits(), splits(), recipe, PLAIN, seed=0))
    assert seen == [2] * 18 + [1] * 2


def test_mixed_labels_go_with_distillation_and_smoothing():
    recipe = Recipe(epochs=2, batch_size=16, bf16=False, mix=0.8, distill=0.5, label_smoothing=0.1)
    torch.manual_seed(1)
    teacher = net().eval()
    epochs = list(train(net(), splits(), splits(), recipe, PLAIN, 0, teacher))
    assert [epoch.epoch for epoch in epochs] == [1, 2] and np.isfinite(epochs[-1].train_loss)
