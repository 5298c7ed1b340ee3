"""Parts of the training loop: intervals, best value, loss over microbatches, guard against non-finite losses, hooks."""

import math
import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from sklearn.utils.class_weight import compute_class_weight

from afqmc.data.batching import Batch
from afqmc.training.callbacks.base import Callback
from afqmc.training.callbacks.early_stopping import EarlyStopping
from afqmc.training.callbacks.factory import build_callbacks
from afqmc.training.config import DistributedConfig, NonFinite, TrainerConfig
from afqmc.training.events import EvaluationEnd
from afqmc.training.nonfinite import NonFiniteGuard, NonFiniteLossError
from afqmc.training.objectives.cross_entropy import CrossEntropy, balanced_weights
from afqmc.training.state import BestTracker, StepIntervals, TrainState
from afqmc.training.step import TrainStep
from afqmc.utils.errors import InputError


@pytest.mark.parametrize(
    ("settings", "total", "evaluate"),
    [
        ({}, 30, 10),
        ({"eval_steps": 4}, 30, 4),
        ({"max_steps": 7}, 7, 10),
        ({"max_steps": 100, "eval_steps": 25}, 100, 25),
    ],
)
def test_intervals_are_in_steps(settings, total, evaluate):
    """``max_steps`` replaces epochs; without ``eval_steps`` each epoch is evaluated."""
    intervals = StepIntervals.of(TrainerConfig(logging_steps=3, **settings), steps_per_epoch=10, epochs=3)
    assert intervals == StepIntervals(total=total, epoch=10, evaluate=evaluate, log=3)


def test_intervals_are_due():
    """An interval is due every N steps and after the last step."""
    intervals = StepIntervals(total=11, epoch=4, evaluate=4, log=3)
    assert [step for step in range(1, 12) if intervals.is_due(step, intervals.evaluate)] == [4, 8, 11]
    assert [step for step in range(1, 12) if intervals.is_due(step, 100)] == [11]


NAN = math.nan


@pytest.mark.parametrize(
    ("higher", "min_delta", "values", "best", "without_improvement"),
    [
        (True, 0.0, [0.5, 0.6, 0.6, 0.4], [True, True, False, False], [0, 0, 1, 2]),
        (False, 0.0, [0.5, 0.6, 0.4, 0.4], [True, False, True, False], [0, 1, 0, 1]),
        (True, 0.1, [0.5, 0.55, 0.65, 0.7], [True, True, True, True], [0, 1, 0, 1]),
        (False, 0.1, [0.5, 0.45, 0.35, 0.3], [True, True, True, True], [0, 1, 0, 1]),
        (True, 0.0, [NAN, NAN, 0.0, NAN, 0.1], [False, False, True, False, True], [1, 2, 0, 1, 0]),
        (False, 0.0, [NAN, math.inf, 3.0], [False, True, True], [1, 0, 0]),
    ],
)
def test_best_value_and_early_stopping(higher, min_delta, values, best, without_improvement):
    """The first number is the best, then each that improves on it; NaN never is. Early stopping counts the others."""
    tracker, stopping = BestTracker("accuracy", higher), EarlyStopping(100, min_delta)
    trainer = SimpleNamespace(state=TrainState(tracker))
    for value, is_best, evaluations in zip(values, best, without_improvement, strict=True):
        assert tracker.update(value) is is_best
        evaluation = SimpleNamespace(metrics={"accuracy": value})
        stopping.on_evaluation_end(trainer, EvaluationEnd(1, 1.0, evaluation, is_best))
        assert stopping.evaluations_without_improvement == evaluations
    numbers = [value for value in values if not math.isnan(value)]
    assert tracker.value == (max if higher else min)(numbers)


def echo(logits):
    """A model whose input is its logits."""
    return logits


def split(batch, count):
    rows = zip(batch.inputs["logits"].chunk(count), batch.labels.chunk(count), strict=True)
    return [Batch({"logits": logits}, labels, [0] * len(labels), 0) for logits, labels in rows]


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weights", [None, [0.5, 1.0, 3.0]])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_microbatch_losses_sum_to_batch_mean(smoothing, weights, count):
    """The losses of microbatches sum to PyTorch's mean over the whole batch, and so do their gradients."""
    torch.manual_seed(0)
    logits, labels = torch.randn(8, 3, requires_grad=True), torch.tensor([0, 1, 2, 2, 1, 0, 0, 2])
    tensor = None if weights is None else torch.tensor(weights)
    expected = torch.nn.CrossEntropyLoss(weight=tensor, label_smoothing=smoothing)(logits, labels)
    objective, batch = CrossEntropy(smoothing, weights), Batch({"logits": logits}, labels, [*range(8)], 8)
    loss = sum(objective(echo, microbatch) for microbatch in split(batch, count)) / objective.normalizer(batch)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(*(torch.autograd.grad(value, logits)[0] for value in (loss, expected)))


