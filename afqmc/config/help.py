"""The config groups and their options, as the YAML files that they are; and the help, which names them all."""

from __future__ import annotations

import itertools
import os
import re
import textwrap
from collections.abc import Iterable
from pathlib import Path

from afqmc.utils.errors import InputError

COMMANDS = {  # in the order in which a user meets them
    "run": "train, keep the best on dev, evaluate it, predict the test split",
    "evaluate": "load the best weights of a run, score a labelled file",
    "predict": "probabilities and decisions for the pairs of a file",
    "compare": "runs and sweeps side by side: table, statistics, HTML page",
    "doctor": "check data, config, hub and device before anything expensive happens",
}

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

Keys and values: --cfg job. Completion in bash: eval "$(afqmc run -sc install=bash)"
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
        "afqmc run "* | "afqmc doctor "*) ;;
        *) COMPREPLY=($(compgen -W "COMMANDS" -- "${line##* }")); return ;;
    esac
    word="${line##* }"
    offers="$(COMP_LINE="$line" afqmc run -sc query=bash 2> /dev/null)"
    COMPREPLY=($(compgen -W "$offers" -- "$word"))
    if [[ "$COMP_WORDBREAKS" == *=* && "$word" == *=* ]]; then
        COMPREPLY=("${COMPREPLY[@]#"${word%=*}="}") # bash completes what follows the last =
    fi
}
complete -o nospace -o default -F _afqmc_completion afqmc"""
_UNDO = "complete -r afqmc; unset -f _afqmc_completion"


def shell_completion(arguments: list[str]) -> str | None:
    """Return the script of ``-sc install=bash`` or ``uninstall=bash``; None for everything else.

    ``query=bash``, which the script calls, is answered by Hydra; its line is brought into the form that Hydra reads.

    Raises:
        InputError: for another shell.
    """
    if not {"-sc", "--shell-completion"} & set(arguments):
        return None
    if arguments[-1] == "query=bash":
        os.environ["COMP_LINE"] = re.sub(r"^afqmc (run|doctor) ", "afqmc ", os.environ.get("COMP_LINE", "afqmc "))
        return None
    scripts = {"install=bash": _SCRIPT.replace("COMMANDS", " ".join(COMMANDS)), "uninstall=bash": _UNDO}
    if arguments[-1] not in scripts:
        raise InputError(f"--shell-completion {arguments[-1]}: legal: {', '.join(scripts)}, query=bash")
    return scripts[arguments[-1]]
