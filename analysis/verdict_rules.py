"""What is fixed before the data are seen, for a verdict on the volume of data."""

from dataclasses import dataclass

VERDICTS = (
    "The verdict is the first of these that is shown: constant, the slope is equivalent to 0; closes, the "
    "slope is below 0 and the gap at the largest size is equivalent to 0; shrinks, the slope is below 0; "
    "grows, the slope is above 0. Otherwise it is inconclusive. Equivalence to 0 is shown by two one-sided "
    "tests (TOST). A test that finds no difference does not show it."
)


@dataclass(frozen=True)
class Rules:
    """The limits and margins of the tests.

    Attributes:
        arms: the arms that are tested together.
        baseline: the arm that they are compared with.
        margin: gaps at the largest size within +-margin count as none; accuracy in [0, 1].
        slope_margin: slopes within +-slope_margin count as none; accuracy per decade of images.
        chance: accuracy of guessing.
        near_chance: a size is left out where the baseline's mean accuracy is at most this above chance.
        alpha: level of the tests.
        power: of `DataVolume.smallest_slope`.
        other_recipe: arms that were trained with another recipe than the baseline.

    Raises:
        ValueError: a margin or the chance is out of its range.
    """

    arms: tuple[str, ...]
    baseline: str
    margin: float
    slope_margin: float
    chance: float
    near_chance: float = 0.05
    alpha: float = 0.05
    power: float = 0.8
    other_recipe: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not (self.margin > 0 and self.slope_margin > 0 and 0 <= self.chance < 1):
            rule = "`margin > 0`, `slope_margin > 0` and `0 <= chance < 1` must hold"
            got = f"(margin={self.margin}, slope_margin={self.slope_margin}, chance={self.chance})"
            raise ValueError(f"{rule}, but got {got}")

    def __str__(self) -> str:
        return f"{self.fixed} {VERDICTS}"

    @property
    def strictest_alpha(self) -> float:
        """The level at which Holm tests the smallest p value of the arms."""
        return self.alpha / len(self.arms)

    @property
    def fixed(self) -> str:
        """The limits and margins, in words."""
        near = f"{100 * self.near_chance:g} points of chance ({100 * self.chance:g} %)"
        arms = f"{len(self.arms)} {'arms' if len(self.arms) > 1 else 'arm'}"
        return (
            f"Fixed beforehand: a size is left out where the mean accuracy of {quoted(self.baseline)} is "
            f"within {near}. A gap within {points(self.margin)} at the largest size counts as none, and so "
            f"does a slope within {points(self.slope_margin)} per decade of images. Tests are t tests over "
            f"paired seeds at {100 * self.alpha:g} %, each adjusted by Holm over {arms}."
        )


def quoted(arm: str) -> str:
    """An arm's name within a sentence: in quotes where it has a comma."""
    return f'"{arm}"' if "," in arm else arm


def points(share: float) -> str:
    """An accuracy in [0, 1] as points: "1 point", "0.5 points"."""
    return f"{100 * share:g} point" + "s" * (share != 0.01)
