"""Tests of the benchmarks: the floor, equal work of the contestants, the clock and the report."""

import json
import math
import random
import subprocess

import pytest
import torch
from helpers import PATIENCE_S
from scipy.stats import ttest_1samp
from torch.utils.flop_counter import FlopCounterMode
from transformers import BertConfig, BertForSequenceClassification, BertModel

import afqmc
from afqmc.config import compose
from benchmarks import against, report, startup
from benchmarks.clock import Clock
from benchmarks.contestants import CONTESTANTS, load, tutorial
from benchmarks.contestants.afqmc_without import WITHOUT
from benchmarks.data_size import write_data
from benchmarks.floor import Floor, training_flop
from benchmarks.plan import Plan
from benchmarks.processes import Bench
from benchmarks.serve import VARIANTS, run_clients, serving, speed
from benchmarks.speed import hide_paths
from benchmarks.work import Work

SENTENCES = [("花呗怎么还款", "如何还花呗"), ("借呗额度", "提前还款"), ("a", "b")]
SMALL = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 40}


def test_training_flop_matches_torch():
    """The formula gives the FLOP that torch counts in forward and backward passes."""
    config = BertConfig(vocab_size=50, attn_implementation="eager", **SMALL)
    model = BertModel(config, add_pooling_layer=False)
    counted = 0
    for length in (7, 13):
        with FlopCounterMode(display=False) as counter:
            model(input_ids=torch.randint(50, (1, length))).last_hidden_state.sum().backward()
        counted += counter.get_total_flops()
    assert training_flop(config, [7, 13]) == counted


def test_training_flop_of_bert_base():
    """BERT-base needs about 514 MFLOP per token."""
    assert training_flop(BertConfig(), [30]) / 30 == pytest.approx(513e6, rel=0.005)


def test_floor_rate_time_and_share():
    """Rate, time and share follow from the FLOP and the matmul rate."""
    floor = Floor(pairs=1000, tokens_per_pair=30.0, flop_per_token=1e9, gflops_fp32=100.0, gflops_bf16=300.0)
    assert floor.pairs_per_second == pytest.approx(10.0)
    assert floor.seconds(3) == pytest.approx(300.0)
    assert floor.share(4.0) == pytest.approx(0.4)


@pytest.fixture
def bench(pairs, tiny_tokenizer, tmp_path):
    """Return a bench with 50 pairs and a tiny model."""
    data, scratch = tmp_path / "data", tmp_path / "scratch"
    data.mkdir()
    columns = zip(pairs.ids, pairs.sentence1, pairs.sentence2, map(str, pairs.labels), strict=True)
    lines = [dict(zip(("id", "sentence1", "sentence2", "label"), row, strict=True)) for row in columns]
    for split in ("train", "dev", "test"):
        (data / f"{split}.json").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    bench = Bench(data, scratch, scratch)
    torch.manual_seed(1)
    config = BertConfig(vocab_size=len(tiny_tokenizer), pad_token_id=tiny_tokenizer.pad_token_id, **SMALL)
    BertForSequenceClassification(config).save_pretrained(scratch / "weights-small")
    tiny_tokenizer.save_pretrained(scratch / "weights-small")
    return bench


@pytest.mark.slow
def test_contestants_do_the_same_work(bench, tmp_path):
    """The tutorial's loop and afqmc do the same number of steps with plausible losses."""
    sizes = Plan(["train"], ["small"], [8], ["afqmc"], 1, pairs=32).train_sizes("small", 8)
    ours = bench.measure(next(Plan(["train"], ["small"], [8], ["afqmc"], 1, pairs=32).measurements()))
    assert "error" not in ours, ours
    work = Work(bench.data, bench.weights("small"), epochs=2, max_steps=None, eval_pairs=16, scratch=tmp_path, **sizes)
    clock = Clock(work.steps_per_epoch, work.steps, spawned=0.0)
    loss = tutorial.train(work, clock)
    assert clock.step == work.steps == 8
    assert ours["pairs"] == work.pairs == 32  # the second pass
    assert all(0.3 < value < 1.5 for value in (loss, ours["loss"]))
    assert clock.seconds > 0
    assert ours["pairs_per_second"] == pytest.approx(32 / ours["seconds"])


