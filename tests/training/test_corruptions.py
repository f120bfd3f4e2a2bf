"""Corrupted validation images: the same in every batch and process, worse by severity, of any size."""

import numpy as np
import pytest
import torch

from ablate.training.corruptions import CORRUPTIONS, _Corrupted


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_an_image_is_corrupted_alike_in_every_batch_and_more_by_severity(kind):
    ramp = np.linspace(20, 200, 32 * 24 * 3).reshape(32, 24, 3)
    noise = np.random.default_rng(0).integers(-20, 20, (6, 32, 24, 3))
    images = (ramp + noise).clip(0, 255).astype(np.uint8)
    before, random = images.copy(), torch.get_rng_state()
    corruption, severities = CORRUPTIONS[kind]
    changes = []
    for severity in severities:
        corrupted = _Corrupted(images, corruption, severity)
        whole = corrupted[0:6]
        assert whole.dtype == np.uint8 and whole.shape == images.shape
        assert (whole == np.concatenate([corrupted[0:4], corrupted[4:8]])).all()
        changes.append(np.abs(whole.astype(int) - images).mean())
    assert 0 < changes[0] < changes[1] < changes[2]
    assert (images == before).all() and (torch.get_rng_state() == random).all()


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_an_image_of_one_pixel_can_be_corrupted(kind):
    corruption, severities = CORRUPTIONS[kind]
    image = np.full((1, 1, 1, 3), 100, np.uint8)
    assert _Corrupted(image, corruption, severities[-1])[0:1].shape == image.shape
