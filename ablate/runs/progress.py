"""How far the epoch is that this process trains now, which a worker sends to its driver."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypedDict

SECONDS = 1.0  # between two reports


class EpochProgress(TypedDict):
    """The progress of a training within its epoch."""

    epoch: int  # its number, from 1
    images: int  # of it that are trained
    images_in_all: int  # of the epoch
    images_per_second: float
    seconds_left: float  # until this training ends, at this pace, without validations
    prepares: bool  # whether it trains a checkpoint or a teacher, which trials share


Listener = Callable[[EpochProgress], None]
_listener: Listener | None = None  # one for the process, as a worker trains one model at a time
_prepares = False


def listen(listener: Listener | None) -> None:
    """Hand the progress of all trainings of this process to a listener. None: to nobody."""
    global _listener
    _listener = listener


@contextmanager
def preparing() -> Iterator[None]:
    """Within: what is trained is a checkpoint or a teacher."""
    global _prepares
    _prepares = True
    try:
        yield
    finally:
        _prepares = False


class Pace:
    """Counts the images of an epoch, and tells the listener once a second.

    Args:
        epoch: Its number, from 1.
        images: How many it has.
        views_left: Image views until the training ends, those of this epoch included.
    """

    def __init__(self, epoch: int, images: int, views_left: int) -> None:
        self.epoch, self.images, self.views_left = epoch, min(images, views_left), views_left
        self.done = 0
        self.began = self.reported = time.monotonic()

    def add(self, images: int) -> None:
        """Count images that have been trained."""
        self.done += images
        now = time.monotonic()
        if _listener is None or now - self.reported < SECONDS:
            return
        self.reported = now
        rate = self.done / (now - self.began)
        _listener(
            {
                "epoch": self.epoch,
                "images": self.done,
                "images_in_all": self.images,
                "images_per_second": rate,
                "seconds_left": max(0, self.views_left - self.done) / rate,
                "prepares": _prepares,
            }
        )
