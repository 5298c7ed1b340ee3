"""The loop's parts: durations in steps, the best so far, the loss of a batch in parts, balanced weights."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from sklearn.utils.class_weight import compute_class_weight

from afqmc.data.batching import Batch
from afqmc.training.callbacks.base import Callback
from afqmc.training.callbacks.early_stopping import EarlyStopping
from afqmc.training.config import DistributedConfig, NonFinite, TrainerConfig
from afqmc.training.events import EvaluationEnd
from afqmc.training.nonfinite import NonFiniteGuard, NonFiniteLossError
from afqmc.training.objectives.cross_entropy import CrossEntropy, balanced_weights
from afqmc.training.state import BestTracker, StepIntervals, TrainState
from afqmc.training.step import TrainStep


@pytest.mark.parametrize(
    ("settings", "total", "evaluate"),
    [
        ({}, 30, 10),
        ({"eval_steps": 4}, 30, 4),
        ({"max_steps": 7}, 7, 10),
        ({"max_steps": 100, "eval_steps": 25}, 100, 25),
    ],
)
def test_durations_are_worked_out_in_steps(settings, total, evaluate):
    found = StepIntervals.of(TrainerConfig(logging_steps=3, **settings), steps_per_epoch=10, epochs=3)
    assert found == StepIntervals(total=total, epoch=10, evaluate=evaluate, log=3)


def test_it_is_time_every_so_many_steps_and_at_the_last():
    durations = StepIntervals(total=11, epoch=4, evaluate=4, log=3)
    assert [step for step in range(1, 12) if durations.is_due(step, durations.evaluate)] == [4, 8, 11]
    assert [step for step in range(1, 12) if durations.is_due(step, 100)] == [11]


NAN = math.nan


@pytest.mark.parametrize(
    ("higher", "min_delta", "values", "best", "waited"),
    [
        (True, 0.0, [0.5, 0.6, 0.6, 0.4], [True, True, False, False], [0, 0, 1, 2]),
        (False, 0.0, [0.5, 0.6, 0.4, 0.4], [True, False, True, False], [0, 1, 0, 1]),
        (True, 0.1, [0.5, 0.55, 0.65, 0.7], [True, True, True, True], [0, 1, 0, 1]),
        (False, 0.1, [0.5, 0.45, 0.35, 0.3], [True, True, True, True], [0, 1, 0, 1]),
        (True, 0.0, [NAN, NAN, 0.0, NAN, 0.1], [False, False, True, False, True], [1, 2, 0, 1, 0]),
        (False, 0.0, [NAN, math.inf, 3.0], [False, True, True], [1, 0, 0]),
    ],
)
def test_the_best_is_the_first_and_whatever_beats_it_and_never_a_nan(higher, min_delta, values, best, waited):
    tracker, stopping = BestTracker("accuracy", higher), EarlyStopping(100, min_delta)
    trainer = SimpleNamespace(state=TrainState(tracker))
    for value, is_best, evaluations in zip(values, best, waited, strict=True):
        assert tracker.update(value) is is_best
        evaluation = SimpleNamespace(metrics={"accuracy": value})
        stopping.on_evaluation_end(trainer, EvaluationEnd(1, 1.0, evaluation, is_best))
        assert stopping.evaluations_without_improvement == evaluations
    known = [value for value in values if not math.isnan(value)]
    assert tracker.value == (max if higher else min)(known)


def echo(logits):
    """A model whose input are its logits."""
    return logits


def whole_in(batch, parts):
    rows = zip(batch.inputs["logits"].chunk(parts), batch.labels.chunk(parts), strict=True)
    return [Batch({"logits": logits}, labels, [0] * len(labels), 0) for logits, labels in rows]


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weights", [None, [0.5, 1.0, 3.0]])
@pytest.mark.parametrize("parts", [1, 2, 3])
def test_the_loss_of_a_batch_in_parts_is_torchs_mean_over_the_whole(smoothing, weights, parts):
    torch.manual_seed(0)
    logits, labels = torch.randn(8, 3, requires_grad=True), torch.tensor([0, 1, 2, 2, 1, 0, 0, 2])
    tensor = None if weights is None else torch.tensor(weights)
    expected = torch.nn.CrossEntropyLoss(weight=tensor, label_smoothing=smoothing)(logits, labels)
    objective, whole = CrossEntropy(smoothing, weights), Batch({"logits": logits}, labels, [*range(8)], 8)
    found = sum(objective(echo, part) for part in whole_in(whole, parts)) / objective.normalizer(whole)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(*(torch.autograd.grad(one, logits)[0] for one in (found, expected)))


def test_the_loss_of_half_precision_logits_is_worked_out_in_float32():
    logits, labels = torch.tensor([[3.0, -2.0], [0.5, 1.0]], dtype=torch.bfloat16), torch.tensor([1, 0])
    assert CrossEntropy()(echo, Batch({"logits": logits}, labels, [0, 1], 2)).dtype is torch.float32


@pytest.mark.parametrize("counts", [[10, 10], [69, 31], [1, 2, 7]])
def test_balanced_weights_are_scikit_learns(counts):
    classes = np.arange(len(counts))
    expected = compute_class_weight("balanced", classes=classes, y=np.repeat(classes, counts))
    assert balanced_weights(counts) == pytest.approx(list(expected))


def test_a_class_without_pairs_has_a_finite_weight():
    assert balanced_weights([4, 0]) == [0.5, 2.0]


def stepper(optimizer="AdamW", config=None, callbacks=(), **arguments):
    """A step over one linear layer whose inputs are given as they are, deferring as on a GPU."""
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


def test_a_loss_that_is_not_finite_is_told_before_the_step():
    step = stepper(fused=True)
    before = step.model.layer.weight.clone()
    with pytest.raises(NonFiniteLossError, match="at step 7"):
        step(batch(bad=True), 7)
    assert torch.equal(step.model.layer.weight, before)


def test_where_losses_are_read_late_no_step_is_taken_from_the_first_bad_one_on():
    step = stepper(fused=True)
    step.guard.on_device = True
    step(batch(), 1)
    after_one = step.model.layer.weight.clone()
    assert torch.equal(step.model.layer.weight, after_one)
    step(batch(bad=True), 2)
    step(batch(), 3)
    assert torch.equal(step.model.layer.weight, after_one)
    assert step.guard.first_bad_step() == 2


def test_deferral_takes_the_same_steps_when_all_is_well():
    plain, deferred = stepper(fused=True), stepper(fused=True)
    deferred.guard.on_device = True
    for number in range(1, 6):
        losses = [step(batch(), number)[0] for step in (plain, deferred)]
        assert torch.equal(*losses)
    assert torch.equal(plain.model.layer.weight, deferred.model.layer.weight)


@pytest.mark.parametrize(
    ("optimizer", "arguments", "device", "precision", "deferred"),  # "meta" stands for whatever is not the host
    [
        ("AdamW", {"fused": True}, "meta", "bf16", True),
        ("AdamW", {"fused": True}, "meta", "fp16", False),
        ("AdamW", {"fused": False}, "meta", "bf16", False),
        ("Adafactor", {}, "meta", "bf16", False),
        ("AdamW", {"fused": True}, "cpu", "bf16", False),
    ],
)
def test_losses_are_read_late_only_where_the_optimizer_can_skip(
    optimizer, arguments, device, precision, deferred, monkeypatch
):
    built = getattr(torch.optim, optimizer)([torch.nn.Parameter(torch.zeros(2))], **arguments)
    assert NonFiniteGuard(built, torch.device(device), precision, NonFinite.stop).on_device is deferred


def test_a_skipped_batch_leaves_no_gradients_behind():
    """A batch whose second microbatch is not finite: the gradients of its first one do not reach the next step."""
    config = TrainerConfig(gradient_accumulation_steps=3, on_nonfinite=NonFinite.skip)
    skipping, plain = stepper(config=config), stepper(config=config)
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

    def on_after_backward(self, step, microbatch, backward):
        self.calls.append(("after_backward", len(microbatch)))
        backward()

    def on_before_optimizer_step(self, step):
        self.calls.append(("before_step", step.model.layer.weight.grad.clone()))

    def on_after_optimizer_step(self, step):
        self.calls.append(("after_step", None))


def test_callbacks_see_each_microbatch_and_may_run_it_again():
    hooks, config = Hooks(), TrainerConfig(gradient_accumulation_steps=2)
    plain = stepper(config=config)
    plain.backward(batch(), 1)
    stepper(config=config, callbacks=[hooks])(batch(), 1)
    assert [name for name, _ in hooks.calls] == ["after_backward", "after_backward", "before_step", "after_step"]
    assert sum(size for name, size in hooks.calls if name == "after_backward") == 3
    torch.testing.assert_close(hooks.calls[2][1], 2 * plain.model.layer.weight.grad)


def test_a_hook_that_nobody_overrides_is_not_called():
    step = stepper(callbacks=[EarlyStopping(1)])
    assert step._after_backward == step._before_step == step._after_step == []
