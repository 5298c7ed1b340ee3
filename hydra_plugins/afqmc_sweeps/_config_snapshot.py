"""conf/ as it was when a sweep began: every job is composed from that copy, whatever is edited meanwhile."""

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
_IMPORTED = ("_target_", "searchpath")  # keys whose values name code, or a directory of configs
_TEXT = re.compile(r"\$\{.*:|_target_", re.DOTALL)  # a resolver, which may read the environment; an override
_OF_CONF = ("launcher", "sweeper", "hydra_logging")  # always those of conf/ as it is now
_OF_JOB = ("runtime",)  # how the job was composed


class FrozenLoader(ConfigLoaderImpl):
    """Composes jobs from the copy, but what is under ``hydra:`` from conf/.

    Hydra's own settings set the environment, write logs and import handlers; the copy may come from anybody.

    Attributes:
        changed: The files of conf/ that were changed since they were copied.
    """

    def __init__(self, path: ConfigSearchPath, live: ConfigLoader, copy: Path, changed: Sequence[Path]) -> None:
        super().__init__(path)
        self.live, self.copy, self.changed = live, copy, changed
        self._own = _own_names(live.get_search_path()) if changed else set[str]()
        self._remedy = (
            f"what is under hydra: may not change; changed files: {', '.join(map(str, changed))}; "
            f"restore conf/, or use all of conf/ as it is now: rm -r {copy}"
        )

    def load_sweep_config(self, master_config: DictConfig, sweep_overrides: list[str]) -> DictConfig:
        """Compose a job.

        Raises:
            InputError: for code that is not in conf/, and for a difference in what is under ``hydra:``.
        """
        config = super().load_sweep_config(master_config, sweep_overrides)
        if not self.changed:
            return config
        try:
            now = self.live.load_sweep_config(master_config, sweep_overrides)
        except (HydraException, OmegaConfBaseException) as error:
            raise InputError(
                f"{self.copy}: cannot be compared with conf/ ({format_hydra_error(error)}); {self._remedy}"
            ) from error
        own = self._own | set(_named(_plain(drop_hydra_node(now))))
        _refuse_names(_named(_plain(drop_hydra_node(config))), own, self.copy, self.copy)
        self._refuse_differences(_plain(config.hydra), _plain(now.hydra))
        with read_write(config), open_dict(config):
            for key in _OF_CONF:
                config.hydra[key] = now.hydra[key]
            config.hydra.sweep.dir = str(master_config.hydra.sweep.dir)  # conf/ has an interpolation there
        return config

    def _refuse_differences(self, stored: dict[str, Any], now: dict[str, Any]) -> None:
        for key in sorted({*stored, *now} - {*_OF_CONF, *_OF_JOB}):
            for name, before, after in _differences(stored.get(key), now.get(key), f"hydra.{key}"):
                values = f"the copy has {_shown(before)}, conf/ has {_shown(after)}"
                raise InputError(f"{self.copy}: {name}: {values}; {self._remedy}")

    def prepared(self, master_config: DictConfig, overrides: list[str]) -> dict[str, str]:
        """Return the axes that a search had in its file when it began.

        Raises:
            InputError: for one that conf/ does not have and that is not about a key of a run.
        """
        params = dict(super().load_sweep_config(master_config, overrides).hydra.sweeper.params)
        if self.changed:
            _refuse_names(_named(params), self._own, self.copy, self.copy)
            for axis in OverridesParser.create().parse_overrides([f"{key}={value}" for key, value in params.items()]):
                parts = re.split(r"[./@]", f"{axis.key_or_group.lstrip('/')}@{axis.package or ''}")
                if {"hydra", "_global_"} & set(parts):
                    raise InputError(f"{self.copy}: hydra.sweeper.params: {axis.input_line}: is not about a run's key")
        return params


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


def frozen_loader(loader: ConfigLoader, sweep: Path, begun: bool) -> FrozenLoader:
    """A loader of the copy in the sweep's directory, which is made anew until the sweep has begun."""
    live, copy = loader.get_search_path(), sweep / _COPY
    if not (begun and copy.exists()):
        aside = sweep / f"{_COPY}.new"
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir()
        for number, element in enumerate(live.get_path()):
            if source := _directory(element):
                for file in _files(source):
                    target = aside / str(number) / file.relative_to(source)
                    target.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(file, target)
        shutil.rmtree(copy, ignore_errors=True)
        aside.rename(copy)
    else:
        _refuse_foreign_code(live, copy)
    found, changed = ConfigSearchPathImpl(), list[Path]()
    for number, element in enumerate(live.get_path()):
        source, kept = _directory(element), copy / str(number)
        if source and kept.is_dir():
            now, then = _contents(source), _contents(kept)
            changed += [kept / name for name in sorted({*now, *then}) if now.get(name) != then.get(name)]
            element = SearchPathElement(element.provider, f"file://{kept.absolute()}")
        found.get_path().append(element)
    return FrozenLoader(found, loader, copy, changed)


def _refuse_foreign_code(live: ConfigSearchPath, copy: Path) -> None:
    """Check the copy as ``resume=`` checks a config: the directory may come from somebody else.

    Raises:
        InputError: for code, or a use of the environment, that neither conf/ nor a well-known library accounts for.
    """
    refuse_special(copy)
    now, own = {read_bytes(file, OBJECT) for file in _live_files(live)}, _own_names(live)
    for file in _files(copy):
        if read_bytes(file, OBJECT) not in now:
            _refuse_names(_named_in(file), own, file, copy)


def _refuse_names(names: Iterable[str], own: Collection[str], where: Path, copy: Path) -> None:
    for name in names:
        if name not in own and not is_well_known(name):
            raise InputError(
                f"{where}: {name} is code from elsewhere, and not in conf/; to go on with conf/ as it is now: "
                f"rm -r {copy}"
            )


def _live_files(live: ConfigSearchPath) -> list[Path]:
    return [file for element in live.get_path() if (source := _directory(element)) for file in _files(source)]


def _own_names(live: ConfigSearchPath) -> set[str]:
    return {name for file in _live_files(live) for name in _named_in(file, lenient=True)}


def _named_in(file: Path, lenient: bool = False) -> Iterator[str]:
    try:
        with as_input_error(f"{file}: not readable YAML"):
            yield from _named(literal_yaml(file))
    except InputError:
        if not lenient:  # a user's own conf/ may have aliases and tags
            raise


def _named(node: Any) -> Iterator[str]:
    """What a config could have imported, or read from the environment."""
    if isinstance(node, dict):
        for key, value in node.items():
            if value is not None and str(key).rpartition(".")[2] in _IMPORTED:
                yield from map(str, value if isinstance(value, list) else [value])
            yield from _named(value)
    elif isinstance(node, list):
        for value in node:
            yield from _named(value)
    elif isinstance(node, str) and _TEXT.search(node):
        yield node


def _directory(element: SearchPathElement) -> Path | None:
    """Where the files of a search path lie; None for what is inside a Python package."""
    scheme, separator, rest = element.path.partition("://")
    place = Path(rest if separator else element.path)
    return place if scheme == "file" or not separator else None


def _files(directory: Path) -> list[Path]:
    return sorted(path for path in directory.rglob("*.yaml") if path.is_file())


def _contents(directory: Path) -> dict[Path, bytes]:
    return {file.relative_to(directory): read_bytes(file, OBJECT) for file in _files(directory)}
