"""Plain data: what a layer, a trial, a search space and a study are, and how their TOML is read.

A spec is frozen and is checked once, at the door; all its faults are reported together.
TOML has no null, so the word "none" stands for None in every field.
"""

import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, PlainValidator, ValidationError, model_validator

from ablate.errors import BadInput, unknown

Weights = Literal["full", "binary", "ternary", "int4", "int8"]
Value = bool | int | float | str
Design = Literal["ladder", "leave-one-out", "one-factor", "arms", "factorial", "sensitivity"]

Direction = Literal["min", "max"]
OBJECTIVES: dict[str, Direction] = {
    "accuracy": "max",
    "loss": "min",
    "size_bytes": "min",
    "bitops": "min",
    "latency_ms": "min",
    "images": "min",
    "train_seconds": "min",
}
SPACE_OBJECTIVES = ("accuracy", "size_bytes")


IMAGEFOLDER = "imagefolder:"  # then a path: anyone's own images


class Spec(BaseModel):
    """Base of all specs: frozen, unknown keys refused, "none" read as None."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _none(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        return {key: None if value == "none" else value for key, value in data.items()}


class LayerSpec(Spec):
    """The precision of one linear layer; the formulas stand in `ablate/bitlinear.py`, beside their sources.

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
    activation_scale: Literal["token", "tensor"] = "token"  # gamma of each token, or of the whole input (figure 4)
    signed: bool = True  # false: levels from 0 up (figure 5)
    norm: bool | Literal["unnormalised"] = False  # a LayerNorm, without parameters, before the quantization (figure 7)
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
    full_epochs: int = Field(0, ge=0, le=100_000)  # before those, in full precision; done once for all that share them
    image_views: Annotated[int, Field(ge=1, le=10**12)] | None = (
        None  # in all, in place of epochs: the last may be a part of one
    )
    validate_every: int = Field(1, ge=1)  # epochs; the last is always validated
    batch_size: int = Field(64, ge=1, le=1_000_000)  # images a step
    optimizer: Literal["adamw", "sgd"] = "adamw"
    learning_rate: float = Field(1e-3, gt=0, allow_inf_nan=False)  # at its peak
    weight_decay: float = Field(0.05, ge=0, allow_inf_nan=False)
    momentum: float = Field(0.9, ge=0, lt=1)  # of SGD; AdamW has its usual betas
    warmup: float = Field(0.1, ge=0, lt=1)  # fraction of all steps
    clip_norm: Annotated[float, Field(gt=0)] | None = 1.0  # largest norm of a step's gradient; None: any
    augment: bool = True  # random flips and shifts
    label_smoothing: float = Field(0.0, ge=0, lt=1)  # of the training loss; validation loss is plain cross-entropy
    quantized_rate_multiplier: float = Field(1.0, gt=0, allow_inf_nan=False)  # times learning_rate, for quantized weights
    quantized_weight_decay: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None  # None: as weight_decay
    weight_decay_until: float = Field(1.0, ge=0, le=1)  # share of the steps after which no weight decays
    second_stage: float = Field(0.0, ge=0, lt=1)  # share of the steps, the last ones: cosine to zero again ...
    second_stage_rate: float = Field(0.1, gt=0, le=1)  # ... from this, times learning_rate
    ema: float = Field(0.0, ge=0, lt=1)  # decay a step of the averaged weights, which are evaluated and packed; 0: none
    progressive: Literal["linear", "sigmoid"] | None = None  # how lambda grows
    progressive_share: float = Field(0.5, gt=0, le=1)  # share of the steps after which lambda is 1
    progressive_order: Literal["together", "depth"] = "together"  # or layer group after layer group, the first one first
    distill: float = Field(0.0, ge=0, le=1)  # weight of the teacher's logits; cross-entropy has the rest
    temperature: float = Field(2.0, gt=0, allow_inf_nan=False)  # of both models' logits
    distill_blocks: float = Field(0.0, ge=0, allow_inf_nan=False)  # weight of the squared error of normalised block outputs
    outer_full: bool = False  # the head and the first block stay full, whatever `layers` says
    bf16: bool | Literal["auto"] = "auto"  # bfloat16 autocast while training; evaluation is always float32


