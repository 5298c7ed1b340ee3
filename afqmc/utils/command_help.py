"""The config groups and their options (the YAML files), the texts of ``--help``, and shell completion."""

from __future__ import annotations

import argparse
import itertools
import os
import re
import textwrap
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NoReturn

from afqmc.utils.errors import InputError
from afqmc.utils.language import translate

RUN, PRETRAIN = "run", "pretrain"
CONFIG_NAMES = {RUN: "config", PRETRAIN: "pretrain"}  # the file in conf/ with the defaults of a command
COMMANDS = {  # in the order of the help
    "run": "train, keep the best on dev, evaluate it, predict the test split",
    "pretrain": "continue masked-LM pretraining on the sentences of the train split",
    "evaluate": "load the best weights of a run, score a labelled file",
    "predict": "probabilities and decisions for the pairs of a file",
    "export": "write the best weights for transformers, ONNX, OpenVINO or torch.export, and check them on dev",
    "serve": "an HTTP service for the best weights of a run, with a page to try it",
    "compare": "runs and sweeps side by side: table, statistics, HTML page",
    "reproduce": "repeat a run from its own record, and say whether the result is the same",
    "ls": "list the runs in a directory, newest first",
    "doctor": "check data, config, hub and device before anything expensive happens",
}

_HELP = """\
Fine-tune an encoder on sentence pairs. One run, one directory under outputs/runs.

  python -m afqmc.run experiment=quickstart          offline, about a minute on 2 cores
  python -m afqmc.run lr=1e-5                        AFQMC and bert-base-chinese, the tutorial's recipe
  python -m afqmc.run dataset.path=DIR model=macbert-base batch_size=32 lr=2e-5
  python -m afqmc.run dataset=files dataset.train_file=train.csv dataset.dev_file=dev.csv
  python -m afqmc.run -m lr=1e-5,2e-5 seed=1,2,3     six runs; sweep=NAME runs a prepared search
  python -m afqmc.doctor [the same key=value ...]    would this run go through?

Keys to sweep: lr, batch_size, epochs, seed. Groups, as group=option, their keys as group.key=value:

{groups}

Keys and values: --cfg job. Completion in bash: eval "$(afqmc run -sc install=bash)"
Hydra's own flags: --hydra-help.\
"""

_PRETRAIN_HELP = """\
Continue masked-LM pretraining on the sentences of the train split; those that also occur in dev or test are left out.
The run directory is a model: python -m afqmc.run model=pretrained model.name_or_path=RUN_DIR

  python -m afqmc.pretrain dataset=sample model=mini lr=5e-4      offline, from scratch
  python -m afqmc.pretrain dataset.path=DIR                       AFQMC and bert-base-chinese
  python -m afqmc.pretrain dataset.path=DIR masking=whole_word    words of jieba: pip install 'afqmc[words]'
  python -m afqmc.pretrain -m masking=token,ngram seed=1,2,3      six runs
  python -m afqmc.pretrain resume=RUN_DIR

Keys to sweep: lr, batch_size, epochs, seed. Groups, as group=option, their keys as group.key=value:

{groups}

Keys and values: --cfg job. Hydra's own flags: --hydra-help.\
"""


class CommandParser(argparse.ArgumentParser):
    """Parses the arguments of a command other than ``run``. Its help is in the language of the terminal.

    Args:
        command: A key of ``COMMANDS``.
        usage: Replaces the generated usage.
        details: Shown after the options.
    """

    def __init__(self, command: str, usage: str | None = None, details: str | None = None) -> None:
        super().__init__(
            prog=f"python -m afqmc.{command}",
            usage=usage,
            description=COMMANDS[command],
            epilog=details,
            formatter_class=_HelpFormatter,
        )

    def error(self, message: str) -> NoReturn:
        """Print the usage and the message, and exit with code 2."""
        super().error(translate(message))


class _HelpFormatter(argparse.RawDescriptionHelpFormatter):
    def add_usage(self, usage: str | None, actions: Any, groups: Any, prefix: str | None = None) -> None:
        super().add_usage(usage, actions, groups, translate("usage: ") if prefix is None else prefix)

    def start_section(self, heading: str | None) -> None:
        super().start_section(heading and translate(heading))

    def add_text(self, text: str | None) -> None:
        super().add_text(text and translate(text))

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help and translate(action.help)


def conf_dir() -> str:
    """Return the directory of the YAML files: in the installed package, or next to it in a checkout."""
    package = Path(__file__).parents[1]
    inside = package / "conf"
    return str(inside if inside.is_dir() else package.parent / "conf")


