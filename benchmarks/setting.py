"""What benchmarks share: the machine that a result is from, and a small ViT."""

import os
import platform
import re
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ablate.hardware import device_name


def machine(*packages: str) -> dict[str, Any]:
    """The hardware, Python and the packages' versions, as a result file says them."""
    said: dict[str, Any] = {
        "hardware": device_name(),
        "cpus": os.cpu_count(),
        "python": platform.python_version(),
        "system": platform.platform(),
    }
    return said | {package: version(package) for package in packages}


def processor() -> str:
    """The CPU for a file's name: its name, family and model, and the instructions that products use."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    said = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    flags = said.get("flags", "").split()
    wanted = {"avx2": "avx2", "avx512_vnni": "vnni", "avx512_bf16": "bf16", "amx_int8": "amx"}
    parts = [device_name(), said.get("cpu family", ""), said.get("model", "")]
    parts += [short for flag, short in wanted.items() if flag in flags]
    return re.sub(r"[^a-z0-9]+", "-", " ".join(parts).lower()).strip("-")


def make_model(folder: Path) -> Path:
    """A ViT of 2 blocks and width 32 with random weights."""
    import torch
    from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        image_size=32,
        patch_size=8,
    )
    ViTForImageClassification(config).save_pretrained(folder / "tiny-vit")
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder / "tiny-vit")
    return folder / "tiny-vit"
