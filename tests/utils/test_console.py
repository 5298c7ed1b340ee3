"""Console output: the progress bar, the tables, and what a run's log keeps of them."""

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
    """Output and directory of a small run on a terminal that logs a row at its end only."""
    directory = tmp_path_factory.mktemp("terminal")
    options = ("trainer.logging_steps=1000", "epochs=10", f"hydra.run.dir={directory / 'run'}")
    code, screen = on_terminal("run", *SMALL, *options, cwd=directory)
    assert code == 0, screen
    return screen, directory / "run"


def test_bar_metrics(drawn):
    """The bar shows loss, learning rate and speed before a row is logged."""
    screen, _ = drawn
    early = [figures for step, figures in re.findall(r"(\d+)/120 \[[^\]]*?, (loss [^\]]*)\]", screen) if step != "120"]
    assert len(set(early)) > 2
    assert all(re.fullmatch(r"loss \d\.\d{4}, lr \d\.\d\de-\d\d, \d+ pairs/s", figures) for figures in early)


def test_bar_keeps_last_metrics(capsys, monkeypatch):
    """The bar keeps the last known loss and learning rate."""
    monkeypatch.setattr("afqmc.utils.console.is_terminal", lambda: True)
    bar = TrainingBar(3)
    bar.bar.mininterval = 0
    for step, (loss, lr) in enumerate([(None, None), (0.5, 1e-3), (None, None)], 1):
        bar.step(step, step, loss, lr, 10.0 * step, due=False)
    bar.close()
    shown = re.findall(r"(\d)/3 \[[^\]]*step[^\]]*?, ([^\]?]*)\]", capsys.readouterr().err)
    assert ("1", "10 pairs/s") in shown
    assert shown[-1] == ("3", "loss 0.5000, lr 1.00e-03, 30 pairs/s")


def test_log_on_a_terminal(drawn):
    """run.log contains the progress and tables that a terminal shows."""
    screen, run = drawn
    log = (run / "run.log").read_text(encoding="utf-8")
    assert "step 120/120  epoch 10.00  loss " in log
    assert "step 120/120  epoch" not in screen
    rows = re.findall(r"│ [\w ]+│ .*│", log)
    assert len(rows) == len(re.findall(r"│ *[\w ]+│ .*│", re.sub(r"\x1b\[\d*m", "", screen))) > 7
    assert "\x1b" not in log


def logged(run):
    return (run / "run.log").read_text(encoding="utf-8")


def test_failed_run(tmp_path):
    """The error of a failed run is in its log, and on stderr once."""
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
def test_collapse_warnings(tmp_path, caplog):
    """A collapsed model is warned about when it happens and at the end."""
    with caplog.at_level(logging.WARNING):
        run = train(tmp_path / "run", "objective.class_weights=[1,1000]", "lr=5e-3", "epochs=3")
    warnings = [record.getMessage() for record in caplog.records if "collapsed" in record.getMessage()]
    label = summary(run)["collapsed_label"]
    assert label == "1"
    assert [text.partition(":")[0] for text in warnings] == [
        "the model has collapsed",
        "the best weights are collapsed",
    ]
    assert all(repr(label) in text and "(nearly) every dev pair" in text for text in warnings)


@pytest.mark.slow
def test_no_collapse(tmp_path, caplog):
    """A model that fits its data is not reported as collapsed."""
    with caplog.at_level(logging.WARNING):
        run = train(tmp_path / "run", "debug=overfit", "dataset.max_train_samples=16", "epochs=60", "lr=2e-3")
    assert summary(run)["collapsed_label"] is None
    assert "the best weights" not in caplog.text


def test_warning_prefix(capsys):
    """A warning begins with "warning:"."""
    console = Console()
    for level in (logging.INFO, logging.WARNING):
        console.handle(logging.LogRecord("name", level, "file", 1, "text", None, None))
    assert capsys.readouterr().out == "text\nwarning: text\n"


@pytest.mark.parametrize("unbuffered", [{}, {"PYTHONUNBUFFERED": "1"}], ids=["", "unbuffered"])
def test_messages_between_bars(unbuffered, tmp_path):
    """A message begins on a new line, not behind a bar."""
    options = ("trainer.logging_steps=1000", f"hydra.run.dir={tmp_path / 'run'}")
    code, screen = on_terminal("run", *SMALL, *options, cwd=tmp_path, env=unbuffered)
    assert code == 0, screen
    evaluated = [
        line.rpartition("\r")[2] for line in screen.replace("\r\n", "\n").split("\n") if "dev: accuracy" in line
    ]
    assert len(evaluated) == 2
    assert all(line.startswith("epoch ") for line in evaluated), evaluated


def test_summary_on_narrow_terminal(drawn, capsys, monkeypatch):
    """The final table fits into narrow terminals without losing values."""
    for columns in (120, 70, 44):
        monkeypatch.setenv("COLUMNS", str(columns))
        print_summary(summary(RunDir(drawn[1])))
        lines = capsys.readouterr().out.splitlines()[1:]
        assert all(len(line.rstrip()) <= columns for line in lines)
        rows = [re.split(r" *│ *|: +", line.strip(" │")) for line in lines if re.search(r"\w", line)]
        assert ("│" in lines[1]) == (columns > 44)
        assert [len(row) for row in rows] == [2] * 15, lines
        assert {"accuracy", "majority accuracy", "average precision", "padding"} <= {name.strip() for name, _ in rows}
        assert any(re.fullmatch(r"\d+ pairs/s", value) for _, value in rows)


def test_majority_warning(tmp_path, caplog):
    """Weights that do not beat the majority class cause a warning with advice."""
    with caplog.at_level(logging.WARNING):
        run = train(tmp_path / "run", "epochs=1")
    figures = summary(run)
    assert figures["beats_majority"] == (figures["best"]["dev/accuracy"] > figures["best"]["dev/majority_accuracy"])
    assert not figures["beats_majority"]
    last = caplog.records[-1].getMessage()
    assert re.match("the best weights (do not beat the majority|are collapsed): ", last)
    assert "trainer.monitor=dev/roc_auc or dev/f1" in last


def test_majority_warning_without_collapse(tmp_path, caplog):
    """The same without a collapse."""
    figures = summary(train(tmp_path / "run", "epochs=1", "trainer.max_steps=1"))
    caplog.clear()
    for beats in (True, False):
        print_summary({**figures, "collapsed_label": None, "beats_majority": beats, "beats_majority_decided": False})
    print_summary({**figures, "collapsed_label": None, "beats_majority_decided": True})
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert [text.partition(":")[0] for text in warnings] == [
        "the best weights do not beat the majority",
        "the best weights beat the majority only with their decision",
    ]


def test_control_characters(capsys):
    """Control characters of untrusted files are escaped."""
    label = "a\x1b[31m\x9b2J\u202eb"
    print_table(f"title {label}", [(label, label)])
    print_grid(f"title {label}", [label, "n"], [[label, "1"]])
    shown = capsys.readouterr().out
    assert not set("\x1b\x9b\u202e") & set(shown)
    assert r"a\x1b[31m" in shown
