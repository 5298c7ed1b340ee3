"""The config groups and their options, as the YAML files that they are; and the help, which names them all."""

from __future__ import annotations

import itertools
import re
import textwrap
from collections.abc import Iterable, Mapping
from pathlib import Path

from afqmc.utils.errors import InputError

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
    package = Path(__file__).parents[1]
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


_SCRIPT = r"""_afqmc_completion()
{
    local line="${COMP_LINE:0:$COMP_POINT}" word offers
    case "$line" in
        *" -m afqmc.run "* | *" -m afqmc.doctor "*) ;;
        *) return ;;
    esac
    word="${line##* }"
    offers="$(COMP_LINE="$line" "${COMP_WORDS[0]}" -m afqmc.run -sc query=bash 2> /dev/null)"
    COMPREPLY=($(compgen -W "$offers" -- "$word"))
    if [[ "$COMP_WORDBREAKS" == *=* && "$word" == *=* ]]; then
        COMPREPLY=("${COMPREPLY[@]#"${word%=*}="}") # bash completes what follows the last =
    fi
}
complete -o nospace -o default -F _afqmc_completion python python3"""
_UNDO = "complete -r python python3; unset -f _afqmc_completion"


def is_asked(arguments: list[str]) -> bool:
    """Whether a command line is about completion."""
    return bool({"-sc", "--shell-completion"} & set(arguments))


def script(arguments: list[str]) -> str | None:
    """What ``install=bash`` or ``uninstall=bash`` prints; None for ``query=bash``, which Hydra answers.

    Hydra's own script takes the word after ``python`` for a file, and so never completes ``python -m``.

    Raises:
        InputError: for anything else.
    """
    known = {"install=bash": _SCRIPT, "uninstall=bash": _UNDO, "query=bash": None}
    if arguments[-1] not in known:
        raise InputError(f"--shell-completion {arguments[-1]}: legal: {', '.join(known)}")
    return known[arguments[-1]]


def line_for_hydra(environment: Mapping[str, str]) -> str:
    """The line of ``query=bash`` without what Hydra would take for overrides; empty where typed by hand."""
    return re.sub(r"^.*? -m afqmc\.(run|doctor) ", "afqmc ", environment.get("COMP_LINE", "afqmc "))
