"""Simulated predictions of settings that differ by a known amount: as arrays, and as run directories.

python tests/support/simulated.py DIR --settings 200 --seeds 5 --rows 200 --examples 4316
"""

import argparse
import json
from functools import cache
from pathlib import Path

import numpy as np

from afqmc.evaluation.metric_names import DECIDED_NAMES
from afqmc.evaluation.predictions import prediction_rows
from afqmc.results.resampled_metrics import MEASURES, LabelledPredictions, resampled_metric


def simulate(rng, settings, seeds, examples, quality=(1.0,), seed_sd=0.15, setting_sd=0.6, interaction_sd=0.6):
    """Return the predictions of ``settings * seeds`` models for the same examples, and the setting index of each.

    Args:
        rng: Source of randomness.
        settings: Number of settings.
        seeds: Number of seeds per setting.
        examples: Number of examples.
        quality: Mean margins of the settings in logits, repeated cyclically.
        seed_sd: How much seeds vary.
        setting_sd: How much the difficulty of an example varies between settings.
        interaction_sd: How much it varies between seeds of a setting.
    """
    gold = (rng.random(examples) < 0.31).astype(int)
    shared_ease = rng.normal(0, 1, examples)
    answers, setting_index = [], []
    for setting in range(settings):
        ease = shared_ease + rng.normal(0, setting_sd, examples)
        for _ in range(seeds):
            mean = quality[setting % len(quality)] + rng.normal(0, seed_sd)
            margin = (2 * gold - 1) * (mean + ease + rng.normal(0, interaction_sd, examples))
            answers.append(answers_of(gold, np.stack([-margin, margin], axis=1) / 2))
            setting_index.append(setting)
    return answers, setting_index


def answers_of(gold, logits):
    """Return the predictions of a model with these logits."""
    return LabelledPredictions(gold, logits.argmax(axis=1), logits)


@cache
def config_text():
    """Return the saved config of the quickstart, in which tests replace values."""
    from omegaconf import OmegaConf

    from afqmc.config import compose

    return OmegaConf.to_yaml(OmegaConf.structured(compose(["experiment=quickstart", "tracker=none"])))


def write_run(directory, config, answers, ids=None, rows=3, **summary):
    """Write a complete run directory without weights."""
    (directory / "predictions").mkdir(parents=True)
    (directory / "config.yaml").write_text(config, encoding="utf-8")
    once = np.ones((len(answers.gold), 1), dtype=np.float32)
    figures = {
        f"dev/{name}": resampled_metric(name, [answers], once).item() for name in MEASURES if name not in DECIDED_NAMES
    }
    ids = range(len(answers.gold)) if ids is None else ids
    labels = [str(number) for number in range(answers.logits.shape[1])]
    lines = map(json.dumps, prediction_rows(ids, answers.logits, answers.gold, labels))
    (directory / "predictions/dev.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    events = [{"step": step, "epoch": step / rows, **figures} for step in range(1, rows + 1)]
    (directory / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in events), encoding="utf-8")
    summary_json = {
        "status": "completed",
        "best": {"step": rows, "epoch": 1.0, **figures},
        "collapsed_label": None,
        "monitor": "dev/accuracy",
        "train_pairs_per_second": 1000.0,
        "total_seconds": 61.0,
        **summary,
    }
    (directory / "status.json").write_text(json.dumps({"status": "completed", "step": rows}), encoding="utf-8")
    (directory / "summary.json").write_text(json.dumps(summary_json), encoding="utf-8")


def write_sweep(directory, settings, seeds, examples, rows=3, seed=0, **design):
    """Write a sweep over ``settings`` learning rates with ``seeds`` seeds each."""
    text = config_text()
    answers, setting_index = simulate(np.random.default_rng(seed), settings, seeds, examples, **design)
    for job, (run_answers, setting) in enumerate(zip(answers, setting_index, strict=True)):
        lr = 1e-5 * (setting + 1)
        config = text.replace("lr: 0.0005", f"lr: {lr!r}").replace("seed: 42", f"seed: {job % seeds + 1}")
        write_run(directory / f"{job}-lr-{lr:g}_seed-{job % seeds + 1}", config, run_answers, rows=rows)
    return directory


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path)
    for name, default in (("settings", 200), ("seeds", 5), ("rows", 200), ("examples", 4316)):
        parser.add_argument(f"--{name}", type=int, default=default)
    arguments = vars(parser.parse_args())
    write_sweep(arguments.pop("directory"), **arguments)
