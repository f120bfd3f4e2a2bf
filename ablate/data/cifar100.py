"""CIFAR-100, with its 100 fine classes: 500 training and 100 test images of each.

Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009. It comes from its author's host
alone: the digests that are published are those of the files there, which torchvision checks.
"""

from functools import partial

import numpy as np

from ablate.data import cache
from ablate.data.cifar10_download import of_author
from ablate.data.dataset import Dataset, Split, digest_of

NAMES = (
    "apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly "
    "camel can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup "
    "dinosaur dolphin elephant flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower "
    "leopard lion lizard lobster man maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid "
    "otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine possum rabbit raccoon ray "
    "road rocket rose sea seal shark shrew skunk skyscraper snail snake spider squirrel streetcar "
    "sunflower sweet_pepper table tank telephone television tiger tractor train trout tulip turtle "
    "wardrobe whale willow_tree wolf woman worm"
)
CIFAR100 = NAMES.split()
HELD = 50  # images of each class, the last ones in the official training order, for validation
DOWNLOAD = cache.Download(
    "cifar100",
    {"torchvision": partial(of_author, name="CIFAR100", classes=CIFAR100)},
    sha256={"train_images": None, "train_labels": None, "test_images": None, "test_labels": None},
    needed_bytes=600_000_000,  # the archive, unpacked beside it, and the result
)


def load_cifar100() -> Dataset:
    """Read the images that were fetched. Raises BadInput where they are missing or damaged."""
    arrays = cache.read(DOWNLOAD)
    images, labels = arrays["train_images"], arrays["train_labels"].astype(np.int64)
    of_class = [np.flatnonzero(labels == label) for label in range(len(CIFAR100))]
    held = np.sort(np.concatenate([members[-HELD:] for members in of_class]))
    kept = np.delete(np.arange(len(labels)), held)
    train, validation = (Split(images[rows], labels[rows]) for rows in (kept, held))
    test = Split(arrays["test_images"], arrays["test_labels"].astype(np.int64))
    return Dataset(CIFAR100, train, validation, test, digest_of((train, validation, test)))
