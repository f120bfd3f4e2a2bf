"""A question that trials can answer: what is searched or compared, by which rules, at what cost."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from ablate.config.builtin import load, read
from ablate.config.designs import Design, EarlyStopping, Step
from ablate.config.objectives import OBJECTIVES, SPACE_OBJECTIVES, Direction
from ablate.config.own_objectives import describe, register
from ablate.config.samplers import SamplerName
from ablate.config.search_space import SpaceSpec, load_space
from ablate.config.study_rules import study_faults
from ablate.config.trial_spec import Half, Positive, Recipe, Spec, Value
from ablate.errors import BadInput, join_faults
from ablate.plugins import is_plugin


class StudySpec(Spec):
    """A question, and how it is answered: a search of a space, or a design whose cells are all trained.

    Args:
        name: The file's, by default.
        question: What is asked.
        source: Who raised it: paper, section, figure.
        cost: Of running it.
        expected: The result, and where it is.
        command: The command that runs it.
        space: What may vary: a table, a built-in name, or a path.
        model: A bundled name, a `save_pretrained` folder, or a name on the hub.
        data: A bundled name, "imagefolder:PATH", "hf:NAME", "hf:PATH", or your own dataset as "module:name".
        objectives: Names of the table in `config.objectives`, and users' own as "module:name". Empty: the
            space's.
        described: The descriptions of users' own objectives, with which a run can be read where they cannot
            be imported. `with_descriptions` fills them in before the study is written.
        trials: Of a search. A design has as many as its cells and seeds, and more where a tuned choice lies
            on the edge of its list.
        hours: After this time no trial starts; None: no limit.
        seed: Of the search and of each trial.
        recipe: How each trial is trained.
        design: Empty: a search. "ladder": the steps one after the other from the base point, which is the
            space's fixed values and the recipe. "leave-one-out": all steps but one. "one-factor": the base,
            and each step alone. "arms": each step alone; beside a ladder these cells are called "only: STEP".
            "factorial": no steps, only the space's choices, with which all designs are crossed.
            "sensitivity": each layer group in each precision, alone and left out alone; it is not tested, so
            that a search may go on from it. "grid": each step alone at each `fraction` and each
            `recipe.image_views` of the space: is it data that is missing, or updates?
        points: Of a factorial whose factors have two choices each: a regular fraction of so many points, a
            power of two above the number of factors, that keeps the main effects apart. None: all points.
        seeds: Of a design: how often each cell is trained, with the paired seeds seed, seed + 1, ...
        tune: Choices for fields of the recipe. Each cell takes the one of the best mean validation accuracy
            over the tuning seeds; a failed trial counts as -1.
        tune_at: Of a grid: the two values of `fraction` and of `image_views` at which each arm is tuned. What
            is tuned is interpolated between them in log D and log T, and beyond them it is that of the
            nearest. An axis that is not named is tuned at its ends.
        tuning_seeds: How often each choice is trained, with the seeds directly after the paired ones. Runs of
            older versions have 1.
        grid_extension: While the best choice of a number is the lowest or the highest of its list, the next
            value beyond is tried, so many at most; 0: none. `epochs` and the other lengths of a trial keep
            their list. Runs of older versions have 0.
        base: What the base point is called.
        steps: Of the design.
        reference: One more cell: all steps, and this one.
        gap_margin: A gap in accuracy at the largest training set that counts as none.
        slope_margin: A change of the gap, for each decade of images, that counts as none.
        relative_margin: No gap and no change counts as none above this share of full precision's error.
        sampler: What proposes the trials of a search: a name of the table in `config.samplers`, or a user's
            own as "module:name".
        anchor_seeds: Of a search: with how many seeds each anchor is trained: seed, seed + 1, ... The anchors
            are its first trials: all full, all binary, ... Further seeds count as trials. They show the
            spread, teach the sampler, and are on no front.
        early_stopping: Which trials end early; None: none does.
        confirm: Further seeds with which each member of the front is trained again and tested.
        max_size_bytes: Trials whose packed model is larger are not trained.
        max_bitops: The same, by the bit operations of one image.
        max_latency_ms: The same, by the sum of the latencies of the model's parts at batch 1.
        min_accuracy: Validation accuracy that a member of the front has at least.
        final: Whether trials are tested on half B of the test images, which is held back, and not on half A.
            None, in a run of a version without halves: on all of them.
    """

    name: str = ""
    question: str
    source: str = ""
    cost: str = ""
    expected: str = ""
    command: str = ""
    space: SpaceSpec
    model: str = "vit-micro-200ep"
    data: str = "cifar10-mini"
    objectives: tuple[str, ...] = ()
    described: dict[str, dict[str, str | float | bool]] = Field({})
    trials: int = Field(12, ge=1, le=1_000_000)
    hours: Positive | None = None
    seed: int = Field(0, ge=0, lt=2**32)
    recipe: Recipe = Recipe()
    design: tuple[Design, ...] = ()
    points: Annotated[int, Field(ge=2, le=2**16)] | None = None
    seeds: int = Field(1, ge=1, le=10_000)
    tune: dict[str, tuple[Value, ...]] = Field({})
    tune_at: dict[Literal["fraction", "image_views"], tuple[Positive, Positive]] = Field({})
    tuning_seeds: int = Field(3, ge=1, le=1000)
    grid_extension: int = Field(3, ge=0, le=10)
    base: str = Field("base", min_length=1)
    steps: tuple[Step, ...] = ()
    reference: Step | None = None
    gap_margin: float = Field(0.01, gt=0, lt=1)
    slope_margin: float = Field(0.01, gt=0, lt=1)
    relative_margin: float = Field(0.1, gt=0, lt=1)
    sampler: SamplerName = "additive"
    anchor_seeds: int = Field(1, ge=1, le=100)
    early_stopping: EarlyStopping | None = None
    confirm: int = Field(0, ge=0, le=1000)
    max_size_bytes: Annotated[int, Field(ge=1, le=10**18)] | None = None
    max_bitops: Positive | None = None
    max_latency_ms: Positive | None = None
    min_accuracy: Annotated[float, Field(gt=0, le=1)] | None = None
    final: bool | None = False

    @model_validator(mode="before")
    @classmethod
    def _resolve(cls, data: Any) -> Any:
        """Load a space that is given by name. A study without objectives has those of its space."""
        if not isinstance(data, dict) or "space" not in data:
            return data
        if isinstance(design := data.get("design"), str):
            data = {**data, "design": () if design == "search" else (design,)}
        space = load_space(data["space"]) if isinstance(data["space"], str) else data["space"]
        of_space = space.get("objectives") if isinstance(space, dict) else getattr(space, "objectives", None)
        objectives = data.get("objectives", ())
        if objectives in ((), []):
            objectives = of_space or SPACE_OBJECTIVES
        return {**data, "space": space, "objectives": objectives}

    @property
    def directions(self) -> dict[str, Direction]:
        """Whether more or less of each objective is better. It imports users' own that are not described."""
        for name in self.own_objectives:
            if name not in OBJECTIVES:
                register(name, describe(name))
        return {name: OBJECTIVES[name] for name in self.objectives}

    @property
    def seeds_of_anchors(self) -> range:
        """The seeds with which a search trains its anchors."""
        return range(self.seed, self.seed + self.anchor_seeds)

    @property
    def own_objectives(self) -> tuple[str, ...]:
        """The objectives that are users' own: their values are computed from a trial's record."""
        return tuple(name for name in self.objectives if is_plugin(name))

    def with_descriptions(self) -> Self:
        """Import the user's own objectives and describe them.

        Returns:
            The study with a description of each.

        Raises:
            BadInput: One of them cannot be imported, is no objective, or has changed since its run began.
        """
        described = {name: describe(name) for name in self.own_objectives}
        for name, description in described.items():
            before = self.described.get(name, description)
            if before != description:
                rule = f"objective {name!r} must be as it was when its run began"
                raise BadInput(
                    f"{rule}, but got {description} and not {before}; restore it, or begin a new run"
                )
            register(name, description)
        return self.model_copy(update={"described": described})

    @property
    def within(self) -> dict[str, float]:
        """The bounds that a trial must keep to be on the front."""
        bounds = {
            "size_bytes": self.max_size_bytes,
            "bitops": self.max_bitops,
            "latency_ms": self.max_latency_ms,
            "accuracy": self.min_accuracy,
        }
        return {name: bound for name, bound in bounds.items() if bound is not None}

    @property
    def test(self) -> Literal[True] | Half:
        """What its tested trials are tested on, as in TrialSpec."""
        if self.final is None:
            return True
        return "B" if self.final else "A"

    @property
    def timed(self) -> bool:
        """Whether latency is measured."""
        return "latency_ms" in {*self.objectives, *self.within}

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        if faults := study_faults(self):
            raise ValueError(join_faults(faults))
        return self


# What versions did that had no such fields: their runs go on, and are asked again, as they began.
OLDER = {"tuning_seeds": 1, "grid_extension": 0, "final": None}


def load_study(name: str) -> StudySpec:
    """Load a study.

    Args:
        name: Of a built-in one, or the path of a TOML file, which may be a run's study.toml.

    Raises:
        BadInput: There is none, or it has faults; the message lists them.
    """
    return load(StudySpec, "studies", "study", name, of_older_runs=OLDER)


def read_study(name: str) -> tuple[str, dict[str, Any]]:
    """Read a study as plain data, unchecked.

    Args:
        name: As of `load_study`.

    Returns:
        The file's name, and its fields.

    Raises:
        BadInput: There is none, or it cannot be read.
    """
    return read("studies", "study", name, OLDER)
