"""What a person sees: figures on the bar all along, and what the run's own log keeps of it."""

import logging
import re

import pytest
from helpers import SMALL, command, summary, train
from terminal import on_terminal

from afqmc.run_dir import RunDir
from afqmc.runner.summary_table import print_summary
from afqmc.utils.console import Console, TrainingBar, print_grid, print_table


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """A small run on a terminal, rows of figures due at its end only: its screen and its directory."""
    place = tmp_path_factory.mktemp("terminal")
    options = ("trainer.logging_steps=1000", "epochs=10", f"hydra.run.dir={place / 'run'}")
    code, screen = on_terminal("run", *SMALL, *options, cwd=place)
    assert code == 0, screen
    return screen, place / "run"


def test_the_bar_shows_loss_lr_and_speed_long_before_a_row_of_them_is_due(drawn):
    screen, _ = drawn
    early = [figures for step, figures in re.findall(r"(\d+)/120 \[[^\]]*?, (loss [^\]]*)\]", screen) if step != "120"]
    assert len(set(early)) > 2
    assert all(re.fullmatch(r"loss \d\.\d{4}, lr \d\.\d\de-\d\d, \d+ pairs/s", figures) for figures in early)


def test_figures_that_are_unknown_for_a_while_stay_as_they_were(capsys, monkeypatch):
    monkeypatch.setattr("afqmc.utils.console.is_terminal", lambda: True)
    bar = TrainingBar(3)
    bar.bar.mininterval = 0
    for step, (loss, lr) in enumerate([(None, None), (0.5, 1e-3), (None, None)], 1):
        bar.step(step, step, loss, lr, 10.0 * step, due=False)
    bar.close()
    shown = re.findall(r"(\d)/3 \[[^\]]*step[^\]]*?, ([^\]?]*)\]", capsys.readouterr().err)
    assert ("1", "10 pairs/s") in shown
    assert shown[-1] == ("3", "loss 0.5000, lr 1.00e-03, 30 pairs/s")


def test_the_log_of_a_run_on_a_terminal_keeps_what_the_screen_draws(drawn):
    screen, run = drawn
    log = (run / "run.log").read_text(encoding="utf-8")
    assert "step 120/120  epoch 10.00  loss " in log
    assert "step 120/120  epoch" not in screen
    rows = re.findall(r"│ [\w ]+│ .*│", log)
    assert len(rows) == len(re.findall(r"│ *[\w ]+│ .*│", re.sub(r"\x1b\[\d*m", "", screen))) > 7
    assert "\x1b" not in log


def logged(run):
    return (run / "run.log").read_text(encoding="utf-8")


def test_a_failed_run_says_in_its_log_why_and_on_the_screen_where_it_lies(tmp_path):
    bad = ("lr=10", "optimizer=sgd", "optimizer.momentum=0.99", f"hydra.run.dir={tmp_path / 'run'}")
    ended = command("run", *SMALL, *bad, cwd=tmp_path)
    assert ended.returncode == 1
    assert re.search(
        r"ERROR afqmc\.runner\.lifecycle: failed at step \d+: NonFiniteLossError: ", logged(tmp_path / "run")
    )
    assert ended.stdout.splitlines()[-1] == f"run directory: {tmp_path / 'run'}"
    assert ended.stderr.count("NonFiniteLossError") == 1
    assert "NonFiniteLossError" not in ended.stdout


@pytest.mark.slow
def test_a_collapse_is_told_when_it_happens_and_beside_the_table(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        run = train(tmp_path / "run", "objective.class_weights=[1,1000]", "lr=5e-3", "epochs=3")
    told = [record.getMessage() for record in caplog.records if "collapsed" in record.getMessage()]
    label = summary(run)["collapsed_onto"]
    assert label == "1"
    assert [text.partition(":")[0] for text in told] == ["the model has collapsed", "the best weights are collapsed"]
    assert all(f"{label!r} for (nearly) every dev pair" in text for text in told)


@pytest.mark.slow
def test_a_model_that_tells_pairs_apart_has_not_collapsed(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        run = train(tmp_path / "run", "debug=overfit", "dataset.max_train_samples=16", "epochs=60", "lr=2e-3")
    assert summary(run)["collapsed_onto"] is None
    assert "the best weights" not in caplog.text


def test_a_warning_says_that_it_is_one(capsys):
    console = Console()
    for level in (logging.INFO, logging.WARNING):
        console.handle(logging.LogRecord("name", level, "file", 1, "said", None, None))
    assert capsys.readouterr().out == "said\nwarning: said\n"


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_message_never_follows_a_bar_on_its_line(unbuffered, tmp_path):
    options = ("trainer.logging_steps=1000", f"hydra.run.dir={tmp_path / 'run'}")
    code, screen = on_terminal("run", *SMALL, *options, cwd=tmp_path, env={"PYTHONUNBUFFERED": unbuffered})
    assert code == 0, screen
    evaluated = [
        line.rpartition("\r")[2] for line in screen.replace("\r\n", "\n").split("\n") if "dev: accuracy" in line
    ]
    assert len(evaluated) == 2
    assert all(line.startswith("epoch ") for line in evaluated), evaluated


def test_the_final_table_is_whole_on_a_narrow_terminal(drawn, capsys, monkeypatch):
    for columns in (120, 40, 26):
        monkeypatch.setenv("COLUMNS", str(columns))
        print_summary(summary(RunDir(drawn[1])))
        lines = capsys.readouterr().out.splitlines()[1:]
        assert all(len(line.rstrip()) <= columns for line in lines)
        rows = [re.split(r" *│ *|: +", line.strip(" │")) for line in lines if re.search(r"\w", line)]
        assert ("│" in lines[1]) == (columns > 26)
        assert [len(row) for row in rows] == [2] * 11, lines
        assert {"accuracy", "majority accuracy", "average precision", "padding"} <= {name.strip() for name, _ in rows}
        assert any(re.fullmatch(r"\d+ pairs/s", value) for _, value in rows)


def test_weights_that_do_not_beat_the_majority_are_warned_about_with_a_next_step(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        run = train(tmp_path / "run", "epochs=1")
    found = summary(run)
    assert found["beats_majority"] == (found["best"]["dev/accuracy"] > found["best"]["dev/majority_accuracy"])
    assert not found["beats_majority"]
    last = caplog.records[-1].getMessage()
    assert re.match("the best weights (do not beat the majority|are collapsed): ", last)
    assert "trainer.monitor=dev/auc or dev/f1" in last


def test_weights_above_collapse_and_below_the_majority_are_warned_about(tmp_path, caplog):
    found = summary(train(tmp_path / "run", "epochs=1", "trainer.max_steps=1"))
    caplog.clear()
    for beats in (True, False):
        print_summary({**found, "collapsed_onto": None, "beats_majority": beats})
    told = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert [text.partition(":")[0] for text in told] == ["the best weights do not beat the majority"]


def test_text_of_an_untrusted_file_cannot_steer_the_terminal(capsys):
    label = "a\x1b[31m\x9b2J\u202eb"
    print_table(f"title {label}", [(label, label)])
    print_grid(f"title {label}", [label, "n"], [[label, "1"]])
    shown = capsys.readouterr().out
    assert not set("\x1b\x9b\u202e") & set(shown)
    assert r"a\x1b[31m" in shown