class TrialSpec(Spec):
    """One point of a space with one seed. `layers` maps layer groups to precisions; the others stay full."""

    model: str = "vit-micro"
    data: str = "cifar10-mini"
    layers: dict[str, LayerSpec] = {}
    fraction: float = Field(1.0, gt=0, le=1)
    recipe: Recipe = Recipe()
    seed: int = Field(0, ge=0, lt=2**32)
    test: bool = False  # evaluate the test set as well, once, at the end


class Range(Spec):
    """A continuous or integer axis, both ends included."""

    low: float = Field(allow_inf_nan=False)
    high: float = Field(allow_inf_nan=False)
    log: bool = False  # searched on a log scale

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not self.low < self.high or (self.log and self.low <= 0):
            raise ValueError(f"low < high must hold (and 0 < low with log), but got low={self.low}, high={self.high}")
        return self


class Each(Spec):
    """A choice that every layer group makes for itself."""

    each: Annotated[tuple[Value, ...], PlainValidator(lambda value: _choices(value))]


def _choices(value: Any) -> tuple[Value, ...]:
    if not isinstance(value, list | tuple) or not value or not all(isinstance(item, Value) for item in value):
        raise ValueError(f"choices must be a list of one value or more, but got {value!r}")
    if len({repr(item) for item in value}) < len(value):
        raise ValueError(f"choices must differ, but got {list(value)}")
    return tuple(value)


def _axis(value: Any) -> Any:
    """A scalar is fixed, a list is choices, a table with `each` is one choice a layer group, any other a range."""
    if isinstance(value, Value | Range | Each):
        return value
    if isinstance(value, dict):
        return checked(Each if "each" in value else Range, value, "axis")
    return _choices(value)


if TYPE_CHECKING:
    Axis = Value | tuple[Value, ...] | Range | Each
else:
    Axis = Annotated[Any, PlainValidator(_axis)]


class SpaceSpec(Spec):
    """What may vary. An axis is a fixed value, a list of choices, a range, or `each` with choices per layer group."""

    name: str = ""  # of the file, by default
    description: str  # one line
    objectives: tuple[str, ...] = SPACE_OBJECTIVES  # of a study that names none
    groups: tuple[str, ...] = Field(("*",), min_length=1)  # shell-style patterns on layer-group names: what [layer] applies to
    layer: dict[str, Axis]  # fields of LayerSpec
    recipe: dict[str, Axis] = {}  # fields of Recipe, in place of the study's
    fraction: Axis = 1.0  # of the training images, above 0 and at most 1

    @model_validator(mode="after")
    def _axes_fit(self) -> Self:
        faults = _objective_faults(self.objectives)
        axes: list[tuple[type[Spec], str, Axis]] = [(LayerSpec, key, axis) for key, axis in self.layer.items()]
        axes += [(Recipe, key, axis) for key, axis in self.recipe.items()]
        axes += [(TrialSpec, "fraction", self.fraction)]
        for spec, key, axis in axes:
            if key not in spec.model_fields:
                faults.append(str(unknown(f"{spec.__name__} field", key, spec.model_fields)))
                continue
            if isinstance(axis, Each) and spec is not LayerSpec:
                faults.append(f"{key}: only fields of [layer] can be decided by each layer group")
            faults += [f for value in values(axis) if (f := _fault(spec, key, value))]
            if isinstance(axis, Range) and not faults and not is_number(spec, key, axis.low):
                faults.append(f"{key}: a range must be of numbers; list the choices")
        if "auto" in values(self.recipe.get("bf16", False)):
            faults.append("recipe.bf16: a space must say true or false, but got 'auto'")
        if "weights" not in self.layer:
            faults.append("[layer] must say which `weights` a layer group may have")
        if faults:
            raise ValueError("; ".join(faults))
        return self


class Step(Spec):
    """One change of a designed study: fields of its layers and of its recipe with their new values.

    With `groups`, shell-style patterns as those of the space and within them, it is these layer groups that are quantized.
    """

    name: str
    source: str = ""  # paper, section, figure
    groups: tuple[str, ...] = ()  # from this step on
    layer: dict[str, Value] = {}  # fields of LayerSpec
    recipe: dict[str, Value] = {}  # fields of Recipe
    tune: dict[str, tuple[Value, ...]] = {}  # from this step on, in place of the study's

    @model_validator(mode="after")
    def _changes_fit(self) -> Self:
        faults = [f for key, value in self.layer.items() if (f := _fault(LayerSpec, key, value))]
        faults += [f for key, value in self.recipe.items() if (f := _fault(Recipe, key, value))]
        if faults := faults + _tune_faults(self.tune):
            raise ValueError("; ".join(faults))
        return self


