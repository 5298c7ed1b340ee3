"""Optimizers and schedules: built from their YAML alone, the arguments held to the signature, the rates as they say."""

import math
from pathlib import Path

import pytest
import torch
from torch import nn

from afqmc.config import compose, conf_dir
from afqmc.training.optim import (
    build_optimizer,
    build_scheduler,
    check_optimizer_config,
    parameter_groups,
    warmup_steps,
)
from afqmc.utils.errors import InputError

ADAMW = {"_target_": "torch.optim.AdamW", "weight_decay": 0.1}
LINEAR = {"_target_": "transformers.get_linear_schedule_with_warmup"}
COSINE = {"_target_": "transformers.get_cosine_schedule_with_warmup"}
ONE_CYCLE = {"_target_": "torch.optim.lr_scheduler.OneCycleLR", "pct_start": 0.1, "cycle_momentum": False}


@pytest.fixture
def model():
    return nn.ModuleDict({"dense": nn.Linear(3, 2), "LayerNorm": nn.LayerNorm(2), "words": nn.Embedding(5, 3)})


def rates(config, total_steps, lr=1.0):
    """The learning rate of each step."""
    optimizer = torch.optim.SGD(nn.Linear(2, 2).parameters(), lr=lr)
    scheduler = build_scheduler(config, optimizer, total_steps, lr)
    found = []
    for _ in range(total_steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


def test_weight_decay_is_on_matrices_and_not_on_biases_and_norms(model):
    decayed, others = build_optimizer(ADAMW, model, lr=0.5).param_groups
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    assert {names[id(one)] for one in decayed["params"]} == {"dense.weight", "words.weight"}
    assert {names[id(one)] for one in others["params"]} == {"dense.bias", "LayerNorm.weight", "LayerNorm.bias"}
    assert (decayed["weight_decay"], others["weight_decay"]) == (0.1, 0)
    assert decayed["lr"] == others["lr"] == 0.5


def test_frozen_parameters_are_left_to_themselves(model):
    model["words"].requires_grad_(False)
    model["dense"].weight.requires_grad_(False)
    (group,) = parameter_groups(model, with_decay=True)
    assert len(group["params"]) == 3
    assert group["weight_decay"] == 0


@pytest.mark.parametrize("name", ["adamw", "sgd", "adafactor"])
def test_an_optimizer_of_the_group_builds_and_steps(model, name):
    optimizer = build_optimizer(compose([f"optimizer={name}"]).optimizer, model, lr=1e-2)
    before = model["dense"].weight.clone()
    model["dense"](torch.ones(1, 3)).sum().backward()
    optimizer.step()
    assert not torch.equal(model["dense"].weight, before)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            {**ADAMW, "weight_decy": 1},
            r"optimizer.weight_decy: AdamW has no such argument; did you mean 'weight_decay'",
        ),
        ({**ADAMW, "qqq": 1}, "optimizer.qqq: AdamW has no such argument; allowed: amsgrad, betas, "),
        ({**ADAMW, "lr": 1e-5}, "optimizer.lr=1e-05: the learning rate is a key of its own: lr=1e-05"),
        ({**ADAMW, "eps": -1}, r"optimizer\.eps=-1: torch.optim.AdamW refuses this: Invalid epsilon"),
        ({}, r"optimizer._target_: is not set"),
        ({"_target_": "torch.optim.AdmW"}, "optimizer._target_=torch.optim.AdmW: .* did you mean 'AdamW'"),
        ({"_target_": "torch.nn.Linear"}, "optimizer: Linear must take an argument 'params'"),
        ({"_target_": "transformers.set_seed", "seed": 1}, "optimizer: set_seed must take an argument 'params'"),
    ],
)
def test_a_wrong_optimizer_is_refused_by_its_key(model, config, message):
    with pytest.raises(InputError, match=message):
        build_optimizer(config, model, lr=1e-3)


def test_what_is_no_optimizer_is_refused(model, plug):
    target = f"{plug('def build(params, lr): return 5')}.build"
    with pytest.raises(InputError, match=rf"optimizer._target_={target}: built a int; must be a torch Optimizer"):
        build_optimizer({"_target_": target}, model, lr=1e-3)


