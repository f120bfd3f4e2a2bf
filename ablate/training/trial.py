"""What a trial is made of: its id, its data, its model and its teacher."""

import hashlib
import json

import torch

from ablate.config.canonical import asked, effective
from ablate.config.trial_spec import TrialSpec
from ablate.data import datasets
from ablate.data.mirrored import augmentation
from ablate.errors import BadInput, unknown
from ablate.hardware import device, device_name
from ablate.models import checkpoints, digests, layer_groups, loading
from ablate.models.preprocessing import Preprocess
from ablate.quantization import quantize
from ablate.quantization.packed_loading import load_packed
from ablate.training.external_teacher import check_teacher, load_teacher
from ablate.training.initialisation import initialise
from ablate.training.loss import distills
from ablate.training.teacher_cache import teacher
from ablate.training.trainer import resolve


def load_data(name: str, model: str) -> datasets.Dataset:
    """Load a dataset for a model, whose image processor resizes and crops the images of files and tables.

    Args:
        name: As in `datasets.load`.
        model: As in `ablate.models.load`.

    Returns:
        The dataset.

    Raises:
        BadInput: The dataset or the model is unknown or broken.
    """
    return datasets.load(name, loading.preprocess(model) if datasets.is_decoded_for(name) else None)


def preprocess_of(model: str, dataset: datasets.Dataset) -> Preprocess:
    """The part of a model's image processing that is left to do for a dataset of `load_data`.

    Args:
        model: As in `ablate.models.load`.
        dataset: Of `load_data`.

    Returns:
        The processing for images of the dataset's size.

    Raises:
        BadInput: The image processor cannot be followed, or does not bring these images to the model's size.
    """
    return loading.preprocess(model).of(dataset.train.images[:1], dataset.at_decoding, dataset.covered)


