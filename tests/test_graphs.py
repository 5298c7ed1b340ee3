"""CUDA graphs: what they cannot do is refused by name; on a GPU a graphed step equals an eager one."""

import numpy as np
import pytest
import torch
from helpers import rows, train

from afqmc.training.config import TrainerConfig
from afqmc.training.cuda_graphs import check_graphs, make_capturable
from afqmc.training.device import Choice
from afqmc.utils.errors import InputError

CUDA = Choice("cuda", "bf16", "")


@pytest.mark.parametrize(
    ("settings", "choice", "told"),
    [
        ({}, Choice("cpu", "no", ""), "needs cuda"),
        ({}, Choice("cuda", "fp16", ""), "mixed_precision=fp16"),
        ({"gradient_accumulation_steps": 2}, CUDA, "gradient_accumulation_steps"),
        ({"padding_free": True}, CUDA, "padding_free"),
        ({"compile": True}, CUDA, "compile"),
    ],
)
def test_what_graphs_cannot_do_is_refused(settings, choice, told):
    with pytest.raises(InputError, match=told):
        check_graphs(TrainerConfig(cuda_graphs=True, **settings), choice)


def test_without_graphs_nothing_is_in_their_way():
    check_graphs(TrainerConfig(gradient_accumulation_steps=2), Choice("cpu", "no", ""))
    check_graphs(TrainerConfig(cuda_graphs=True), CUDA)


def test_a_schedule_writes_into_the_learning_rate_of_a_capturable_optimizer():
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.ones(2))], lr=0.5, fused=True)
    make_capturable(optimizer, torch.device("cpu"))
    lr = optimizer.param_groups[0]["lr"]
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + step))
    for step in range(1, 4):
        optimizer.step()
        scheduler.step()
        assert lr.item() == pytest.approx(0.5 / (1 + step))
        assert optimizer.param_groups[0]["lr"] is lr


@pytest.mark.parametrize("optimizer", ["SGD", "Adafactor"])
def test_an_optimizer_that_cannot_be_captured_is_refused(optimizer):
    built = getattr(torch.optim, optimizer)([torch.nn.Parameter(torch.ones(2))], lr=0.1)
    with pytest.raises(InputError, match="fused"):
        make_capturable(built, torch.device("cpu"))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_a_graphed_run_equals_an_eager_one(tmp_path):
    options = ("trainer.device=cuda", "trainer.max_grad_norm=1", "epochs=3")
    eager, graphed = (train(tmp_path / str(on), *options, f"trainer.cuda_graphs={on}") for on in (False, True))
    np.testing.assert_allclose(rows(graphed, "train/loss"), rows(eager, "train/loss"), rtol=0, atol=1e-5)
