"""Run ``afqmc.run`` under torchrun, and kill rank 1 before it reaches the rendezvous."""

import os
import runpy
import signal
import time

if os.environ["RANK"] == "1":
    time.sleep(8)  # by then, rank 0 waits for it
    os.kill(os.getpid(), signal.SIGKILL)
runpy.run_module("afqmc.run", run_name="__main__", alter_sys=True)
