"""A copy of conf/, made when a sweep starts. All its jobs are composed from the copy, so later edits do not matter."""

from __future__ import annotations

import re
import shutil
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_search_path_impl import ConfigSearchPathImpl
from hydra.core.config_loader import ConfigLoader
from hydra.core.config_search_path import ConfigSearchPath, SearchPathElement
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from afqmc.config import drop_hydra_node
from afqmc.config.error_messages import format_hydra_error
from afqmc.config.safe_yaml import literal_yaml
from afqmc.utils.errors import InputError, as_input_error
from afqmc.utils.safe_files import OBJECT, read_bytes, refuse_special
from afqmc.utils.targets import is_well_known

_COPY = ".conf"
_IMPORTED = ("_target_", "searchpath")  # keys whose values name code or a config directory
_TEXT = re.compile(r"\$\{.*:|_target_", re.DOTALL)  # a resolver, which may read the environment, or a _target_ override
_FROM_CONF = ("launcher", "sweeper", "hydra_logging")  # always taken from the current conf/
_NOT_COMPARED = ("runtime",)  # describes how the job was composed


class SnapshotLoader(ConfigLoaderImpl):
    """Composes jobs from the copy, except for the ``hydra`` node, which must equal that of conf/.

    Hydra's own settings change the environment, write logs and import handlers, and the copy is untrusted.

    Attributes:
        changed: The files of the copy that differ from conf/.
    """

    def __init__(self, path: ConfigSearchPath, live: ConfigLoader, copy: Path, changed: Sequence[Path]) -> None:
        super().__init__(path)
        self.live, self.copy, self.changed = live, copy, changed
        self._trusted = _trusted_names(live.get_search_path()) if changed else set[str]()
        self._remedy = (
            f"settings under hydra: must not change; changed files: {', '.join(map(str, changed))}; "
            f"restore conf/, or remove the copy to use the current conf/: rm -r {copy}"
        )

    def load_sweep_config(self, master_config: DictConfig, sweep_overrides: list[str]) -> DictConfig:
        """Compose the config of a job.

        Raises:
            InputError: If the copy names code that conf/ does not, or differs from conf/ under ``hydra:``.
        """
        config = super().load_sweep_config(master_config, sweep_overrides)
        if not self.changed:
            return config
        try:
            now = self.live.load_sweep_config(master_config, sweep_overrides)
        except (HydraException, OmegaConfBaseException) as error:
            raise InputError(
                f"{self.copy}: cannot be checked against conf/ ({format_hydra_error(error)}); {self._remedy}"
            ) from error
        trusted = self._trusted | set(_code_names(_plain(drop_hydra_node(now))))
        _check_names(_code_names(_plain(drop_hydra_node(config))), trusted, self.copy, self.copy)
        self._check_hydra_node(_plain(config.hydra), _plain(now.hydra))
        with read_write(config), open_dict(config):
            for key in _FROM_CONF:
                config.hydra[key] = now.hydra[key]
            config.hydra.sweep.dir = str(master_config.hydra.sweep.dir)  # an interpolation in conf/
        return config

    def _check_hydra_node(self, stored: dict[str, Any], now: dict[str, Any]) -> None:
        for key in sorted({*stored, *now} - {*_FROM_CONF, *_NOT_COMPARED}):
            for name, before, after in _differences(stored.get(key), now.get(key), f"hydra.{key}"):
                values = f"the copy has {_shown(before)}, conf/ has {_shown(after)}"
                raise InputError(f"{self.copy}: {name}: {values}; {self._remedy}")

    def prepared_params(self, master_config: DictConfig, overrides: list[str]) -> dict[str, str]:
        """Return the search space that the copy prepares in ``hydra.sweeper.params``.

        Raises:
            InputError: If a key names code that conf/ does not, or a setting of Hydra.
        """
        params = dict(super().load_sweep_config(master_config, overrides).hydra.sweeper.params)
        self._check_overrides([f"{key}={value}" for key, value in params.items()], "params")
        return params

    def prepared_variants(self, master_config: DictConfig, overrides: list[str]) -> dict[str, list[str]]:
        """Return the variants that the copy prepares in ``hydra.sweeper.variants``.

        Raises:
            InputError: If a key names code that conf/ does not, or a setting of Hydra.
        """
        sweeper = super().load_sweep_config(master_config, overrides).hydra.sweeper
        variants = {name: list(values) for name, values in (sweeper.get("variants") or {}).items()}
        self._check_overrides([override for values in variants.values() for override in values], "variants")
        return variants

    def _check_overrides(self, overrides: list[str], key: str) -> None:
        if not self.changed:
            return
        _check_names(_code_names(overrides), self._trusted, self.copy, self.copy)
        for override in OverridesParser.create().parse_overrides(overrides):
            parts = re.split(r"[./@]", f"{override.key_or_group.lstrip('/')}@{override.package or ''}")
            if {"hydra", "_global_"} & set(parts):
                raise InputError(f"{self.copy}: hydra.sweeper.{key}: {override.input_line}: is not a key of a run")