def test_an_optimizer_of_ones_own_module_is_plugged_in_with_its_arguments(model, plug):
    name = plug(
        "import torch\n"
        "class Mine(torch.optim.SGD):\n"
        "    def __init__(self, params, lr, *, twist):\n"
        "        super().__init__(params, lr=lr)\n"
        "        self.twist = twist\n"
    )
    optimizer = build_optimizer({"_target_": f"{name}.Mine", "twist": 7}, model, lr=0.5)
    assert (optimizer.twist, len(optimizer.param_groups)) == (7, 1)  # takes no weight_decay: one group
    with pytest.raises(InputError, match=r"optimizer: Mine needs the argument 'twist': add optimizer.twist="):
        build_optimizer({"_target_": f"{name}.Mine"}, model, lr=0.5)


def down(step, low=0.0, high=1.0):
    """OneCycleLR's fall from step 29 to step 99."""
    return low + (high - low) * (1 + math.cos(math.pi * (step - 29) / 70)) / 2


# learning rates at the first, the middle and the last of 100 steps, with a peak of 1
EXPECTED = {
    "constant": (1, 1, 1),
    "linear": (1, 0.5, 0.01),
    "cosine": (1, 0.5, (1 + math.cos(math.pi * 0.99)) / 2),
    "polynomial": (1, 0.5, 0.01),
    "one_cycle": (1 / 25, down(50, low=4e-6), 4e-6),
}


def test_every_schedule_of_the_group_is_expected_below():
    assert {path.stem for path in (Path(conf_dir()) / "scheduler").glob("*.yaml")} == set(EXPECTED)


@pytest.mark.parametrize(("name", "expected"), EXPECTED.items())
def test_a_schedule_begins_and_goes_on_and_ends_as_it_says(name, expected):
    found = rates(compose([f"scheduler={name}"]).scheduler, 100)
    assert (found[0], found[50], found[99]) == pytest.approx(expected, rel=1e-4)
    assert max(found) == pytest.approx(1)


@pytest.mark.parametrize("name", ["constant", "linear", "cosine", "polynomial"])
@pytest.mark.parametrize("warmup", ["warmup_steps=20", "warmup_ratio=0.2"])
def test_warm_up_rises_to_the_peak_in_steps_or_in_a_share_of_all(name, warmup):
    found = rates(compose([f"scheduler={name}", f"scheduler.{warmup}"]).scheduler, 100)
    assert found[:21] == pytest.approx([step / 20 for step in range(21)])
    assert max(found) == found[20] == 1


def test_a_polynomial_ends_at_its_own_end():
    found = rates(compose(["scheduler=polynomial", "scheduler.lr_end=0.5", "scheduler.power=2"]).scheduler, 100)
    assert found[50] == pytest.approx(0.5 + 0.5 / 4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"warmup_steps": -1}, "scheduler.warmup_steps=-1: must be a whole number >= 0"),
        ({"warmup_steps": 0.1}, "scheduler.warmup_steps=0.1: must be a whole number >= 0"),
        ({"warmup_ratio": 1}, "scheduler.warmup_ratio=1: must be >= 0 and < 1"),
        ({"warmup_ratio": -0.1}, "scheduler.warmup_ratio=-0.1: must be >= 0 and < 1"),
        ({"warmup_ratio": "a"}, "scheduler.warmup_ratio=a: must be"),
        ({"warmup_steps": 5, "warmup_ratio": 0.1}, "scheduler.warmup_steps=5 and warmup_ratio=0.1: set one of them"),
    ],
)
def test_a_wrong_warm_up_is_refused_by_its_key(arguments, message):
    with pytest.raises(InputError, match=message):
        warmup_steps(dict(arguments), 100)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({**COSINE, "num_cycle": 1}, "scheduler.num_cycle: .* has no such argument; did you mean 'num_cycles'"),
        ({**COSINE, "num_cycles": "x"}, r"scheduler\.num_cycles=x: .*get_cosine.* refuses this"),
        ({**ONE_CYCLE, "warmup_steps": 5}, "scheduler.warmup_steps=5: .*OneCycleLR has no warm-up of this kind"),
        ({**ONE_CYCLE, "pct_start": 2}, r"scheduler\.pct_start=2: .*OneCycleLR refuses this"),
        ({"_target_": "torch.optim.lr_scheduler.StepLR"}, "StepLR needs the argument 'step_size': add scheduler.step_"),
        ({}, r"scheduler._target_: is not set"),
    ],
)
def test_a_wrong_schedule_is_refused_by_its_key(config, message):
    with pytest.raises(InputError, match=message):
        rates(config, 100)


