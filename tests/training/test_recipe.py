"""Every part of a recipe against what its comment in ablate/config/trial_spec.py says."""

import math
import threading

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import nn

from ablate import BitLinear, LayerSpec, quantize_, run_trial
from ablate.config.search_space import SpaceSpec
from ablate.config.study_spec import StudySpec, load_study
from ablate.config.trial_spec import Recipe, TrialSpec, checked
from ablate.data import datasets
from ablate.data.datasets import Split
from ablate.engine import estimate
from ablate.engine.estimate import _anchor
from ablate.engine.plan import plan
from ablate.errors import BadInput, NonFinite
from ablate.models import checkpoints, loading
from ablate.models.preprocessing import Preprocess
from ablate.training import teacher_cache as teachers
from ablate.training.loss import Objective
from ablate.training.optim import averaged, optimizer_of, rate, switch_weight_decay
from ablate.training.progressive import Ramp
from ablate.training.rerun import compare
from ablate.training.trainer import evaluate, train
from ablate.training.trial import build, resolved, teacher_spec, trial_id

PLAIN = Preprocess((8, 8), None, "bilinear", 1 / 255, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
BINARY = LayerSpec(weights="binary")


def splits(n=60):
    """Two classes that brightness tells apart."""
    rng = np.random.default_rng(0)
    labels = np.arange(n) % 2
    images = (
        (rng.integers(0, 100, (n, 8, 8, 3)) + 150 * labels[:, None, None, None]).clip(0, 255).astype(np.uint8)
    )
    return Split(images, labels)


def net(weights="binary"):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Flatten(), nn.Linear(192, 16), nn.GELU(), nn.Linear(16, 16), nn.GELU(), nn.Linear(16, 2)
    )
    if weights != "full":
        quantize_(model, {"[13]": LayerSpec(weights=weights)})
    return model


def trained(model=None, teacher=None, **recipe):
    """(epochs, the model after them)."""
    model = model or net()
    recipe = Recipe(**{"epochs": 2, "batch_size": 16, "bf16": False, "augment": False, **recipe})
    return list(train(model, splits(), splits(), recipe, PLAIN, 0, teacher)), model


# Progressive quantization


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize(
    "fields", [{}, {"norm": True}, {"weights": "ternary", "activation_bits": None, "norm": True}]
)
def test_lambda_0_is_the_linear_layer_bit_for_bit(fields, bf16):
    linear = nn.Linear(24, 10)
    layer = BitLinear.from_linear(linear, **fields)
    layer.ramp = torch.tensor(0.0)
    outcomes = []
    for module in (linear, layer):
        x = torch.linspace(-3, 5, 72).reshape(3, 24).requires_grad_()
        module.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            y = module(x)
        y.float().square().sum().backward()
        outcomes.append((y, x.grad, linear.weight.grad.clone(), linear.bias.grad.clone()))
    assert all(a.equal(b) for a, b in zip(*outcomes, strict=True))


@pytest.mark.parametrize("amount", [0.25, 0.75])
def test_lambda_mixes_the_layer_with_its_linear_one(amount):
    layer = BitLinear(24, 10, norm=True).double()
    x = torch.randn(5, 24, dtype=torch.float64)
    signs = torch.where(layer.weight > layer.weight.mean(), 1.0, -1.0).double()
    normed = (x - x.mean(1, keepdim=True)) / (x.var(1, keepdim=True, correction=0) + 1e-5).sqrt()
    gamma = normed.abs().amax(1, keepdim=True)
    quant = (normed * 128 / gamma).round().clamp(-127, 127) * gamma / 128
    mixed_x, mixed_w = (
        x + amount * (quant - x),
        layer.weight + amount * (layer.weight.abs().mean() * signs - layer.weight),
    )
    layer.ramp = torch.tensor(amount)
    assert torch.allclose(layer(x), mixed_x @ mixed_w.T + layer.bias)
    ramped = layer.eval()(x)
    layer.ramp = None
    assert ramped.equal(layer(x))  # evaluation is exact


def lambdas(steps=100, **recipe):
    model = net()
    ramp = Ramp(model, Recipe(**recipe), steps)
    rows = []
    for step in range(steps):
        ramp.at(step)
        rows.append([1.0 if model[i].ramp is None else model[i].ramp.item() for i in (1, 3)])
    return rows