def test_loss_is_float32():
    """The loss of bf16 logits is computed in float32."""
    logits, labels = torch.tensor([[3.0, -2.0], [0.5, 1.0]], dtype=torch.bfloat16), torch.tensor([1, 0])
    assert CrossEntropy()(echo, Batch({"logits": logits}, labels, [0, 1], 2)).dtype is torch.float32


@pytest.mark.parametrize("counts", [[10, 10], [69, 31], [1, 2, 7]])
def test_balanced_weights_match_scikit_learn(counts):
    classes = np.arange(len(counts))
    expected = compute_class_weight("balanced", classes=classes, y=np.repeat(classes, counts))
    assert balanced_weights(counts) == pytest.approx(list(expected))


def test_empty_class_has_finite_weight():
    assert balanced_weights([4, 0]) == [0.5, 2.0]


def build_step(optimizer="AdamW", config=None, callbacks=(), **arguments):
    """Return a step over one linear layer."""
    torch.manual_seed(0)

    class Linear(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(4, 2)

        def forward(self, inputs, attention_mask):
            return self.layer(inputs)

    model = Linear()
    accelerator = Accelerator(cpu=True)
    built = getattr(torch.optim, optimizer)(model.parameters(), lr=0.1, **arguments)
    scheduler = torch.optim.lr_scheduler.LambdaLR(built, lambda step: 1.0)
    config, prepared = config or TrainerConfig(), accelerator.prepare(built)
    return TrainStep(model, prepared, scheduler, accelerator, config, DistributedConfig(), CrossEntropy(), callbacks)


def batch(bad=False):
    values = torch.arange(12.0).view(3, 4) * (math.nan if bad else 1)
    return Batch({"inputs": values, "attention_mask": torch.ones(3, 4)}, torch.tensor([0, 1, 1]), [0, 1, 2], 12)


def test_nonfinite_loss_raises_before_step():
    """A loss that is not finite raises an error, and the weights are unchanged."""
    step = build_step(fused=True)
    before = step.model.layer.weight.clone()
    with pytest.raises(NonFiniteLossError, match="at step 7"):
        step(batch(bad=True), 7)
    assert torch.equal(step.model.layer.weight, before)


def test_device_guard_skips_later_steps():
    """With the check on the device, no step is taken from the first non-finite loss on."""
    step = build_step(fused=True)
    step.guard.on_device = True
    step(batch(), 1)
    after_one = step.model.layer.weight.clone()
    assert torch.equal(step.model.layer.weight, after_one)
    step(batch(bad=True), 2)
    step(batch(), 3)
    assert torch.equal(step.model.layer.weight, after_one)
    assert step.guard.first_bad_step() == 2


def test_device_guard_changes_no_bit():
    """With finite losses, the check on the device changes no bit of the weights."""
    plain, on_device = build_step(fused=True), build_step(fused=True)
    on_device.guard.on_device = True
    for index in range(1, 6):
        losses = [step(batch(), index)[0] for step in (plain, on_device)]
        assert torch.equal(*losses)
    assert torch.equal(plain.model.layer.weight, on_device.model.layer.weight)


@pytest.mark.parametrize(
    ("optimizer", "arguments", "device", "precision", "on_device"),  # "meta" stands for any device other than the CPU
    [
        ("AdamW", {"fused": True}, "meta", "bf16", True),
        ("AdamW", {"fused": True}, "meta", "fp16", False),
        ("AdamW", {"fused": False}, "meta", "bf16", False),
        ("Adafactor", {}, "meta", "bf16", False),
        ("AdamW", {"fused": True}, "cpu", "bf16", False),
    ],
)
def test_device_guard_needs_fused_optimizer(optimizer, arguments, device, precision, on_device):
    """The check is done on the device only if the optimizer can skip steps there."""
    built = getattr(torch.optim, optimizer)([torch.nn.Parameter(torch.zeros(2))], **arguments)
    assert NonFiniteGuard(built, torch.device(device), precision, NonFinite.stop).on_device is on_device


def test_skipped_batch_leaves_no_gradients():
    """When the second microbatch is not finite, the gradients of the first do not reach the next step."""
    config = TrainerConfig(gradient_accumulation_steps=3, on_nonfinite=NonFinite.skip)
    skipping, plain = build_step(config=config), build_step(config=config)
    bad = batch()
    bad.inputs["inputs"][2] = math.nan
    for step in (skipping, plain):
        step(batch(), 1)
    with pytest.raises(NonFiniteLossError):
        skipping(bad, 2)
    skipping.skip()
    for step in (skipping, plain):
        step(batch(), 3)
    assert torch.equal(skipping.model.layer.weight, plain.model.layer.weight)


class Hooks(Callback):
    """Records the order of the hooks of a step, and runs each microbatch twice."""

    def __init__(self):
        self.calls = []

    def on_before_forward(self, step, microbatch):
        self.calls.append(("before_forward", len(microbatch)))

    def on_after_backward(self, step, microbatch, backward):
        self.calls.append(("after_backward", len(microbatch)))
        backward()

    def on_before_optimizer_step(self, step):
        self.calls.append(("before_step", step.model.layer.weight.grad.clone()))

    def on_after_optimizer_step(self, step):
        self.calls.append(("after_step", None))


def test_step_hooks():
    """Callbacks see each microbatch, and may run its backward pass again."""
    hooks, config = Hooks(), TrainerConfig(gradient_accumulation_steps=2)
    plain = build_step(config=config)
    plain.backward(batch(), 1)
    build_step(config=config, callbacks=[hooks])(batch(), 1)
    passes = ["before_forward", "after_backward"] * 2
    assert [name for name, _ in hooks.calls] == [*passes, "before_step", "after_step"]
    assert sum(size for name, size in hooks.calls if name == "after_backward") == 3
    torch.testing.assert_close(hooks.calls[4][1], 2 * plain.model.layer.weight.grad)


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (lambda model, batch: model(**batch.inputs), "not a tensor of shape (3, 2)"),
        (lambda model, batch: 1.0, "not float"),
    ],
)
def test_invalid_objective(loss, message):
    """An objective that returns no scalar tensor is named by its class."""
    step = build_step()
    step.objective = type("Mine", (), {"normalizer": lambda *_: 1, "__call__": lambda _, *args: loss(*args)})()
    with pytest.raises(TypeError, match=re.escape(f"Mine: must return a scalar tensor with gradient, {message}")):
        step(batch(), 1)