def trial_id(spec: TrialSpec, dataset: datasets.Dataset | None = None) -> str:
    """A hash of all that can change a trial's outcome.

    That is the resolved spec with its seed, and the digests of data, checkpoint and external teacher.

    Args:
        spec: The trial.
        dataset: Its data, where that is loaded already.

    Returns:
        12 hexadecimal digits.

    Raises:
        BadInput: The dataset or the model is unknown or broken.
    """
    dataset = dataset or load_data(spec.data, spec.model)
    contents = {"data": dataset.digest, "model": digests.start(spec.model, dataset.classes)}
    settings = asked(resolved(spec, dataset), exclude={*contents})  # contents count, not names
    if taught_by := settings["recipe"].pop("teacher", None):
        contents["teacher"] = digests.start(taught_by, dataset.classes)
    text = json.dumps({"spec": settings, **contents}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def resolved(spec: TrialSpec, dataset: datasets.Dataset | None = None) -> TrialSpec:
    """The trial with bf16="auto" resolved for this machine, and without settings that change nothing.

    Args:
        spec: The trial.
        dataset: With it, `augment` is resolved for data with mirrored classes.

    Returns:
        A spec that is equal for all trials that do the same.
    """
    recipe = resolve(spec.recipe)
    if dataset and recipe.augment in (True, "both"):
        recipe = recipe.model_copy(update={"augment": augmentation(recipe.augment, dataset.mirrored)})
    return effective(spec.model_copy(update={"recipe": recipe}))


def build(spec: TrialSpec, classes: list[str]) -> torch.nn.Module:
    """The pre-trained model with the trial's layer groups quantized.

    Args:
        spec: The trial.
        classes: Of the data, in order.

    Returns:
        The model, on the CPU.

    Raises:
        BadInput: The model is unknown or broken, or lacks one of the layer groups.
    """
    model = checkpoints.load(spec.model, classes, spec.seed)
    groups = layer_groups.groups_named(model, spec.layers)
    if missing := [group for group in spec.layers if group not in groups]:
        raise unknown("layer group", missing[0], groups)
    layers = effective(spec).layers.items()
    precisions = {name: fields for group, fields in layers for name in groups[group]}
    quantize.quantize_(model, precisions, attention_bits=spec.recipe.attention_bits)
    initialise(model, spec.recipe, spec.seed)
    return model


def load_packed_trial(folder: str, name: str, classes: list[str]) -> torch.nn.Module:
    """The packed model of a trial, on this machine's device and in evaluation mode.

    Args:
        folder: Of the packed model.
        name: Of the model that the trial began with.
        classes: Of the data, in order.

    Returns:
        The model that `load_packed` gives.
    """
    try:
        model = load_packed(folder)
    except BadInput:  # only the checkpoint can build this model
        model = load_packed(folder, skeleton=checkpoints.load(name, classes).eval())
    return model.to(device())


def prepare(
    spec: TrialSpec, subset_divisor: int, dataset: datasets.Dataset, model: torch.nn.Module | None
) -> tuple[datasets.Split, torch.nn.Module | None]:
    """The training images and the teacher of a trial, or of a smaller training before it.

    Args:
        spec: The trial.
        subset_divisor: The training has 1/subset_divisor of the trial's images.
        dataset: The trial's data.
        model: Gets the weights of the trial's full-precision checkpoint, where the recipe has `full_epochs`.
            None for a training that continues.

    Returns:
        The images, and the teacher where the recipe distills.

    Raises:
        NonFinite: The training of teacher or checkpoint diverged.
        BadInput: The cache folder cannot be written, or the external teacher does not fit.
    """
    if (taught_by := external_teacher(spec, dataset)) is not None:
        taught_by.to(device())
        if model is not None:
            size = preprocess_of(spec.model, dataset).size
            check_teacher(str(spec.recipe.teacher), taught_by, model, spec.recipe, size)
    spec = spec.model_copy(update={"fraction": spec.fraction / subset_divisor})
    indices = datasets.subset(dataset.train.labels, spec.fraction, spec.seed)
    images = dataset.train.some(indices)
    if spec.recipe.full_epochs and model:
        full = _trained(checkpoint_spec(spec), dataset, images).state_dict()
        model.load_state_dict(model.state_dict() | full)  # what learned betas begin at is not in it
        initialise(model, spec.recipe, spec.seed)
    if taught_by is None and distills(spec.recipe):
        taught_by = _trained(teacher_spec(spec), dataset, images)
    return images, taught_by


def external_teacher(spec: TrialSpec, dataset: datasets.Dataset) -> torch.nn.Module | None:
    """The teacher that a trial's recipe names, as `load_teacher` returns it; None where none is used."""
    if (name := effective(spec).recipe.teacher) is None:
        return None
    return load_teacher(name, dataset.classes, preprocess_of(spec.model, dataset))[0]


def teacher_spec(spec: TrialSpec) -> TrialSpec:
    """The trial whose model teaches this one: its `full` arm from the checkpoint, without distillation."""
    begins = {"initialise": "checkpoint", "trained": "all", "attention_bits": None}
    recipe = spec.recipe.model_copy(update={"distill": 0.0, "distill_blocks": 0.0, **begins})
    return resolved(spec.model_copy(update={"layers": {}, "recipe": recipe, "test": False}))


def checkpoint_spec(spec: TrialSpec) -> TrialSpec:
    """The trial whose weights one with `full_epochs` starts from: its `full` arm, for so many epochs."""
    full = teacher_spec(spec)
    changes = {"epochs": spec.recipe.full_epochs, "full_epochs": 0, "image_views": None}
    return resolved(full.model_copy(update={"recipe": full.recipe.model_copy(update=changes)}))


def _trained(full: TrialSpec, dataset: datasets.Dataset, images: datasets.Split) -> torch.nn.Module:
    """A teacher or a checkpoint, trained once for all trials that need it, on the trial's images alone."""
    name = f"{trial_id(full, dataset)} on {device_name()}, {torch.get_num_threads()} threads"
    model = build(full, dataset.classes).to(device())
    if full.recipe.full_epochs:
        model.load_state_dict(_trained(checkpoint_spec(full), dataset, images).state_dict())
    return teacher(name, model, images, full.recipe, preprocess_of(full.model, dataset), full.seed)
