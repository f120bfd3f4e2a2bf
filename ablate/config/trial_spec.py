"""What a layer, its training and a trial are, as plain data. `search_space` and `study_spec` build on it.

A spec is frozen. It is validated once, when it is made, and all its faults are reported together. TOML has no
null: the word "none" stands for None in every field. Values are not converted: a string or a boolean is not a
number, and a number is not a boolean. A whole number may be written 2.0.
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
# The words of pydantic's messages.
KINDS: dict[type, str] = {bool: "boolean", int: "integer", float: "number", str: "string"}
Half = Literal["A", "B"]  # of the test images
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Initialise = Literal[
    "checkpoint",
    "quantized layers at random",
    "encoder at random",
    "encoder and head at random",
    "all at random",
]


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
            both_plain = isinstance(given, Value) and isinstance(read, Value)
            if both_plain and (given != read or isinstance(given, bool) != isinstance(read, bool)):
                raise ValueError(f"Input should be a valid {KINDS[type(read)]}, but got {short_repr(given)}")
        return held


class LayerSpec(Spec):
    """The precision of one linear layer. `quantization/quantizers.py` has the formulas and their sources.

    Args:
        weights: "full", "binary" (1 bit), "ternary" (1.58 bits), "int4" or "int8". The last two have one
            scale for each output channel and take no beta.
        activation_bits: b of figure 4, 1 to 8. None keeps activations in floating point.
        beta: The scale of binary and ternary weights: "absmean", mean|W| (figure 7); "least_squares", the
            scale that is nearest to W; "learned", mean|W| times a factor that begins at 1 and is trained at
            the learning rate of biases and norms, without weight decay; or a number.
        beta_multiplier: A factor of beta.
        beta_per: "tensor", one beta a layer, or "channel", one for each row of its weights.
        activation_scale: Whose maximum gamma is (figure 4): of each "token", or of the whole input, "tensor".
            In evaluation that is each image. "batch": the whole input in evaluation as well, so that images
            depend on those beside them; a trial evaluates 64 at a time. "static": the same for every input,
            calibrated on 64 training images before the first step and then learned (LSQ, arXiv 1902.08153),
            at the learning rate of biases and norms, without weight decay.
        calibration: How a static scale begins: at the range whose levels are nearest to the layer's inputs,
            "mse"; at their largest value, "max"; or at the 99.9th "percentile" of their values.
        signed: Whether activation levels lie on both sides of zero. False: levels from 0 up (figure 5).
        norm: Whether a LayerNorm without parameters precedes the quantization (figure 7). "unnormalised":
            only where a pre-norm ViT has not normalised the layer's input already; `quantize_` decides it for
            each layer.
        straight_through: The gradient of the quantizers. "plain" passes all of it; "clipped" passes none to
            values outside the range of the levels; "none" passes none to weights, which therefore never
            learn, and all of it to activations. It matters in training only.
    """

    weights: Weights = "full"
    activation_bits: Annotated[int, Field(ge=1, le=8)] | None = 8
    beta: Literal["absmean", "least_squares", "learned"] | Positive = "absmean"
    beta_multiplier: Positive = 1.0
    beta_per: Literal["tensor", "channel"] = "tensor"
    activation_scale: Literal["token", "tensor", "batch", "static"] = "token"
    calibration: Literal["mse", "max", "percentile"] = "mse"
    signed: bool = True
    norm: bool | Literal["unnormalised"] = False
    straight_through: Literal["plain", "clipped"] | None = "plain"

    @property
    def is_static(self) -> bool:
        """Whether the layer's activation levels have a static scale."""
        low = self.weights != "full" and self.activation_bits is not None
        return low and self.activation_scale == "static"

    @model_validator(mode="after")
    def _one_bit_has_a_sign(self) -> Self:
        if self.activation_bits == 1 and not self.signed:
            raise ValueError("activation_bits=1 needs signed=true: one level of one sign holds nothing")
        return self