def test_lambda_grows_over_its_share_of_the_steps():
    together = lambdas(progressive="linear", progressive_share=0.4)
    assert [together[s] for s in (0, 10, 20, 39, 40, 99)] == [
        pytest.approx([v, v], rel=1e-6) for v in (0, 0.25, 0.5, 0.975, 1, 1)
    ]
    by_depth = lambdas(progressive="linear", progressive_share=0.4, progressive_order="depth")
    assert [by_depth[s] for s in (0, 10, 20, 30, 40)] == [[0, 0], [0.5, 0], [1, 0], [1, 0.5], [1, 1]]
    logistic = [row[0] for row in lambdas(progressive="sigmoid", progressive_share=1)]
    assert (
        logistic[0] == 0
        and logistic[50] == pytest.approx(0.5)
        and logistic[10] < 0.01
        and logistic[90] > 0.99
    )
    assert logistic == sorted(logistic) and lambdas(progressive="none") == [[1, 1]] * 100


def test_training_begins_with_the_full_model_and_ends_with_the_quantized_one():
    options = {"epochs": 1, "batch_size": 60}
    full, quantized, progressive = (
        trained(model, progressive=shape, **options)
        for model, shape in ((net("full"), None), (net(), None), (net(), "linear"))
    )
    assert progressive[0][0].train_loss == full[0][0].train_loss != quantized[0][0].train_loss
    assert progressive[1][1].ramp is None
    assert trained(progressive="linear", progressive_share=0.5)[0][-1].loss != trained()[0][-1].loss


# Learning rates and weight decay


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_quantized_weights_have_a_rate_and_a_decay_of_their_own(optimizer):
    model = net()
    recipe = Recipe(
        optimizer=optimizer, learning_rate=0.01, quantized_rate_multiplier=3, quantized_weight_decay=0.2
    )
    groups = {p: group for group in optimizer_of(model, recipe).param_groups for p in group["params"]}
    assert set(groups) == set(model.parameters())
    for name, p in model.named_parameters():
        lr, wd = {"1.weight": (0.03, 0.2), "3.weight": (0.03, 0.2), "5.weight": (0.01, 0.05)}.get(
            name, (0.01, 0)
        )
        assert (groups[p]["lr"], groups[p]["weight_decay"]) == (pytest.approx(lr), wd), name
    as_the_others = optimizer_of(model, Recipe()).param_groups
    assert [group["weight_decay"] for group in as_the_others] == [0.05, 0.05, 0.0]


def test_decay_is_off_after_its_share_of_the_steps():
    optimizer = optimizer_of(net(), Recipe(quantized_weight_decay=0.2))
    for on, expected in ((True, [0.2, 0.05, 0.0]), (False, [0, 0, 0]), (True, [0.2, 0.05, 0.0])):
        switch_weight_decay(optimizer, on)
        assert [group["weight_decay"] for group in optimizer.param_groups] == expected
    options = {"optimizer": "sgd", "momentum": 0.0, "weight_decay": 5.0}
    always, half, never = (
        trained(**options, weight_decay_until=share)[1][5].weight for share in (1.0, 0.5, 0.0)
    )
    assert always.norm() < half.norm() < never.norm()
    assert never.equal(trained(**options | {"weight_decay": 0.0})[1][5].weight)


def test_the_second_stage_is_a_low_cosine():
    rates = [
        rate(step, 100, Recipe(warmup=0.1, second_stage=0.2, second_stage_rate=0.05)) for step in range(100)
    ]
    assert rates[:80] == [rate(step, 80, Recipe(warmup=0.1)) for step in range(80)]
    assert rates[80] == 0.05 and rates[90] == pytest.approx(0.025) and 0 < rates[99] < 0.001
    assert (
        0 <= rate(2, 2, Recipe(second_stage=0.2)) <= 1
    )  # asked once more at the end; no step is in the second stage
    assert trained(second_stage=0.5)[0][-1].loss != trained()[0][-1].loss


# Averaged weights


def test_averaged_weights_follow_the_formula():
    model = nn.Linear(1, 1, bias=False)
    average, expected = averaged(model, 0.9), None
    for n, weight in enumerate([1.0, 3.0, -2.0, 5.0] * 30):
        nn.init.constant_(model.weight, weight)
        average.update_parameters(model)
        d = min(0.9, (1 + n) / (10 + n))
        expected = weight if n == 0 else d * expected + (1 - d) * weight
        assert average.module.weight.item() == pytest.approx(expected, rel=1e-5)
    again = averaged(model, 0.9)
    again.load_state_dict(average.state_dict())
    assert again.module.weight.equal(average.module.weight) and averaged(model, 0.0) is None


