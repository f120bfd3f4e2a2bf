"""Tiny checkpoints of transformers in `save_pretrained` folders, for tests that load or spoil them."""

import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers.utils import logging

SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "image_size": 32,
    "patch_size": 8,
}
LEVIT = {
    "image_size": 64,
    "hidden_sizes": [16, 32, 48],
    "num_attention_heads": [2, 3, 4],
    "depths": [1, 1, 1],
    "key_dim": [8] * 3,
    "mlp_ratio": [2] * 3,
    "attention_ratio": [2] * 3,
}
HIERA = {
    "image_size": [64, 64],
    "embed_dim": 16,
    "num_heads": [1, 2],
    "depths": [1, 1],
    "num_query_pool": 1,
    "decoder_hidden_size": 16,
    "decoder_depth": 1,
    "decoder_num_heads": 2,
}
SWIN = {
    "image_size": 32,
    "patch_size": 4,
    "embed_dim": 16,
    "depths": [1, 1],
    "num_heads": [2, 2],
    "window_size": 4,
}
MAE = {
    "decoder_hidden_size": 16,
    "decoder_num_hidden_layers": 1,
    "decoder_num_attention_heads": 2,
    "decoder_intermediate_size": 8,
}
TEXT = {
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 8,
    "vocab_size": 9,
}
PVT = {
    "image_size": 32,
    "hidden_sizes": [8, 16, 32, 32],
    "depths": [1] * 4,
    "num_attention_heads": [1, 1, 2, 2],
}
CONVNEXT = {"hidden_sizes": [8, 16], "depths": [1, 1], "num_stages": 2}
MOBILEVIT = {
    "image_size": 64,
    "hidden_sizes": [16] * 3,
    "neck_hidden_sizes": [8, 8, 16, 16, 16, 16, 32],
    "num_attention_heads": 2,
}
OWN = ["zebra", "emu", "dog", "cat"]


def numbered(labels):
    return {"id2label": dict(enumerate(labels)), "label2id": {label: i for i, label in enumerate(labels)}}


def save(folder, kind, config, **more):
    """A model of random weights in a `save_pretrained` folder."""
    torch.manual_seed(0)
    made = getattr(transformers, kind)
    model = made(made.config_class(**config, **more)).eval()
    for value in model.parameters():
        value.data += (
            torch.randn_like(value) / 10 if value.ndim < 2 else 0
        )  # norms and biases as trained ones are
    logging.disable_progress_bar()
    model.save_pretrained(folder)
    logging.enable_progress_bar()
    return model


def edit(folder, change):
    """Rewrite the tensors of a checkpoint."""
    save_file(change(load_file(folder / "model.safetensors")), folder / "model.safetensors", {"format": "pt"})


def save_vit(folder):
    """A ViT for OWN with its image processor."""
    transformers.ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    return save(folder, "ViTForImageClassification", SMALL, **numbered(OWN))


def copy_files(source, target):
    """Copy the files of a folder to another one, which may then be changed."""
    for file in source.iterdir():
        (target / file.name).write_bytes(file.read_bytes())
    return target
