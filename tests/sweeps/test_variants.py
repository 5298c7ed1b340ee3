"""Variants of a sweep, and their comparison with a baseline."""

import json
import re
import sys

import numpy as np
import pytest
from helpers import SMALL, command
from simulated import config_text, simulate, write_run

from afqmc import compare
from afqmc.cli import run_command
from afqmc.comparison.bootstrap import resample
from afqmc.comparison.builder import _as_named
from afqmc.comparison.pairwise import PairwiseTests
from afqmc.sweeps.variants import add_variant, check_variants
from afqmc.utils.errors import InputError

SWEEP = """
# @package _global_
defaults:
  - override /hydra/sweeper: grid
hydra:
  mode: MULTIRUN
  sweeper:
    params: {seed: "1,2"}
    variants:
      plain: []
      smooth: [objective.label_smoothing=0.1, optimizer.weight_decay=0.1]
sweep: {name: methods, baseline: plain}
"""


@pytest.fixture
def arguments(tmp_path):
    """The arguments of a sweep with variants that a user has prepared in a file."""
    (tmp_path / "conf/sweep").mkdir(parents=True)
    (tmp_path / "conf/sweep/mine.yaml").write_text(SWEEP.lstrip(), encoding="utf-8")
    return ("run", "--config-dir", "conf", "sweep=mine", *SMALL, "trainer.max_steps=2")


def test_each_job_has_the_overrides_of_its_variant(tmp_path, arguments):
    """A sweep runs each variant with each seed; a resumed one keeps its own variants; compare uses their names."""
    assert (done := command(*arguments, cwd=tmp_path)).returncode == 0, done.stderr
    directory = tmp_path / "outputs/sweeps/methods"
    jobs = json.loads((directory / "sweep.json").read_text())["jobs"]
    assert [job["directory"] for job in jobs] == [
        f"{number}-seed-{seed}_variant-{name}"
        for number, (name, seed) in enumerate([("plain", 1), ("plain", 2), ("smooth", 1), ("smooth", 2)])
    ]
    assert "label_smoothing: 0.1" in (directory / jobs[2]["directory"] / "config.yaml").read_text()
    (tmp_path / "conf/sweep/mine.yaml").write_text(SWEEP.lstrip().replace("0.1,", "0.2,"), encoding="utf-8")
    again = command(*arguments, "sweep.variant=smooth", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert "2 of 2 jobs have ended already" in again.stdout
    compared = command("compare", str(directory), cwd=tmp_path).stdout
    assert "of 1 settings" in compared
    assert "plain" in compared


def test_invalid_variants_are_refused(tmp_path, arguments):
    done = command(*arguments, "sweep.variant=plian", cwd=tmp_path)
    assert done.returncode == 2
    assert "sweep.variant=plian: this sweep has no such variant; did you mean 'plain'" in done.stderr
    with pytest.raises(InputError, match="lr: is set by the variant b of this sweep"):
        check_variants({"a": [], "b": ["lr=1e-3"]}, ["lr", "seed"])
    with pytest.raises(InputError, match="variants.b: has the same overrides as a"):
        check_variants({"a": ["x=1", "y=2"], "b": ["y=2", "x=1"]}, [])
    assert add_variant(["seed=1", "sweep.variant=a"], {"a": ["x=1"]}) == ["seed=1", "sweep.variant=a", "x=1"]


@pytest.fixture
def four_variants(tmp_path):
    """Plain training, a better variant, a worse one, and one that is the same."""
    config, directory = config_text(), tmp_path / "sweep"
    quality = {"plain": 1.0, "better": 2.0, "worse": 0.2, "same": 1.0}
    answers, index = simulate(np.random.default_rng(0), 4, 3, 600, quality=tuple(quality.values()), seed_sd=0.05)
    for run, (setting, one) in enumerate(zip(index, answers, strict=True)):
        name = [*quality][setting]
        text = config.replace("variant: null", f"variant: {name}").replace("baseline: null", "baseline: plain")
        text = text.replace("seed: 42", f"seed: {run % 3}").replace("lr: 0.0005", f"lr: {0.001 * (setting + 1)}")
        write_run(directory / str(run), text, one, peak_memory_gib=1.0 + setting)
    return directory


def test_each_variant_is_compared_with_the_baseline(four_variants, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["afqmc.compare", str(four_variants)])
    monkeypatch.setenv("COLUMNS", "250")
    assert run_command(compare.main) == 0
    printed = capsys.readouterr().out
    assert "of 3 settings, 1 are better than plain and 1 are worse" in printed
    assert re.search(r"better is better than plain: \+[\d.]+ points \(95% CI .*, adjusted p", printed)
    assert re.search(r"worse is worse than plain: -[\d.]+ points", printed)
    assert re.search(r"same cannot be told apart from plain: [+-][\d.]+ points", printed)
    assert "better takes 1.00 times the time per pair and 2.00 times the memory" in printed
    assert "hold for all 3 comparisons with plain together" in printed


def test_baseline_can_be_chosen(four_variants, monkeypatch, capsys):
    report = compare.compare_paths([four_variants], baseline="same")
    assert _as_named("lr=1e-5 batch_size=32") == "lr=1e-05 batch_size=32"
    assert [comparison.reference.name for comparison in report.comparisons] == ["same"] * 3
    with pytest.raises(InputError, match="--baseline sam: no setting has that name.*'same'"):
        compare.compare_paths([four_variants], baseline="sam")


def test_p_values_are_adjusted_over_the_comparisons_with_the_baseline():
    answers, index = simulate(np.random.default_rng(2), 4, 3, 300, quality=(1.0, 1.3, 1.6, 1.0))
    tests = PairwiseTests(resample("accuracy", answers, 200), index, has_baseline=True)
    assert tests.comparisons == 3
    assert tests.p_adjusted[0, 1:].tolist() == pytest.approx(
        np.minimum(tests.p[0, 1:] * (len(tests.seeds) - 1), 1).tolist()
    )
    assert (tests.p_adjusted[1:, 1:] == 1).all()


@pytest.mark.slow
def test_false_findings_against_a_baseline_are_rare():
    """Equal settings: in at most 5% of the studies one of them is called different from the baseline."""
    rng, studies = np.random.default_rng(1), 1000
    found = 0
    for _ in range(studies):
        answers, index = simulate(rng, 6, 4, 300, seed_sd=0.3)
        tests = PairwiseTests(resample("accuracy", answers, 200), index, has_baseline=True)
        assert tests.comparisons == 5
        found += any(tests.difference(0, other).significant for other in range(1, 6))
    assert found <= 0.05 * studies + 3 * (0.05 * 0.95 * studies) ** 0.5
