"""The model card (README.md) of an export, from the files of its run. It contains no paths of this machine."""

from __future__ import annotations

import os
import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from afqmc.evaluation.decision import Decision
from afqmc.results.runs import Run, find_runs
from afqmc.results.untrusted_files import read_object
from afqmc.utils.errors import InputError

_RECIPE = (
    "lr", "batch_size", "epochs", "seed", "model.head", "model.pooling", "model.lora.r", "dataset.max_length",
    "dataset.swap", "optimizer._target_", "optimizer.weight_decay", "scheduler._target_", "scheduler.warmup_ratio",
    "objective._target_", "trainer.mixed_precision", "trainer.monitor",
)  # fmt: skip
_FIGURES = {
    "accuracy": "accuracy, likeliest label",
    "accuracy_decided": "accuracy, with the decision",
    "f1": "F1, likeliest label",
    "f1_decided": "F1, with the decision",
}
_METRICS = ("accuracy", "f1", "roc_auc", "mcc", "loss")
_LIMITATIONS = (
    "The weights were chosen on the dev split, so its figures are optimistic. Other sources, domains, languages or "
    "periods can give worse ones.",
    "Probabilities need not match frequencies on other data, with or without calibration.",
    "The order of the two sentences can change the answer.",
)


def model_card(run_dir: Path, manifest: Mapping[str, Any], repository: str, decision: Decision | None) -> str:
    """Return the card in Markdown with a YAML header.

    Args:
        run_dir: The run, which may be untrusted. The other runs of its sweep are listed too.
        manifest: The content of ``export.json``, with the check.
        repository: The repository that it is uploaded to.
        decision: Of the run.
    """
    run = find_runs([str(run_dir)])[0]
    data, name = _recorded_data(run_dir), run.config.get("model.name_or_path")
    base = name if isinstance(name, str) and not os.path.isabs(name) and not Path(name).exists() else None
    sections = {
        "Use": f"```python\n{_use(manifest, repository)}\n```",
        "Labels": ", ".join(f"{index}: `{_text(label)}`" for index, label in enumerate(manifest["labels"])),
        "Data": "\n".join(_data_lines(data)) or "not recorded",
        "Recipe": "\n".join(
            f"- {key}: `{_text(run.config[key])}`" for key in _RECIPE if run.config.get(key) is not None
        ),
        "Decision": _decision(decision),
        "Results on dev": _results(run, manifest),
        "Compared with": _comparison(run),
        "Check of this export": _engines(manifest["engines"]),
        "Limitations": "\n".join(f"- {line}" for line in _LIMITATIONS),
    }
    title = f"{_text(base or 'An encoder')}, fine-tuned on sentence pairs"
    body = "\n\n".join(f"## {heading}\n\n{content}" for heading, content in sections.items())
    return f"{_header(base)}\n# {title}\n\n{body}\n"


def _use(manifest: Mapping[str, Any], repository: str) -> str:
    """Return Python code that loads the export."""
    if manifest["format"] != "transformers":
        return f"# files for {manifest['format']}; inputs: {', '.join(manifest['inputs'])}; output: logits"
    options = ", trust_remote_code=True" if manifest["head"] == "own_code" else ""
    return (
        "from transformers import pipeline\n\n"
        f'classify = pipeline("text-classification", model="{repository}"{options})\n'
        'classify({"text": "first sentence", "text_pair": "second sentence"}, truncation=True)'
    )


def _decision(decision: Decision | None) -> str:
    """Return how the run turns logits into probabilities and predictions."""
    if decision is None:
        return "None: the likeliest label is predicted, and probabilities are not calibrated."
    origin = f"Chosen for `{decision.metric}` on {decision.pairs} dev pairs; the numbers are in `decision.json`."
    if decision.threshold is None:
        return f"{origin} Probabilities are softmax(scales * log_softmax(logits) + biases); the likeliest is predicted."
    return (
        f"{origin} The probability of label 1 is sigmoid((logit 1 - logit 0) / {decision.temperature:.4f} + "
        f"{decision.bias:.4f}), and label 1 is predicted if it is above the threshold {decision.threshold:.4f}. Other "
        "libraries give the logits, and predict the likeliest label."
    )


