"""Tests of comparisons with published results."""

import re
import sys

import numpy as np
import pytest
from simulated import config_text, simulate, write_run

from afqmc import compare
from afqmc.cli import run_command
from afqmc.comparison.published import PublishedResult, PublishedResults, published_sentences
from afqmc.results.runs import Run
from afqmc.results.settings import group_by_setting
from afqmc.utils.errors import InputError


def setting_of(*accuracies):
    """Return a setting whose runs have these accuracies."""
    figures = [{"dev/accuracy": value} for value in accuracies]
    runs = [Run(None, f"{seed}", "completed", config={"seed": seed}, figures=one) for seed, one in enumerate(figures)]
    return group_by_setting(runs)[0]


def sentence(accuracies, **published):
    setting = setting_of(*accuracies)
    results = PublishedResults("dev/accuracy", 4316, (PublishedResult("BERT", source="a paper", **published),))
    (text,) = published_sentences([setting], [setting], "dev/accuracy", 4316, results)
    return text


def test_similar_result_cannot_be_told_apart():
    assert "0.7490 cannot be told apart from BERT 0.7416 (a paper, n not stated): 0.7 points" in sentence(
        [0.746, 0.749, 0.752], value=0.7416
    )


def test_distant_results_are_better_and_worse():
    assert "is better than BERT 0.7000" in sentence([0.746, 0.749, 0.752], value=0.7, runs=5)
    assert "is worse than BERT 0.8000 (a paper, n = 5)" in sentence([0.746, 0.749, 0.752], value=0.8, runs=5)


def test_choice_is_subtracted():
    """The best of 12 is 1.6 standard deviations over seeds too high."""
    assert "the best of 12: 0.7 points subtracted): 0.9 points" in sentence([0.749], value=0.7463, chosen_from=12)


def test_protocol_is_shown():
    assert "(a paper, n not stated), one setting: " in sentence([0.746], value=0.7416, protocol="one setting")


def test_few_seeds_have_wide_intervals():
    """If two seeds vary much, the interval is that of Student's t, wider than the normal one."""
    low, high = re.search(r"95% CI (\S+) to (\S+)\)", sentence([0.72, 0.76], value=0.7416)).groups()
    normal = 2 * 1.96 * 100 * (2 * 0.74 * 0.26 / 4316 + 0.02**2 + 0.004**2) ** 0.5
    assert float(high) - float(low) > 1.5 * normal


def test_rarely_wrong_about_equal_models():
    """Two models of the same true accuracy are called better or worse in at most 5% of cases."""
    wrong = 0
    for trial in range(300):
        rng = np.random.default_rng(trial)
        ours = 0.74 + rng.normal(0, 0.0067) + rng.normal(0, 0.004, 3)
        text = sentence(ours.tolist(), value=float(0.74 + rng.normal(0, 0.0067) + rng.normal(0, 0.004)))
        wrong += "cannot be told apart" not in text
    assert wrong <= 0.05 * 300 + 12


def test_packaged_results_are_valid():
    assert len(PublishedResults.read("afqmc").results) == 26


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("metric: dev/f1\npairs: 9\nresults: []\n", "metric=dev/f1: must be an accuracy"),
        ("metric: dev/accuracy\npairs: 1\nresults: []\n", "pairs=1: must be a whole number"),
        ("pairs: 1\n", "needs metric, pairs, and results"),
        (
            "metric: dev/accuracy\npairs: 9\nresults: [{model: A, value: 74.1, source: B}]\n",
            "A: value=74.1: must be between 0 and 1, not percent",
        ),
        ("metric: dev/accuracy\npairs: 9\nresults: [{model: A, wert: 1}]\n", "needs metric, pairs, and results"),
    ],
)
def test_invalid_file(tmp_path, text, message):
    file = tmp_path / "own.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=message):
        PublishedResults.read(str(file))


def test_command(tmp_path, monkeypatch, capsys):
    """Own results in a file are compared with; results about other pairs are refused."""
    write_run(tmp_path / "run", config_text(), simulate(np.random.default_rng(0), 1, 1, 200)[0][0])
    write_run(
        tmp_path / "run2",
        config_text().replace("seed: 42", "seed: 43"),
        simulate(np.random.default_rng(0), 1, 1, 200)[0][0],
    )
    file = tmp_path / "own.yaml"
    file.write_text(
        "metric: dev/accuracy\npairs: 200\nresults: [{model: A, value: 0.3, source: B}]\n", encoding="utf-8"
    )
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(
        sys, "argv", ["compare", str(tmp_path / "run"), str(tmp_path / "run2"), "--published", str(file)]
    )
    assert run_command(compare.main) == 0
    assert "is better than A 0.3000 (B, n not stated)" in capsys.readouterr().out
    (found,) = compare([tmp_path / "run", tmp_path / "run2"], published=str(file)).published
    assert "is better than A 0.3000" in found
    monkeypatch.setattr(sys, "argv", ["compare", str(tmp_path / "run"), "--published", "afqmc"])
    assert run_command(compare.main) == 2
    assert "--published: is about 4316 pairs, the runs have 200" in capsys.readouterr().err
