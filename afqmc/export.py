"""``python -m afqmc.export RUN_DIR -o DIR``: export the best weights, and check the export on dev."""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from afqmc.cli import DONE, reject_several_processes, run_command
from afqmc.run_dir import RunDir
from afqmc.utils.command_help import CommandParser
from afqmc.utils.errors import InputError
from afqmc.utils.language import msg, translate
from afqmc.utils.process import configure_threads

if TYPE_CHECKING:
    from afqmc.evaluation.decision import Decision
    from afqmc.inference.export.manifest import Manifest

_DETAILS = """\
transformers: loads with AutoModelForSequenceClassification, pipeline("text-classification") and the CrossEncoder of
sentence-transformers. onnx, openvino and torch (torch.export) are graphs with dynamic batch size and length. After the
export, a new process computes the dev split with the exported model. If a logit differs by more than --tolerance, the
export is removed. export.json has the figures. predict and evaluate use exports in RUN_DIR/exports with --engine."""
_TOLERANCES = {"transformers": 1e-3, "onnx": 0.05, "openvino": 0.05, "torch": 0.05}


def main() -> int:
    """Export one run, and print how the exported model differs from PyTorch."""
    reject_several_processes("export")
    arguments = _parse_arguments()
    configure_threads()

    from afqmc.evaluation.decision import DECISION_FILE
    from afqmc.inference.export.upload import check_repository, upload_export
    from afqmc.inference.export.writing import write_export
    from afqmc.results.engine_comparison import compare_engines
    from afqmc.results.model_card import model_card
    from afqmc.utils.console import print_grid

    run_dir = Path(arguments.run_dir)
    target = arguments.out or RunDir(run_dir).exports / f"{arguments.format}{'-int8' if arguments.int8 else ''}"
    tolerance = _TOLERANCES[arguments.format] if arguments.tolerance is None else arguments.tolerance

    def check(scores: Any) -> list[dict[str, Any]]:
        decided = scores.decided, scores.cross_fitted
        rows = compare_engines(scores.logits, scores.seconds, scores.gold, tolerance, *decided)
        print_grid(f"{len(scores.gold)} dev pairs", ["", *(row["engine"] for row in rows)], _cells(rows))
        return rows

    if arguments.push is not None:
        check_repository(arguments.push)

    def card(manifest: Manifest, decision: Decision | None) -> str:
        return model_card(run_dir, asdict(manifest), arguments.push, decision)

    kind, decision = write_export(
        run_dir,
        target,
        arguments.format,
        arguments.int8,
        tolerance,
        arguments.trust,
        check,
        card=card if arguments.push is not None else None,
    )
    size = sum(path.stat().st_size for path in target.rglob("*") if path.is_file())
    print(translate(f"{target}: written, {size / 2**20:.1f} MiB"))
    if decision is not None:
        print(translate(f"{target / DECISION_FILE}: {decision.describe_use()}"))
    if kind is not None:
        print(translate(_KINDS[kind]))
    if arguments.push is not None and arguments.dry_run:
        print(translate(f"--dry-run: nothing was uploaded; the model card is {target / 'README.md'}"))
    elif arguments.push is not None:
        address = upload_export(target, arguments.push, arguments.public)
        print(translate(f"uploaded to {address}"))
    return DONE


_FIGURES = {
    "accuracy": "accuracy",
    "accuracy_decided": msg("accuracy, decided"),
    "f1": "F1",
    "f1_decided": msg("F1, decided"),
}
_KINDS = {
    "standard": "the head is that of the standard class; AutoModelForSequenceClassification.from_pretrained(DIR)",
    "rewritten": (
        "the linear head is stored as weights of the standard class that compute the same; load it with "
        "AutoModelForSequenceClassification.from_pretrained(DIR). To train it further, use the run, not the export"
    ),
    "own_code": (
        "no class of transformers has this pooling; the export has a file with the class, and loads with "
        "trust_remote_code=True. model.head=native or model.pooling=cls train a model that a standard class expresses"
    ),
}


def _cells(rows: list[dict[str, Any]]) -> list[list[str]]:
    """Return one line per measure, with a column per engine."""
    lines = [
        [translate("logit difference"), *(f"{row['max_logit_difference']:.1e}" for row in rows)],
        [translate("changed"), *(str(row["changed_predictions"]) for row in rows)],
    ]
    if "changed_decided" in rows[0]:
        lines.append([translate("changed, decided"), *(str(row["changed_decided"]) for row in rows)])
    for name, title in _FIGURES.items():
        if name in rows[0]:
            figures = [row[name] for row in rows]
            lines.append([translate(title), *(f"{figure['value']:.4f}" for figure in figures)])
            intervals = (f"{figure['low']:.3f}-{figure['high']:.3f}" for figure in figures)
            lines.append([translate("95% interval"), *intervals])
    return [*lines, [translate("pairs/s"), *(f"{row['pairs_per_second']:.1f}" for row in rows)]]


def _parse_arguments() -> argparse.Namespace:
    """Parse the command line.

    Raises:
        InputError: if the options exclude each other.
    """
    parser = CommandParser("export", details=_DETAILS)
    parser.add_argument("run_dir", metavar="RUN_DIR", help="a finished run")
    parser.add_argument("-o", "--out", type=Path, metavar="DIR", help="default: RUN_DIR/exports/FORMAT")
    parser.add_argument("--format", choices=tuple(_TOLERANCES), default="transformers", help="of the export")
    parser.add_argument("--int8", action="store_true", help="int8 weights, with --format onnx or openvino")
    parser.add_argument(
        "--tolerance", type=float, metavar="X", help="largest difference of a logit; 0.001 for transformers, else 0.05"
    )
    parser.add_argument("--trust", action="store_true", help="allow the model code that the run's config names")
    parser.add_argument("--push", metavar="REPO", help="upload to OWNER/NAME on the hub, with a model card; private")
    parser.add_argument("--public", action="store_true", help="with --push: everybody may read the repository")
    parser.add_argument("--dry-run", action="store_true", help="with --push: write the model card, upload nothing")
    arguments = parser.parse_args()
    if arguments.push is None and (arguments.public or arguments.dry_run):
        raise InputError("--public, --dry-run: only with --push REPO")
    if arguments.int8 and arguments.format not in ("onnx", "openvino"):
        raise InputError(
            f"--int8: only with --format onnx or openvino; --format {arguments.format} has no quantizer here"
        )
    if arguments.tolerance is not None and not arguments.tolerance >= 0:
        raise InputError(f"--tolerance {arguments.tolerance}: must be at least 0")
    return arguments


if __name__ == "__main__":
    sys.exit(run_command(main))
