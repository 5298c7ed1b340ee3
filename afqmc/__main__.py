"""Run ``afqmc NAME ...`` and ``python -m afqmc NAME ...``; list the commands without a name."""

from __future__ import annotations

import sys
from importlib import import_module

from afqmc.cli import DONE, REFUSED, exit_now, run_command
from afqmc.utils.command_help import COMMANDS
from afqmc.utils.language import translate


def main() -> None:
    """Run ``afqmc NAME arguments`` as ``python -m afqmc.NAME arguments``."""
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name not in COMMANDS:
        listed = "\n".join(f"  afqmc {command:<10} {translate(purpose)}" for command, purpose in COMMANDS.items())
        text = f"afqmc: fine-tuning experiments on sentence pairs\n\n{listed}\n\nafqmc NAME --help explains each one."
        print(translate(text))
        exit_now(DONE if name in ("-h", "--help") else REFUSED)
    sys.argv[:2] = [f"afqmc {name}"]
    exit_now(run_command(import_module(f"afqmc.{name}").main))


if __name__ == "__main__":
    main()
