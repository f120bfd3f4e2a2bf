"""Which models can be packed, and what a packed model refuses."""

from typing import Any

from torch import Tensor, nn

from ablate.errors import BadInput
from ablate.models.unquantizable import unfit
from ablate.quantization.attention import attention_bits
from ablate.quantization.bitlinear import BitLinear
from ablate.quantization.fused_blocks import FusedBlock
from ablate.quantization.integer_linear import IntegerLinear, check_sums
from ablate.quantization.recorded import record_of


def refuse_saving(*args: Any, **kwargs: Any) -> None:
    """Take the place of `save_pretrained` of a part of a packed model. Raises BadInput."""
    rule = "save_pretrained must not write a part of a packed model, which records how all of it is packed"
    raise BadInput(f"{rule}; save the whole model")


def check_packable(model: nn.Module) -> None:
    """Raises BadInput for a model whose layers are not what would be stored."""
    if any(isinstance(module, FusedBlock) for module in model.modules()):
        raise BadInput(
            "a model of fused blocks keeps no weights to pack; pack it as load_packed(folder) gives it"
        )
    for key, value in model.state_dict().items():
        if type(value) is not Tensor:
            rule = f"tensors must be plain to be packed, but {key!r} is a {type(value).__name__}"
            raise BadInput(f"{rule}; gather it first, and load it into a model that is not sharded")
    quantized = [(name, layer) for name, layer in model.named_modules() if isinstance(layer, BitLinear)]
    for name, layer in quantized:
        if why := unfit(layer):
            raise BadInput(f"BitLinear {name!r} cannot be packed: {why}")
        check_sums(layer.in_features, layer.spec.weights)
    is_packed = any(isinstance(module, IntegerLinear) for module in model.modules())
    record, what = record_of(model), ""
    if record.get("layers") and not quantized and not is_packed:
        what = "layers, but none of them is quantized"
    elif record.get("attention_bits") and attention_bits(model) is None:
        what = "attention, but it is not quantized"
    if what:
        rule = f"the model's configuration records quantized {what}"
        mend = "quantize_(model, recorded_precisions(model)), or delete model.config.quantization_config"
        raise BadInput(f"{rule}; call {mend}")
