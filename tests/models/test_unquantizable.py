"""Layers that stay full: the logits do not depend on them, or a BitLinear would lose a part of them."""

import families
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune, spectral_norm, weight_norm

from ablate import BitLinear, LayerSpec, load_packed, pack, quantize_
from ablate.errors import BadInput
from ablate.models import loading
from ablate.models.layer_groups import groups, linear_layers
from ablate.models.unquantizable import unquantizable
from ablate.profiling.macs import count
from ablate.quantization.integer_linear import as_integers
from ablate.quantization.packed_size import packed_bytes

BINARY = LayerSpec(weights="binary")


class Classifier(nn.Module):
    """A model with a projection that is thrown away, and one used for training alone."""

    def __init__(self, width=4):
        super().__init__()
        self.body, self.head = nn.Linear(3, width), nn.Linear(width, 2)
        self.pooler, self.auxiliary = (
            nn.Sequential(nn.Linear(width, width), nn.Tanh(), nn.Linear(width, width)),
            nn.Linear(width, 2),
        )

    def features(self, pixels):
        return self.body(pixels.mean((2, 3)))

    def forward(self, pixels):
        hidden = self.features(pixels)
        self.pooler(hidden)
        return self.head(hidden) + (self.auxiliary(hidden) if self.training else 0)


class Frozen(Classifier):
    @torch.no_grad()
    def features(self, pixels):
        return super().features(pixels)


@pytest.mark.parametrize("cls", [Classifier, Frozen])
def test_what_the_logits_do_not_need_is_left_out_with_its_reason(cls):
    model = cls()
    assert (
        [*linear_layers(model)]
        == ["body", "head"]
        == [name for names in groups(model).values() for name in names]
    )
    why = unquantizable(model)
    assert why["pooler.2"] == why["pooler"] and "'pooler' never reaches the logits" in why["pooler"]
    assert "'auxiliary' never reaches the logits" in why["auxiliary"]
    with pytest.raises(BadInput, match="'pooler' never reaches the logits"):
        quantize_(model, {"pooler.*": BINARY})
    assert quantize_(model, {"*": BINARY}) == ["body", "head"]


def test_the_pooling_head_of_a_siglip_is_left_out():
    model = families.build("SigLIP")
    assert [*groups(model)] == [
        f"block{i}.{role}" for i in range(2) for role in ("attention", "fc1", "fc2")
    ] + ["head"]
    full = packed_bytes(model, {}), count(model, (32, 32)).bitops
    quantize_(model, {"*": BINARY})
    assert (packed_bytes(model, {}), count(model, (32, 32)).bitops) < full
    assert not any(isinstance(module, BitLinear) for module in model.vision_model.head.modules())


def test_a_head_of_zeros_and_frozen_weights_are_needed_all_the_same():
    model = Classifier().requires_grad_(False)
    nn.init.zeros_(model.head.weight)
    with torch.inference_mode():
        assert [*linear_layers(model)] == ["body", "head"]


def test_looking_leaves_no_trace():
    model = families.build("LeViT")
    model.classifier.batch_norm.train()
    before = {name: module.training for name, module in model.named_modules()}
    values, random = {key: value.clone() for key, value in model.state_dict().items()}, torch.get_rng_state()
    linear_layers(model)
    assert {name: module.training for name, module in model.named_modules()} == before
    assert torch.get_rng_state().equal(random) and all(
        value.equal(values[key]) for key, value in model.state_dict().items()
    )
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(
        module._forward_hooks or getattr(module, "attention_bias_cache", None) for module in model.modules()
    )


def test_a_model_without_values_and_one_without_a_known_input_are_looked_at_as_far_as_they_can_be():
    with torch.device("meta"):
        assert [*linear_layers(Classifier())] == ["body", "head"]
    bag = nn.ModuleDict({"a": nn.Linear(2, 2), "b": nn.Linear(2, 2)})  # cannot be called
    assert [*linear_layers(bag)] == ["a", "b"]


def test_a_model_that_is_changed_is_looked_at_again():
    model = Classifier()
    assert "auxiliary" not in linear_layers(model)
    model.head, model.extra = nn.Identity(), nn.Linear(4, 4)
    assert [*linear_layers(model)] == ["body"]


class Doubled(nn.Linear):
    def forward(self, x):
        return 2 * super().forward(x)


def plain():
    return nn.Linear(3, 4)


def pruned():
    prune.l1_unstructured(layer := plain(), "weight", 0.5)
    return layer


def replaced_forward():
    layer = plain()
    layer.forward = lambda x: x
    return layer


def integers():
    layer = plain()
    layer.weight = nn.Parameter(layer.weight.data.to(torch.int8), requires_grad=False)
    return layer


class Tagged(torch.Tensor):
    """As quantization libraries hold their weights."""


def tagged():
    layer = plain()
    layer.weight = nn.Parameter(layer.weight.data.as_subclass(Tagged))
    return layer