def test_clock_times_the_steps_after_the_warm_up(monkeypatch):
    """The time is that between the last warm-up step and the last step."""
    times = iter([10.0, 12.0, 15.0, 21.0])
    monkeypatch.setattr("benchmarks.clock.time.monotonic", lambda: next(times))
    clock = Clock(warm_up=2, last=4, spawned=7.0)
    for step in (1, 2, 3, 4):
        clock.on_step_end(step)
    assert clock.first_step_seconds == 3.0
    assert clock.seconds == 9.0


def test_contestants_take_turns():
    """Each round measures all contestants, and each begins with another one."""
    names = list(CONTESTANTS)
    plan = Plan(["train", "eval"], ["base"], [4, 32], names, rounds=3)
    rows = [measurement for measurement in plan.measurements() if measurement.kind == "train"]
    assert len(rows) == 2 * 3 * len(names)
    turns = [[row.contestant for row in rows[start : start + len(names)]] for start in range(0, len(rows), len(names))]
    assert all(sorted(turn) == sorted(names) for turn in turns)
    assert [turn[0] for turn in turns[:3]] == names[:3]
    assert all(row.sizes["pairs"] % row.sizes["batch_size"] == 0 for row in rows)


def raw_rows():
    machine = {
        "kind": "machine", "date": "2026-11-24", "command": "python -m benchmarks.speed", "cpu": "A CPU", "cores": 2,
        "flags": ["amx_bf16"], "gpu": None, "memory_gib": 24.0, "load": 0.0, "system": "Linux", "python": "3.11",
        "packages": {"torch": "2.13"}, "environment": {}, "commit": "abc",
    }  # fmt: skip
    rng = random.Random(3)
    floor = {"pairs": 100, "tokens_per_pair": 30.0, "flop_per_token": 5e8, "gflops_fp32": 100.0, "gflops_bf16": 750.0}
    rows = [machine, {"kind": "floor", "model": "base", "contestant": "", "round": 0, **floor}]
    for kind, size in (("train", {"batch_size": 4}), ("train", {"batch_size": 32}), ("eval", {})):
        for index in range(3):
            drift = rng.uniform(0.5, 1)  # of the machine's speed; cancels in ratios within a round
            for name, factor in (("tutorial", 1.0), ("hf-trainer", 3.0), ("afqmc", 6.0)):
                rows.append({"kind": kind, "model": "base", "contestant": name, "round": index, **size,
                             "pairs_per_second": 5 * factor * drift, "peak_mib": 900.0})  # fmt: skip
    rows.append(
        {"kind": "start", "model": "small", "contestant": "lightning", "round": 0, "error": "No module\nlightning"}
    )
    return rows


def test_report_and_plot_are_written(tmp_path):
    """A raw file gives a report and a plot."""
    pytest.importorskip("matplotlib", reason="the plot needs matplotlib: pip install -e '.[bench]'")
    raw = tmp_path / "raw.jsonl"
    raw.write_text("".join(json.dumps(row) + "\n" for row in raw_rows()), encoding="utf-8")
    path = report.write(raw)
    assert path.read_text(encoding="utf-8").startswith("# Speed, 2026-11-24")
    assert (tmp_path / "raw.png").stat().st_size > 10_000


def test_ratios_are_taken_within_rounds():
    """Ratios do not depend on the speed of a round, and failures are listed."""
    rows = raw_rows()
    (lines,) = [lines for key, lines in report.tables(rows).items() if key == ("train", "base", 32)]
    ratios = {line.name: line.ratio for line in lines}
    assert ratios["afqmc"].low == pytest.approx(6) == ratios["afqmc"].high
    assert ratios["hf-trainer"].median == pytest.approx(3)
    text = "\n".join(report.sections(rows))
    assert "| **6.00** | 6.00 .. 6.00 |" in text
    assert "share of the floor" in text
    assert "lightning: `lightning`" in text


def test_paths_are_hidden_in_the_report():
    """The command in a report has placeholders for paths."""
    shown = hide_paths(["--data", "/home/x", "--model-dir=/home/y", "--rounds", "2"])
    assert shown == ["--data", "DIR", "--model-dir=DIR", "--rounds", "2"]


@pytest.mark.parametrize("part", WITHOUT)
def test_each_optimisation_can_be_disabled(part):
    """Each variant changes the config or replaces code."""
    name = f"afqmc-without-{part}"
    disabled = load(name).disabled
    assert callable(disabled) or compose(["experiment=quickstart", *disabled]) != compose(["experiment=quickstart"])


