"""The training loss: label smoothing and distillation."""

import pytest
import torch
import torch.nn.functional as F
from tiny_training import net, splits, trained

from ablate.config.trial_spec import Recipe
from ablate.errors import BadInput
from ablate.models import checkpoints
from ablate.training.loss import Objective


def test_label_smoothing_is_in_the_training_loss_only():
    model, pixels, labels = net("full"), torch.randn(6, 3, 8, 8), torch.arange(6) % 2
    logp = model(pixels).log_softmax(1)
    wanted = F.one_hot(labels, 2) * 0.8 + 0.2 / 2
    assert Objective(model, Recipe(label_smoothing=0.2), None)(pixels, labels).item() == pytest.approx(
        -(wanted * logp).sum(1).mean().item(), rel=1e-5
    )
    epoch = trained(label_smoothing=0.9)[0][-1]
    plain = F.cross_entropy(torch.from_numpy(epoch.logits), torch.from_numpy(splits().labels))
    assert epoch.loss == plain.item() and epoch.train_loss != trained()[0][-1].train_loss


@pytest.mark.parametrize(("weight", "t"), [(0.3, 1.0), (1.0, 4.0)])
def test_distillation_adds_the_divergence_from_the_teacher(weight, t):
    model, teacher, pixels, labels = net(), net("full").eval(), torch.randn(6, 3, 8, 8), torch.arange(6) % 2
    teacher[5].weight.data *= 3
    loss = Objective(model, Recipe(distill=weight, temperature=t), teacher)(pixels, labels)
    p, q = (teacher(pixels) / t).softmax(1), (model(pixels) / t).softmax(1)
    divergence = (p * (p.log() - q.log())).sum(1).mean()
    expected = (1 - weight) * F.cross_entropy(model(pixels), labels) + weight * t**2 * divergence
    assert loss.item() == pytest.approx(expected.item(), rel=1e-4)
    loss.backward()
    assert model[1].weight.grad is not None and all(p.grad is None for p in teacher.parameters())


def test_block_outputs_are_compared_token_by_token(tiny_vit):
    model, teacher = (checkpoints.load(str(tiny_vit), ["a", "b"]).eval() for _ in range(2))
    pixels, labels = torch.randn(3, 3, 32, 32), torch.tensor([0, 1, 0])
    recipe = Recipe(distill_blocks=2.0)
    assert (
        Objective(model, recipe, teacher)(pixels, labels).item()
        == F.cross_entropy(model(pixels).logits, labels).item()
    )
    assert not any(module._forward_hooks for module in (*model.modules(), *teacher.modules()))
    for p in teacher.vit.layers[1].parameters():
        p.data += 0.1 * torch.randn_like(p)
    hidden = [m(pixels, output_hidden_states=True).hidden_states[1:3] for m in (model, teacher)]
    tokens = [
        [(h - h.mean(-1, keepdim=True)) / (h.var(-1, correction=0, keepdim=True) + 1e-5).sqrt() for h in hs]
        for hs in hidden
    ]
    errors = [(a - b).square().mean().item() for a, b in zip(*tokens, strict=True)]
    assert errors[0] == 0 < errors[1]
    expected = F.cross_entropy(model(pixels).logits, labels).item() + 2.0 * sum(errors) / 2
    assert Objective(model, recipe, teacher)(pixels, labels).item() == pytest.approx(expected, rel=1e-4)


def test_what_distillation_needs():
    with pytest.raises(BadInput, match="needs a teacher, but got none"):
        trained(distill=0.5)
    with pytest.raises(BadInput, match="needs a model with blocks"):
        trained(distill_blocks=1.0, teacher=net("full"))