def options(group: str, directories: Iterable[Path] = ()) -> list[str]:
    """Return the options of a group: the YAML files in our directory and in the user's ``directories``."""
    return sorted({path.stem for root in (Path(conf_dir()), *directories) for path in (root / group).glob("*.yaml")})


def groups(directories: Iterable[Path] = ()) -> list[str]:
    """Return the groups in our directory and in the user's ``directories``, without Hydra's own."""
    names = {path.parent.name for root in (Path(conf_dir()), *directories) for path in root.glob("*/*.yaml")}
    return sorted(names - {"hydra"})


def config_dirs(arguments: list[str]) -> list[Path]:
    """Return the values of ``--config-dir`` on a command line."""
    names = [argument.partition("=")[2] for argument in arguments if argument.startswith("--config-dir=")]
    names += [value for flag, value in itertools.pairwise(arguments) if flag in ("--config-dir", "-cd")]
    return [Path(name) for name in names]


def is_help_asked(arguments: list[str]) -> bool:
    """Return whether a command line asks for help."""
    return bool({"--help", "-h"} & set(arguments))


def help_text(arguments: list[str], command: str = RUN) -> str:
    """Return the text of ``--help`` of ``run`` or ``pretrain``, with the options in ``--config-dir``.

    Hydra's own help would read every YAML file twice.
    """
    directories = config_dirs(arguments)
    names = [name for name in groups(directories) if command == PRETRAIN or name != "masking"]
    width = max(map(len, names))
    lines = textwrap.TextWrapper(100, subsequent_indent=" " * (width + 2), break_on_hyphens=False)
    table = (lines.fill(f"{name:{width}}  {', '.join(options(name, directories))}") for name in names)
    return translate(_HELP if command == RUN else _PRETRAIN_HELP).format(groups="\n".join(table))


_SCRIPT = r"""_afqmc_completion()
{
    local line="${COMP_LINE:0:$COMP_POINT}" command word offers
    case "$line" in
        "afqmc run "* | "afqmc pretrain "* | "afqmc doctor "*) ;;
        *) COMPREPLY=($(compgen -W "COMMANDS" -- "${line##* }")); return ;;
    esac
    word="${line##* }"
    [[ "$line" == "afqmc pretrain "* ]] && command=pretrain || command=run
    offers="$(COMP_LINE="$line" afqmc "$command" -sc query=bash 2> /dev/null)"
    COMPREPLY=($(compgen -W "$offers" -- "$word"))
    if [[ "$COMP_WORDBREAKS" == *=* && "$word" == *=* ]]; then
        COMPREPLY=("${COMPREPLY[@]#"${word%=*}="}") # bash completes what follows the last =
    fi
}
complete -o nospace -o default -F _afqmc_completion afqmc"""
_UNDO = "complete -r afqmc; unset -f _afqmc_completion"


def shell_completion(arguments: list[str]) -> str | None:
    """Return the script for ``-sc install=bash`` or ``uninstall=bash``, or None.

    The script calls ``query=bash``, which Hydra answers; this rewrites the line to the form that Hydra expects.

    Raises:
        InputError: for any other shell.
    """
    if not {"-sc", "--shell-completion"} & set(arguments):
        return None
    if arguments[-1] == "query=bash":
        os.environ["COMP_LINE"] = re.sub(
            r"^afqmc (run|pretrain|doctor) ", "afqmc ", os.environ.get("COMP_LINE", "afqmc ")
        )
        return None
    scripts = {"install=bash": _SCRIPT.replace("COMMANDS", " ".join(COMMANDS)), "uninstall=bash": _UNDO}
    if arguments[-1] not in scripts:
        raise InputError(f"--shell-completion {arguments[-1]}: allowed: {', '.join(scripts)}, query=bash")
    return scripts[arguments[-1]]


def add_loading_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--device``, ``--engine`` and ``--trust``, with which a command loads the weights of a run."""
    parser.add_argument("--device", choices=("auto", "cpu", "cuda", "mps"), help="replaces the device of the run")
    parser.add_argument(
        "--engine",
        default="torch",
        metavar="NAME",
        help="torch, torch-bf16, onnx, openvino, openvino-bf16, the directory of an export, or auto: the fastest that "
        "an export in RUN_DIR/exports found within its tolerance",
    )
    parser.add_argument("--trust", action="store_true", help="allow the model code that the run's config names")
