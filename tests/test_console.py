"""What a person sees: figures on the bar all along, and what the run's own log keeps of it."""

import re

import pytest
from helpers import SMALL
from terminal import on_terminal

from afqmc.console import TrainingBar


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """A small run on a terminal, rows of figures due at its end only: its screen and its directory."""
    place = tmp_path_factory.mktemp("terminal")
    options = ("trainer.log_steps=1000", "epochs=10", f"hydra.run.dir={place / 'run'}")
    code, screen = on_terminal("run", *SMALL, *options, cwd=place)
    assert code == 0, screen
    return screen, place / "run"


def test_the_bar_shows_loss_lr_and_speed_long_before_a_row_of_them_is_due(drawn):
    screen, _ = drawn
    early = [figures for step, figures in re.findall(r"(\d+)/120 \[[^\]]*?, (loss [^\]]*)\]", screen) if step != "120"]
    assert len(set(early)) > 2
    assert all(re.fullmatch(r"loss \d\.\d{4}, lr \d\.\d\de-\d\d, \d+ pairs/s", figures) for figures in early)


def test_figures_that_are_unknown_for_a_while_stay_as_they_were(capsys, monkeypatch):
    monkeypatch.setattr("afqmc.console.is_terminal", lambda: True)
    bar = TrainingBar(3)
    bar.bar.mininterval = 0
    for step, (loss, lr) in enumerate([(None, None), (0.5, 1e-3), (None, None)], 1):
        bar.step(step, step, loss, lr, 10.0 * step, due=False)
    bar.close()
    shown = re.findall(r"(\d)/3 \[[^\]]*step[^\]]*?, ([^\]?]*)\]", capsys.readouterr().err)
    assert ("1", "10 pairs/s") in shown
    assert shown[-1] == ("3", "loss 0.5000, lr 1.00e-03, 30 pairs/s")
