"""Tiny models of many families with random weights: small in width and depth, with every branch kept.

The checks here say what each family can do; docs/families.md is their table.
"""

import copy
import re
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
import transformers
from timm_families import TIMM
from torch import nn
from torchvision.models import SwinTransformer, VisionTransformer
from torchvision.models.swin_transformer import PatchMergingV2, SwinTransformerBlockV2

from ablate import BitLinear, LayerSpec, load_packed, pack, quantize_
from ablate.models import checkpoints, loading, preprocessing
from ablate.models.layer_groups import groups, linear_layers
from ablate.models.unfusing import unfused
from ablate.profiling.macs import macs
from ablate.quantization.onnx_export import to_onnx
from ablate.quantization.packed_size import packed_bytes

DOCS = Path(__file__).parents[1] / "docs"
DEEP = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
PATCHES = {"image_size": 32, "patch_size": 8, **DEEP}
VIT = {**PATCHES, "intermediate_size": 64}
TEXT = {
    **DEEP,
    "num_hidden_layers": 1,
    "intermediate_size": 64,
    "vocab_size": 50,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
# 16 x 16, then 8 x 8 patches; windows of 4, so those of every second block are shifted
WINDOWS = {
    "image_size": 32,
    "patch_size": 2,
    "embed_dim": 16,
    "depths": [2, 2],
    "num_heads": [1, 2],
    "window_size": 4,
}
RELATIVE = {"use_relative_position_bias": True, "use_mask_token": True, **VIT}
FOUR = {"depths": [1, 1, 1, 1], "hidden_sizes": [8, 16, 24, 32]}
PYRAMID = {**FOUR, "image_size": 64, "num_attention_heads": [1, 2, 2, 4], "mlp_ratios": [2, 2, 2, 2]}


def hugging_face(family: str, task: str = "ForImageClassification", **config: Any) -> Callable[[], nn.Module]:
    """A function that builds a model of transformers with ten labels."""

    def build() -> nn.Module:
        labels = {i: f"LABEL_{i}" for i in range(10)}
        fields = copy.deepcopy(config)  # LeViT changes its lists
        settings = getattr(transformers, f"{family}Config")(num_labels=10, id2label=labels, **fields)
        return getattr(transformers, f"{family}{task}")(settings)

    return build


def two_towers(family: str, **config: Any) -> Callable[[], nn.Module]:
    """A model of images and texts, of which the classifier keeps the images' half."""
    return hugging_face(family, vision_config={**VIT, **config}, text_config=TEXT)


def torchvision_vit() -> nn.Module:
    return VisionTransformer(32, 8, num_layers=2, num_heads=2, hidden_dim=32, mlp_dim=64, num_classes=10)


def torchvision_swin() -> nn.Module:
    return SwinTransformer([2, 2], 16, [2, 2], [1, 2], [4, 4], num_classes=10)


def torchvision_swin_v2() -> nn.Module:
    return SwinTransformer(
        [2, 2],
        16,
        [2, 2],
        [1, 2],
        [4, 4],
        num_classes=10,
        block=SwinTransformerBlockV2,
        downsample_layer=PatchMergingV2,
    )


# family -> how to build it, and the side of its images in pixels
FAMILIES: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "ViT": (hugging_face("ViT", **VIT), 32),
    "DeiT": (hugging_face("DeiT", **VIT), 32),
    "DeiT, distilled": (hugging_face("DeiT", "ForImageClassificationWithTeacher", **VIT), 32),
    "ViT-MSN": (hugging_face("ViTMSN", **VIT), 32),
    "I-JEPA": (hugging_face("IJepa", **VIT), 32),
    "BEiT": (hugging_face("Beit", **RELATIVE), 32),
    "BEiT, shared positions": (
        hugging_face("Beit", use_shared_relative_position_bias=True, use_mean_pooling=False, **VIT),
        32,
    ),
    "data2vec-vision": (hugging_face("Data2VecVision", **RELATIVE), 32),
    "DINOv2": (hugging_face("Dinov2", mlp_ratio=2, **PATCHES), 32),
    "DINOv2, SwiGLU": (hugging_face("Dinov2", mlp_ratio=2, use_swiglu_ffn=True, **PATCHES), 32),
    "DINOv2 with registers": (hugging_face("Dinov2WithRegisters", mlp_ratio=2, **PATCHES), 32),
    "CLIP": (two_towers("CLIP"), 32),
    "MetaCLIP 2": (two_towers("MetaClip2"), 32),
    "SigLIP": (two_towers("Siglip"), 32),
    "SigLIP 2, NaFlex": (
        hugging_face(
            "Siglip2", vision_config={**DEEP, "intermediate_size": 64, "num_patches": 16}, text_config=TEXT
        ),
        32,
    ),
    "Swin": (hugging_face("Swin", **WINDOWS), 32),
    "Swin, padded windows": (
        hugging_face("Swin", **{**WINDOWS, "image_size": 28, "use_absolute_embeddings": True}),
        28,
    ),
    "SwinV2": (hugging_face("Swinv2", pretrained_window_sizes=[2, 2], **WINDOWS), 32),
    "Donut-Swin": (hugging_face("DonutSwin", **WINDOWS), 32),
    "PVT": (hugging_face("Pvt", sequence_reduction_ratios=[8, 4, 2, 1], **PYRAMID), 64),
    "PVTv2": (hugging_face("PvtV2", sr_ratios=[8, 4, 2, 1], **PYRAMID), 64),
    "PVTv2, linear": (hugging_face("PvtV2", linear_attention=True, **PYRAMID), 64),
    "SegFormer": (hugging_face("Segformer", sr_ratios=[8, 4, 2, 1], **PYRAMID), 64),
    "Hiera": (
        hugging_face("Hiera", image_size=[64, 64], embed_dim=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2]),
        64,
    ),
    "LeViT": (
        hugging_face(
            "Levit",
            image_size=64,
            hidden_sizes=[16, 24, 32],
            num_attention_heads=[2, 2, 2],
            depths=[1, 1, 1],
            key_dim=[8, 8, 8],
            down_ops=[["Subsample", 8, 2, 4, 2, 2], ["Subsample", 8, 3, 4, 2, 2]],
        ),
        64,
    ),
    "MobileViT": (
        hugging_face(
            "MobileViT", image_size=128, hidden_sizes=[8, 16, 24], neck_hidden_sizes=[4, 8, 8, 8, 16, 16, 32]
        ),
        128,
    ),
    "MobileViTV2": (
        hugging_face("MobileViTV2", image_size=64, width_multiplier=0.25, n_attn_blocks=[1, 1, 1]),
        64,
    ),
    "ConvNeXt": (hugging_face("ConvNext", image_size=32, **FOUR), 32),
    "ConvNeXtV2": (hugging_face("ConvNextV2", image_size=32, **FOUR), 32),
    "FocalNet": (
        hugging_face(
            "FocalNet",
            image_size=32,
            embed_dim=8,
            **{**FOUR, "hidden_sizes": [16, 32, 64, 64]},
            use_layerscale=True,
        ),
        32,
    ),
    "CvT": (hugging_face("Cvt", embed_dim=[8, 16, 32], num_heads=[1, 2, 2], depth=[1, 2, 3]), 64),
    "SwiftFormer": (
        hugging_face("SwiftFormer", image_size=64, depths=[1, 1, 1, 1], embed_dims=[8, 16, 24, 32]),
        64,
    ),
    "DiNAT": (hugging_face("Dinat", embed_dim=16, depths=[1, 1], num_heads=[1, 2], dilations=[[1], [2]]), 32),
    "PoolFormer": (hugging_face("PoolFormer", **FOUR), 64),
    "ResNet": (hugging_face("ResNet", embedding_size=8, **FOUR), 32),
    "BiT": (
        hugging_face("Bit", embedding_size=8, num_groups=2, **{**FOUR, "hidden_sizes": [16, 32, 48, 64]}),
        32,
    ),
    "torchvision's ViT": (torchvision_vit, 32),
    "torchvision's Swin": (torchvision_swin, 32),
    "torchvision's Swin V2": (torchvision_swin_v2, 32),
    **TIMM,
}


