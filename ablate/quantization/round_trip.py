"""Checks before any training that a model can be quantized, packed and loaded."""

import tempfile
import warnings
from collections.abc import Iterable

import torch
from torch import nn

from ablate.config.trial_spec import LayerSpec
from ablate.errors import BadInput, write_error
from ablate.models.layer_groups import linear_layers
from ablate.models.loading import logits, sharing_copy
from ablate.models.preprocessing import Preprocess
from ablate.quantization.packed_loading import load_packed
from ablate.quantization.packing import pack
from ablate.quantization.quantize import quantize_

ROUNDING = 1e-3  # of the largest logit


def check_round_trip(
    model: nn.Module,
    preprocess: Preprocess,
    layers: Iterable[str] | None = None,
    attention_bits: int | None = None,
) -> None:
    """Quantize a copy of the model, pack it, load it, and compare the logits of two random images.

    The layers of the copy become binary. The model itself stays as it is.

    Args:
        model: A classifier in full precision.
        preprocess: The image processing that is packed with it; its `size` is that of the random images.
        layers: Their names; by default all linear layers.
        attention_bits: Of the copy's attention products; None: they stay in floating point.

    Raises:
        BadInput: The copy cannot be packed, loaded without a skeleton or run, or it has other logits once it
            is loaded.
        WriteFailed: There is no room for the packed copy in the temporary folder.
    """
    copy = sharing_copy(model).eval()
    names = linear_layers(copy) if layers is None else layers
    quantize_(copy, dict.fromkeys(names, LayerSpec(weights="binary")), attention_bits=attention_bits)
    device = next(copy.parameters()).device
    pixels = torch.randn(2, 3, *preprocess.size, generator=torch.Generator().manual_seed(0)).to(device)
    with tempfile.TemporaryDirectory() as folder, torch.no_grad(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "load_packed will need a skeleton")  # what follows says why
        try:
            pack(copy, folder, preprocess=preprocess)
            expected = logits(copy, pixels)
            loaded = logits(load_packed(folder).to(device), pixels)
        except OSError as error:
            room = f"a packed model must fit into {tempfile.gettempdir()!r}, but: {error.strerror or error}"
            raise write_error(error, f"{room}; free some space, or set TMPDIR to another folder") from None
        except Exception as error:  # each model fails in its own way
            why = str(error).strip().partition("\n")[0].replace(folder, "the file") or type(error).__name__
            rule = "a model must be usable once it is quantized and packed"
            raise BadInput(f"{rule}, but: {why}; take another model") from None
    if not (loaded - expected).abs().max() <= ROUNDING * expected.abs().max():  # nor NaN
        name, off = type(model).__name__, (loaded - expected).abs().max()
        rule = "a packed model must compute what it did"
        raise BadInput(f"{rule}, but {name} gives logits that are off by {off:.2g}; take another")