def _plain(node: DictConfig) -> Any:
    return OmegaConf.to_container(node, resolve=False)


def _shown(value: Any) -> str:
    return "nothing" if value is None else str(value)


def _differences(before: Any, after: Any, name: str) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(before, dict) and isinstance(after, dict):
        for key in sorted({*before, *after}, key=str):
            yield from _differences(before.get(key), after.get(key), f"{name}.{key}")
    elif before != after:
        yield name, before, after


def snapshot_loader(loader: ConfigLoader, sweep: Path, started: bool) -> SnapshotLoader:
    """Return a loader for the copy in the sweep's directory; the copy is made anew unless the sweep has ``started``."""
    live, copy = loader.get_search_path(), sweep / _COPY
    if not (started and copy.exists()):
        tmp = sweep / f"{_COPY}.new"
        shutil.rmtree(tmp, ignore_errors=True)
        tmp.mkdir()
        for index, element in enumerate(live.get_path()):
            if source := _directory(element):
                for file in _files(source):
                    target = tmp / str(index) / file.relative_to(source)
                    target.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(file, target)
        shutil.rmtree(copy, ignore_errors=True)
        tmp.rename(copy)
    else:
        _check_copy(live, copy)
    search_path, changed = ConfigSearchPathImpl(), list[Path]()
    for index, element in enumerate(live.get_path()):
        source, copied = _directory(element), copy / str(index)
        if source and copied.is_dir():
            now, then = _contents(source), _contents(copied)
            changed += [copied / name for name in sorted({*now, *then}) if now.get(name) != then.get(name)]
            element = SearchPathElement(element.provider, f"file://{copied.absolute()}")
        search_path.get_path().append(element)
    return SnapshotLoader(search_path, loader, copy, changed)


def _check_copy(live: ConfigSearchPath, copy: Path) -> None:
    """Check the untrusted copy as ``resume=`` checks a config.

    Raises:
        InputError: If it names code or environment variables that conf/ does not, except for well-known libraries.
    """
    refuse_special(copy)
    unchanged, trusted = {read_bytes(file, OBJECT) for file in _live_files(live)}, _trusted_names(live)
    for file in _files(copy):
        if read_bytes(file, OBJECT) not in unchanged:
            _check_names(_code_names_in(file), trusted, file, copy)


def _check_names(names: Iterable[str], trusted: Collection[str], file: Path, copy: Path) -> None:
    for name in names:
        if name not in trusted and not is_well_known(name):
            raise InputError(
                f"{file}: {name} is untrusted code: not in conf/; remove the copy to use the current conf/: "
                f"rm -r {copy}"
            )


def _live_files(live: ConfigSearchPath) -> list[Path]:
    return [file for element in live.get_path() if (source := _directory(element)) for file in _files(source)]


def _trusted_names(live: ConfigSearchPath) -> set[str]:
    return {name for file in _live_files(live) for name in _code_names_in(file, lenient=True)}


def _code_names_in(file: Path, lenient: bool = False) -> Iterator[str]:
    try:
        with as_input_error(f"{file}: not readable YAML"):
            yield from _code_names(literal_yaml(file))
    except InputError:
        if not lenient:  # conf/ itself may have YAML aliases and tags
            raise


def _code_names(node: Any) -> Iterator[str]:
    """Yield the names of code that a config could import, and texts that could read the environment."""
    if isinstance(node, dict):
        for key, value in node.items():
            if value is not None and str(key).rpartition(".")[2] in _IMPORTED:
                yield from map(str, value if isinstance(value, list) else [value])
            yield from _code_names(value)
    elif isinstance(node, list):
        for value in node:
            yield from _code_names(value)
    elif isinstance(node, str) and _TEXT.search(node):
        yield node


def _directory(element: SearchPathElement) -> Path | None:
    """Return the directory of a search path element, or None for one inside a Python package."""
    scheme, separator, rest = element.path.partition("://")
    path = Path(rest if separator else element.path)
    return path if scheme == "file" or not separator else None


def _files(directory: Path) -> list[Path]:
    return sorted(path for path in directory.rglob("*.yaml") if path.is_file())


def _contents(directory: Path) -> dict[Path, bytes]:
    return {file.relative_to(directory): read_bytes(file, OBJECT) for file in _files(directory)}
