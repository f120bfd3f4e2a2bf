"""Policies of torchvision, image by image."""

import numpy as np
import pytest
import torch
from torchvision.transforms import v2

from ablate.training.policies import POLICIES, policy_of

COLOUR = (0.25, 0.5, 0.75)


@pytest.fixture
def images():
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (32, 3, 24, 20), np.uint8))


@pytest.mark.parametrize("name", POLICIES)
def test_each_image_is_changed_by_draws_of_its_own(name, images):
    change = policy_of(name, 0.0, COLOUR)
    same = images[:1].expand(32, -1, -1, -1)
    torch.manual_seed(0)
    first = change(same)
    torch.manual_seed(0)
    assert torch.equal(change(same), first) and not torch.equal(change(same), first)
    assert first.dtype == torch.uint8 and first.shape == same.shape
    assert len({image.numpy().tobytes() for image in first}) > 8
    torch.manual_seed(0)  # what torchvision itself makes of the images one after the other
    own = {
        "randaugment": v2.RandAugment,
        "trivialaugment": v2.TrivialAugmentWide,
        "autoaugment": v2.AutoAugment,
    }
    alone = own[name](interpolation=v2.InterpolationMode.BILINEAR, fill=[64, 128, 191])
    assert torch.equal(first, torch.stack([alone(image) for image in same]))


def test_a_share_of_the_images_is_erased_to_the_mean_colour(images):
    images = torch.zeros(400, 3, 24, 20, dtype=torch.uint8)
    torch.manual_seed(0)
    erased = policy_of(None, 0.25, COLOUR)(images)
    changed = (erased != 0).flatten(1).any(1)
    assert 0.18 < changed.float().mean() < 0.32
    for image in erased[changed]:
        hole = image[0] != 0
        assert (image[:, hole] == torch.tensor([64, 128, 191], dtype=torch.uint8)[:, None]).all()
        rows, columns = hole.any(1).sum(), hole.any(0).sum()
        assert hole.sum() == rows * columns and 0.01 < hole.float().mean() < 0.4  # one rectangle


def test_nothing_is_built_where_nothing_is_changed():
    assert policy_of(None, 0.0, COLOUR) is None