class Recipe(Spec):
    """How a model is fine-tuned.

    Progressive quantization mixes each quantized layer with its linear one by a lambda that grows from 0 to
    1. A validation on the way evaluates the wholly quantized model, so its accuracy is low until lambda is 1.

    Args:
        epochs: Passes over the training images.
        full_epochs: Epochs in full precision before those. They are trained once for all trials that share
            them.
        image_views: Images that training sees in all, in place of `epochs`: the steps are image_views /
            batch_size, rounded up.
        validate_every: Epochs between two validations. The last epoch is always validated.
        batch_size: Images a step.
        optimizer: "adamw" or "sgd".
        learning_rate: The peak of the schedule.
        weight_decay: Of the optimizer.
        momentum: Of SGD. AdamW has torch's betas.
        schedule: "cosine": the learning rate grows linearly, then falls to zero along a cosine. "wsd"
            (warm-up, stable, decay): it grows linearly, stays at its peak, and falls by 1 - sqrt at the end
            (arXiv 2405.18392). Workers keep the state at the end of this plateau in the cache folder, and a
            longer trial that is otherwise equal goes on from it.
        warmup: Of a cosine: the fraction of all steps in which the learning rate grows.
        warmup_views: Of wsd: the images in which the learning rate grows, however long the training is.
        decay: Of wsd: the fraction of the steps in which the learning rate falls.
        clip_norm: The largest norm of a step's gradient; None does not clip.
        augment: True: random shifts and flips, but no flips where classes are mirror images of each other.
            "shift", "flip": one of them. "both": shifts and flips on any data.
        distort: Whether images are also augmented strongly: 60 % are rotated by up to 0.3 rad, scaled by up
            to a quarter and sheared, 60 % have other brightness, contrast and saturation, 10 % are grey, and
            of 25 % a square is erased. Flips and shifts are decided by `augment` alone.
        policy: "randaugment" (two operations of strength 9 of 30), "trivialaugment" (one, of any strength) or
            "autoaugment" (the policy found on ImageNet): each image is also changed by operations of
            torchvision, such as rotation, shear, shift, colour and contrast. None: by none.
        erase: The share of the images of which a random rectangle is erased.
        mix: alpha of the Beta distribution of a weight: each batch of the first 90 % of the steps is mixed by
            MixUp or CutMix, with equal chances; 0: none is.
        label_smoothing: Of the training loss. The validation loss is plain cross-entropy.
        quantized_rate_multiplier: A factor of the learning rate of quantized weights.
        quantized_weight_decay: Of quantized weights; None: as weight_decay.
        weight_decay_until: The fraction of the steps after which no weights decay.
        second_stage: The last fraction of the steps, with a cosine of its own.
        second_stage_rate: The learning rate at the start of the second stage, as a factor of learning_rate.
        ema: The decay, each step, of the averaged weights, which are then evaluated and packed; 0: no
            average.
        progressive: How lambda grows, "linear" or "sigmoid"; None: no progressive quantization.
        progressive_share: The fraction of the steps after which lambda is 1.
        progressive_order: "together", or "depth": one layer group after the other, the first one first.
        distill: The weight of the teacher's logits in the loss; cross-entropy has the rest.
        temperature: Of both models' logits in distillation.
        distill_blocks: The weight of the squared error between normalised block outputs. The teacher's
            blocks must be as many and of the same width.
        teacher: None: the same trial in full precision, without distillation. Or a model that is trained
            already: a `save_pretrained` folder, or a name as of `model`, whose head knows the data's classes.
            It sees the model's images, augmented and mixed, in its own size and normalisation.
        initialise: Which parts begin at random weights in place of the checkpoint's, after `full_epochs`: the
            quantized layers; the linear layers of the encoder, whatever their precision, or those and the
            head; or all of the model. The teacher begins at the checkpoint's.
        initialise_blocks: Only the first so many blocks of an encoder begin at random; None: all.
        initialiser: Of linear layers that begin at random: "torch", as torch initialises a new one; or the
            standard deviation of a normal distribution with mean 0, with biases 0.
        trained: What learns after `full_epochs`: "all", or the "head" alone, while the rest stays as it is in
            evaluation. The teacher learns wholly.
        outer_full: Whether the head and the first block stay in full precision, whatever `layers` says.
        attention_bits: Of the operands of the attention products q k^T and p v, 2 to 8, whatever the layers
            are: each token of q and k has a scale, each channel of v and each row of the probabilities p.
            From the first step on; gradients go straight through. None keeps the products in floating
            point.
        bf16: Whether training runs under bfloat16 autocast; "auto": where the hardware has it. Evaluation is
            always float32.
        compile: Whether the model's blocks are trained through torch.compile, for GPUs and long trials.
    """

    epochs: int = Field(2, ge=0, le=100_000)
    full_epochs: int = Field(0, ge=0, le=100_000)
    image_views: Annotated[int, Field(ge=1, le=10**12)] | None = None
    validate_every: int = Field(1, ge=1, le=100_000)
    batch_size: int = Field(64, ge=1, le=1_000_000)
    optimizer: Literal["adamw", "sgd"] = "adamw"
    learning_rate: Positive = 1e-3
    weight_decay: float = Field(0.05, ge=0, allow_inf_nan=False)
    momentum: float = Field(0.9, ge=0, lt=1)
    schedule: Literal["cosine", "wsd"] = "cosine"
    warmup: float = Field(0.1, ge=0, lt=1)
    warmup_views: int = Field(2000, ge=0, le=10**12)
    decay: float = Field(0.2, gt=0, le=1)
    clip_norm: Positive | None = 1.0
    augment: bool | Literal["shift", "flip", "both"] = True
    distort: bool = False
    policy: Literal["randaugment", "trivialaugment", "autoaugment"] | None = None
    erase: float = Field(0.0, ge=0, le=1)
    mix: float = Field(0.0, ge=0, le=100)
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    quantized_rate_multiplier: Positive = 1.0
    quantized_weight_decay: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    weight_decay_until: float = Field(1.0, ge=0, le=1)
    second_stage: float = Field(0.0, ge=0, lt=1)
    second_stage_rate: float = Field(0.1, gt=0, le=1)
    ema: float = Field(0.0, ge=0, lt=1)
    progressive: Literal["linear", "sigmoid"] | None = None
    progressive_share: float = Field(0.5, gt=0, le=1)
    progressive_order: Literal["together", "depth"] = "together"
    distill: float = Field(0.0, ge=0, le=1)
    temperature: Positive = 2.0
    distill_blocks: float = Field(0.0, ge=0, allow_inf_nan=False)
    teacher: Annotated[str, Field(min_length=1)] | None = None
    initialise: Initialise = "checkpoint"
    initialise_blocks: Annotated[int, Field(ge=0, le=100_000)] | None = None
    initialiser: Literal["torch"] | Positive = "torch"
    trained: Literal["all", "head"] = "all"
    outer_full: bool = False
    attention_bits: Annotated[int, Field(ge=2, le=8)] | None = None
    bf16: bool | Literal["auto"] = "auto"
    compile: bool = False


