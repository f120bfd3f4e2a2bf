"""The teacher of a distillation: the full-precision model, trained once and kept below the user's cache folder."""

import fcntl
import hashlib
import inspect
from contextlib import suppress
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_model, save_model
from torch import nn

from ablate.config.trial_spec import Recipe
from ablate.data.cache import cache
from ablate.data.datasets import Split
from ablate.errors import BadInput, NonFinite
from ablate.models.preprocessing import Preprocess
from ablate.training import compilation, loss, optim, progressive, trainer
from ablate.training.checkpoint_store import Storage


def teacher(
    name: str, model: nn.Module, images: Split, recipe: Recipe, preprocess: Preprocess, seed: int
) -> nn.Module:
    """`model`, trained on the images by the recipe, in evaluation mode and without gradients.

    name: what identifies the training and the machine it is done on. Its weights are read from the cache when they are
    there; else it is trained now, while other processes that want the same one wait. After a death it goes on from its
    last epoch. Raises NonFinite when the training fails, and BadInput when the cache cannot be written.
    """
    parts = (trainer, optim, loss, progressive, compilation)  # other code trains another teacher
    code = "".join(map(inspect.getsource, parts))
    key = hashlib.sha256(f"{name} {torch.__version__} {code}".encode()).hexdigest()[:16]
    path = cache() / "teachers" / f"{key}.safetensors"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not _restored(model, path):
                kept = Storage(str(path.parent))
                _train(kept, key, model, images, recipe, preprocess, seed)
                save_model(model, str(part := path.with_suffix(".part")))
                part.replace(path)
                kept.drop(key)
    except OSError as error:
        mend = "free some space, or set ABLATE_CACHE to another folder"
        raise BadInput(
            f"a teacher must fit into {str(path.parent)!r}, but: {error.strerror or error}; {mend}"
        ) from None
    return model.eval().requires_grad_(False)


def _train(
    kept: Storage,
    key: str,
    model: nn.Module,
    images: Split,
    recipe: Recipe,
    preprocess: Preprocess,
    seed: int,
) -> None:
    """Train by the recipe, from the last epoch of which the state was kept."""
    recipe = recipe.model_copy(
        update={"validate_every": 1}
    )  # there is a state to keep where there is a validation
    one = Split(images.images[:1], images.labels[:1])
    try:
        for epoch in trainer.train(model, images, one, recipe, preprocess, seed, state=kept.load(key)):
            with suppress(OSError):  # a training must not fail for it
                kept.save(key, epoch.state)
    except NonFinite:
        kept.drop(key)
        raise


def _restored(model: nn.Module, path: Path) -> bool:
    """Whether the file holds the model's weights, which are then in it; a damaged file holds none."""
    try:
        load_model(model, path, device=str(next(model.parameters()).device))
        return True
    except (FileNotFoundError, SafetensorError, RuntimeError):
        return False
