"""Completion of ``python -m afqmc.run ...`` in the shell: the script, and the line it asks about as Hydra reads it."""

from __future__ import annotations

import re
from collections.abc import Mapping

from afqmc.errors import InputError

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
