"""Resizing and cropping are torchvision's, bit for bit, without torchvision."""

import pytest
import torch
import torchvision.transforms.v2.functional as tv

from ablate.models.resizing import cropped, resized

SIZES = [(32, 32), (50, 37), (37, 50), (300, 200)]


def images(height, width, layout):
    pixels = torch.randint(0, 256, (2, 3, height, width), dtype=torch.uint8)
    return pixels.to(memory_format=layout)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("mode", ["nearest", "nearest-exact", "bilinear", "bicubic", "lanczos"])
@pytest.mark.parametrize("native", [True, False])
def test_resizing_equals_torchvisions(mode, layout, native, monkeypatch):
    """Also where the CPU has no AVX, and bilinear images are resized as floats."""
    if not native:
        monkeypatch.setattr("torch.backends.cpu.get_cpu_capability", lambda: "DEFAULT")
        monkeypatch.setattr("platform.machine", lambda: "x86_64")
    torch.manual_seed(0)
    for height, width in SIZES:
        for size in (16, 64, (24, 40), (height, width)):
            pixels, sides = images(height, width, layout), [size] if isinstance(size, int) else list(size)
            expected = tv.resize(pixels, sides, tv.InterpolationMode(mode), antialias=True)
            assert torch.equal(resized(pixels, size, mode), expected), (height, width, size)


@pytest.mark.parametrize("size", [(20, 60), (32, 32), (33, 31), (1, 1), (400, 400)])
def test_cropping_equals_torchvisions(size):
    torch.manual_seed(0)
    for height, width in SIZES:
        pixels = images(height, width, torch.contiguous_format)
        top, left = int((height - size[0]) / 2), int((width - size[1]) / 2)
        assert torch.equal(cropped(pixels, *size), tv.crop(pixels, top, left, *size))
