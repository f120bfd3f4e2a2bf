"""Strong augmentation against small references."""

import numpy as np
import pytest
import torch

from ablate.models.preprocessing import Preprocess
from ablate.training.distortion import DRAWS, Augment, distorted, mixing

MEAN, STD = (0.48, 0.448, 0.398), (0.253, 0.246, 0.26)


def augmented(images, strong=True, **given):
    """Augments images with some draws given, all others at 0.5, and undoes the normalisation."""
    draws = torch.full((len(DRAWS), len(images)), 0.5)
    for name, value in given.items():
        draws[DRAWS.index(name)] = torch.as_tensor(value)
    result = Augment(MEAN, STD, strong)(images, draws)
    return result * torch.tensor(STD)[:, None, None] + torch.tensor(MEAN)[:, None, None]


@pytest.fixture
def images():
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (8, 3, 32, 32), np.uint8))


def close(a, b):
    return torch.allclose(a, torch.as_tensor(b).float() / 255, atol=1e-4)


def test_draws_at_a_half_change_nothing(images):
    assert close(augmented(images), images)


def test_flips_and_shifts_reflect_at_the_edges(images):
    right, down, flipped = [-4, -1, 0, 4, 2, 0, 3, -3], [0, 2, 4, -4, 1, 0, -2, 3], [0, 1] * 4
    drawn = {name: [(each + 4.5) / 9 for each in shift] for name, shift in (("right", right), ("down", down))}
    result = augmented(images, flipped=[0.7 - 0.4 * each for each in flipped], **drawn)
    for image, x, y, flip, got in zip(images.numpy(), right, down, flipped, result, strict=True):
        image = image[:, :, ::-1] if flip else image
        x = -x if flip else x
        wanted = np.pad(image, ((0, 0), (4, 4), (4, 4)), "symmetric")[:, 4 + y : 36 + y, 4 + x : 36 + x]
        assert close(got, wanted.copy())


def test_scale_and_rotation_are_about_the_centre():
    square = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
    square[:, :, 12:20, 12:20] = 255
    area = square.sum().item() / 255
    wide = augmented(square, warped=0, width=0)  # mapped to 3/4 of the width: it is seen 4/3 as wide
    assert wide.sum().item() == pytest.approx(4 / 3 * area, rel=0.02) and close(wide, wide.flip(2, 3) * 255)
    turned = augmented(square, warped=0, angle=1)
    assert turned.sum().item() == pytest.approx(area, rel=0.02) and close(turned, turned.flip(2, 3) * 255)
    assert not close(turned, square)
    assert close(augmented(square, warped=0.6, width=0, height=0, angle=0, shear=0), square)


def test_colour(images):
    pixels = images / 255
    assert torch.allclose(augmented(images, brightness=0), 0.6 * pixels, atol=1e-4)
    mean = pixels.mean((1, 2, 3), keepdim=True)
    assert torch.allclose(augmented(images, contrast=0), 0.6 * pixels + 0.4 * mean, atol=1e-4)
    grey = pixels.mean(1, keepdim=True)
    assert torch.allclose(augmented(images, saturation=0), 0.6 * pixels + 0.4 * grey, atol=1e-4)
    assert torch.allclose(augmented(images, grey=0), grey.expand_as(pixels), atol=1e-4)
    assert close(augmented(images, recoloured=0.6, brightness=0, contrast=0, saturation=0), images)


@pytest.mark.parametrize(("side", "pixels"), [(0, 4), (1, 16)])
def test_a_square_is_erased_and_cut_off_at_the_edges(images, side, pixels):
    bright = torch.full_like(images, 255)
    result = augmented(bright, side=side, erased=[0, 0.24, 0.25, 0.9] * 2, x=0.49, y=[0.49] * 4 + [0] * 4)
    gone = (result < 0.9).all(1)  # (B, H, W)
    assert gone.sum((1, 2)).tolist() == [pixels**2] * 2 + [0] * 2 + [pixels**2 // 2] * 2 + [0] * 2
    assert torch.allclose(result[0, :, gone[0]], torch.tensor(MEAN)[:, None])


def test_weak_augmentation_flips_and_shifts_alone(images):
    drawn = dict(zip(DRAWS, torch.rand(len(DRAWS), 8), strict=True))
    kept = {name: drawn[name] for name in ("flipped", "right", "down")}
    assert torch.equal(augmented(images, strong=False, **drawn), augmented(images, strong=False, **kept))
    assert torch.allclose(augmented(images, strong=False, **kept), augmented(images, **kept), atol=1e-4)


def test_targets_are_mixed_as_the_pixels_are():
    torch.manual_seed(0)
    labels, mix, kinds = torch.tensor([1, 3, 0, 2]), mixing(4, 0.8), set()
    images = labels[:, None, None, None].expand(4, 3, 32, 32).float()  # each of its label's value
    for _ in range(20):
        pixels, targets = mix(images, labels)
        assert torch.allclose(targets.sum(1), torch.ones(4))
        assert torch.allclose(pixels.mean((1, 2, 3)), targets @ torch.arange(4.0), atol=1e-5)
        whole = (pixels == pixels.round()).all()  # pixels are cut out, not blended
        kinds.add("cutmix" if whole else "mixup")
    assert kinds == {"cutmix", "mixup"}


def test_distorted_images_stay_where_they_are(images):
    """Neither flipped nor shifted, which `augment` decides; as large, and of the same kind, at any size."""
    large = torch.from_numpy(np.random.default_rng(1).integers(0, 256, (64, 3, 48, 80), np.uint8))
    for batch in (images, large):
        result = distorted(batch, np.random.default_rng(0), MEAN)
        assert (result.shape, result.dtype) == (batch.shape, torch.uint8) and not torch.equal(result, batch)
        assert torch.equal(result, distorted(batch, np.random.default_rng(0), MEAN))
    whole = torch.zeros(64, 3, 48, 80, dtype=torch.uint8)
    whole[..., :40] = 255  # the left half is bright; a flip would move it
    result = distorted(whole, np.random.default_rng(0), MEAN).float()
    assert (result[..., :20].mean((1, 2, 3)) > result[..., 60:].mean((1, 2, 3))).all()


@pytest.mark.parametrize("swapped", [False, True])
def test_what_is_erased_has_the_colour_that_becomes_0(swapped):
    """Also where the processor does not rescale, and where it takes blue, green, red."""
    plain = Preprocess((8, 8), None, "bilinear", 1.0, (51.0, 102.0, 204.0), (1.0, 1.0, 1.0), swapped=swapped)
    assert plain.mean_colour == pytest.approx((0.8, 0.4, 0.2) if swapped else (0.2, 0.4, 0.8))
    colour = (torch.tensor(plain.mean_colour) * 255).round().byte()[None, :, None, None].expand(1, 3, 8, 8)
    assert plain(colour).abs().max() == 0
