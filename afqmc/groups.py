"""The config groups and their options, as the YAML files that they are; and the help, which names them all."""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Iterable
from pathlib import Path

_HELP = """\
Fine-tune an encoder on sentence pairs. One run, one directory under outputs/runs.

  python -m afqmc.run experiment=quickstart          offline, about a minute on 2 cores
  python -m afqmc.run lr=1e-5                        AFQMC and bert-base-chinese, the tutorial's recipe
  python -m afqmc.run dataset.path=DIR model=macbert-base batch_size=32 lr=2e-5
  python -m afqmc.run dataset=jsonl dataset.train_file=train.csv dataset.dev_file=dev.csv
  python -m afqmc.run -m lr=1e-5,2e-5 seed=1,2,3     six runs; sweep=NAME: a search that is prepared in a file
  python -m afqmc.doctor [the same key=value ...]    would this run go through?

Keys to sweep: lr, batch_size, epochs, seed. Groups, as group=option, their keys as group.key=value:

{groups}

Keys and values: --cfg job. Completion: eval "$(python -m afqmc.run -sc install=bash)"
Hydra's own flags: --hydra-help.\
"""


def conf_dir() -> str:
    """The directory of the YAML files: inside the installed package, beside it in a checkout."""
    package = Path(__file__).parent
    inside = package / "conf"
    return str(inside if inside.is_dir() else package.parent / "conf")


def options(group: str, directories: Iterable[Path] = ()) -> list[str]:
    """What may stand after ``group=``, in our own directory and in a person's."""
    found = {path.stem for place in (Path(conf_dir()), *directories) for path in (place / group).glob("*.yaml")}
    return sorted(found)


def groups(directories: Iterable[Path] = ()) -> list[str]:
    """Every group of ours or of a person's directories; Hydra's own are left out."""
    found = {path.parent.name for place in (Path(conf_dir()), *directories) for path in place.glob("*/*.yaml")}
    return sorted(found - {"hydra"})


def config_dirs(arguments: list[str]) -> list[Path]:
    """What ``--config-dir`` names on a command line."""
    named = [argument.partition("=")[2] for argument in arguments if argument.startswith("--config-dir=")]
    named += [after for flag, after in itertools.pairwise(arguments) if flag in ("--config-dir", "-cd")]
    return [Path(name) for name in named]


def is_help_asked(arguments: list[str]) -> bool:
    """Whether a command line asks for the help."""
    return bool({"--help", "-h"} & set(arguments))


def help_text(arguments: list[str]) -> str:
    """What ``--help`` prints, the options of ``--config-dir`` among the others.

    Hydra would print a template of the same kind, and read every YAML file twice to do so.
    """
    directories = config_dirs(arguments)
    names = groups(directories)
    width = max(map(len, names))
    lines = (
        textwrap.fill(", ".join(options(name, directories)), 100, initial_indent=f"{name:{width}}  ",
                      subsequent_indent=" " * (width + 2), break_on_hyphens=False)
        for name in names
    )  # fmt: skip
    return _HELP.format(groups="\n".join(lines))