def test_averaged_weights_are_evaluated_and_kept():
    plain, raw = trained()
    epochs, model = trained(ema=0.99)
    assert epochs[-1].train_loss == plain[-1].train_loss  # the training itself is the same
    assert epochs[-1].loss != plain[-1].loss
    assert not model[3].weight.equal(raw[3].weight) and not model[3].weight.equal(net()[3].weight)
    assert np.array_equal(evaluate(model, splits(), PLAIN).logits, epochs[-1].logits)


# The loss


def test_label_smoothing_is_in_the_training_loss_only():
    model, pixels, labels = net("full"), torch.randn(6, 3, 8, 8), torch.arange(6) % 2
    logp = model(pixels).log_softmax(1)
    wanted = F.one_hot(labels, 2) * 0.8 + 0.2 / 2
    assert Objective(model, Recipe(label_smoothing=0.2), None)(pixels, labels).item() == pytest.approx(
        -(wanted * logp).sum(1).mean().item(), rel=1e-5
    )
    epoch = trained(label_smoothing=0.9)[0][-1]
    plain = F.cross_entropy(torch.from_numpy(epoch.logits), torch.from_numpy(splits().labels))
    assert epoch.loss == plain.item() and epoch.train_loss != trained()[0][-1].train_loss


@pytest.mark.parametrize(("weight", "t"), [(0.3, 1.0), (1.0, 4.0)])
def test_distillation_adds_the_divergence_from_the_teacher(weight, t):
    model, teacher, pixels, labels = net(), net("full").eval(), torch.randn(6, 3, 8, 8), torch.arange(6) % 2
    teacher[5].weight.data *= 3
    loss = Objective(model, Recipe(distill=weight, temperature=t), teacher)(pixels, labels)
    p, q = (teacher(pixels) / t).softmax(1), (model(pixels) / t).softmax(1)
    divergence = (p * (p.log() - q.log())).sum(1).mean()
    expected = (1 - weight) * F.cross_entropy(model(pixels), labels) + weight * t**2 * divergence
    assert loss.item() == pytest.approx(expected.item(), rel=1e-4)
    loss.backward()
    assert model[1].weight.grad is not None and all(p.grad is None for p in teacher.parameters())


def test_block_outputs_are_compared_token_by_token(tiny_vit):
    model, teacher = (checkpoints.load(str(tiny_vit), ["a", "b"]).eval() for _ in range(2))
    pixels, labels = torch.randn(3, 3, 32, 32), torch.tensor([0, 1, 0])
    recipe = Recipe(distill_blocks=2.0)
    assert (
        Objective(model, recipe, teacher)(pixels, labels).item()
        == F.cross_entropy(model(pixels).logits, labels).item()
    )
    assert not any(module._forward_hooks for module in (*model.modules(), *teacher.modules()))
    for p in teacher.vit.layers[1].parameters():
        p.data += 0.1 * torch.randn_like(p)
    hidden = [m(pixels, output_hidden_states=True).hidden_states[1:3] for m in (model, teacher)]
    tokens = [
        [(h - h.mean(-1, keepdim=True)) / (h.var(-1, correction=0, keepdim=True) + 1e-5).sqrt() for h in hs]
        for hs in hidden
    ]
    errors = [(a - b).square().mean().item() for a, b in zip(*tokens, strict=True)]
    assert errors[0] == 0 < errors[1]
    expected = F.cross_entropy(model(pixels).logits, labels).item() + 2.0 * sum(errors) / 2
    assert Objective(model, recipe, teacher)(pixels, labels).item() == pytest.approx(expected, rel=1e-4)


def test_what_distillation_needs():
    with pytest.raises(BadInput, match="needs a teacher, but got none"):
        trained(distill=0.5)
    with pytest.raises(BadInput, match="needs a model with blocks"):
        trained(distill_blocks=1.0, teacher=net("full"))


# The teacher


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ABLATE_CACHE", str(tmp_path))
    return tmp_path / "teachers"


