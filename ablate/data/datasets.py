"""Every kind of dataset, a row each, and how one is loaded by its name.

A new dataset takes a row of KINDS, a module with its loader, and tests. `ablate data ls`, `ablate ls`, `load`
and the errors for unknown names read this table.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Optional

from ablate.config.builtin import HUB, IMAGEFOLDER, absolute_data, bundled
from ablate.data import cache, cifar10, cifar100, hub, image_folder, user_dataset
from ablate.data.cifar10 import CIFAR10 as CIFAR10
from ablate.data.dataset import Dataset as Dataset
from ablate.data.dataset import Split as Split
from ablate.data.dataset import subset as subset
from ablate.errors import unknown
from ablate.plugins import is_plugin

if TYPE_CHECKING:  # it loads torch, which a list of datasets does not need
    from ablate.models.preprocessing import Preprocess

Preprocessing = Optional["Preprocess"]


@dataclass(frozen=True)
class Kind:
    """A dataset, or a family of datasets whose names follow a pattern.

    Attributes:
        name: As it is listed; for a family, the pattern.
        description: One line.
        load: (name, what a model's image processor does) -> the dataset. The second is None unless `decodes`.
        matches: Whether a name is of this kind; by default, whether it is `name`.
        state: What changes with the files of a dataset, which is then loaded again.
        where: Where it is, or how to get it.
        download: How it is downloaded; None: nothing is.
        decodes: Whether the model decides at which size the images are decoded.
    """

    name: str
    description: str
    load: Callable[[str, Preprocessing], Dataset]
    matches: Callable[[str], bool] | None = None
    state: Callable[[str], object] = lambda name: None
    where: str = "yours"
    download: cache.Download | None = None
    decodes: bool = False

    def is_kind_of(self, name: str) -> bool:
        """Whether a name is of this kind."""
        return self.matches(name) if self.matches else name == self.name


# The first row that matches a name is its kind: "imagefolder:pets" is a folder, although it reads like
# `module:name`, and so does "hf:beans".
KINDS = (
    Kind(
        "cifar10-mini",
        bundled("dataset")["cifar10-mini"],
        load=lambda name, preprocess: cifar10.load_mini(),
        where="bundled",
    ),
    Kind(
        "cifar10-1k",
        "1,000 training images of cifar10-mini, for a quick look; the same for validation and test",
        load=lambda name, preprocess: cifar10.load_1k(),
        where="bundled",
    ),
    Kind(
        "cifar10",
        "45,000 training, 5,000 validation and 10,000 test images: all of CIFAR-10, 10 classes in balance",
        load=lambda name, preprocess: cifar10.load_cifar10(),
        state=lambda name: cache.state(cifar10.DOWNLOAD),
        download=cifar10.DOWNLOAD,
    ),
    Kind(
        "cifar100",
        "45,000 training, 5,000 validation and 10,000 test images: all of CIFAR-100, 100 classes in balance",
        load=lambda name, preprocess: cifar100.load_cifar100(),
        state=lambda name: cache.state(cifar100.DOWNLOAD),
        download=cifar100.DOWNLOAD,
    ),
    Kind(
        f"{IMAGEFOLDER}PATH",
        "your own images, a folder a class, with or without train/, val/ and test/ above; "
        "?size=N resizes them",
        load=image_folder.load,
        matches=lambda name: name.startswith(IMAGEFOLDER) and name != IMAGEFOLDER,
        state=image_folder.state,
        decodes=True,
    ),
    Kind(
        f"{HUB}NAME",
        "a dataset of the Hugging Face hub, hf:NAME:CONFIG for one of several; or hf:PATH: a folder that "
        "save_to_disk wrote, or Parquet; ?image=, &label= and &size= name columns and a size",
        load=hub.load,
        matches=lambda name: name.startswith(HUB) and name != HUB,
        state=hub.state,
        where="the hub, or yours",
        decodes=True,
    ),
    Kind(
        "MODULE:NAME",
        "your own arrays: a function of a Python module that returns them",
        load=lambda name, preprocess: user_dataset.load(name),
        matches=is_plugin,
    ),
)

_loaded: dict[
    tuple[str, Preprocessing], tuple[object, Dataset]
] = {}  # -> the state of its files, the dataset


def load(name: str, preprocess: Preprocessing = None) -> Dataset:
    """Load a dataset, once a process, and again when its files have changed. Only a hub's is downloaded.

    The notes on a dataset of the user are printed on standard error each time that it is read.

    Args:
        name: "cifar10-mini", "cifar10-1k", "cifar10" or "cifar100" once fetched, "imagefolder:PATH",
            with "?size=N" for another size, "hf:NAME" or "hf:PATH", or "module:name" for a user's own.
        preprocess: What a model's image processor does. It decides at what size the images of a folder are
            decoded.

    Returns:
        The images of training, validation and test, as uint8.

    Raises:
        BadInput: The dataset is unknown, missing or not what it should be.
    """
    name = absolute_data(name, Path())
    kind = kind_of(name)
    key = name, preprocess if kind.decodes else None
    state = kind.state(name)
    if key not in _loaded or _loaded[key][0] != state:
        _loaded.pop(key, None)  # free its memory before the new one is read
        _loaded[key] = state, kind.load(*key)
    return _loaded[key][1]


def kind_of(name: str) -> Kind:
    """Find the row of a dataset's name. Raises BadInput for a name of none."""
    kind = next((kind for kind in KINDS if kind.is_kind_of(name)), None)
    if kind is None:
        raise unknown("dataset", name, known())
    return kind


def is_decoded_for(name: str) -> bool:
    """Whether a model decides at which size the images of a dataset are decoded. Raises as `kind_of`."""
    return kind_of(name).decodes


def is_at_hand(name: str) -> bool:
    """Whether loading a dataset neither imports a module of the user nor asks the hub."""
    is_users_code = is_plugin(name) and kind_of(name).matches is is_plugin
    return not is_users_code and not hub.is_remote(name)


def known() -> dict[str, str]:
    """Datasets by name, each with its one-line description."""
    return {kind.name: kind.description for kind in KINDS}


def where(name: str) -> str:
    """Return whether a dataset that is listed is bundled, the file it was fetched to, or how to get it."""
    kind = next(kind for kind in KINDS if kind.name == name)
    if not kind.download:
        return kind.where
    path = kind.download.path
    return str(path) if path.exists() else f"not here yet: ablate data fetch {name}"


def fetch(name: str) -> Path:
    """Download a dataset, unless its file exists and is intact.

    Args:
        name: Of a dataset that is downloaded.

    Returns:
        The file.

    Raises:
        BadInput: No dataset of this name is downloaded, no source has it, or the cache folder cannot be
            written.
    """
    downloads = {kind.name: kind.download for kind in KINDS if kind.download}
    if name not in downloads:
        raise unknown("dataset", name, downloads)
    return cache.fetch(downloads[name])
