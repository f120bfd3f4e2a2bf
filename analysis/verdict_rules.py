"""What is fixed before the data are seen, for a verdict on the volume of data."""

from dataclasses import dataclass

NEAR_CHANCE = 0.05  # in accuracy
CONTRASTS = 5  # of an arm: first, second, whole, bend and gap, as in `segments.changes`
VERDICTS = (
    "The verdict is the first of these that the intervals show. Closes: the gap falls over the whole "
    "range and rises over no segment, and the interval of the gap at the largest size lies within its "
    "margin. Bent: it falls over one segment and rises over the other. Shrinks or grows: it falls, or "
    "rises, over the whole range and over the second segment. Bent: its change per decade differs between "
    "the segments. Shrinks or grows: it falls, or rises, over the whole range, and over the second "
    "segment it does not turn back by its margin. Constant: no change has a sign, and each is within its "
    "margin. Otherwise inconclusive."
)


@dataclass(frozen=True)
class Rules:
    """The limits and margins of the verdict.

    Attributes:
        arms: the arms that are judged together.
        baseline: the arm that they are compared with.
        margin: gaps at the largest size within +-margin count as none; accuracy in [0, 1].
        slope_margin: changes within +-slope_margin per decade of images count as none.
        relative_margin: neither margin is above this share of the baseline's error.
        chance: accuracy of guessing.
        near_chance: a size is left out where the mean accuracy of the baseline or of the arm is at most this
            above chance.
        alpha: how often one of all intervals of all arms may miss its truth.
        power: of the smallest change that is said to be found.
        other_recipe: arms that were trained with another recipe than the baseline.
        questions: how often the arms are judged, as at several lengths of training.

    Raises:
        ValueError: a margin or the chance is out of its range.
    """

    arms: tuple[str, ...]
    baseline: str
    margin: float
    slope_margin: float
    chance: float
    relative_margin: float = 0.1
    near_chance: float = NEAR_CHANCE
    alpha: float = 0.05
    power: float = 0.8
    other_recipe: tuple[str, ...] = ()
    questions: int = 1

    def __post_init__(self) -> None:
        margins = {name: getattr(self, name) for name in ("margin", "slope_margin", "relative_margin")}
        if not (min(margins.values()) > 0 and max(margins.values()) <= 1 and 0 <= self.chance < 1):
            rule = "`0 < margin <= 1`, for all three margins, and `0 <= chance < 1` must hold"
            got = ", ".join(f"{name}={value}" for name, value in {**margins, "chance": self.chance}.items())
            raise ValueError(f"{rule}, but got ({got})")

    def __str__(self) -> str:
        return f"{self.fixed} {VERDICTS}"

    @property
    def intervals(self) -> int:
        """How many intervals hold together."""
        return CONTRASTS * len(self.arms) * self.questions

    @property
    def confidence(self) -> float:
        """Of each interval, so that all hold together (Bonferroni)."""
        return 1 - self.alpha / self.intervals

    @property
    def fixed(self) -> str:
        """The limits and margins, in words."""
        near = f"{100 * self.near_chance:g} points of chance ({100 * self.chance:g} %)"
        arms = f"{len(self.arms)} {'arms' if len(self.arms) > 1 else 'arm'}"
        arms += f", judged {self.questions} times" if self.questions > 1 else ""
        return (
            f"Fixed beforehand: a size is left out where the mean accuracy of {quoted(self.baseline)} or of "
            f"the arm is within {near}. The sizes are cut into two segments at the one nearest the middle in "
            f"log D. The margin is {points(self.margin)} for the gap at the largest size and "
            f"{points(self.slope_margin)} per decade of images for a change, but never above "
            f"{100 * self.relative_margin:g} % of the error of {quoted(self.baseline)}. A change stays "
            f"where its interval holds 0 and lies within the margin; one whose interval excludes 0 has a "
            f"sign, however small. Intervals are t intervals over paired seeds, simultaneous over the "
            f"{self.intervals} of {arms} (Bonferroni, 95 %)."
        )


def quoted(arm: str) -> str:
    """An arm's name within a sentence: in quotes where it has a comma."""
    return f'"{arm}"' if "," in arm else arm


def points(share: float) -> str:
    """An accuracy in [0, 1] as points: "1 point", "0.5 points"."""
    return f"{100 * share:g} point" + "s" * (share != 0.01)
