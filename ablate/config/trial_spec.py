"""Plain data: what a layer, its training and a trial are. `search_space` and `study_spec` build on it.

A spec is frozen and is checked once, at the door; all its faults are reported together.
TOML has no null, so the word "none" stands for None in every field. A value is held as it was given: a word or a flag is no
number, and a number no flag; a whole number may be written 2.0.
"""

from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    field_validator,
    model_validator,
)

from ablate.config.precisions import Weights
from ablate.errors import BadInput, join_faults, short_repr, unknown
from ablate.labels import one_line

Value = bool | int | float | str
KINDS: dict[type, str] = {
    bool: "boolean",
    int: "integer",
    float: "number",
    str: "string",
}  # as pydantic says it


class Spec(BaseModel):
    """Base of all specs: frozen, unknown keys refused, "none" read as None."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _none(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        return {key: None if value == "none" else value for key, value in data.items()}

    @field_validator("*", mode="wrap")
    @classmethod
    def _as_given(cls, value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
        held = handler(value)
        if type(held) is type(value) and not isinstance(held, tuple):
            return held
        for given, read in zip(_listed(value), _listed(held), strict=False):
            if (
                isinstance(given, Value)
                and isinstance(read, Value)
                and (given != read or _is_flag(given) != _is_flag(read))
            ):
                raise ValueError(f"Input should be a valid {KINDS[type(read)]}, but got {short_repr(given)}")
        return held


class LayerSpec(Spec):
    """The precision of one linear layer; the formulas stand in `ablate/quantization/quantizers.py`, beside their sources.

    `activation_bits` None keeps activations in floating point. `beta` is a rule or a literal number, and
    `beta_multiplier` scales either; with `beta_per` "channel" each row of the weights has its own. `int4` and `int8`
    have one scale per output channel and take no beta. `norm` "unnormalised" means: where a pre-norm ViT has not
    normalised the layer's input already; `quantize_` decides it layer by layer. `straight_through` "clipped" gives no
    gradient to what lies outside the range of the levels; it matters in training only.
    """

    weights: Weights = "full"  # full, binary (1 bit), ternary (1.58 bits), int4 or int8
    activation_bits: Annotated[int, Field(ge=1, le=8)] | None = 8  # b of figure 4; None: floating point
    beta: Literal["absmean", "least_squares"] | Annotated[float, Field(gt=0, allow_inf_nan=False)] = (
        "absmean"  # mean|W| (figure 7), the one that is nearest to W, or a literal number
    )
    beta_multiplier: float = Field(1.0, gt=0, allow_inf_nan=False)  # times beta
    beta_per: Literal["tensor", "channel"] = "tensor"  # one for the layer, or one a row of its weights
    activation_scale: Literal["token", "tensor"] = (
        "token"  # gamma of each token, or of the whole input (figure 4); in evaluation, of each image
    )
    signed: bool = True  # false: levels from 0 up (figure 5)
    norm: bool | Literal["unnormalised"] = (
        False  # a LayerNorm, without parameters, before the quantization (figure 7)
    )
    straight_through: Literal["plain", "clipped"] = "plain"  # gradients

    @model_validator(mode="after")
    def _one_bit_has_a_sign(self) -> Self:
        if self.activation_bits == 1 and not self.signed:
            raise ValueError("activation_bits=1 needs signed=true: one level of one sign holds nothing")
        return self


class Recipe(Spec):
    """How a model is fine-tuned. Learning rate: linear warm-up, then cosine to zero; shares are of all steps.

    Progressive quantization mixes each quantized layer with its linear one by a lambda that grows from 0 to 1. Only
    training sees it: a validation on the way evaluates the model as it will be, wholly quantized, and so is low until
    lambda is 1. The teacher of a distillation is the trial's own `full` arm without distillation.
    """

    epochs: int = Field(2, ge=0, le=100_000)  # passes over the training images
    full_epochs: int = Field(
        0, ge=0, le=100_000
    )  # before those, in full precision; done once for all that share them
    image_views: Annotated[int, Field(ge=1, le=10**12)] | None = (
        None  # in place of epochs: so many over batch_size, rounded up, are the steps
    )
    validate_every: int = Field(1, ge=1)  # epochs; the last is always validated
    batch_size: int = Field(64, ge=1, le=1_000_000)  # images a step
    optimizer: Literal["adamw", "sgd"] = "adamw"
    learning_rate: float = Field(1e-3, gt=0, allow_inf_nan=False)  # at its peak
    weight_decay: float = Field(0.05, ge=0, allow_inf_nan=False)
    momentum: float = Field(0.9, ge=0, lt=1)  # of SGD; AdamW has its usual betas
    warmup: float = Field(0.1, ge=0, lt=1)  # fraction of all steps
    clip_norm: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = (
        1.0  # largest norm of a step's gradient; None: any
    )
    augment: bool | Literal["shift", "flip", "both"] = (
        True  # random shifts and flips, but none where classes are each other's mirror images; "both": even there
    )
    label_smoothing: float = Field(
        0.0, ge=0, lt=1
    )  # of the training loss; validation loss is plain cross-entropy
    quantized_rate_multiplier: float = Field(
        1.0, gt=0, allow_inf_nan=False
    )  # times learning_rate, for quantized weights
    quantized_weight_decay: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = (
        None  # None: as weight_decay
    )
    weight_decay_until: float = Field(1.0, ge=0, le=1)  # share of the steps after which no weight decays
    second_stage: float = Field(
        0.0, ge=0, lt=1
    )  # share of the steps, the last ones: cosine to zero again ...
    second_stage_rate: float = Field(0.1, gt=0, le=1)  # ... from this, times learning_rate
    ema: float = Field(
        0.0, ge=0, lt=1
    )  # decay a step of the averaged weights, which are evaluated and packed; 0: none
    progressive: Literal["linear", "sigmoid"] | None = None  # how lambda grows
    progressive_share: float = Field(0.5, gt=0, le=1)  # share of the steps after which lambda is 1
    progressive_order: Literal["together", "depth"] = (
        "together"  # or layer group after layer group, the first one first
    )
    distill: float = Field(0.0, ge=0, le=1)  # weight of the teacher's logits; cross-entropy has the rest
    temperature: float = Field(2.0, gt=0, allow_inf_nan=False)  # of both models' logits
    distill_blocks: float = Field(
        0.0, ge=0, allow_inf_nan=False
    )  # weight of the squared error of normalised block outputs
    outer_full: bool = False  # the head and the first block stay full, whatever `layers` says
    bf16: bool | Literal["auto"] = "auto"  # bfloat16 autocast while training; evaluation is always float32
    compile: bool = (
        False  # the model's blocks through torch.compile while training: for GPUs, and long trials
    )


class TrialSpec(Spec):
    """One point of a space with one seed. `layers` maps layer groups to precisions; the others stay full."""

    model: str = "vit-micro"
    data: str = "cifar10-mini"
    layers: dict[str, LayerSpec] = {}
    fraction: float = Field(1.0, gt=0, le=1)
    recipe: Recipe = Recipe()
    seed: int = Field(0, ge=0, lt=2**32)
    test: bool = False  # evaluate the test set as well, once, at the end


S = TypeVar("S", bound=Spec)


def _listed(value: Any) -> Any:
    return value if isinstance(value, list | tuple) else [value]


def _is_flag(value: Value) -> bool:
    return isinstance(value, bool)


def accepts(spec: type[Spec], key: str, value: object) -> bool:
    """Whether a field of a spec takes a value, the other fields at their defaults."""
    return not fault(spec, key, value)


def is_numeric(spec: type[Spec], key: str) -> bool:
    """Whether a field of a spec takes numbers."""
    return accepts(spec, key, 1) or accepts(spec, key, 0.5)


def checked(spec: type[S], data: Any, where: str) -> S:
    """`spec` built from plain `data`; `where` names the source in the BadInput that lists every fault."""
    try:
        return spec.model_validate(data)
    except ValidationError as error:
        raise BadInput(f"{where}: " + join_faults(_line(spec, found) for found in error.errors())) from None


def fault(spec: type[Spec], key: str, value: object) -> str:
    """What is wrong with a value for a field of a spec, in a line; "" if nothing is."""
    try:
        spec.model_validate({key: value})
    except ValidationError as error:
        return _line(spec, error.errors()[0])
    return ""


def _line(spec: type[Spec], fault: Any) -> str:
    where = one_line(".".join(str(part)[:80] for part in fault["loc"]))
    if fault["type"] == "extra_forbidden":
        known: Any = spec.model_fields
        if len(fault["loc"]) > 1:  # a key of a table below
            known = getattr(spec.model_fields[str(fault["loc"][0])].annotation, "model_fields", {})
        return str(unknown("key", str(fault["loc"][-1]), known))
    message = fault["msg"].removeprefix("Value error, ")
    if fault["type"] == "value_error" or fault["type"] == "missing":
        return f"{where}: {message}" if where else message
    return f"{where}: {message}, but got {short_repr(fault['input'])}"
