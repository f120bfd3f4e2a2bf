"""What users do with an nn.Module by wrappers, transformers and PEFT."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import transformers
from torch import nn
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel
from transformers.quantizers import auto
from use_table import PRECISIONS, full, is_packed, layers, make, pixels, process_group, same, step, use

from ablate import load_packed, pack, quantize_, recorded_precisions
from ablate.models.loading import logits

THROUGH = "`pack` looks through it"
RECORDED = "`import ablate.integrations.transformers` before `from_pretrained`"
BY_HAND = (
    "`quantize_(model, recorded_precisions(model))` after `from_pretrained`, which says that it is needed"
)
FULL = ("BitLinear",)


def wrapped(wrapper: Callable[[nn.Module], nn.Module], model: Any, folder: Path) -> None:
    with process_group(folder):
        same(model, outer := wrapper(model))
        if not is_packed(model):
            step(outer)
            quantize_(wrapper(other := full()), PRECISIONS)
            assert len(layers(other)) == len(layers(model))


def wrapped_and_packed(wrapper: Callable[[nn.Module], nn.Module], model: Any, folder: Path) -> None:
    with process_group(folder):
        pack(wrapper(model), folder / "out")
        same(model, load_packed(folder / "out"))


for wrapper in (nn.DataParallel, DistributedDataParallel):
    use(f"`{wrapper.__name__}`", "`quantize_` looks through it")(partial(wrapped, wrapper))
for wrapper in (nn.DataParallel, DistributedDataParallel, AveragedModel):
    use(f"`{wrapper.__name__}`, then `pack`", THROUGH)(partial(wrapped_and_packed, wrapper))


@use("`AveragedModel`")
def averaged(model: Any, folder: Path) -> None:
    average, before = AveragedModel(model), layers(model)
    average.update_parameters(model)
    same(model, average)
    if not is_packed(model):
        first = before[0].weight.detach().clone()
        step(model)
        average.update_parameters(model)
        torch.testing.assert_close(layers(average)[0].weight, (first + before[0].weight) / 2)


@use("`torch.compile`, then `pack`", f"{THROUGH}, also around a block")
def compiled_and_packed(model: Any, folder: Path) -> None:
    """As a whole, or a block by itself."""
    pack(torch.compile(model, backend="eager"), folder / "whole")
    same(model, load_packed(folder / "whole"))
    model.vit.layers[0] = torch.compile(model.vit.layers[0], backend="eager")
    pack(model, folder / "block")
    same(make("BitLinear"), load_packed(folder / "block"))


@use("`fully_shard` (FSDP2)")
def sharded(model: Any, folder: Path) -> None:
    with process_group(folder):
        expected = logits(model, pixels()).detach()
        fully_shard(model.vit.layers[0])
        fully_shard(model)
        torch.testing.assert_close(logits(model, pixels()), expected)
        if not is_packed(model):
            step(model)


@use("`fully_shard`, then `pack`", "gather its tensors first")
def packed_while_sharded(model: Any, folder: Path) -> None:
    with process_group(folder):
        pack(fully_shard(model), folder / "out")


@use("`fully_shard`, then `quantize_`", "quantize first", kinds=FULL)
def quantized_while_sharded(model: Any, folder: Path) -> None:
    with process_group(folder):
        quantize_(fully_shard(full()), PRECISIONS)


@use("`FullyShardedDataParallel` (FSDP1), then `pack`", "gather its tensors first")
def flattened(model: Any, folder: Path) -> None:
    with process_group(folder):
        pack(FullyShardedDataParallel(model, device_id=torch.device("cpu")), folder / "out")


@contextmanager
def quantizer(imported: bool) -> Iterator[None]:
    """Whether transformers knows our quantizer, whatever this process has imported."""
    import ablate.integrations.transformers  # noqa: F401

    with patch.dict(auto.AUTO_QUANTIZATION_CONFIG_MAPPING), patch.dict(auto.AUTO_QUANTIZER_MAPPING):
        if not imported:
            del auto.AUTO_QUANTIZATION_CONFIG_MAPPING["ablate"], auto.AUTO_QUANTIZER_MAPPING["ablate"]
        yield


@use("`save_pretrained`, then `from_pretrained`", RECORDED)
def saved(model: Any, folder: Path) -> None:
    model.save_pretrained(folder / "saved")
    with quantizer(imported=True):
        loaded = transformers.ViTForImageClassification.from_pretrained(folder / "saved")
    same(model, loaded, tolerance=0 if is_packed(model) else 1e-6)  # the attention in training is torch's own


@use("the same without that import", BY_HAND)
def saved_and_quantized_again(model: Any, folder: Path) -> None:
    model.save_pretrained(folder / "saved")
    with quantizer(imported=False):
        loaded = transformers.ViTForImageClassification.from_pretrained(folder / "saved")
    quantize_(loaded, recorded_precisions(loaded))
    same(model, loaded, tolerance=1e-6)


@use("without it, then `pack`", "quantize it again first")
def packed_unquantized(model: Any, folder: Path) -> None:
    model.save_pretrained(folder / "saved")
    with quantizer(imported=False):
        pack(transformers.ViTForImageClassification.from_pretrained(folder / "saved"), folder / "out")


@use("`Trainer`, `save_model`", "as `save_pretrained`", needs="accelerate")
def saved_by_trainer(model: Any, folder: Path) -> None:
    arguments = transformers.TrainingArguments(
        folder / "trainer", max_steps=1, report_to=[], use_cpu=True, disable_tqdm=True, save_strategy="no"
    )
    rows = [{"pixel_values": x, "labels": 0} for x in pixels()]
    trainer = transformers.Trainer(model, arguments, train_dataset=rows)
    trainer.train()
    trainer.save_model(folder / "saved")
    with quantizer(imported=True):
        loaded = transformers.ViTForImageClassification.from_pretrained(folder / "saved")
    same(model.eval(), loaded, tolerance=1e-6)


def adapted(model: Any, *names: str) -> Any:
    import peft

    config = peft.LoraConfig(target_modules=[*(names or ("q_proj", "fc1"))], init_lora_weights=False)
    return peft.get_peft_model(model, config)


@use("LoRA (PEFT)", needs="peft")
def trained_adapter(model: Any, folder: Path) -> None:
    outer = adapted(model)
    logits(outer.train(), pixels()).square().sum().backward()
    assert all(p.grad is not None for name, p in outer.named_parameters() if "lora" in name)


@use("LoRA, `save_pretrained`", "the file of the adapter does not record the quantization", needs="peft")
def saved_adapter(model: Any, folder: Path) -> None:
    adapted(model, "v_proj").save_pretrained(folder / "adapter")


@use("LoRA, `merge_and_unload`", "most of the adapter would be lost", needs="peft")
def merged_adapter(model: Any, folder: Path) -> None:
    adapted(model).merge_and_unload()


@use("LoRA, `unload`, then `pack`", needs="peft")
def unloaded_adapter(model: Any, folder: Path) -> None:
    plain = adapted(model).unload()
    pack(plain, folder / "out")
    same(make("BitLinear"), load_packed(folder / "out"))


@use("LoRA, then `pack`", "`unload` it first", needs="peft")
def packed_adapter(model: Any, folder: Path) -> None:
    pack(adapted(model), folder / "out")


@use("LoRA, then `quantize_`", "quantize first", needs="peft", kinds=FULL)
def quantized_adapter(model: Any, folder: Path) -> None:
    quantize_(adapted(full()), PRECISIONS)
