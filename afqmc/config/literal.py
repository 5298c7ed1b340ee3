"""What a saved config may be: short, flat and literal. YAML itself lets a kilobyte unfold to gigabytes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from afqmc.errors import InputError

_LONGEST = 1 << 20  # bytes; a run's config has some 5000
_DEEPEST = 20


def refuse_unfolding(path: Path) -> None:
    """Hold a config file to that, reading it as a stream of marks before anything is built from it.

    Raises:
        InputError: naming the file, and the line.
    """
    if (size := path.stat().st_size) > _LONGEST:
        raise InputError(f"{path}: {size} bytes; a run's config has at most {_LONGEST}")
    depth = 0
    try:
        events: Iterator[Any] = yaml.parse(path.read_bytes(), Loader=yaml.SafeLoader)
        for event in events:
            where = f"{path}:{event.start_mark.line + 1}"
            if isinstance(event, yaml.AliasEvent):
                raise InputError(f"{where}: *{event.anchor}: a saved config is literal; aliases are not followed here")
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > _DEEPEST:
                raise InputError(f"{where}: nested deeper than {_DEEPEST} levels; a run's config is not")
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not readable YAML: {error}") from error