SHORT = {"epochs": 1, "bf16": False}


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
    """Every module of this project that a training loads is among the sources, and a change to one of them counts."""
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
    again = teachers.teacher("cut short", net("full"), *wanted)
    assert [epoch.epoch for epoch in left] == [3] and not list(cache.glob("*.pt"))
    assert all(value.equal(whole.state_dict()[key]) for key, value in again.state_dict().items())


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


def test_a_model_too_slow_for_a_batch_is_timed_on_fewer_images(tiny_vit, monkeypatch):
    planned, sizes, real = (
        plan(load_study("default").model_copy(update={"model": str(tiny_vit)})),
        [],
        estimate.train,
    )
    monkeypatch.setattr(
        estimate,
        "train",
        lambda model, images, *more: sizes.append(len(images)) or real(model, images, *more),
    )
    assert _anchor(planned, planned.anchors[0], seconds=1e-9)["images_per_second"] > 0
    assert sizes == [2, 2]
    assert (estimate._short(0.004), estimate._short(0.123), estimate._short(83.4)) == (0.004, 0.12, 83)


def test_an_estimate_of_a_distilling_study_has_a_teacher_to_time(tiny_vit):
    space = checked(SpaceSpec, {"description": "d", "layer": {"weights": "binary"}}, "space")
    planned = plan(
        StudySpec(question="?", space=space, model=str(tiny_vit), recipe=Recipe(**SHORT, distill=0.5))
    )
    assert _anchor(planned, planned.anchors[0], seconds=0.01)["images_per_second"] > 0


# Layers


def test_the_head_and_the_first_block_stay_full(tiny_vit):
    groups = [
        "block0.attention",
        "block0.fc1",
        "block0.fc2",
        "block1.attention",
        "block1.fc1",
        "block1.fc2",
        "head",
    ]
    whole = TrialSpec(
        model=str(tiny_vit), layers=dict.fromkeys(groups, BINARY), fraction=0.01, recipe=Recipe(**SHORT)
    )
    inner = whole.model_copy(update={"layers": {g: BINARY for g in groups if g.startswith("block1")}})
    kept = whole.model_copy(update={"recipe": Recipe(**SHORT, outer_full=True)})
    assert resolved(kept) == inner and trial_id(kept) == trial_id(inner) != trial_id(whole)
    model = build(kept, ["a", "b"])
    assert sorted({name.split(".")[2] for name, m in model.named_modules() if isinstance(m, BitLinear)}) == [
        "1"
    ]


def test_norm_where_the_input_is_not_normalised(tiny_vit):
    model = checkpoints.load(str(tiny_vit), ["a", "b"])
    quantize_(model, {"*": LayerSpec(weights="binary", norm="unnormalised")})
    normed = {
        name.rpartition(".")[2]: m.spec.norm for name, m in model.named_modules() if isinstance(m, BitLinear)
    }
    assert normed == dict.fromkeys(["q_proj", "k_proj", "v_proj", "fc1", "classifier"], False) | {
        "o_proj": True,
        "fc2": True,
    }
    with pytest.raises(BadInput, match="norm of a single layer must be true or false"):
        BitLinear(2, 2, norm="unnormalised")


@pytest.mark.parametrize("bits", [None, 1, 2, 8])
def test_clipped_gradients_vanish_outside_the_range(bits):
    fields = {"weights": "ternary", "activation_bits": bits, "beta_multiplier": 1.5}
    clipped, plain = BitLinear(40, 6, straight_through="clipped", **fields), BitLinear(40, 6, **fields)
    plain.load_state_dict(clipped.state_dict())
    x = torch.randn(9, 40)
    grads = []
    for layer in (clipped, plain):
        z = x.clone().requires_grad_()
        y = layer(z)
        y.square().sum().backward()
        grads.append((y, z.grad, layer.weight.grad))
    assert grads[0][0].equal(grads[1][0])  # forwards, nothing changes
    w = clipped.weight.detach()
    assert grads[0][2].equal(grads[1][2] * (w.abs() <= 1.5 * w.abs().mean()))
    if bits is None:
        limit = torch.full((9, 1), math.inf)
    elif bits == 1:
        limit = x.abs().mean(1, keepdim=True)
    else:
        limit = x.abs().amax(1, keepdim=True) * (2 ** (bits - 1) - 1) / 2 ** (bits - 1)
    inside = x.abs() <= limit
    assert grads[0][1].equal(grads[1][1] * inside) and (bits is None or not inside.all())