class Diverging(Callback):
    """Makes the weights NaN before the second backward pass."""

    def on_after_backward(self, step, microbatch, backward):
        step.model.layer.weight.data.fill_(math.nan)
        backward()


def test_nonfinite_loss_in_callback():
    """A loss that is not finite stops the step also in the backward pass that a callback runs."""
    step = build_step(callbacks=[Diverging()])
    with pytest.raises(NonFiniteLossError, match="loss of a callback's backward pass is nan"):
        step(batch(), 1)


class Misspelt(Callback):
    def on_evaluation_ended(self, trainer, event):
        pass


class TakesTooFew(Callback):
    def on_step_end(self, trainer):
        pass


class RaisesError(Callback):
    def __init__(self):
        raise OSError("no disk")


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (Misspelt, "callbacks.mine: Misspelt.on_evaluation_ended is not a hook.*on_evaluation_end"),
        (TakesTooFew, "callbacks.mine: TakesTooFew.on_step_end must take .*trainer.*event"),
        (RaisesError, "callbacks.mine._target_=.*RaisesError: cannot be built: OSError: no disk"),
        (torch.nn.Module, "callbacks.mine._target_=.*: must be a subclass of afqmc.training.callbacks.base.Callback"),
    ],
)
def test_invalid_callbacks(monkeypatch, target, message):
    """Misspelt hooks and hooks with other arguments are refused; without this they would never be called."""
    monkeypatch.setattr("afqmc.utils.targets.import_target", lambda *_: target)
    with pytest.raises(InputError, match=message):
        build_callbacks({"mine": {"_target_": f"tests.{target.__name__}"}})


def test_hooks_that_are_not_overridden():
    step = build_step(callbacks=[EarlyStopping(1)])
    assert step._after_backward == step._before_step == step._after_step == []