UNFIT = {
    "weight_norm": (lambda: parametrizations.weight_norm(plain()), "parametrized by WeightNorm"),
    "spectral_norm": (lambda: parametrizations.spectral_norm(plain()), "parametrized by SpectralNorm"),
    "orthogonal": (lambda: parametrizations.orthogonal(plain()), "parametrized by Orthogonal"),
    "old weight_norm": (lambda: weight_norm(plain()), "from weight_g, weight_v"),
    "old spectral_norm": (lambda: spectral_norm(plain()), "from weight_orig, weight_u, weight_v"),
    "pruned": (pruned, "from weight_mask, weight_orig"),
    "subclass": (lambda: Doubled(3, 4), "Doubled is not nn.Linear itself"),
    "lazy": (lambda: nn.LazyLinear(4), "LazyLinear is not nn.Linear itself"),
    "forward": (replaced_forward, "a forward of its own"),
    "integers": (integers, r"Parameter of torch.int8 is not"),
    "subclass of Tensor": (tagged, "must be plain floating point, and Tagged"),
}


@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated:FutureWarning")
@pytest.mark.parametrize("name", UNFIT)
def test_a_layer_of_which_something_would_be_lost_is_refused_by_name(name):
    make, match = UNFIT[name]
    model = nn.Sequential(make(), nn.Linear(4, 4), nn.Linear(4, 2))
    modules, tensors = [*model.modules()], [*model.state_dict(keep_vars=True).values()]
    for patterns in ({"0": BINARY}, {"*": BINARY}, {"1": BINARY, "0": BINARY}):
        with pytest.raises(BadInput, match=f"matches '0', but .*{match}"):
            quantize_(model, patterns)
    with pytest.raises(BadInput, match=match):
        BitLinear.from_linear(model[0])
    left = [*model.modules(), *model.state_dict(keep_vars=True).values()]
    assert all(now is then for now, then in zip(left, [*modules, *tensors], strict=True))
    assert [*linear_layers(model)] == ["1", "2"] and quantize_(model, {"[12]": BINARY}) == ["1", "2"]


def test_tied_weights_are_refused_by_name():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2))
    model[1].weight = model[0].weight
    with pytest.raises(BadInput, match="'0' shares its weight"):
        quantize_(model, {"*": BINARY})
    assert [*linear_layers(model)] == ["2"]


def test_hooks_flags_and_types_of_a_replaced_layer_go_on():
    model, calls = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)).to(torch.bfloat16), []
    handle = model[0].register_forward_hook(lambda *_: calls.append("forward"))
    model[0].register_full_backward_hook(lambda *_: calls.append("backward"))
    model[0].weight.requires_grad = False
    model[0].eval()
    weight = model[0].weight
    quantize_(model, {"0": BINARY})
    assert (
        model[0].weight is weight
        and not model[0].weight.requires_grad
        and not model[0].training
        and model.training
    )
    model(torch.ones(1, 3, dtype=torch.bfloat16, requires_grad=True)).sum().backward()
    handle.remove()
    model(torch.ones(1, 3, dtype=torch.bfloat16))
    assert calls == ["forward", "backward"]


def test_hooks_do_not_see_the_images_that_are_tried():
    model, calls = Classifier(), []
    model.body.register_forward_pre_hook(lambda *_: calls.append("before"))
    model.register_forward_hook(lambda *_: calls.append("after"))
    assert "pooler" in unquantizable(model)
    quantize_(model, {"body": BINARY})
    assert not calls


def test_hooks_go_on_in_evaluation():
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)).eval()
    model[0].register_forward_hook(lambda _, __, output: output + 1)
    quantize_(model, {"*": BINARY})
    expected = model(torch.ones(1, 3))
    with as_integers(model):
        assert model(torch.ones(1, 3)).equal(expected)


def test_a_model_on_the_meta_device_is_quantized_and_filled_later():
    with torch.device("meta"):
        model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    quantize_(model, {"*": BINARY})
    with pytest.raises(BadInput, match=r"'0\.weight' is on the meta"):
        pack(model, "never written")
    filled = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    model.load_state_dict(filled.state_dict(), assign=True)
    quantize_(filled, {"*": BINARY})
    assert model.eval()(torch.ones(1, 3)).equal(filled.eval()(torch.ones(1, 3)))


def test_shared_layers_are_packed_under_all_their_names(tmp_path):
    def net():
        shared = nn.Linear(4, 4)
        return nn.Sequential(shared, nn.ReLU(), shared, nn.Linear(4, 2), nn.Linear(2, 2))

    model = net().eval()
    model[4].bias = model[3].bias  # as it is packed: twice
    expected = packed_bytes(model, {"0": BINARY})
    quantize_(model, {"0": BINARY})
    with pytest.warns(UserWarning, match="skeleton"):
        assert pack(model, tmp_path) == expected
    x = torch.randn(2, 4)
    assert load_packed(tmp_path, net())(x).equal(model(x))


def test_a_file_in_which_an_unused_layer_was_quantized_still_loads(tmp_path):
    model = families.build("SigLIP")
    quantize_(model, {"*": BINARY})
    model.vision_model.head.mlp.fc1 = BitLinear.from_linear(
        model.vision_model.head.mlp.fc1
    )  # as earlier versions did
    pack(model, tmp_path)
    x = families.pixels("SigLIP")
    assert loading.logits(load_packed(tmp_path), x).equal(loading.logits(model, x))
