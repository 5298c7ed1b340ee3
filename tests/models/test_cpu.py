"""Test the CPU implementations of attention and dropout against those of transformers and PyTorch."""

import copy

import pytest
import torch
from torch import nn
from transformers import BertConfig, BertModel, DebertaV2Config, DebertaV2Model, ElectraConfig, ElectraModel

from afqmc.models.cpu_kernels import FastDropout, dropout_noise, use_fast_cpu_kernels

SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64, "vocab_size": 90}


@pytest.fixture
def batch():
    """Return six rows of 12 positions, one of them half padding."""
    generator = torch.Generator().manual_seed(0)
    mask = torch.ones(6, 12, dtype=torch.long)
    mask[1, 6:] = 0
    return {"input_ids": torch.randint(5, 90, (6, 12), generator=generator), "attention_mask": mask}


def outputs(model, batch, seed=3):
    torch.manual_seed(seed)
    states = model(**batch).last_hidden_state
    states[batch["attention_mask"].bool()].square().sum().backward()
    grads = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    return states[batch["attention_mask"].bool()].detach(), grads


@pytest.mark.parametrize("padded", [True, False])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("kind", [(BertConfig, BertModel), (ElectraConfig, ElectraModel)], ids=["bert", "electra"])
def test_attention_matches_transformers(kind, training, padded, batch):
    """States and gradients are those of the SDPA attention."""
    config, model = kind
    torch.manual_seed(0)
    plain = model(config(**SIZES)).train(training)
    quick = copy.deepcopy(plain)
    use_fast_cpu_kernels(quick, fast_dropout=False)
    assert quick.config._attn_implementation != plain.config._attn_implementation
    if not padded:
        batch["attention_mask"].fill_(1)
    (states, grads), (others, other_grads) = outputs(plain, batch), outputs(quick, batch)
    torch.testing.assert_close(others, states, rtol=0, atol=2e-6)  # dropout's masks are the same too
    torch.testing.assert_close(other_grads, grads, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("training", [True, False])
def test_attention_in_bf16(batch, training):
    """In bf16 the error against float32 is about that of the SDPA attention."""
    torch.manual_seed(0)
    sizes = {**SIZES, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    plain = BertModel(BertConfig(**sizes)).train(training)
    quick = copy.deepcopy(plain)
    use_fast_cpu_kernels(quick, fast_dropout=True)
    with torch.no_grad():
        exact = plain(**batch).last_hidden_state
        with torch.autocast("cpu", torch.bfloat16):
            errors = [(model(**batch).last_hidden_state - exact).abs().mean() for model in (plain, quick)]
    assert errors[1] < 1.2 * errors[0]


def test_parameters_do_not_change(tmp_path):
    """Parameters and saved files do not change."""
    model = BertModel(BertConfig(**SIZES))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    use_fast_cpu_kernels(model, fast_dropout=True)
    assert before.keys() == model.state_dict().keys()
    model.save_pretrained(tmp_path)
    again = BertModel.from_pretrained(tmp_path)
    assert again.config._attn_implementation == "sdpa"  # nothing of this is left in what is saved
    assert all(torch.equal(tensor, before[name]) for name, tensor in again.state_dict().items())


def test_other_attention_is_kept(batch):
    """An encoder with another kind of attention does not change."""
    model = DebertaV2Model(DebertaV2Config(**SIZES)).eval()
    before = model(**batch).last_hidden_state
    use_fast_cpu_kernels(model, fast_dropout=False)
    assert torch.equal(model(**batch).last_hidden_state, before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_noise_distribution(p, dtype):
    """A fraction p is dropped, and the mean stays 1."""
    torch.manual_seed(0)
    noise = dropout_noise(torch.empty(1000, 1001, dtype=dtype), p)
    assert noise.dtype is dtype
    assert noise.shape == (1000, 1001)
    assert noise.unique().tolist() == [0.0, noise.max().item()]
    tolerance = 5 * (p * (1 - p) / noise.numel()) ** 0.5  # five standard errors of the share
    assert (noise == 0).double().mean().item() == pytest.approx(p, abs=tolerance + 1 / 65536)
    assert noise.max().item() == pytest.approx(1 / (1 - p), rel=2**-8 if dtype is torch.bfloat16 else 1e-4)


def test_noise_is_independent():
    """Elements are uncorrelated along rows, columns and neighbours."""
    torch.manual_seed(0)
    dropped = (dropout_noise(torch.empty(512, 768), 0.1) == 0).double()
    spread = (0.1 * 0.9) ** 0.5
    for axis, count in ((0, 512), (1, 768)):
        shares = dropped.mean(dim=axis)
        assert shares.std().item() == pytest.approx(spread / count**0.5, rel=0.15)
    centred = dropped - 0.1
    for lag in (1, 2, 3, 4, 8):
        correlation = (centred[:, :-lag] * centred[:, lag:]).mean() / spread**2
        assert abs(correlation.item()) < 5 / (512 * 768) ** 0.5


def test_noise_follows_torch_seed():
    """The noise depends on PyTorch's generator, and advances it."""
    like = torch.empty(7, 9)
    torch.manual_seed(1)
    first, second = dropout_noise(like, 0.5), dropout_noise(like, 0.5)
    torch.manual_seed(1)
    assert torch.equal(dropout_noise(like, 0.5), first)
    assert not torch.equal(first, second)


def test_dropout_gradient():
    """Gradients have the mask of the values."""
    dropout = nn.Dropout(0.3)
    use_fast_cpu_kernels(dropout, fast_dropout=True)
    assert isinstance(dropout, FastDropout)
    values = torch.ones(100, 10, requires_grad=True)
    out = dropout(values)
    out.sum().backward()
    assert torch.equal(values.grad, out.detach())
    assert torch.equal(dropout.eval()(values), values)
