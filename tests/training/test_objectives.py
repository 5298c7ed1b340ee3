"""Objectives that change cross-entropy: formulas, strength 0, division into microbatches, models that they refuse."""

import pytest
import torch
from helpers import rows, small, train
from torch.nn import functional as F

from afqmc.data.batching import Batch
from afqmc.distributed.rank import Rank
from afqmc.run_dir import RunDir
from afqmc.runner.experiment import run_experiment
from afqmc.runner.validation import validate_config
from afqmc.training.objectives.cross_entropy import CrossEntropy
from afqmc.training.objectives.focal import Focal
from afqmc.training.objectives.multi_sample_dropout import MultiSampleDropout
from afqmc.training.objectives.poly1 import Poly1
from afqmc.training.objectives.r_drop import RDrop
from afqmc.training.objectives.supervised_contrastive import SupervisedContrastive, supervised_contrastive_loss
from afqmc.utils.errors import InputError

LABELS = torch.tensor([0, 1, 1, 0, 1, 0, 0, 1])
WEIGHTS = [0.5, 2.0]
PLAIN = ("trainer.max_steps=5", "trainer.logging_steps=1")


def echo(logits, return_pooled=False):
    """A model whose input is its logits and its pooled vectors."""
    return (logits, logits) if return_pooled else logits


def noisy(logits):
    """The same, with every other row changed as by another dropout mask."""
    return logits * torch.tensor([1.0, 1.3]).repeat(len(logits) // 2)[:, None]


def batch(rows=slice(None)):
    logits = torch.randn(8, 2, generator=torch.Generator().manual_seed(0), requires_grad=True)
    return Batch({"logits": logits[rows]}, LABELS[rows], [*range(len(LABELS[rows]))], 0)


def loss_of(objective, parts=1):
    whole, model = batch(), noisy if isinstance(objective, RDrop) and not objective.is_off else echo
    sizes = torch.arange(8).chunk(parts)
    total = sum(objective(model, batch(slice(int(rows[0]), int(rows[-1]) + 1))) for rows in sizes)
    return total / objective.normalizer(whole)


def kl(p, q):
    return (p * (p / q).log()).sum(1)


def expected_loss(name, logits, labels, weights):
    """Write out each formula, as a weighted mean over the pairs."""
    p, q = logits.softmax(1), (logits * 1.3).softmax(1)
    of_label = p[range(8), labels]
    losses = {
        "focal": -((1 - of_label) ** 2) * of_label.log(),
        "poly1": -of_label.log() + 1.5 * (1 - of_label),
        "r_drop": -of_label.log() - q[range(8), labels].log() + 3 / 2 * (kl(p, q) + kl(q, p)),
    }
    return (losses[name] * weights).sum() / weights.sum()


BUILT = {
    "focal": lambda **more: Focal(2.0, **more),
    "poly1": lambda **more: Poly1(1.5, **more),
    "r_drop": lambda **more: RDrop(3.0, **more),
}


@pytest.mark.parametrize("class_weights", [None, WEIGHTS])
@pytest.mark.parametrize("parts", [1, 2, 3])
@pytest.mark.parametrize("name", BUILT)
def test_losses_equal_formulas(name, parts, class_weights):
    """Each loss is its paper's formula, however the batch is divided."""
    weights = torch.tensor(class_weights or [1.0, 1.0])[LABELS]
    expected = expected_loss(name, batch().inputs["logits"], LABELS, weights)
    torch.testing.assert_close(loss_of(BUILT[name](class_weights=class_weights), parts), expected)


def test_alpha_of_focal_loss():
    """``alpha`` weights the second class, and does not change the divisor."""
    of_label = batch().inputs["logits"].softmax(1)[range(8), LABELS]
    alphas = torch.tensor([0.75, 0.25])[LABELS]
    torch.testing.assert_close(loss_of(Focal(0.0, alpha=0.25)), (-alphas * of_label.log()).mean())


def test_focal_loss_of_certain_pairs():
    """A probability of exactly 1 gives no NaN in the gradient."""
    logits = torch.tensor([[100.0, -100.0]], requires_grad=True)
    Focal(0.5)(lambda logits: logits, Batch({"logits": logits}, torch.tensor([0]), [0], 0)).backward()
    assert torch.equal(logits.grad, torch.zeros(1, 2))


def test_smoothed_poly1():
    """With label smoothing, both terms are means over the smoothed target."""
    p = batch().inputs["logits"].softmax(1)
    target = 0.8 * F.one_hot(LABELS) + 0.1
    expected = (target * (-p.log() + 1.5 * (1 - p))).sum(1).mean()
    torch.testing.assert_close(loss_of(Poly1(1.5, label_smoothing=0.2)), expected)


def test_contrastive_loss_equals_formula():
    """Equation 3 of the paper, written as loops; a pair without another of its class adds 0."""
    vectors, labels = torch.randn(7, 5, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 1, 0, 1, 2, 0])
    z, tau, losses = vectors / vectors.norm(dim=1, keepdim=True), 0.3, []
    for i in range(7):
        others = [k for k in range(7) if k != i]
        divisor = sum(torch.exp(z[i] @ z[k] / tau) for k in others)
        same = [j for j in others if labels[j] == labels[i]]
        terms = [torch.log(torch.exp(z[i] @ z[j] / tau) / divisor) for j in same]
        losses.append(-sum(terms) / len(same) if same else torch.tensor(0.0))
    torch.testing.assert_close(supervised_contrastive_loss(vectors, labels, tau), torch.stack(losses))


