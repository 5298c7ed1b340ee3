"""Run a command on a pseudo-terminal and return what it writes there."""

import os
import pty
import subprocess
import termios

from helpers import PYTHON, environment


def on_terminal(module, *arguments, cwd, env=None):
    """Run ``python -m afqmc.MODULE ARGUMENTS`` on a pseudo-terminal; return its exit code and output."""
    inherited = {key: value for key, value in environment().items() if not key.startswith("WANDB_")}
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (40, 160))
    process = subprocess.Popen(
        [PYTHON, "-m", f"afqmc.{module}", *arguments],
        cwd=cwd,
        env=inherited | (env or {}),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    written = b""
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:  # Linux raises this once all processes have closed the other end
            break
        if not part:
            break
        written += part
    os.close(ours)
    return process.wait(), written.decode("utf-8", "replace")
