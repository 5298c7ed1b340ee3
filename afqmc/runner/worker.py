"""What a process beside the main one does: the run that it is told of, and nothing that anybody sees or finds."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

from afqmc.cli import DONE
from afqmc.distributed.rendezvous import board
from afqmc.run_dir import BesideRunDir
from afqmc.utils.errors import Pruned
from afqmc.utils.redaction import RedactingFormatter
from afqmc.utils.signals import forget, terminable, undisturbed

log = logging.getLogger(__name__)


def follow() -> int:
    """Wait for rank 0 to say what there is to do, and do it; returns the exit code.

    What this process prints and logs is in ``logs/rank-N.log`` of the run directory, made on this host.

    Raises:
        RankError: when another process failed or is gone.
    """
    from afqmc import config
    from afqmc.utils.process import settle

    place = board()
    told = place.told()
    if "run_dir" not in told:
        return DONE
    run_dir = BesideRunDir(Path(told["run_dir"]))
    _speak_into(run_dir.path / "logs" / f"rank-{place.rank.number}.log")
    settle(place.rank.local_size)
    with terminable():
        try:
            from afqmc.runner.experiment import Job

            log.info("rank %d of %d, process %d", place.rank.number, place.rank.size, os.getpid())
            Job(config.parse(told["config"]), run_dir, told["resumed"]).run()
        except Pruned as pruned:
            log.info("%s", pruned)
        except BaseException as error:
            with undisturbed():
                place.end(error)
                why = place.explained(error)
                if not isinstance(why, KeyboardInterrupt):
                    forget()
            raise why from error
    place.end(None)
    return DONE


def _speak_into(path: Path) -> None:
    """Let all that this process says, in whatever language it is written, go to the end of a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    with path.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(RedactingFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
