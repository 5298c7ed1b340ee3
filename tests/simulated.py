"""Settings that differ as much as one likes, answered by models that never were: as arrays, and as run directories.

python tests/simulated.py DIR --settings 200 --seeds 5 --rows 200 --examples 4316
"""

import argparse
import json
from pathlib import Path

import numpy as np

from afqmc.evaluation.predictions import prediction_rows
from afqmc.results.resampled_metrics import MEASURES, LabelledPredictions, resampled_metric


def world(rng, settings, seeds, examples, quality=(1.0,), of_seeds=0.15, of_setting=0.6, joint=0.6):
    """Answers of ``settings * seeds`` models to the same examples, and the number of each one's setting.

    On the scale of logits: how good a setting is, by turns; how seeds vary; how much harder an example is for a setting
    than for others, and for a seed than for others.
    """
    gold = (rng.random(examples) < 0.31).astype(int)
    hard = rng.normal(0, 1, examples)
    answers, number = [], []
    for setting in range(settings):
        own = hard + rng.normal(0, of_setting, examples)
        for _ in range(seeds):
            good = quality[setting % len(quality)] + rng.normal(0, of_seeds)
            margin = (2 * gold - 1) * (good + own + rng.normal(0, joint, examples))
            answers.append(answers_of(gold, np.stack([-margin, margin], axis=1) / 2))
            number.append(setting)
    return answers, number


def answers_of(gold, logits):
    """What a model with these logits said."""
    return LabelledPredictions(gold, logits.argmax(axis=1), logits)


def config_text():
    """The saved config of the quickstart, for values to be put in."""
    from omegaconf import OmegaConf

    from afqmc.config import compose

    return OmegaConf.to_yaml(OmegaConf.structured(compose(["experiment=quickstart", "tracker=none"])))


def write_run(directory, config, answers, ids=None, rows=3, **summary):
    """A complete run directory, without weights."""
    (directory / "predictions").mkdir(parents=True)
    (directory / "config.yaml").write_text(config, encoding="utf-8")
    whole = np.ones((len(answers.gold), 1), dtype=np.float32)
    figures = {f"dev/{name}": resampled_metric(name, [answers], whole).item() for name in MEASURES}
    ids = range(len(answers.gold)) if ids is None else ids
    labels = [str(number) for number in range(answers.logits.shape[1])]
    lines = map(json.dumps, prediction_rows(ids, answers.logits, answers.gold, labels))
    (directory / "predictions/dev.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    events = [{"step": step, "epoch": step / rows, **figures} for step in range(1, rows + 1)]
    (directory / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in events), encoding="utf-8")
    whole_run = {
        "status": "completed", "best": {"step": rows, "epoch": 1.0, **figures}, "collapsed_onto": None,
        "monitor": "dev/accuracy", "train_pairs_per_second": 1000.0, "seconds": 61.0, **summary,
    }  # fmt: skip
    (directory / "status.json").write_text(json.dumps({"status": "completed", "step": rows}), encoding="utf-8")
    (directory / "summary.json").write_text(json.dumps(whole_run), encoding="utf-8")


def write_sweep(directory, settings, seeds, examples, rows=3, seed=0, **of_world):
    """``settings`` learning rates with ``seeds`` seeds each."""
    text = config_text()
    answers, number = world(np.random.default_rng(seed), settings, seeds, examples, **of_world)
    for job, (one, setting) in enumerate(zip(answers, number, strict=True)):
        lr = 1e-5 * (setting + 1)
        config = text.replace("lr: 0.0005", f"lr: {lr!r}").replace("seed: 42", f"seed: {job % seeds + 1}")
        write_run(directory / f"{job}-lr-{lr:g}_seed-{job % seeds + 1}", config, one, rows=rows)
    return directory


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path)
    for name, default in (("settings", 200), ("seeds", 5), ("rows", 200), ("examples", 4316)):
        parser.add_argument(f"--{name}", type=int, default=default)
    asked = vars(parser.parse_args())
    write_sweep(asked.pop("directory"), **asked)
