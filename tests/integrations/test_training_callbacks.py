"""The callbacks for Trainer and Lightning: the model is quantized, lambda driven, and the model packed."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
import transformers
from torch.utils.data import DataLoader

from ablate import BitLinear, LayerSpec, load_packed
from ablate.errors import BadInput
from ablate.integrations.trainer import QuantizeCallback
from ablate.models import checkpoints, loading
from ablate.quantization.packed_loading import load_preprocess

EXAMPLES = Path(__file__).parents[2] / "examples"
PRECISIONS = {"vit.layers.*": LayerSpec(weights="binary", beta="learned", norm="unnormalised")}
STEPS = 4


class Rows(torch.utils.data.Dataset):
    def __len__(self):
        return 2 * STEPS

    def __getitem__(self, i):
        return {
            "pixel_values": torch.randn(3, 32, 32, generator=torch.Generator().manual_seed(i)),
            "labels": i % 3,
        }


def by_trainer(model, **options):
    arguments = transformers.TrainingArguments(
        options["pack_to"].with_name("trainer"),
        max_steps=options.pop("steps", STEPS),
        per_device_train_batch_size=2,
        learning_rate=0.01,
        save_strategy="no",
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
    )
    callback = QuantizeCallback(PRECISIONS, **options)
    transformers.Trainer(model, arguments, train_dataset=Rows(), callbacks=[callback]).train()


def by_lightning(model, **options):
    lightning = pytest.importorskip("lightning", exc_type=ImportError)
    from ablate.integrations import lightning as ours

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.inner = model.train()

        def training_step(self, batch, index):
            return F.cross_entropy(self.inner(batch["pixel_values"]).logits, batch["labels"])

        def configure_optimizers(self):
            return torch.optim.AdamW(self.parameters(), lr=0.01)

    trainer = lightning.Trainer(
        max_steps=options.pop("steps", STEPS),
        max_epochs=-1,
        callbacks=[ours.QuantizeCallback(PRECISIONS, attribute="inner", **options)],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        accelerator="cpu",
    )
    trainer.fit(Module(), DataLoader(Rows(), batch_size=2))


@pytest.mark.long
@pytest.mark.parametrize("fit", [by_trainer, by_lightning])
@pytest.mark.filterwarnings("ignore:.*does not have many workers", "ignore:.*isinstance.treespec, LeafSpec")
def test_a_training_of_ones_own(fit, tiny_vit, tmp_path):
    model, lambdas = checkpoints.load(str(tiny_vit), ["a", "b", "c"]), []
    layers, preprocess = [], loading.preprocess(str(tiny_vit))

    def watch(module, args, kwargs):
        if module.training:
            layers[:] = [layer for layer in module.modules() if isinstance(layer, BitLinear)]
            [value] = {None if layer.ramp is None else layer.ramp.item() for layer in layers}
            lambdas.append(value)

    model.register_forward_pre_hook(watch, with_kwargs=True)
    before = model.vit.layers[0].mlp.fc1.weight.detach().clone()
    fit(
        model,
        progressive="linear",
        progressive_share=0.75,
        pack_to=tmp_path / "packed",
        preprocess=preprocess,
    )
    assert lambdas[:3] == pytest.approx([0, 1 / 3, 2 / 3]) and lambdas[3:] == [None]
    assert len(layers) == 12 and all((layer.gain != 1).all() for layer in layers), "betas have learned"
    assert not model.vit.layers[0].mlp.fc1.weight.equal(before)
    packed, pixels = load_packed(tmp_path / "packed"), torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert loading.logits(packed, pixels).equal(loading.logits(model.eval(), pixels))
    assert load_preprocess(tmp_path / "packed") == preprocess


@pytest.mark.long
def test_what_would_go_wrong_at_the_end_is_refused_at_the_beginning(tiny_vit, tmp_path):
    with pytest.raises(BadInput, match="must not overwrite a model"):
        QuantizeCallback(PRECISIONS, pack_to=tiny_vit)
    with pytest.raises(ValueError, match="progressive_share"):
        QuantizeCallback(PRECISIONS, progressive_share=2.0)
    model = checkpoints.load(str(tiny_vit), ["a", "b", "c"])
    arguments = transformers.TrainingArguments(tmp_path, max_steps=1, report_to=[], use_cpu=True)
    with pytest.raises(BadInput, match="matches no linear layer"):
        transformers.Trainer(
            model, arguments, callbacks=[QuantizeCallback({"gone.*": LayerSpec(weights="int4")})]
        )
    late = transformers.Trainer(model, arguments, train_dataset=Rows())
    late.add_callback(QuantizeCallback(PRECISIONS))
    with pytest.raises(BadInput, match="give the callback to the trainer when that is made"):
        late.train()


@pytest.mark.long
def test_a_training_without_end_has_no_lambda(tiny_vit, tmp_path):
    with pytest.raises(BadInput, match="set max_steps or max_epochs"):
        by_lightning(
            checkpoints.load(str(tiny_vit), ["a", "b", "c"]),
            steps=-1,
            progressive="linear",
            pack_to=tmp_path / "p",
        )


@pytest.mark.slow
@pytest.mark.parametrize("example", ["hf_trainer.py", "lightning_module.py"])
def test_the_examples_run(example, tmp_path):
    if "lightning" in example:
        pytest.importorskip("lightning", exc_type=ImportError)
    command = [sys.executable, EXAMPLES / example, "--steps", "2", "--out", tmp_path / "packed"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "of 1000 validation images" in done.stdout and load_packed(tmp_path / "packed")
    assert {file.name for file in tmp_path.iterdir()} <= {"packed", "trainer_output"}
