"""The manifest ``export.json`` of an export: what was exported from which weights, and how it was checked."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from afqmc.checkpoint.store import verify_checksums
from afqmc.data.tokenization import PairTokenizer
from afqmc.utils.errors import InputError, as_input_error
from afqmc.utils.safe_files import read_json, refuse_special

MANIFEST = "export.json"
FORMATS = ("transformers", "onnx", "openvino", "torch")


@dataclass(frozen=True)
class Manifest:
    """The content of ``export.json``.

    Attributes:
        format: One of ``FORMATS``.
        int8: Whether the weights are int8.
        head: How the head is stored (``transformers`` only).
        inputs: Names of the graph's inputs, in order.
        labels: Label names, in class order.
        max_length: Tokens per pair.
        tokenizer_sha256: Of ``tokenizer_digest``.
        weights_sha256: Of ``checkpoints/best/model.safetensors``.
        tolerance: Largest difference of a logit that was allowed.
        versions: Of the packages.
        machine: Processor and cores of the check.
        dev: File and number of the pairs of the check.
        engines: One row per engine of the check; the first is plain torch in float32, the reference.
    """

    format: str
    int8: bool
    head: str | None
    inputs: list[str]
    labels: list[str]
    max_length: int
    tokenizer_sha256: str
    weights_sha256: str
    tolerance: float
    versions: dict[str, str]
    machine: dict[str, Any] = field(default_factory=dict)
    dev: dict[str, Any] = field(default_factory=dict)
    engines: list[dict[str, Any]] = field(default_factory=list)

    def write(self, directory: Path) -> None:
        """Write the file into a directory."""
        text = json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n"
        (directory / MANIFEST).write_text(text, encoding="utf-8")


def read_manifest(directory: Path) -> Manifest:
    """Read the manifest of an untrusted export.

    Raises:
        InputError: if the directory is not an export, or its manifest is invalid.
    """
    path = directory / MANIFEST
    if not path.exists():
        raise InputError(f"{directory}: is not an export ({MANIFEST} is missing); afqmc export writes one")
    with as_input_error(f"{path}: not the manifest of an export"):
        manifest = Manifest(**read_json(path))
        types = {
            "format": str,
            "inputs": list,
            "labels": list,
            "tokenizer_sha256": str,
            "engines": list,
            "dev": dict,
            "machine": dict,
        }
        if wrong := [name for name, kind in types.items() if not isinstance(getattr(manifest, name), kind)]:
            raise ValueError(f"{wrong[0]} has the wrong type")
        for row in manifest.engines:
            if not isinstance(row["engine"], str):
                raise ValueError("engine has the wrong type")
            float(row["pairs_per_second"]), float(row["max_logit_difference"]), bool(row["within_tolerance"])
    return manifest


def check_export(directory: Path) -> None:
    """Check the files of an untrusted export against its checksums: no links, devices or damaged files.

    Raises:
        InputError: naming the file.
    """
    refuse_special(directory)
    verify_checksums(directory)


def tokenizer_digest(pair_tokenizer: PairTokenizer) -> str:
    """Return the SHA-256 of everything that the tokens of a pair depend on, except the version of the library."""
    core = pair_tokenizer._core
    settings = repr(pair_tokenizer.tokenizer) if core is None else core.to_str()
    return hashlib.sha256(f"{pair_tokenizer.uses_token_type_ids} {settings}".encode()).hexdigest()