@pytest.mark.parametrize("class_weights", [None, WEIGHTS])
def test_contrastive_loss_is_mixed_with_cross_entropy(class_weights):
    """``(1 - weight) * CE + weight * SCL``, both means over the batch."""
    objective, logits = SupervisedContrastive(0.4, 0.5, class_weights=class_weights), batch().inputs["logits"]
    weight = None if class_weights is None else torch.tensor(class_weights)
    contrastive = supervised_contrastive_loss(logits, LABELS, 0.5).mean()
    expected = 0.6 * F.cross_entropy(logits, LABELS, weight=weight) + 0.4 * contrastive
    torch.testing.assert_close(loss_of(objective), expected)


def test_contrastive_loss_of_one_pair():
    vectors = torch.randn(1, 4, requires_grad=True)
    supervised_contrastive_loss(vectors, torch.tensor([1]), 0.3).sum().backward()
    assert torch.equal(vectors.grad, torch.zeros(1, 4))


@pytest.mark.parametrize("off", [Focal(0.0), Poly1(0.0), RDrop(0.0), SupervisedContrastive(0.0)], ids=type)
def test_strength_zero_is_cross_entropy(off):
    """With strength 0 the loss has the bits of cross-entropy, and nothing is reported."""
    assert torch.equal(loss_of(off, 2), loss_of(CrossEntropy(), 2))
    assert off.report() == {}


@pytest.mark.parametrize("off", ["r_drop", "supervised_contrastive"])
def test_run_with_strength_zero(tmp_path, off):
    """A run with strength 0 has the losses of plain training, and is not refused as inactive."""
    strength = {"r_drop": "objective.alpha=0", "supervised_contrastive": "objective.weight=0"}[off]
    plain, run = train(tmp_path / "plain", *PLAIN), train(tmp_path / "off", *PLAIN, f"objective={off}", strength)
    assert rows(run, "train/loss") == rows(plain, "train/loss")


def test_reports_are_means_since_the_last():
    """A report is the mean over all pairs since the last one, also after the state was saved and restored."""
    objective, restored = Focal(2.0), Focal(2.0)
    objective(echo, batch(slice(0, 3)))
    restored.load_state_dict(objective.state_dict())
    of_label = batch().inputs["logits"][:7].softmax(1)[range(7), LABELS[:7]]
    for one in (objective, restored):
        one(echo, batch(slice(3, 7)))
        assert one.report() == {"focal_weight": pytest.approx(((1 - of_label) ** 2).mean().item())}
        assert one.report() == {}


REPORTED = {
    "focal": "objective/focal_weight",
    "poly1": "objective/polynomial_term",
    "r_drop": "objective/kl_divergence",
    "supervised_contrastive": "objective/contrastive_loss",
}


@pytest.mark.parametrize("name", REPORTED)
def test_run_reports_activity(tmp_path, name):
    """A run has a value in each row that shows that its objective was active."""
    run = train(tmp_path / "run", f"objective={name}", *PLAIN)
    assert len(rows(run, REPORTED[name])) == 5
    assert min(rows(run, REPORTED[name])) > 0


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["objective=focal", "objective.gamma=-1"], "objective.gamma=-1: must be >= 0"),
        (["objective=focal", "objective.alpha=1"], "objective.alpha=1: must be > 0 and < 1"),
        (["objective=focal", "objective.alpha=0.5", "objective.class_weights=balanced"], "not with class_weights"),
        (["objective=focal", "+objective.label_smoothing=0.1"], "Focal has no such argument"),
        (["objective=poly1", "objective.epsilon=-2"], "objective.epsilon=-2: must be >= -1"),
        (["objective=poly1", "objective.epsilon=true"], "objective.epsilon=True: must be >= -1"),
        (["objective=r_drop", "objective.alpha=-1"], "objective.alpha=-1: must be >= 0"),
        (["objective=supervised_contrastive", "objective.weight=1"], "objective.weight=1: must be >= 0 and < 1"),
        (["objective=supervised_contrastive", "objective.temperature=0"], "objective.temperature=0: must be > 0"),
        (
            ["objective=supervised_contrastive", "trainer.gradient_accumulation_steps=2"],
            "objective: needs all pairs of a batch at once",
        ),
    ],
)
def test_invalid_settings(overrides, message):
    with pytest.raises(InputError) as error:
        validate_config(small(*overrides), Rank())
    assert message in str(error.value)


