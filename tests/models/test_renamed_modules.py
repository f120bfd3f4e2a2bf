"""Names of modules in other versions of transformers lead to this one's, or stay as they are."""

import pytest
from families import build, pixels, quantized
from forgery import forge, header_of
from safetensors.torch import load
from transformers.core_model_loading import revert_weight_conversion

from ablate import load_packed, pack
from ablate.models import loading
from ablate.models.renamed_modules import RENAMED, current_names


def before(name):
    for old, new in RENAMED:
        name = name.replace(new, old)
    return name


@pytest.mark.parametrize("family", ["DINOv2", "DINOv2 with registers"])
def test_a_model_that_was_packed_under_other_names_is_the_same(family, tmp_path):
    pack(model := quantized(family), tmp_path)
    good = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    layers = header_of(good)["layers"]
    older = {before(f"{name}.")[:-1]: spec for name, spec in layers.items()}
    assert older.keys() != layers.keys()
    tensors = {before(name): value for name, value in load(good["model.safetensors"]).items()}
    for name, content in forge(good, {"layers": older}, tensors).items():
        (tmp_path / name).write_bytes(content)
    loaded = load_packed(tmp_path)
    assert loading.logits(loaded, pixels(family)).equal(loading.logits(model, pixels(family)))


@pytest.mark.parametrize("family", ["ViT", "Swin", "SegFormer", "DINOv2", "torchvision's ViT"])
def test_names_lead_to_the_models_own(family):
    """Also those that only transformers knows: of files that it wrote."""
    model = build(family)
    own = [*model.state_dict()]
    assert current_names(model, own) == {name: name for name in own}
    if family != "torchvision's ViT":
        filed = [*revert_weight_conversion(model, model.state_dict())]
        assert {*current_names(model, filed).values()} == {*own} != {*filed}
    for others in (own[1:], [*own, "more"], [*own[1:], "other"]):
        assert current_names(model, others) == {name: name for name in others}