class EarlyStopping(Spec):
    """Which trials of a search end early: at each rung all but the best.

    Over `epochs` the rungs are after `first`, first * reduction, ... epochs. Over `fraction` a trial is trained on
    1 / reduction^rungs of its images first, then afresh on `reduction` times as many, and at last on all of them; the
    smaller trainings are its rungs, each by the whole recipe, on images that are among the next one's.
    """

    over: Literal["epochs", "fraction"] = "epochs"  # what grows from rung to rung
    reduction: int = Field(3, ge=2, le=1000)  # of those at a rung, the best 1 / reduction go on
    first: int = Field(1, ge=1)  # over epochs: those before the first rung
    rungs: int = Field(2, ge=1, le=10)  # over fraction: trainings on fewer images

    @property
    def one_in(self) -> tuple[int, ...]:
        """A rung over `fraction` each, the smallest first: of so many of a trial's images it takes one."""
        return tuple(self.reduction**k for k in range(self.rungs, 0, -1)) if self.over == "fraction" else ()

    @model_validator(mode="after")
    def _of_one_kind(self) -> Self:
        other = "rungs" if self.over == "epochs" else "first"
        if (given := getattr(self, other)) != type(self).model_fields[other].default:
            raise ValueError(f"{other} is not for early stopping over {self.over}, but got {given}; leave it out")
        return self