class Bag(torch.nn.Module):
    """A model without pooled vectors."""

    def __init__(self, num_labels, vocab_size, pad_token_id):
        super().__init__()
        self.bag = torch.nn.Embedding(vocab_size, num_labels)

    def forward(self, input_ids, attention_mask, token_type_ids=None):
        return (self.bag(input_ids) * attention_mask[..., None]).mean(dim=1)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["objective=r_drop", *(f"model.config_overrides.{name}=0.0" for name in
             ("hidden_dropout_prob", "attention_probs_dropout_prob"))],
            "this model has no dropout",
        ),
        (["objective=supervised_contrastive", f"model._target_={__name__}.Bag"], "Bag.forward has no argument"),
    ],
)  # fmt: skip
def test_models_that_objectives_cannot_use(tmp_path, overrides, message):
    """A model that an objective cannot use is refused before training."""
    with pytest.raises(InputError, match=message):
        run_experiment(small(*overrides), RunDir(tmp_path / "run"))
    assert not (tmp_path / "run/metrics.jsonl").exists()


@pytest.mark.parametrize("name", ["r_drop", "supervised_contrastive"])
def test_faster_computation_gives_the_same_losses(tmp_path, name):
    """Padding-free training and recomputed activations change the losses by rounding only."""
    head_only = [f"model.config_overrides.{key}=0.0" for key in ("hidden_dropout_prob", "attention_probs_dropout_prob")]
    options = (f"objective={name}", *PLAIN, *head_only, "model.classifier_dropout=0.5")
    plain = rows(train(tmp_path / "plain", *options), "train/loss")
    for variant in ("performance.padding_free=true", "trainer.gradient_checkpointing=true"):
        assert rows(train(tmp_path / variant, *options, variant), "train/loss") == pytest.approx(plain, abs=1e-5)


def masked(logits, return_pooled=False, dropout_samples=1):
    """A model with three fixed dropout masks before its head."""
    factors = torch.tensor([0.7, 1.0, 1.4])[:dropout_samples]
    samples = (factors[:, None, None] * logits).flatten(0, 1)
    samples = noisy(samples) if len(logits) == 16 else samples
    return (samples, logits) if return_pooled else samples


@pytest.mark.parametrize("name", ["cross_entropy", *BUILT, "supervised_contrastive"])
def test_multi_sample_dropout_averages_losses(name):
    """The loss is the mean over the masks of the loss with one of them, for every objective."""
    built = {**BUILT, "cross_entropy": CrossEntropy, "supervised_contrastive": SupervisedContrastive}
    objective, whole = built[name](class_weights=WEIGHTS), batch()
    loss = MultiSampleDropout(objective, 3)(masked, whole)

    def with_factor(factor):
        def model(logits, return_pooled=False):
            sample = noisy(factor * logits) if len(logits) == 16 else factor * logits
            return (sample, logits) if return_pooled else sample

        return model

    expected = sum(objective(with_factor(factor), whole) for factor in (0.7, 1.0, 1.4)) / 3
    torch.testing.assert_close(loss, expected)


@pytest.mark.parametrize("objective", ["cross_entropy", "r_drop"])
def test_multi_sample_dropout_reports_activity(tmp_path, objective):
    """A run reports the spread of the logits over the masks, in addition to the values of its objective."""
    run = train(tmp_path / "run", f"objective={objective}", *PLAIN, "model.dropout.multi_sample=3")
    assert min(rows(run, "multi_sample/logit_std")) > 0
    assert bool(rows(run, "objective/kl_divergence")) == (objective == "r_drop")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model.dropout.multi_sample=0"], "model.dropout.multi_sample=0: must be >= 1"),
        (["model.dropout.multi_sample=2", f"model._target_={__name__}.Bag"], "not with a custom model"),
        (["model.dropout.multi_sample=2", "model.classifier_dropout=0"], "no dropout before the linear head"),
    ],
)
def test_invalid_multi_sample_dropout(tmp_path, overrides, message):
    """Invalid numbers, and models without dropout in the head, are refused before training."""
    with pytest.raises(InputError) as error:
        run_experiment(small(*overrides), RunDir(tmp_path / "run"))
    assert message in str(error.value)
