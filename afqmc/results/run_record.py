"""The record of a complete run, from which it can be repeated: config, environment, digests of the data."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from afqmc.config import Config, load
from afqmc.results.runs import Run, read_run
from afqmc.results.untrusted_files import read_object
from afqmc.tracking.config import Backend, TrackerConfig
from afqmc.training.config import Device, MixedPrecision
from afqmc.utils.environment import changed_fields
from afqmc.utils.errors import InputError, as_input_error
from afqmc.utils.targets import untrusted_targets

_SPLIT_FILES = ("train_file", "dev_file", "test_file")


@dataclass(frozen=True)
class RunRecord:
    """The record of a complete run.

    Attributes:
        run: The run directory as the comparison reads it.
        config: The config to repeat it with: no tracker, and the recorded precision in place of ``auto``.
        environment: The content of environment.json.
        digests: Number of pairs and digest by split; empty for runs of earlier versions.
    """

    run: Run
    config: Config
    environment: dict[str, Any]
    digests: dict[str, Any]

    @classmethod
    def read(cls, path: Path, trust: bool = False) -> RunRecord:
        """Read an untrusted run directory.

        Args:
            path: The run directory.
            trust: Allow the code that the config names, and its directory for downloads.

        Raises:
            InputError: if it is not a complete run of ``afqmc run``, or its config names code and ``trust`` is not set.
        """
        if (path / "sweep.json").exists():
            raise InputError(f"{path}: is a sweep; name the directory of one of its runs")
        config = load(path)
        if config.masking.unit is not None:
            raise InputError(f"{path}: is a run of afqmc.pretrain; only runs of afqmc.run can be repeated")
        for key, target in () if trust else untrusted_targets(asdict(config)):
            raise InputError(f"{path}: {key}={target} is untrusted code; --trust runs it")
        run = read_run(path, path.name)
        if not run.is_complete:
            state = f"{run.status}, {run.why}" if run.why else run.status
            raise InputError(f"{path}: is not complete ({state}); only a complete run can be repeated")
        environment = read_object(path / "environment.json")
        with as_input_error(f"{path}: environment.json: invalid"):
            sections = {name: dict(environment[name]) for name in ("hardware", "packages")}
            environment |= sections | {"git": dict(environment.get("git") or {})}
        digests = read_object(path / "summary.json").get("data", {})
        with as_input_error(f"{path}: summary.json: invalid"):
            digests = {str(split): dict(digest) for split, digest in digests.items()}
        return cls(run, _to_repeat(config, environment["hardware"], trust), environment, digests)

    @property
    def processes(self) -> int:
        """The number of processes of the run."""
        return self._count("processes")

    @property
    def threads(self) -> int:
        """The number of threads per process."""
        return self._count("threads")

    @property
    def precision(self) -> str:
        """The precision of the forward pass: no, bf16 or fp16."""
        return str(self.environment["hardware"].get("mixed_precision", "no"))

    def _count(self, name: str) -> int:
        value = self.environment["hardware"].get(name)
        return value if type(value) is int and value > 0 else 1

    def with_data(self, directory: Path) -> RunRecord:
        """Return the record with its data files read from another directory, or from a zip."""
        dataset = replace(self.config.dataset, path=str(directory.absolute()))
        for name in _SPLIT_FILES:
            file = getattr(dataset, name)
            if file is not None and Path(file).is_absolute():
                setattr(dataset, name, Path(file).name)
        return replace(self, config=replace(self.config, dataset=dataset))

    def rounding_changes(self, now: dict[str, Any]) -> list[str]:
        """Return the differences to an environment that change the rounding of sums: device, threads, versions."""
        return list(changed_fields(self.environment, now))

    def other_changes(self, now: dict[str, Any]) -> list[str]:
        """Return the other differences to an environment: code, Python, platform, further packages."""
        rounding = self.rounding_changes(now)
        return [text for text in _changes(self.environment, now) if text not in rounding]


def _to_repeat(config: Config, hardware: dict[str, Any], trust: bool) -> Config:
    """Return the config without a tracker, with device and precision as recorded where they were ``auto``."""
    trainer, precision = config.trainer, hardware.get("mixed_precision")
    if trainer.mixed_precision is MixedPrecision.auto and precision in MixedPrecision.__members__:
        trainer = replace(trainer, mixed_precision=MixedPrecision[str(precision)])
    if trainer.device is Device.auto and hardware.get("device") == Device.cpu.value:
        trainer = replace(trainer, device=Device.cpu)
    dataset = config.dataset if trust else replace(config.dataset, cache_dir=None)  # nothing is written elsewhere
    return replace(config, resume=None, trainer=trainer, dataset=dataset, tracker=TrackerConfig(backend=Backend.none))


def _changes(before: dict[str, Any], now: dict[str, Any]) -> Iterator[str]:
    for name in ("python", "platform"):
        if before.get(name) != now[name]:
            yield f"{name} {before.get(name)} -> {now[name]}"
    packages = now["packages"]
    for name in sorted({*before["packages"], *packages}):
        if before["packages"].get(name) != packages.get(name):
            yield f"{name} {before['packages'].get(name)} -> {packages.get(name)}"
    old, new = before["git"], now["git"] or {}
    if old.get("commit") != new.get("commit"):
        yield f"commit {str(old.get('commit'))[:10]} -> {str(new.get('commit'))[:10]}"
    elif old.get("diff_sha256") != new.get("diff_sha256"):
        yield "uncommitted changes of the code"
