"""Whether what a study makes of a model can be used: asked before any training."""

import tempfile

import torch
from torch import nn

from ablate.errors import BadInput
from ablate.layers import linear_layers, quantize_
from ablate.models import Preprocess, logits, sharing_copy
from ablate.packed import load_packed, pack
from ablate.spec import LayerSpec

ROUNDING = 1e-3  # of the largest logit


def check_round_trip(model: nn.Module, preprocess: Preprocess) -> None:
    """Make every layer of a copy of the model binary, pack it, load it, and compare the logits of two random images.

    The model stays as it is. Raises BadInput where the copy cannot be packed, loaded without a skeleton or run, and
    where what is loaded computes something else.
    """
    copy = sharing_copy(model).eval()
    quantize_(copy, dict.fromkeys(linear_layers(copy), LayerSpec(weights="binary")))
    device = next(copy.parameters()).device
    pixels = torch.randn(2, 3, *preprocess.size, generator=torch.Generator().manual_seed(0)).to(device)
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        try:
            pack(copy, folder, preprocess=preprocess)
            expected, found = (logits(each, pixels) for each in (copy, load_packed(folder).to(device)))
        except Exception as error:  # each model fails in its own way
            why = str(error).strip().partition("\n")[0].replace(folder, "the file") or type(error).__name__
            raise BadInput(f"a model must be usable once it is quantized and packed, but: {why}; take another model") from None
    if not (found - expected).abs().max() <= ROUNDING * expected.abs().max():  # nor NaN
        name, off = type(model).__name__, (found - expected).abs().max()
        raise BadInput(
            f"a packed model must compute what it did, but {name} gives logits that are off by {off:.2g}; take another"
        )
