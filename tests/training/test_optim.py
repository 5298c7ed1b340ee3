"""Optimizers and schedules: built from YAML alone, arguments checked against the signature, rates as expected."""

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
    warmup_steps,
)
from afqmc.training.parameter_groups import build_parameter_groups, no_decay_for_vectors
from afqmc.utils.errors import InputError

ADAMW = {"_target_": "torch.optim.AdamW", "weight_decay": 0.1}
LINEAR = {"_target_": "transformers.get_linear_schedule_with_warmup"}
COSINE = {"_target_": "transformers.get_cosine_schedule_with_warmup"}
ONE_CYCLE = {"_target_": "torch.optim.lr_scheduler.OneCycleLR", "pct_start": 0.1, "cycle_momentum": False}


@pytest.fixture
def model():
    return nn.ModuleDict({"dense": nn.Linear(3, 2), "LayerNorm": nn.LayerNorm(2), "words": nn.Embedding(5, 3)})


def rates(config, total_steps, lr=1.0):
    """Return the learning rate of each step."""
    optimizer = torch.optim.SGD(nn.Linear(2, 2).parameters(), lr=lr)
    scheduler = build_scheduler(config, optimizer, total_steps, lr)
    lrs = []
    for _ in range(total_steps):
        lrs.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return lrs


def test_weight_decay_on_matrices_only(model):
    """Weight decay applies to matrices, not to biases and norms."""
    decayed, others = build_optimizer(ADAMW, model, lr=0.5).param_groups
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    assert {names[id(parameter)] for parameter in decayed["params"]} == {"dense.weight", "words.weight"}
    assert {names[id(parameter)] for parameter in others["params"]} == {
        "dense.bias",
        "LayerNorm.weight",
        "LayerNorm.bias",
    }
    assert (decayed["weight_decay"], others["weight_decay"]) == (0.1, 0)
    assert decayed["lr"] == others["lr"] == 0.5


def test_frozen_parameters_are_left_out(model):
    model["words"].requires_grad_(False)
    model["dense"].weight.requires_grad_(False)
    (group,) = no_decay_for_vectors(model, with_decay=True)
    assert len(group["params"]) == 3
    assert group["weight_decay"] == 0


@pytest.mark.parametrize("name", ["adamw", "sgd", "adafactor"])
def test_optimizers_of_the_group(model, name):
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
        ({**ADAMW, "lr": 1e-5}, "optimizer.lr=1e-05: the learning rate is a top-level key: lr=1e-05"),
        ({**ADAMW, "eps": -1}, r"optimizer\.eps=-1: torch.optim.AdamW rejects it: Invalid epsilon"),
        ({}, r"optimizer._target_: is not set"),
        ({"_target_": "torch.optim.AdmW"}, "optimizer._target_=torch.optim.AdmW: .* did you mean 'AdamW'"),
        ({"_target_": "torch.nn.Linear"}, "optimizer: Linear must take an argument 'params'"),
        ({"_target_": "transformers.set_seed", "seed": 1}, "optimizer: set_seed must take an argument 'params'"),
    ],
)
def test_invalid_optimizer_is_refused(model, config, message):
    with pytest.raises(InputError, match=message):
        build_optimizer(config, model, lr=1e-3)


def test_target_must_build_optimizer(model, plug):
    target = f"{plug('def build(params, lr): return 5')}.build"
    with pytest.raises(InputError, match=rf"optimizer._target_={target}: built a int; must be a torch Optimizer"):
        build_optimizer({"_target_": target}, model, lr=1e-3)


def test_custom_optimizer(model, plug):
    """A custom optimizer is built with its own arguments."""
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
    """Return the rate of OneCycleLR while it falls, from step 29 to step 99."""
    return low + (high - low) * (1 + math.cos(math.pi * (step - 29) / 70)) / 2


# learning rates at the first, the middle and the last of 100 steps, with a peak of 1
EXPECTED = {
    "constant": (1, 1, 1),
    "linear": (1, 0.5, 0.01),
    "cosine": (1, 0.5, (1 + math.cos(math.pi * 0.99)) / 2),
    "polynomial": (1, 0.5, 0.01),
    "one_cycle": (1 / 25, down(50, low=4e-6), 4e-6),
}


def test_every_schedule_is_tested():
    assert {path.stem for path in (Path(conf_dir()) / "scheduler").glob("*.yaml")} == set(EXPECTED)


@pytest.mark.parametrize(("name", "expected"), EXPECTED.items())
def test_schedules_of_the_group(name, expected):
    """Each schedule has the expected rate at the first, middle and last step."""
    lrs = rates(compose([f"scheduler={name}"]).scheduler, 100)
    assert (lrs[0], lrs[50], lrs[99]) == pytest.approx(expected, rel=1e-4)
    assert max(lrs) == pytest.approx(1)


@pytest.mark.parametrize("name", ["constant", "linear", "cosine", "polynomial"])
@pytest.mark.parametrize("warmup", ["warmup_steps=20", "warmup_ratio=0.2"])
def test_warmup(name, warmup):
    """Warm-up rises linearly to the peak, in steps or in a share of all steps."""
    lrs = rates(compose([f"scheduler={name}", f"scheduler.{warmup}"]).scheduler, 100)
    assert lrs[:21] == pytest.approx([step / 20 for step in range(21)])
    assert max(lrs) == lrs[20] == 1