def build(family: str) -> nn.Module:
    """The family's model in evaluation mode, deterministic: logits of order 1, no zero parameter."""
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        model = FAMILIES[family][0]()
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=parameter[0].numel() ** -0.5)
            else:
                parameter.add_(0.2 * torch.randn_like(parameter))
    return model.eval()


def documented() -> dict[str, dict[str, str]]:
    """The table of docs/families.md: family -> column -> cell."""
    lines = [line for line in (DOCS / "families.md").read_text().splitlines() if line.startswith("|")]
    head, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {cells[0]: dict(zip(head[1:], cells[1:], strict=True)) for cells in rows}


YES, NO = "yes", "no"
TORCHVISION = "another one is packed with its skeleton"
REASONS = {  # why a family cannot do what the table says no to
    "SigLIP 2, NaFlex": "takes patches and their positions, not images; SigLIP 2 of fixed size is a SigLIP",
    "DiNAT": "needs the package natten",
    "torchvision's ViT": f"goes by its name, such as vit_b_16; {TORCHVISION}",
    "torchvision's Swin": f"goes by its name, such as swin_t; {TORCHVISION}",
    "torchvision's Swin V2": "is packed with its skeleton",
    "CvT": "its attention products are of torch.einsum",
    "SwiftFormer": "its attention adds, where others multiply",
    "timm's ViT, SAM": "its relative positions are products of torch.einsum",
    **dict.fromkeys(("MobileViTV2", "PoolFormer", "ResNet", "BiT"), "all but the head is convolutions"),
}


def attempt(check: Callable[..., bool], *given: Any) -> str:
    try:
        return YES if check(*given) else NO
    except Exception:  # each family fails in its own way; the reason is in REASONS
        return NO


