"""``afqmc.run`` as several processes, of which rank 1 is killed before it says a word; run by tests under torchrun."""

import os
import runpy
import signal
import time

if os.environ["RANK"] == "1":
    time.sleep(8)  # rank 0 waits for it by then
    os.kill(os.getpid(), signal.SIGKILL)
runpy.run_module("afqmc.run", run_name="__main__", alter_sys=True)