@pytest.mark.parametrize(
    ("target", "arguments"), [("CosineAnnealingLR", {}), ("LinearLR", {"start_factor": 1.0, "end_factor": 0.01})]
)
def test_a_schedule_is_told_the_number_of_steps_under_the_librarys_name(target, arguments):
    found = rates({"_target_": f"torch.optim.lr_scheduler.{target}", **arguments}, 100)
    assert found[99] < 0.03


def test_a_pure_function_of_the_step_is_a_schedule(plug):
    name = plug("def halves(step, total_steps, base=2):\n    return base ** -(4 * step // total_steps)\n")
    assert rates({"_target_": f"{name}.halves"}, 8) == [1, 1, 0.5, 0.5, 0.25, 0.25, 0.125, 0.125]
    assert rates({"_target_": f"{name}.halves", "base": 10}, 4, lr=5.0) == pytest.approx([5, 0.5, 0.05, 0.005])
    with pytest.raises(InputError, match=r"scheduler.bse: halves has no such argument; did you mean 'base'"):
        rates({"_target_": f"{name}.halves", "bse": 10}, 4)


def test_both_are_checked_before_there_is_a_model():
    check_optimizer_config(ADAMW, LINEAR, lr=1e-3)
    with pytest.raises(InputError, match=r"optimizer\.beta"):
        check_optimizer_config({**ADAMW, "beta": 1}, LINEAR, lr=1e-3)
    with pytest.raises(InputError, match=r"scheduler\.beta"):
        check_optimizer_config(ADAMW, {**LINEAR, "beta": 1}, lr=1e-3)


def test_a_cycle_too_short_for_its_steps_is_refused():
    with pytest.raises(InputError, match="OneCycleLR refuses this"):
        rates(ONE_CYCLE, 10)


def test_a_schedule_without_warm_up_names_the_key_that_was_set():
    with pytest.raises(InputError, match=r"scheduler\.warmup_ratio=0\.1"):
        rates({**ONE_CYCLE, "warmup_ratio": 0.1}, 100)


def test_a_pure_function_may_take_warmup_steps(plug):
    name = plug("def up(step, total_steps, warmup_steps=1):\n    return min(1, step / warmup_steps)\n")
    assert rates({"_target_": f"{name}.up", "warmup_steps": 4}, 6) == [0, 0.25, 0.5, 0.75, 1, 1]


def test_a_warm_up_longer_than_the_run_is_refused():
    with pytest.raises(InputError, match=r"scheduler\.warmup_steps=500"):
        rates({**LINEAR, "warmup_steps": 500}, 100)


def test_a_schedule_that_wants_the_metric_is_refused(model):
    with pytest.raises(InputError, match=r"scheduler\._target_"):
        check_optimizer_config(ADAMW, {"_target_": "torch.optim.lr_scheduler.ReduceLROnPlateau"}, lr=1e-3)


def test_what_is_no_schedule_is_refused(plug):
    with pytest.raises(InputError, match=r"scheduler\._target_"):
        check_optimizer_config(ADAMW, {"_target_": f"{plug('def build(optimizer): return 5')}.build"}, lr=1e-3)


def test_too_few_betas_are_refused(model):
    with pytest.raises(InputError, match="betas"):
        build_optimizer({**ADAMW, "betas": [0.9]}, model, lr=1e-3)


def test_an_optimizer_without_a_signature_is_refused(model):
    with pytest.raises(InputError, match=r"optimizer"):
        build_optimizer({"_target_": "builtins.dict"}, model, lr=1e-3)
