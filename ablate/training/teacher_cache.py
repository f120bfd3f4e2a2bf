"""The teacher of a distillation: the full-precision model, trained once and cached."""

import hashlib
from contextlib import suppress
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path

from filelock import FileLock
from safetensors import SafetensorError
from safetensors.torch import load_model, save_model
from torch import nn

from ablate.config.trial_spec import Recipe
from ablate.data.cache import cache
from ablate.data.datasets import Split
from ablate.errors import BadInput, NonFinite
from ablate.models.preprocessing import Preprocess
from ablate.runs.progress import preparing
from ablate.training import trainer
from ablate.training.checkpoint_store import Storage

PACKAGES = ("data", "models", "quantization", "training")  # of ablate: their code decides a teacher's weights
LIBRARIES = ("numpy", "torch", "torchvision", "transformers")  # their versions do, too


def teacher(
    name: str, model: nn.Module, images: Split, recipe: Recipe, preprocess: Preprocess, seed: int
) -> nn.Module:
    """Train a teacher, or read the weights of an equal training from the cache.

    Other processes that want the same teacher wait until it is trained. An interrupted training continues
    after its last epoch.

    Args:
        name: Identifies the training, and the device and thread count that it runs with.
        model: The full-precision model. Trained in place.
        images: Training images.
        recipe: Without distillation.
        preprocess: The model's image processing.
        seed: Of all random draws.

    Returns:
        The model in evaluation mode, without gradients.

    Raises:
        NonFinite: The training diverged.
        BadInput: The cache folder cannot be written.
    """
    key = hashlib.sha256(f"{name} {code_digest(source_files())}".encode()).hexdigest()[:16]
    path = cache() / "teachers" / f"{key}.safetensors"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_suffix(".lock")):
            if not _read_weights(model, path):
                storage = Storage(str(path.parent))
                _train(storage, key, model, images, recipe, preprocess, seed)
                save_model(model, str(part := path.with_suffix(".part")))
                part.replace(path)
                storage.drop(key)
    except OSError as error:
        mend = "free some space, or set ABLATE_CACHE to another folder"
        reason = f"{error.strerror or error}; {mend}"
        raise BadInput(f"a teacher must fit into {str(path.parent)!r}, but: {reason}") from None
    return model.eval().requires_grad_(False)


def source_files() -> tuple[Path, ...]:
    """The modules whose code decides a teacher's weights: all of PACKAGES.

    A list of single modules would miss the next one, and a changed loss would then reuse old teachers.
    """
    root = Path(__file__).parents[1]
    return tuple(sorted(file for package in PACKAGES for file in (root / package).rglob("*.py")))


@lru_cache
def code_digest(files: tuple[Path, ...]) -> str:
    """sha256 of source files and of the versions of LIBRARIES, computed once a process."""
    sha = hashlib.sha256(" ".join(map(version, LIBRARIES)).encode())
    for file in files:
        sha.update(file.name.encode() + file.read_bytes())
    return sha.hexdigest()


def _train(
    storage: Storage,
    key: str,
    model: nn.Module,
    images: Split,
    recipe: Recipe,
    preprocess: Preprocess,
    seed: int,
) -> None:
    """Train by the recipe, after the last epoch whose state is stored."""
    recipe = recipe.model_copy(update={"validate_every": 1})  # only a validated epoch has a state
    one_image = Split(images.images[:1], images.labels[:1])
    state = storage.load(key)
    try:
        with preparing():
            for epoch in trainer.train(model, images, one_image, recipe, preprocess, seed, state=state):
                with suppress(OSError):  # the training goes on without a stored state
                    storage.save(key, epoch.state)
    except NonFinite:
        storage.drop(key)
        raise


def _read_weights(model: nn.Module, path: Path) -> bool:
    """Load the file's weights into the model; False where there is no file, or a damaged one."""
    try:
        load_model(model, path, device=str(next(model.parameters()).device))
        return True
    except (FileNotFoundError, SafetensorError, RuntimeError):
        return False