class StudySpec(Spec):
    """A question: a space, a model, a dataset, a recipe, objectives, a budget and a seed.

    With a `design` nothing is searched: each of its cells is trained with every one of the paired `seeds`, and tested.
    `ladder` takes the steps one after the other from the base point (the space's fixed values and the recipe),
    `leave-one-out` all steps but one, `one-factor` the base and each step alone, `arms` each step alone, and `factorial`
    none; all are crossed with the space's choices. What is in `tune` is chosen for each cell by its validation on one
    more seed. `reference` is one more cell: all steps, and it. `sensitivity` takes each layer group in each precision,
    alone and left out alone; nothing of it is tested, so that a search may go on from it.
    """

    name: str = ""  # of the file, by default
    question: str  # what is asked
    source: str = ""  # who raised it: paper, section, figure
    cost: str = ""  # of running it
    expected: str = ""  # what it leaves, and where
    command: str = ""  # that runs it
    space: SpaceSpec  # what may vary: a table, a name or a path
    model: str = "vit-micro"  # a bundled name, a save_pretrained folder, or a hub name
    data: str = "cifar10-mini"  # a name, or "imagefolder:PATH"
    objectives: tuple[str, ...] = ()  # empty: the space's
    trials: int = Field(12, ge=1, le=1_000_000)  # of a search; a design has as many as it has
    hours: Annotated[float, Field(gt=0)] | None = None  # no trial starts after as many
    seed: int = Field(0, ge=0, lt=2**32)  # of the search and of each trial
    recipe: Recipe = Recipe()  # how each trial is trained
    design: tuple[Design, ...] = ()  # empty: a search
    seeds: int = Field(1, ge=1, le=10_000)  # paired: seed, seed + 1, ...
    tune: dict[str, tuple[Value, ...]] = {}  # fields of the recipe
    base: str = Field("base", min_length=1)  # what the base point is called, as the cell of a ladder or of one factor
    steps: tuple[Step, ...] = ()  # of the design
    reference: Step | None = None  # one more cell
    gap_margin: float = Field(0.01, gt=0, lt=1)  # a gap in accuracy at the largest training set that counts as none
    slope_margin: float = Field(0.01, gt=0, lt=1)  # a change of the gap, a decade of images, that counts as none
    sampler: Literal["additive", "tpe", "nsga2", "gp", "random"] = "additive"  # who proposes
    early_stopping: EarlyStopping | None = None  # None: every trial runs to its end
    confirm: int = Field(0, ge=0, le=1000)  # further seeds for each member of the front, tested
    max_size_bytes: Annotated[int, Field(ge=1)] | None = None  # what is counted to be larger is not trained
    max_latency_ms: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None  # sum of layers, at batch 1
    min_accuracy: Annotated[float, Field(gt=0, le=1)] | None = None  # validation; known once a trial has ended

    @model_validator(mode="before")
    @classmethod
    def _resolve(cls, data: Any) -> Any:
        """A space by name is loaded; without objectives of its own, a study has those of its space."""
        if not isinstance(data, dict) or "space" not in data:
            return data
        if isinstance(design := data.get("design"), str):
            data = {**data, "design": () if design == "search" else (design,)}
        space = load_space(data["space"]) if isinstance(data["space"], str) else data["space"]
        its = space.get("objectives") if isinstance(space, dict) else getattr(space, "objectives", None)
        return {**data, "space": space, "objectives": data.get("objectives") or its or SPACE_OBJECTIVES}

    @property
    def directions(self) -> dict[str, Direction]:
        """Whether more or less of each objective is better."""
        return {name: OBJECTIVES[name] for name in self.objectives}

    @property
    def within(self) -> dict[str, float]:
        """The bounds that a trial must keep to be on the front."""
        bounds = {"size_bytes": self.max_size_bytes, "latency_ms": self.max_latency_ms, "accuracy": self.min_accuracy}
        return {name: bound for name, bound in bounds.items() if bound is not None}

    @property
    def timed(self) -> bool:
        """Whether latency is measured."""
        return "latency_ms" in {*self.objectives, *self.within}

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        faults = _objective_faults(self.objectives)
        faults += _tune_faults(self.tune)
        if not self.design and (self.seeds > 1 or self.tune or self.steps or self.reference):
            faults.append("seeds, tune, steps and reference are parts of a design; say which, as in design = ['ladder']")
        if self.design and self.within:
            faults.append("max_size_bytes, max_latency_ms and min_accuracy bound a search; a design trains all of its cells")
        if self.design and self.sampler not in ("additive", "tpe"):  # the default, and what it was when older runs were written
            faults.append(f"sampler is for a search; a design trains all of its cells, but got {self.sampler!r}")
        if self.early_stopping:
            faults += self._rung_faults(self.early_stopping)
        if self.design and self.confirm:
            faults.append("confirm is for a search; a design has seeds, which are tested")
        if "sensitivity" in self.design and (len(self.design) > 1 or self.reference):
            faults.append("a sensitivity design stands alone, without a reference")
        if bool(self.steps) != bool({*self.design} - {"factorial", "sensitivity"}):
            faults.append("a ladder, a leave-one-out and a one-factor design need [[steps]], and only they do")
        if "ladder" in self.design and any(
            map(_varies, (*self.space.layer.values(), *self.space.recipe.values(), self.space.fraction))
        ):
            faults.append(
                "a ladder has one cell a rung: the values of its space must be fixed; design = ['arms'] crosses choices"
            )
        if len({self.base, *(step.name for step in self.steps)}) <= len(self.steps):
            faults.append("base and steps must differ in their names")
        if faults:
            raise ValueError("; ".join(faults))
        return self

    def _rung_faults(self, rule: EarlyStopping) -> list[str]:
        faults = ["early_stopping is for a search; a design trains all of its cells to the end"] if self.design else []
        if not {"accuracy", "loss"} & {*self.objectives}:
            faults.append(f"early_stopping needs accuracy or loss among the objectives, but got {', '.join(self.objectives)}")
        views = values(self.space.recipe.get("image_views", self.recipe.image_views or "none"))
        if rule.over == "fraction" and (some := [n for n in views if n != "none"]):
            saves = "saves nothing where recipe.image_views sets the steps whatever the images"
            faults.append(f"early_stopping over fraction {saves}, but got {some[0]}; set epochs, or stop over epochs")
        known = not self.recipe.image_views and not {"epochs", "image_views"} & {*self.space.recipe}
        first, few = (rule.first, f"its first {rule.first}") if rule.over == "epochs" else (0, "none")
        if known and self.recipe.epochs <= first:
            faults.append(f"early_stopping needs more epochs than {few}, but got {self.recipe.epochs}")
        return faults


S = TypeVar("S", bound=Spec)


def _varies(axis: Axis) -> bool:
    return isinstance(axis, Range | Each) or (isinstance(axis, tuple) and len(axis) > 1)


def values(axis: Axis) -> tuple[Value, ...]:
    """The values named on an axis: the ends of a range, the choices of a list."""
    if isinstance(axis, Range):
        return (axis.low, axis.high)
    if isinstance(axis, Each):
        return axis.each
    return axis if isinstance(axis, tuple) else (axis,)


def accepts(spec: type[Spec], key: str, value: object) -> bool:
    """Whether a field of a spec takes a value, the other fields at their defaults."""
    return not _fault(spec, key, value)


