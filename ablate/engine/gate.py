"""The gate before a study: it checks that a study reads what was meant and that its results can be used."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ablate.config import builtin
from ablate.config.recipe_values import attention_widths
from ablate.config.study_spec import StudySpec, load_study
from ablate.data.datasets import Dataset
from ablate.engine.plan import Plan, plan
from ablate.errors import BadInput
from ablate.models import checkpoints
from ablate.models.image_processors import PILLOW_TOLERANCE, TOLERANCE
from ablate.models.locating import config_of
from ablate.profiling.macs import Macs
from ablate.quantization.round_trip import check_round_trip
from ablate.training import trial

About = Literal["images", "image processor", "checkpoint", "teacher", "layers", "attention", "packed model"]


@dataclass(frozen=True)
class Check:
    """The result of checking one thing that can go wrong without an error.

    Attributes:
        about: What was checked.
        found: The result, in a sentence.
        notable: Whether `ablate study` prints it too; `--dry-run` prints all.
    """

    about: About
    found: str
    notable: bool = False


def check_study(study: StudySpec | str | Path) -> list[Check]:
    """Check everything that a study reads and makes before its first trial. Nothing is trained or written.

    Args:
        study: A spec, a built-in name or the path of a TOML file.

    Returns:
        The results for the images, the model's image processor, checkpoint and layers, external teachers,
        and the packed model.

    Raises:
        BadInput: Something is not what the study needs; the message names the rule, the value and the next
            step.
    """
    return gate(plan(study if isinstance(study, StudySpec) else load_study(str(study))))


def gate(planned: Plan) -> list[Check]:
    """Check a study that is planned. What `plan` has checked already is not checked again.

    Args:
        planned: The study's plan.

    Returns:
        The results, as of `check_study`.

    Raises:
        BadInput: Something is not what the study needs.
    """
    study, dataset = planned.study, planned.dataset
    _check_final(study, dataset)
    preprocess = trial.preprocess_of(study.model, dataset)
    model, report = checkpoints.load_with_report(study.model, dataset.classes, study.seed)
    widths = attention_widths(study)
    layers = [name for names in planned.groups.values() for name in names]
    check_round_trip(model, preprocess, layers, widths[0] if widths else None)
    new_head = report.head in ("new", "permuted")
    return [
        Check("images", _sizes(dataset)),
        *(Check("images", note) for note in (*dataset.notes, *planned.notices)),  # printed by others too
        Check("image processor", _processor(study.model)),
        *(Check("checkpoint", note, notable=new_head) for note in report.notes),
        *(Check("teacher", note, notable=True) for note in planned.teachers.values()),
        *(Check("layers", f"some stay full: {reason}") for reason in planned.left_out),
        *(Check("attention", _products(planned.count.macs, bits)) for bits in widths),
        Check("packed model", "an all-binary copy gives the same logits after packing and loading"),
    ]


def _check_final(study: StudySpec, dataset: Dataset) -> None:
    """Raise BadInput where half B has no image, or where a new study would be tested on both halves."""
    if study.final is None:
        raise BadInput('final must be true or false, but got "none", which runs of older versions have')
    if study.final and not len(dataset.halves["B"]):
        rule = f"final needs half B of the test images, but that of {study.data!r} is empty"
        raise BadInput(f"{rule}: each class has one test image, which is in A; add some, or leave final out")


def _products(macs: Macs, bits: int) -> str:
    share = f"{macs.attention:,} of {macs.attention + macs.other_products:,}"
    return f"{share} MACs of its products have {bits}-bit operands"


def _sizes(dataset: Dataset) -> str:
    splits = (dataset.train, dataset.validation, dataset.test)
    train, validation, test = (f"{len(split):,}" for split in splits)
    halves = " and ".join(f"{len(rows):,} in half {half}" for half, rows in dataset.halves.items())
    classes = len(dataset.classes)
    return f"{train} to train on, {validation} to validate, {test} to test ({halves}); {classes} classes"


def _processor(model: str) -> str:
    if model in builtin.KNOWN:
        return "images are resized to what torchvision's model takes, and normalised as its weights require"
    reference = "transformers' own on generated images of several shapes"
    tolerance = PILLOW_TOLERANCE if "architecture" in config_of(model) else TOLERANCE
    return f"read from the checkpoint, and within {tolerance}/255 of {reference}"
