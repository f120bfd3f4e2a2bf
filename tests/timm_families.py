"""Tiny models of timm with random weights, as transformers' TimmWrapper builds them; see families.py."""

from collections.abc import Callable
from typing import Any

from torch import nn
from transformers import TimmWrapperConfig, TimmWrapperForImageClassification

DEEP = {"depth": 2, "embed_dim": 32, "num_heads": 2}
VIT = {"img_size": 32, "patch_size": 8, **DEEP}
# 16 x 16, then 8 x 8 patches; windows of 4, so those of the second block are shifted
WINDOWS = {
    "img_size": 32,
    "patch_size": 2,
    "window_size": 4,
    "embed_dim": 16,
    "depths": (2, 1),
    "num_heads": (1, 2),
}
FOUR = {"depths": (1, 1, 1, 1), "embed_dims": (8, 16, 24, 32), "num_heads": (1, 2, 2, 4)}


def timm(architecture: str, side: int = 32, **arguments: Any) -> tuple[Callable[[], nn.Module], int]:
    """A function that builds a model of timm with ten labels, and the side of its images in pixels."""

    def build() -> nn.Module:
        fields = {"architecture": architecture, "num_classes": 10, "model_args": arguments}
        config = TimmWrapperConfig.from_dict({**fields, "pretrained_cfg": {"input_size": [3, side, side]}})
        config._attn_implementation = "sdpa"
        return TimmWrapperForImageClassification(config)

    return build, side


TIMM = {
    "timm's ViT": timm("vit_tiny_patch16_224", **VIT),
    "timm's DeiT, distilled": timm("deit_tiny_distilled_patch16_224", **VIT),
    "timm's DeiT III": timm("deit3_small_patch16_224", **VIT),
    "timm's BEiT": timm("beit_base_patch16_224", **VIT),
    "timm's EVA-02": timm("eva02_tiny_patch14_224", **VIT),
    "timm's CLIP": timm("vit_base_patch16_clip_224", **VIT),
    "timm's SigLIP": timm("vit_base_patch16_siglip_224", **VIT),
    "timm's DINOv2 with registers": timm("vit_small_patch14_reg4_dinov2", **VIT),
    "timm's ViT, relative positions": timm("vit_relpos_small_patch16_224", **VIT),
    "timm's ViT, SAM": timm("samvit_base_patch16_224", **VIT, global_attn_indexes=(1,), window_size=2),
    "timm's ViT on ResNet": timm("vit_tiny_r_s16_p8_224", img_size=32, **DEEP),
    "timm's Swin": timm("swin_tiny_patch4_window7_224", **WINDOWS),
    "timm's SwinV2": timm("swinv2_tiny_window8_256", **WINDOWS),
    "timm's SwinV2-CR": timm("swinv2_cr_tiny_224", **WINDOWS),
    "timm's PVTv2": timm("pvt_v2_b0", 64, **FOUR),
    "timm's Hiera": timm("hiera_tiny_224", 64, img_size=(64, 64), embed_dim=8, stages=(1, 1, 1, 1)),
    "timm's LeViT": timm(
        "levit_128s",
        64,
        img_size=64,
        embed_dim=(16, 24, 32),
        key_dim=8,
        num_heads=(2, 2, 2),
        depth=(1, 1, 1),
    ),
    "CaiT": timm("cait_xxs24_224", **VIT, depth_token_only=1),
    "ConViT": timm("convit_tiny", **VIT, local_up_to_layer=1),
    "DaViT": timm("davit_tiny", 64, **{**FOUR, "num_heads": (1, 1, 2, 2)}),
    "EdgeNeXt": timm("edgenext_xx_small", 64, dims=(8, 16, 24, 32), depths=(1, 2, 1, 1), heads=(2, 2, 2, 2)),
    "PiT": timm(
        "pit_ti_224",
        img_size=32,
        patch_size=8,
        stride=4,
        base_dims=(8, 8, 8),
        depth=(1, 1, 1),
        heads=(1, 2, 4),
    ),
    "TNT": timm(
        "tnt_s_patch16_224",
        img_size=32,
        patch_size=8,
        depth=2,
        embed_dim=32,
        inner_dim=16,
        num_heads_outer=2,
        num_heads_inner=2,
    ),
    "Twins-PCPVT": timm("twins_pcpvt_small", 64, img_size=64, **FOUR),
    "Twins-SVT": timm(
        "twins_svt_small", 64, img_size=64, **{**FOUR, "depths": (2, 1, 1, 1)}, wss=(2, 2, 2, 2)
    ),
    "XCiT": timm("xcit_nano_12_p16_224", **VIT),
}
