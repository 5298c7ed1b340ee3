"""``python -m afqmc.pretrain key=value ...``: continue masked-LM pretraining on the sentences of the train split."""

from __future__ import annotations

from afqmc.cli import exit_now, run_command
from afqmc.run import run_main
from afqmc.utils.command_help import PRETRAIN


def main() -> int:
    """Run the command line with the config ``pretrain.yaml``; else as ``afqmc.run``."""
    return run_main(PRETRAIN)


if __name__ == "__main__":
    exit_now(run_command(main))