def test_polynomial_ends_at_lr_end():
    lrs = rates(compose(["scheduler=polynomial", "scheduler.lr_end=0.5", "scheduler.power=2"]).scheduler, 100)
    assert lrs[50] == pytest.approx(0.5 + 0.5 / 4)


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
def test_invalid_warmup_is_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        warmup_steps(dict(arguments), 100)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({**COSINE, "num_cycle": 1}, "scheduler.num_cycle: .* has no such argument; did you mean 'num_cycles'"),
        ({**COSINE, "num_cycles": "x"}, r"scheduler\.num_cycles=x: .*get_cosine.* rejects it"),
        ({**ONE_CYCLE, "warmup_steps": 5}, "scheduler.warmup_steps=5: .*OneCycleLR has no warm-up of this kind"),
        ({**ONE_CYCLE, "pct_start": 2}, r"scheduler\.pct_start=2: .*OneCycleLR rejects it"),
        ({"_target_": "torch.optim.lr_scheduler.StepLR"}, "StepLR needs the argument 'step_size': add scheduler.step_"),
        ({}, r"scheduler._target_: is not set"),
    ],
)
def test_invalid_schedule_is_refused(config, message):
    with pytest.raises(InputError, match=message):
        rates(config, 100)


@pytest.mark.parametrize(
    ("target", "arguments"), [("CosineAnnealingLR", {}), ("LinearLR", {"start_factor": 1.0, "end_factor": 0.01})]
)
def test_number_of_steps_is_passed(target, arguments):
    """The number of steps is passed under the name that the library uses."""
    lrs = rates({"_target_": f"torch.optim.lr_scheduler.{target}", **arguments}, 100)
    assert lrs[99] < 0.03


def test_function_as_schedule(plug):
    """A function of the step is a schedule; its arguments are checked."""
    name = plug("def halves(step, total_steps, base=2):\n    return base ** -(4 * step // total_steps)\n")
    assert rates({"_target_": f"{name}.halves"}, 8) == [1, 1, 0.5, 0.5, 0.25, 0.25, 0.125, 0.125]
    assert rates({"_target_": f"{name}.halves", "base": 10}, 4, lr=5.0) == pytest.approx([5, 0.5, 0.05, 0.005])
    with pytest.raises(InputError, match=r"scheduler.bse: halves has no such argument; did you mean 'base'"):
        rates({"_target_": f"{name}.halves", "bse": 10}, 4)


def test_checks_without_model():
    """Optimizer and schedule are checked before a model exists."""
    check_optimizer_config(ADAMW, LINEAR, lr=1e-3)
    with pytest.raises(InputError, match=r"optimizer\.beta"):
        check_optimizer_config({**ADAMW, "beta": 1}, LINEAR, lr=1e-3)
    with pytest.raises(InputError, match=r"scheduler\.beta"):
        check_optimizer_config(ADAMW, {**LINEAR, "beta": 1}, lr=1e-3)


def test_cycle_that_is_too_short():
    with pytest.raises(InputError, match="OneCycleLR rejects it"):
        rates(ONE_CYCLE, 10)


def test_schedule_without_warmup_names_key():
    with pytest.raises(InputError, match=r"scheduler\.warmup_ratio=0\.1"):
        rates({**ONE_CYCLE, "warmup_ratio": 0.1}, 100)


def test_function_with_warmup_steps(plug):
    name = plug("def up(step, total_steps, warmup_steps=1):\n    return min(1, step / warmup_steps)\n")
    assert rates({"_target_": f"{name}.up", "warmup_steps": 4}, 6) == [0, 0.25, 0.5, 0.75, 1, 1]


def test_warmup_longer_than_run():
    with pytest.raises(InputError, match=r"scheduler\.warmup_steps=500"):
        rates({**LINEAR, "warmup_steps": 500}, 100)


def test_metric_driven_schedule_is_refused(model):
    with pytest.raises(InputError, match=r"scheduler\._target_"):
        check_optimizer_config(ADAMW, {"_target_": "torch.optim.lr_scheduler.ReduceLROnPlateau"}, lr=1e-3)


def test_target_must_build_schedule(plug):
    with pytest.raises(InputError, match=r"scheduler\._target_"):
        check_optimizer_config(ADAMW, {"_target_": f"{plug('def build(optimizer): return 5')}.build"}, lr=1e-3)


def test_too_few_betas_are_refused(model):
    with pytest.raises(InputError, match="betas"):
        build_optimizer({**ADAMW, "betas": [0.9]}, model, lr=1e-3)


def test_optimizer_without_signature_is_refused(model):
    with pytest.raises(InputError, match=r"optimizer"):
        build_optimizer({"_target_": "builtins.dict"}, model, lr=1e-3)


def one_group(model, with_decay, factor=1.0):
    return [{"params": list(model.parameters()), "weight_decay": 0.1 * factor}]


def forgetful(model):
    return [{"params": list(model.parameters())[:1]}]


def test_custom_parameter_groups():
    """``optimizer.param_groups`` names a function; it gets those of model, lr and with_decay that it takes."""
    model = nn.Linear(3, 2)
    groups = {"_target_": f"{__name__}.one_group", "factor": 2.0}
    optimizer = build_optimizer({**ADAMW, "param_groups": groups}, model, 0.1)
    assert [(len(group["params"]), group["weight_decay"]) for group in optimizer.param_groups] == [(2, 0.2)]


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ({"_target_": f"{__name__}.one_group", "facto": 1}, "optimizer.param_groups.facto: .*'factor'"),
        ({"_target_": f"{__name__}.forgetful"}, "bias is in no group"),
        ({"_target_": "builtins.dict"}, "must return a list of dicts"),
    ],
)
def test_wrong_parameter_groups_are_refused(groups, message):
    with pytest.raises(InputError, match=message):
        build_parameter_groups({"param_groups": groups})(nn.Linear(3, 2), 0.1, True)