@pytest.mark.slow
def test_load_of_the_service(small_run):
    """All requests of concurrent clients are answered, with the probabilities of predict."""
    pytest.importorskip("fastapi", reason="needs the extra serve: pip install 'afqmc[serve]'")
    with serving(small_run.path, VARIANTS["batched"]) as service:
        clients = run_clients(service.port, 4, SENTENCES, PATIENCE_S, requests=40)
        assert service.resident_mib() > 0
    answers = [answer for client in clients for answer in client.answers]
    expected = [row["probability"] for row in afqmc.load(small_run.path).predict(SENTENCES)]
    assert len(answers) == sum(client.sent for client in clients) == 40
    assert [value for _, value in answers] == pytest.approx([expected[index] for index, _ in answers], abs=1e-5)
    assert {*speed(clients, 1.0)} == {"rate", "p50", "p95", "p99"}


FAKE_COMMAND = """
import json, pathlib, sys
directory = pathlib.Path(next(item for item in sys.argv if item.startswith("hydra.run.dir=")).partition("=")[2])
directory.mkdir()
(directory / "summary.json").write_text(json.dumps({"train_pairs_per_second": RATE}))
"""


@pytest.fixture
def two_commits(tmp_path):
    """Return a repository whose ``afqmc.run`` writes the rate 50 in the first commit and 100 in the second one."""
    repository = tmp_path / "repository"
    (repository / "afqmc").mkdir(parents=True)
    (repository / "afqmc/__init__.py").touch()
    git = ["git", "-C", str(repository), "-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
    subprocess.run([*git, "init", "-q"], check=True)
    for rate in (50, 100):
        (repository / "afqmc/run.py").write_text(FAKE_COMMAND.replace("RATE", str(rate)))
        subprocess.run([*git, "add", "-A"], check=True)
        subprocess.run([*git, "commit", "-q", "-m", f"rate {rate}"], check=True)
    return repository


def test_two_commits_are_compared(two_commits, capsys):
    """Each commit trains with its own code, in turns, and the worktree is removed."""
    ratios = against.compare(two_commits, "HEAD~1", [], rounds=3)
    assert ratios == [2, 2, 2]
    assert capsys.readouterr().out.count("round ") == 3
    listed = subprocess.run(["git", "-C", str(two_commits), "worktree", "list"], capture_output=True, text=True)
    assert len(listed.stdout.splitlines()) == 1
    with pytest.raises(SystemExit, match="--against none: "):
        against.compare(two_commits, "none", [], rounds=2)


@pytest.mark.parametrize(
    ("ratios", "sentence"),
    [
        ([1.10, 1.12, 1.11], "A training step is faster than at abc: 1.110 times"),
        ([0.90, 0.92, 0.91], "A training step is slower than at abc: 0.910 times"),
        ([0.90, 1.12, 1.01], "No difference from abc beyond noise: 1.006 times"),
    ],
)
def test_sentence_follows_from_the_interval(ratios, sentence):
    """The interval is that of the mean log ratio by Student's t; a sentence says whether it excludes 1."""
    low, ratio, high = against.interval(ratios)
    expected = ttest_1samp([math.log(value) for value in ratios], 0).confidence_interval()
    assert [math.log(low), math.log(high)] == pytest.approx(list(expected))
    assert against.describe("abc", low, ratio, high).startswith(sentence)


def test_startup_of_commands(tmp_path):
    """A command's seconds and CPU seconds are those of its process."""
    seconds, cpu, _ = startup.run(["--help"], tmp_path)
    assert seconds > 0
    assert cpu > 0


def test_repeated_pairs(tmp_path):
    """The data of ``benchmarks.data_size`` has as many pairs as asked for, all of them different."""
    rows = [{"sentence1": f"花{n}呗", "sentence2": f"借{n}呗", "label": str(n % 2)} for n in range(3)]
    for split in ("train", "dev", "test"):
        (tmp_path / f"{split}.json").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    write_data(tmp_path, 8, tmp_path / "data")
    lines = (tmp_path / "data/train.json").read_text(encoding="utf-8").splitlines()
    assert (len(lines), len(set(lines))) == (8, 8)
    assert [json.loads(line) for line in lines[:3]] == rows
    assert json.loads(lines[7]) == {"sentence1": "花1呗2", "sentence2": "借1呗2", "label": "1"}