def is_number(spec: type[Spec], key: str, value: float) -> bool:
    """Whether a field of a spec holds a number once it took this one."""
    held = getattr(spec.model_validate({key: value}), key)
    return isinstance(held, int | float) and not isinstance(held, bool)


def checked(spec: type[S], data: Any, where: str) -> S:
    """`spec` built from plain `data`; `where` names the source in the BadInput that lists every fault."""
    try:
        return spec.model_validate(data)
    except ValidationError as error:
        raise BadInput(f"{where}: " + "; ".join(_line(spec, fault) for fault in error.errors())) from None


def load_space(name: str) -> SpaceSpec:
    """A built-in search space by its name, or one's own by the path of its TOML file."""
    return _load(SpaceSpec, "search_spaces", "search space", name)


def load_study(name: str) -> StudySpec:
    """A built-in study by its name, or one's own by the path of its TOML file."""
    return _load(StudySpec, "studies", "study", name)


def builtin(folder: Literal["search_spaces", "studies"]) -> list[str]:
    """Names of the built-in files of a folder."""
    return sorted(path.stem for path in (Path(__file__).parent / folder).glob("*.toml"))


def bundled(kind: Literal["model", "dataset"]) -> dict[str, str]:
    """Bundled models or datasets: the name and the one-line description that heads its card."""
    cards = {card.parent: card for card in sorted((Path(__file__).parent / "assets").glob("*/README.md"))}
    chosen = (card for folder, card in cards.items() if (folder / "config.json").exists() == (kind == "model"))
    heads = (card.read_text(encoding="utf-8").splitlines()[0].removeprefix("# ").partition(": ") for card in chosen)
    return {name: text for name, _, text in heads}


def absolute_data(name: str, folder: Path) -> str:
    """A dataset's name as every process understands it: the path of an image folder, relative to `folder`, made absolute."""
    path = name.removeprefix(IMAGEFOLDER)
    if path in (name, ""):
        return name
    return IMAGEFOLDER + str((folder / Path(path).expanduser()).absolute())


def _load(spec: type[S], folder: Literal["search_spaces", "studies"], kind: str, name: str) -> S:
    path = Path(name)
    if path.suffix != ".toml":
        if name not in builtin(folder):
            raise unknown(kind, name, builtin(folder))
        path = Path(__file__).parent / folder / f"{name}.toml"
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadInput(f"cannot read {kind} {str(path)!r}: {error.strerror}; give a name or the path of a TOML file") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadInput(f"{path}: not valid TOML: {error}") from None
    for key in ("model", "space"):  # a path in a file is relative to the file
        if isinstance(value := data.get(key), str) and (beside := path.parent / value).exists():
            data[key] = str(beside.absolute())
    if isinstance(value := data.get("data"), str):
        data["data"] = absolute_data(value, path.parent)
    return checked(spec, {"name": path.stem, **data}, path.name)


def _objective_faults(objectives: tuple[str, ...]) -> list[str]:
    faults = [str(unknown("objective", name, OBJECTIVES)) for name in objectives if name not in OBJECTIVES]
    if len(set(objectives)) < len(objectives):
        faults.append(f"objectives must differ, but got {', '.join(objectives)}")
    return faults


def _tune_faults(tune: dict[str, tuple[Value, ...]]) -> list[str]:
    empty = [f"tune.{key}: choices must be a list of one value or more" for key, choices in tune.items() if not choices]
    return empty + [f"tune.{f}" for key, choices in tune.items() for value in choices if (f := _fault(Recipe, key, value))]


def _fault(spec: type[Spec], key: str, value: object) -> str:
    try:
        spec.model_validate({key: value})
    except ValidationError as error:
        return _line(spec, error.errors()[0])
    return ""


def _line(spec: type[Spec], fault: Any) -> str:
    where = ".".join(str(part) for part in fault["loc"])
    if fault["type"] == "extra_forbidden":
        known: Any = spec.model_fields
        if len(fault["loc"]) > 1:  # a key of a table below
            known = getattr(spec.model_fields[str(fault["loc"][0])].annotation, "model_fields", {})
        return str(unknown("key", str(fault["loc"][-1]), known))
    message = fault["msg"].removeprefix("Value error, ")
    if fault["type"] == "value_error" or fault["type"] == "missing":
        return f"{where}: {message}" if where else message
    return f"{where}: {message}, but got {fault['input']!r}"