class TrialSpec(Spec):
    """One point of a search space with one seed.

    Args:
        model: A bundled name, a `save_pretrained` folder, or a name on the hub.
        data: A bundled name, "imagefolder:PATH", "hf:NAME", "hf:PATH", or your own dataset as "module:name".
        layers: The precision of each layer group; the others stay in full precision.
        fraction: Of the training images, above 0 and at most 1.
        recipe: How the model is fine-tuned.
        seed: Of every random draw.
        test: What the trained model is evaluated on as well, once, at the end: "A" or "B", a half of the test
            images, B being held back for final studies; or True, all of them, as in versions without halves.
    """

    model: str = "vit-micro-200ep"
    data: str = "cifar10-mini"
    layers: dict[str, LayerSpec] = {}
    fraction: float = Field(1.0, gt=0, le=1)
    recipe: Recipe = Recipe()
    seed: int = Field(0, ge=0, lt=2**32)
    test: bool | Half = False


S = TypeVar("S", bound=Spec)


def _listed(value: Any) -> Any:
    return value if isinstance(value, list | tuple) else [value]


def accepts(spec: type[Spec], key: str, value: object) -> bool:
    """Return whether a field of a spec takes a value while the other fields have their defaults."""
    return not fault(spec, key, value)


def is_numeric(spec: type[Spec], key: str) -> bool:
    """Return whether a field of a spec takes numbers."""
    return accepts(spec, key, 1) or accepts(spec, key, 0.5)


def checked(spec: type[S], data: Any, where: str) -> S:
    """Build a spec from plain data.

    Args:
        spec: The class.
        data: A dict of its fields.
        where: The source of the data, for the message.

    Returns:
        The spec.

    Raises:
        BadInput: With all faults of the data.
    """
    try:
        return spec.model_validate(data)
    except ValidationError as error:
        raise BadInput(f"{where}: " + join_faults(_line(spec, fault) for fault in error.errors())) from None


def fault(spec: type[Spec], key: str, value: object) -> str:
    """Return what is wrong with a value for a field of a spec, "" if nothing is."""
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
