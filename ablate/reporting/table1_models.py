"""The models of Table 1 that are built here, with random weights: ViT-B/16 and the paper's baselines.

What is counted and measured of them does not depend on the weights.
"""

import copy
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import cache

import torch
from torch import nn

from ablate import hardware
from ablate.config.trial_spec import LayerSpec
from ablate.models import checkpoints, layer_groups, loading
from ablate.models.preprocessing import Preprocess
from ablate.profiling import latency
from ablate.profiling.macs import Cost
from ablate.quantization import quantize
from ablate.quantization.packed_loading import load_packed
from ablate.quantization.packing import pack
from ablate.reporting.table1_cells import QUANTITIES, Cell, Row

CLASSES = [str(i) for i in range(10)]
ONE_BIT = LayerSpec(weights="binary", activation_scale="tensor", norm=True)  # Fig. 3, 4 and 7


@dataclass(frozen=True)
class Entry:
    """A row before anything is measured.

    Args:
        name: Of the model.
        beside: The paper's model whose part it plays.
        build: Makes the model, with its image processing.
    """

    name: str
    beside: str
    build: Callable[[], tuple[nn.Module, Preprocess]]


def entries() -> Iterator[Entry]:
    """ViT-B/16 in the paper's precisions and in those that a user would pick; the paper's baselines."""
    yield Entry("ViT-B/16, 1-bit classifier (section 2.4)", "1-bit ViT", lambda: _vit("head", ONE_BIT))
    yield Entry("ViT-B/16, 1-bit encoder (section 2.2)", "1-bit ViT", lambda: _vit("block", ONE_BIT))
    yield Entry("ViT-B/16", "ViT", lambda: _vit("", LayerSpec()))
    yield Entry("ViT-B/16, int8 encoder", "ViT", lambda: _vit("block", LayerSpec(weights="int8")))
    yield Entry("ViT-B/16, int4 encoder", "ViT", lambda: _vit("block", LayerSpec(weights="int4")))
    yield Entry("ResNet-18", "Resnet 18", lambda: _baseline("resnet18:random"))
    yield Entry("VGG-16", "VGG16", lambda: _baseline("vgg16:random"))


@cache
def _vit_b16() -> nn.Module:
    from transformers import ViTConfig, ViTForImageClassification

    with torch.random.fork_rng():
        torch.manual_seed(0)
        return ViTForImageClassification(ViTConfig(num_labels=len(CLASSES))).eval()


def _vit(part: str, spec: LayerSpec) -> tuple[nn.Module, Preprocess]:
    """ViT-B/16 whose layer groups that begin with `part` have a precision."""
    model = copy.deepcopy(_vit_b16())
    groups = {group: names for group, names in layer_groups.groups(model).items() if group.startswith(part)}
    quantize.quantize_(model, {name: spec for names in groups.values() for name in names})
    return model, loading.preprocess("vit_b_16")  # 224 px, as its own


def _baseline(name: str) -> tuple[nn.Module, Preprocess]:
    return checkpoints.load(name, CLASSES).eval(), loading.preprocess(name)


def measure(
    model: nn.Module, preprocess: Preprocess, seconds: float, batch: int
) -> tuple[int, dict[str, Cell]]:
    """Pack a model and time it.

    Args:
        model: In eval mode.
        preprocess: Its image processing.
        seconds: To spend on each latency; 0 measures none.
        batch: Images a call.

    Returns:
        The bytes of the packed model; the cell of its `latency` in ms an image, and on a GPU that of the time
        until a call has `returned`.
    """
    cells = {}
    with tempfile.TemporaryDirectory() as folder:
        size_bytes = pack(model, folder, preprocess=preprocess)
        if seconds:
            model = load_packed(folder, skeleton=model).to(hardware.device())
            for name, wait in {"latency": True, "returned": False}.items():
                if wait or hardware.device().type == "cuda":
                    timing = latency.measure(model, preprocess.size, batch, seconds=seconds, wait=wait)
                    cells[name] = Cell(timing.median_ms / batch, "measured", n=timing.n)
    return size_bytes, cells


def make_row(entry: Entry, cost: Cost, size_bytes: int, measured: dict[str, Cell]) -> Row:
    """The row of an entry.

    Args:
        entry: The model.
        cost: Its counts.
        size_bytes: Of the packed model.
        measured: Its other cells, by quantity.
    """
    counts = {"state": 4 * cost.parameters, "packed": size_bytes, **asdict(cost)}
    cells = {**{name: Cell(value, "counted") for name, value in counts.items()}, **measured}
    return Row(entry.name, entry.beside, {name: cells[name] for name in QUANTITIES if name in cells})