def row(family: str, folder: Path) -> dict[str, str]:
    """What a family can do, but for 8-bit attention and ONNX: column -> cell."""
    checks = {"loads": loads, "trains": trains, "packs and loads": packs}
    can = {column: attempt(check, family, folder / column) for column, check in checks.items()}
    try:
        model = unfused(build(family))
    except ImportError:
        return {"layers": "-", "groups": "-", **can}
    every = sum(isinstance(module, nn.Linear) for module in model.modules())
    return {"layers": f"{len(linear_layers(model))} of {every}", "groups": roles(model), **can}


def roles(model: nn.Module) -> str:
    """The layer groups, counted: "2 x attention, 2 x fc1, 2 x fc2, 1 x head"."""
    counts = Counter(re.sub(r"^block\d+\.|.*\.(?=[a-z])", "", group) for group in groups(model))
    return ", ".join(f"{count} {role}" for role, count in counts.items())


def pixels(family: str, n: int = 3) -> torch.Tensor:
    return torch.randn(n, 3, *2 * [FAMILIES[family][1]], generator=torch.Generator().manual_seed(0))


def quantized(family: str) -> nn.Module:
    """The family's model with all that can be quantized binary."""
    model = build(family)
    names = [*linear_layers(unfused(model))]
    assert quantize_(model, dict.fromkeys(names, LayerSpec(weights="binary"))) == names
    return model


def loads(family: str, folder: Path) -> bool:
    """Whether a checkpoint is loaded: for the same classes as it is, for others with a new head."""
    model, side = build(family), FAMILIES[family][1]
    model.save_pretrained(folder)
    transformers.ViTImageProcessor(size={"height": side, "width": side}).save_pretrained(folder)
    labels = [*model.config.id2label.values()]
    with torch.no_grad():
        same = loading.logits(checkpoints.load(str(folder), labels).eval(), pixels(family))
        other = loading.logits(checkpoints.load(str(folder), ["a", "b", "c"]).eval(), pixels(family))
        return torch.allclose(same, loading.logits(model, pixels(family)), atol=1e-5) and other.shape == (
            3,
            3,
        )


def trains(family: str, folder: Path) -> bool:
    """Whether a step moves the weights of each quantized layer, each of which is called."""
    model, called = quantized(family).train(), set()
    layers = {name: module for name, module in model.named_modules() if isinstance(module, BitLinear)}
    for name, layer in layers.items():
        layer.register_forward_hook(lambda *_, name=name: called.add(name))
    F.cross_entropy(loading.logits(model, pixels(family, 4)), torch.arange(4)).backward()
    grads = [layer.weight.grad for layer in layers.values()]
    return called == set(layers) and all(grad.isfinite().all() and grad.any() for grad in grads)


def packs(family: str, folder: Path) -> bool:
    """Whether a packed model has the counted size, and loads without a skeleton with the same logits."""
    model = quantized(family)
    specs = {name: module.spec for name, module in model.named_modules() if isinstance(module, BitLinear)}
    if pack(model, folder) != packed_bytes(build(family), specs):
        return False
    with torch.no_grad():
        return torch.equal(
            loading.logits(load_packed(folder), pixels(family)), loading.logits(model, pixels(family))
        )


def attends(family: str, folder: Path) -> str:
    """Whether 8 bits reach all attention products, up to the packed model."""
    try:
        model, skeleton = quantized(family), build(family)
        counted = macs(model, (FAMILIES[family][1],) * 2)
        if not counted.attention + counted.other_products:
            return "-"
        specs = {name: each.spec for name, each in model.named_modules() if isinstance(each, BitLinear)}
        size = packed_bytes(skeleton, specs, attention=8)
        with warnings.catch_warnings(), torch.no_grad():
            warnings.filterwarnings("ignore", "load_packed will need a skeleton")
            plain = loading.logits(model, pixels(family))
            quantize_(model, {}, attention_bits=8)
            out, packed = loading.logits(model, pixels(family)), pack(model, folder)
            loaded = loading.logits(load_packed(folder, skeleton), pixels(family))
        if not torch.equal(loaded, out) or torch.equal(out, plain) or packed != size:
            return NO
        return "in part" if counted.other_products else YES
    except Exception:  # as in `attempt`
        return NO


def exports(family: str, folder: Path) -> bool:
    """Whether onnxruntime computes what the packed model does, up to levels that rounding flips."""
    import onnxruntime

    model, size = build(family), (FAMILIES[family][1],) * 2
    some = [
        name
        for group, names in groups(unfused(model)).items()
        if group.startswith("block0.") or group == "head"
        for name in names
    ]
    quantize_(model, dict.fromkeys(some, LayerSpec(weights="binary")))  # all of them would take a minute
    pack(
        model,
        folder,
        preprocess=preprocessing.Preprocess(size, size, "bilinear", 1 / 255, (0.5,) * 3, (0.5,) * 3),
    )
    to_onnx(folder, folder / "model.onnx")
    session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    theirs = torch.from_numpy(session.run(None, {"pixels": pixels(family).numpy()})[0])
    with torch.no_grad():
        ours = loading.logits(load_packed(folder), pixels(family))
    return bool((theirs - ours).norm() < 0.05 * ours.norm())
