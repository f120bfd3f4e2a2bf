"""The gate before a study: what it reads is what was meant, and what it makes can be used, or one line says why not."""

from dataclasses import dataclass
from typing import Literal

from ablate.config import builtin
from ablate.config.study_spec import StudySpec, load_study
from ablate.engine.plan import Plan, plan
from ablate.models import checkpoints
from ablate.models.image_processors import TOLERANCE
from ablate.quantization.round_trip import check_round_trip
from ablate.training import trial

About = Literal["images", "image processor", "checkpoint", "layers", "packed model"]


@dataclass(frozen=True)
class Check:
    """What was found of one thing that can go wrong in silence.

    Attributes:
        about: What was checked.
        found: The finding, in a sentence.
        notable: Whether `ablate study` says it, too; `--dry-run` says all.
    """

    about: About
    found: str
    notable: bool = False


def check_study(study: StudySpec | str) -> list[Check]:
    """Check everything that a study reads and makes before its first trial. Nothing is trained, and nothing is written.

    Args:
        study: A spec, a built-in name or the path of a TOML file.

    Returns:
        What was found of the images, of the model's image processor, checkpoint and layers, and of the packed model.

    Raises:
        BadInput: Something is not what the study needs; the message names the rule, the value and the next step.
    """
    return gate(plan(load_study(study) if isinstance(study, str) else study))


def gate(planned: Plan) -> list[Check]:
    """As `check_study`, of a study that is planned: what planning has refused is not asked again."""
    study, dataset = planned.study, planned.dataset
    preprocess = trial.preprocess_of(study.model, dataset)
    model, report = checkpoints.load_with_report(study.model, dataset.classes, study.seed)
    check_round_trip(model, preprocess)
    train, validation, test = (
        f"{len(split):,}" for split in (dataset.train, dataset.validation, dataset.test)
    )
    found = [
        Check(
            "images",
            f"{train} to train on, {validation} to validate, {test} to test; {len(dataset.classes)} classes",
        )
    ]
    found += [
        Check("images", note) for note in (*dataset.notes, *planned.notices)
    ]  # which are printed on their own
    found.append(Check("image processor", _processor(study.model)))
    found += [Check("checkpoint", note, notable=report.head in ("new", "permuted")) for note in report.notes]
    found += [Check("layers", f"some stay full: {reason}") for reason in planned.left_out]
    found.append(Check("packed model", "all-binary, packed and loaded again it has the logits that it had"))
    return found


def _processor(model: str) -> str:
    if model in builtin.KNOWN:
        return "images are resized to what torchvision's model takes, and normalised as its weights ask for"
    return f"read from the checkpoint, and within {TOLERANCE}/255 of transformers' own on generated images of several shapes"