def _header(base: str | None) -> str:
    lines = ["library_name: transformers", "pipeline_tag: text-classification", "tags: [sentence-pair-classification]"]
    return "\n".join(["---", *lines, *([f"base_model: {_text(base)}"] if base else []), "---"])


def _recorded_data(run_dir: Path) -> Any:
    try:
        return read_object(run_dir / "summary.json").get("data", {})
    except InputError:  # the run is not complete
        return {}


def _data_lines(data: Any) -> Iterator[str]:
    for split, facts in data.items() if isinstance(data, dict) else ():
        if isinstance(facts, dict):
            yield f"- {_text(split)}: {facts.get('pairs')} pairs, SHA-256 `{_text(facts.get('sha256'))}`"


def _results(run: Run, manifest: Mapping[str, Any]) -> str:
    """Return the figures of the exported model, with intervals, beside the majority baseline."""
    row = manifest["engines"][-1]
    lines = ["| metric | value | 95% interval over the pairs |", "|---|---:|---:|"]
    for name, title in _FIGURES.items():
        if name in row:
            value, low, high = (row[name][part] for part in ("value", "low", "high"))
            lines.append(f"| {title} | {value:.4f} | {low:.4f} to {high:.4f} |")
    baseline = run.figures.get("dev/majority_accuracy")
    if baseline is not None:
        lines.append(f"| accuracy of always predicting the most frequent label | {baseline:.4f} | |")
    cross_fitted = " Decided figures are cross-fitted: no pair is decided by what was chosen on itself."
    return (
        "\n".join(lines) + f"\n\n{manifest['dev']['pairs']} pairs; one seed; intervals do not include other seeds."
        f"{cross_fitted if 'accuracy_decided' in row else ''}"
    )


def _comparison(run: Run) -> str:
    """Return the figures of all complete runs of the sweep, with mean and standard deviation."""
    try:
        others = [other for other in find_runs([str(run.path.resolve().parent)]) if other.is_complete]
    except InputError:
        others = []
    metrics = [name for name in _METRICS if run.figures.get(f"dev/{name}") is not None]
    if len(others) < 2 or not (run.path.resolve().parent / "sweep.json").exists():
        return "Nothing: this is a single run. Other seeds can give other figures."
    varying = [key for key in _RECIPE if len({str(other.config.get(key)) for other in others}) > 1]
    header = ["run", *varying, *metrics]
    lines = [f"| {' | '.join(header)} |", f"|{'---|' * len(header)}"]
    for other in others:
        mark = " (this one)" if other.path.resolve() == run.path.resolve() else ""
        settings = [f"`{_text(other.config.get(key))}`" for key in varying]
        lines.append(f"| {_text(other.path.name)}{mark} | {' | '.join([*settings, *_figures(other, metrics)])} |")
    spread = [_mean_and_deviation(others, name) for name in metrics]
    lines.append(f"| mean ± standard deviation | {' | '.join([*('' for _ in varying), *spread])} |")
    return "\n".join(lines) + f"\n\nAll {len(others)} complete runs of the sweep are listed."


def _figures(run: Run, metrics: Sequence[str]) -> list[str]:
    values = (run.figures.get(f"dev/{name}") for name in metrics)
    return ["" if value is None else f"{value:.4f}" for value in values]


def _mean_and_deviation(runs: Sequence[Run], name: str) -> str:
    values = [value for run in runs if (value := run.figures.get(f"dev/{name}")) is not None]
    return f"{statistics.mean(values):.4f} ± {statistics.stdev(values):.4f}" if len(values) > 1 else ""


def _engines(rows: Sequence[Mapping[str, Any]]) -> str:
    lines = [
        "| engine | largest logit difference | changed predictions | changed decisions | pairs/s |",
        "|---|---:|---:|---:|---:|",
    ]
    for row in rows:
        changed = f"{row['changed_predictions']} | {row.get('changed_decided', '')}"
        numbers = f"{row['max_logit_difference']:.1e} | {changed} | {row['pairs_per_second']:.1f}"
        lines.append(f"| {row['engine']} | {numbers} |")
    return "\n".join(lines)


def _text(value: Any) -> str:
    """Return a value of an untrusted file on one line, without characters that would change the page, and no path."""
    text = " ".join(str(value).split())
    text = Path(text).name if text.startswith(("/", "~", "./", "../")) else text
    return "".join(character for character in text if character not in "`|<>[]#" and character.isprintable())[:200]
