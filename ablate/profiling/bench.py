"""Size and latency of a packed model beside the same architecture in full precision."""

import copy
import logging
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ablate.errors import BadInput
from ablate.models.skeletons import from_config
from ablate.profiling.latency import check_timing, measure
from ablate.profiling.memory import memory_bytes
from ablate.profiling.peers import peers
from ablate.quantization import packed_files
from ablate.quantization.fused_model import fuse_
from ablate.quantization.packed_loading import load_packed, load_preprocess

log = logging.getLogger(__name__)


def bench(
    directory: str | Path,
    batches: Sequence[int] = (1, 8, 32),
    seconds: float = 1.0,
    compiled: bool = False,
    with_peers: bool = False,
) -> list[dict[str, Any]]:
    """Measure a packed model beside twins in full precision, whose weights are random.

    Both are measured in float32 and in bfloat16: the packed model's integer products stay as they are. On a
    CPU with such blocks it is also measured "fused", as `fuse_` makes it, whether that is faster or not.

    Args:
        directory: The folder of the packed model.
        batches: Images a call.
        seconds: To measure each for.
        compiled: Whether each but the fused one is measured under torch.compile as well.
        with_peers: Whether other libraries are measured as well, as far as they are installed.

    Returns:
        Rows of a table: file sizes and bytes in memory (parameters and buffers), which are counted, and
        medians and 95th percentiles of the latencies in ms. The memory of another library is not counted.

    Raises:
        BadInput: `seconds` or a batch is out of range; or the folder holds no packed model, or one without
            architecture or image processing; or peers are asked for on a GPU.
    """
    check_timing(seconds, *batches)
    directory = packed_files.packed_folder(directory)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if with_peers and device.type == "cuda":
        raise BadInput("peers are measured on a CPU, but torch has found a GPU; set CUDA_VISIBLE_DEVICES=''")
    size, twin = load_preprocess(directory).size, _twin(directory, device)
    models, disk = _models(directory, twin, compiled), _disk_bytes(directory)
    sizes = {name: disk if "packed" in name else memory_bytes(model) for name, model in models.items()}
    others = _peers(directory, twin, size) if with_peers else {}
    rows = []
    for name, model in (models | others).items():
        row: dict[str, Any] = {
            "model": name,
            "size_bytes": sizes.get(name, getattr(model, "file_bytes", None)),
        }
        row["memory_bytes"] = None if name in others else memory_bytes(model)
        for batch in batches:
            dtype = torch.bfloat16 if "bfloat16" in name else torch.float32
            timing = measure(model, size, batch, seconds=seconds, dtype=dtype)
            row[f"latency_ms at batch {batch}"] = timing.median_ms
            row[f"p95_ms at batch {batch}"] = timing.p95_ms
            row[f"n at batch {batch}"] = timing.n
        rows.append(row | {"threads": torch.get_num_threads(), "device": device.type})
    return rows


def _models(directory: Path, twin: nn.Module, compiled: bool) -> dict[str, nn.Module]:
    """The packed model and its twin, each in float32 and in bfloat16, and compiled or fused on top."""
    device = next(twin.parameters()).device
    packed = load_packed(directory).to(device)
    models: dict[str, nn.Module] = {
        "packed": packed,
        "packed, bfloat16": copy.deepcopy(packed).bfloat16(),
        "full, float32": twin,
        "full, bfloat16": copy.deepcopy(twin).bfloat16(),
    }
    if compiled:
        models |= {f"{name}, compiled": copy.deepcopy(model) for name, model in models.items()}
        for name, model in models.items():
            if name.endswith("compiled"):
                model.compile(dynamic=False, options={"freezing": True})  # the weights are constants
    fused = load_packed(directory)
    if device.type == "cpu" and fuse_(fused, always=True):
        models["packed, fused"] = fused
    return models


def _peers(directory: Path, twin: nn.Module, size: tuple[int, int]) -> dict[str, nn.Module]:
    """What other libraries make of both; a warning names those that are not installed."""
    with tempfile.TemporaryDirectory() as folder:
        others, missing = peers(directory, twin, size, folder)
    if missing:
        advice = f"pip install {' '.join(missing)}"
        log.warning("Not installed, and so not measured: %s; %s", ", ".join(missing), advice)
    return others


def _twin(directory: str | Path, device: torch.device) -> nn.Module:
    """A model of the packed one's architecture, in float32 and evaluation mode, its weights random."""
    header, tensors = packed_files.read(directory)
    if header.model is None:
        rule = f"{directory} holds a model that transformers has no class for"
        raise BadInput(f"{rule}, so it has no twin to compare with")
    twin = from_config(**header.model.model_dump(), parameters=len(tensors)).to_empty(device=device)
    for parameter in twin.parameters():
        nn.init.normal_(parameter, std=0.02)
    for buffer in twin.buffers():
        buffer.zero_()
    return twin.eval()


def _disk_bytes(directory: str | Path) -> int:
    return sum(file.stat().st_size for file in packed_files.files(directory))
