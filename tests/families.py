"""Tiny models of many families with random weights: their width and depth shrunk, every branch of them kept.

What each can do is the table in docs/families.md.
"""

import copy
from collections.abc import Callable
from typing import Any

import torch
import transformers
from torch import nn
from torchvision.models import SwinTransformer, VisionTransformer

DEEP = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
PATCHES = {"image_size": 32, "patch_size": 8, **DEEP}
VIT = {**PATCHES, "intermediate_size": 64}
TEXT = {**DEEP, "num_hidden_layers": 1, "intermediate_size": 64, "vocab_size": 50, "bos_token_id": 1, "eos_token_id": 2}
# 16 x 16, then 8 x 8 patches; windows of 4, so those of every second block are shifted
WINDOWS = {"image_size": 32, "patch_size": 2, "embed_dim": 16, "depths": [2, 2], "num_heads": [1, 2], "window_size": 4}
RELATIVE = {"use_relative_position_bias": True, "use_mask_token": True, **VIT}
FOUR = {"depths": [1, 1, 1, 1], "hidden_sizes": [8, 16, 24, 32]}
PYRAMID = {**FOUR, "image_size": 64, "num_attention_heads": [1, 2, 2, 4], "mlp_ratios": [2, 2, 2, 2]}


def hugging_face(family: str, task: str = "ForImageClassification", **config: Any) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        settings = getattr(transformers, f"{family}Config")(num_labels=10, **copy.deepcopy(config))  # LeViT's changes its lists
        return getattr(transformers, f"{family}{task}")(settings)

    return build


def two_towers(family: str, **config: Any) -> Callable[[], nn.Module]:
    """A model of images and texts, of which the classifier keeps the images' half."""
    return hugging_face(family, vision_config={**VIT, **config}, text_config=TEXT)


def torchvision_vit() -> nn.Module:
    model = VisionTransformer(32, 8, num_layers=2, num_heads=2, hidden_dim=32, mlp_dim=64, num_classes=10)
    nn.init.normal_(model.heads.head.weight)  # torchvision has zeros, through which no gradient comes
    return model


def torchvision_swin() -> nn.Module:
    return SwinTransformer([2, 2], 16, [2, 2], [1, 2], [4, 4], num_classes=10)


# family -> how to build it, and the side of its images in pixels
FAMILIES: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "ViT": (hugging_face("ViT", **VIT), 32),
    "DeiT": (hugging_face("DeiT", **VIT), 32),
    "DeiT, distilled": (hugging_face("DeiT", "ForImageClassificationWithTeacher", **VIT), 32),
    "ViT-MSN": (hugging_face("ViTMSN", **VIT), 32),
    "I-JEPA": (hugging_face("IJepa", **VIT), 32),
    "BEiT": (hugging_face("Beit", **RELATIVE), 32),
    "BEiT, shared positions": (hugging_face("Beit", use_shared_relative_position_bias=True, use_mean_pooling=False, **VIT), 32),
    "data2vec-vision": (hugging_face("Data2VecVision", **RELATIVE), 32),
    "DINOv2": (hugging_face("Dinov2", mlp_ratio=2, **PATCHES), 32),
    "DINOv2, SwiGLU": (hugging_face("Dinov2", mlp_ratio=2, use_swiglu_ffn=True, **PATCHES), 32),
    "DINOv2 with registers": (hugging_face("Dinov2WithRegisters", mlp_ratio=2, **PATCHES), 32),
    "CLIP": (two_towers("CLIP"), 32),
    "MetaCLIP 2": (two_towers("MetaClip2"), 32),
    "SigLIP": (two_towers("Siglip"), 32),
    "SigLIP 2, NaFlex": (
        hugging_face("Siglip2", vision_config={**DEEP, "intermediate_size": 64, "num_patches": 16}, text_config=TEXT),
        32,
    ),
    "Swin": (hugging_face("Swin", **WINDOWS), 32),
    "Swin, padded windows": (hugging_face("Swin", **{**WINDOWS, "image_size": 28, "use_absolute_embeddings": True}), 28),
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
        hugging_face("MobileViT", image_size=64, hidden_sizes=[8, 16, 24], neck_hidden_sizes=[4, 8, 8, 8, 16, 16, 32]),
        64,
    ),
    "MobileViTV2": (hugging_face("MobileViTV2", image_size=64, width_multiplier=0.25, n_attn_blocks=[1, 1, 1]), 64),
    "ConvNeXt": (hugging_face("ConvNext", image_size=32, **FOUR), 32),
    "ConvNeXtV2": (hugging_face("ConvNextV2", image_size=32, **FOUR), 32),
    "FocalNet": (
        hugging_face("FocalNet", image_size=32, embed_dim=8, **{**FOUR, "hidden_sizes": [16, 32, 64, 64]}, use_layerscale=True),
        32,
    ),
    "CvT": (hugging_face("Cvt", embed_dim=[8, 16, 32], num_heads=[1, 2, 2], depth=[1, 2, 3]), 64),
    "SwiftFormer": (
        hugging_face("SwiftFormer", image_size=64, depths=[1, 1, 1, 1], embed_dims=[8, 16, 24, 32]),
        64,
    ),
    "PoolFormer": (hugging_face("PoolFormer", **FOUR), 64),
    "ResNet": (hugging_face("ResNet", embedding_size=8, **FOUR), 32),
    "BiT": (hugging_face("Bit", embedding_size=8, num_groups=2, **{**FOUR, "hidden_sizes": [16, 32, 48, 64]}), 32),
    "torchvision's ViT": (torchvision_vit, 32),
    "torchvision's Swin": (torchvision_swin, 32),
}


def build(family: str) -> nn.Module:
    """The family's model in evaluation mode, always the same."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return FAMILIES[family][0]().eval()
