"""transformers' `from_pretrained` for our models: importing this module registers the quantizer.

    import ablate.integrations.transformers
    model = AutoModelForImageClassification.from_pretrained("packed")     # as `load_packed` loads it

It loads packed folders, checkpoints that `save_pretrained` wrote of a model that `quantize_` had quantized,
with what a beta has learned, and with `quantization_config=AblateConfig(...)` quantizes any other checkpoint.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor, nn
from transformers.quantizers import HfQuantizer
from transformers.quantizers.auto import register_quantization_config, register_quantizer
from transformers.utils.quantization_config import QuantizationConfigMixin

from ablate.config.trial_spec import LayerSpec, checked
from ablate.errors import BadInput, short_repr
from ablate.quantization.attention import quantize_attention_
from ablate.quantization.bit_packing import checked_levels
from ablate.quantization.image_by_image import image_by_image_
from ablate.quantization.integer_linear import IntegerLinear
from ablate.quantization.packed_files import read_intact
from ablate.quantization.packed_header import FIELD, FORMAT, METHOD, Dtype, Images, Stored, preprocess_of
from ablate.quantization.packed_layout import layout
from ablate.quantization.packing import set_saving_
from ablate.quantization.quantize import quantize_
from ablate.quantization.recorded import own_names
from ablate.quantization.static_scales import StaticScale

__all__ = ["AblateConfig", "AblateQuantizer"]


@register_quantization_config(METHOD)
class AblateConfig(QuantizationConfigMixin):
    """Which layers of a model are quantized: the `quantization_config` of its configuration.

    Args:
        layers: By layer name or shell-style pattern, the precision, as for `quantize_`.
        attention_bits: Of the operands of the attention products, as for `quantize_`; None: floats.
        **fields: What a packed model has beside: `format`, `dtype`, `preprocess` and `sha256`.

    Raises:
        BadInput: A precision is invalid, or a newer version of ablate packed the model.
    """

    def __init__(
        self, layers: Mapping[str, Any] | None = None, attention_bits: int | None = None, **fields: Any
    ) -> None:
        for key, value in fields.items():
            setattr(self, key, value)
        self.quant_method, self.attention_bits = METHOD, attention_bits
        self.is_packed = "format" in fields
        if self.is_packed and fields["format"] != FORMAT:
            rule = f"a packed model must be of format {FORMAT}"
            raise BadInput(
                f"{rule}, but got {short_repr(fields['format'])}; upgrade ablate, or pack it again"
            )
        if self.is_packed and (dtype := fields.get("dtype", "float32")) not in get_args(Dtype):
            rule = f"dtype of {FIELD} must be one of {', '.join(get_args(Dtype))}"
            raise BadInput(f"{rule}, but got {short_repr(dtype)}; pack the model again")
        kind = Stored if self.is_packed else LayerSpec
        self.layers = {
            name: spec if isinstance(spec, LayerSpec) else checked(kind, spec, f"{FIELD} of {name!r}")
            for name, spec in (layers or {}).items()
        }

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON holds them."""
        unwritten = {"is_packed"} | ({"attention_bits"} if self.attention_bits is None else set())
        fields = {key: value for key, value in vars(self).items() if key not in unwritten}
        return fields | {"layers": {name: spec.model_dump() for name, spec in self.layers.items()}}


@register_quantizer(METHOD)
class AblateQuantizer(HfQuantizer):
    """What `from_pretrained` calls: replaces layers before tensors are read, and packed ones after."""

    quantization_config: AblateConfig

    def is_serializable(self) -> bool:
        """Return that `save_pretrained` works, in training and packed."""
        return True

    @property
    def is_trainable(self) -> bool:
        """Whether `Trainer` may train the model: a packed one has no weights to train."""
        return not self.quantization_config.is_packed

    @property
    def is_qat_trainable(self) -> bool:
        """As `is_trainable`: all weights of BitLinear layers are trained."""
        return self.is_trainable

    @property
    def is_compileable(self) -> bool:
        """Return that torch.compile takes the model."""
        return True

    def _process_model_before_weight_loading(
        self, model: Any, checkpoint_files: Sequence[str] | None = None, **kwargs: Any
    ) -> None:
        config = self.quantization_config
        if config.is_packed and checkpoint_files:
            read_intact(Path(checkpoint_files[0]).parent)
        if self.pre_quantized:
            names = own_names(model, [*config.layers])
            config.layers = {names[name]: spec for name, spec in config.layers.items() if name in names}
        if not config.is_packed:
            quantize_(model, config.layers, attention_bits=config.attention_bits)
            config.layers = AblateConfig(**vars(model.config)[FIELD]).layers  # names in place of patterns
            return
        if config.attention_bits is not None:
            quantize_attention_(model, config.attention_bits)
        stored, modules = layout(model, config.layers, "float32"), dict(model.named_modules())
        for name, spec in config.layers.items():
            linear = modules.get(name)
            if not isinstance(linear, nn.Linear | nn.Conv2d):
                raise BadInput(f"packed layers must be linear layers of the model, but {name[:80]!r} is none")
            shapes = {part: stored.get(f"{name}.{part}") for part in ("weight", "beta", "bias", "static")}
            model.set_submodule(name, _Unread(linear, spec, shapes))

    def _process_model_after_weight_loading(self, model: Any, **kwargs: Any) -> None:
        config = self.quantization_config
        if not config.is_packed:
            for module in model.modules():
                if isinstance(module, StaticScale):
                    module.update()
            return
        for name, module in [*model.named_modules(remove_duplicate=False)]:
            if isinstance(module, _Unread):
                model.set_submodule(name, module.loaded(name))
        image_by_image_(model, config.layers.values())
        images = getattr(config, "preprocess", None)
        preprocess = preprocess_of(images and checked(Images, images, f"preprocess of {FIELD}"))
        set_saving_(model, preprocess, getattr(config, "dtype", "float32"))
        model.requires_grad_(False)


class _Unread(nn.Module):
    """A packed layer whose tensors transformers is about to read."""

    weight: Tensor
    beta: Tensor
    bias: Tensor | None
    static: Tensor | None

    def __init__(self, linear: nn.Linear | nn.Conv2d, spec: LayerSpec, shapes: Mapping[str, Any]) -> None:
        super().__init__()
        self.shape, self.spec = (len(linear.weight), linear.weight[0].numel()), spec
        self.patch: Any = tuple(linear.weight.shape[2:]) or None
        for part, stored in shapes.items():
            empty = None if stored is None else torch.empty(stored[1], dtype=stored[0], device="meta")
            self.register_buffer(part, empty)

    def loaded(self, name: str) -> IntegerLinear:
        """The layer, on the device of its tensors. Raises BadInput where `pack` does not write such."""
        packed, beta = self.weight, self.beta
        if packed.is_meta or not beta.isfinite().all():
            raise BadInput(
                f"the tensors of packed layer {name!r} are missing or not finite; pack the model again"
            )
        levels = checked_levels(packed.cpu(), self.spec.weights, self.shape).to(packed.device)
        return IntegerLinear(levels, beta, self.bias, self.spec, self.static, self.patch)
