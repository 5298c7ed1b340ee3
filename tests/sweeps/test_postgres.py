"""Searches with a real PostgreSQL as the storage, whose password must not be stored or printed."""

import tempfile
from pathlib import Path

import optuna
import pytest
from helpers import SMALL, command
from optuna.trial import TrialState
from postgres import PASSWORD, missing_requirement, postgres

from afqmc.sweeps.study import StudyConfig, study_name

pytest.importorskip("psycopg2", reason="pip install -e '.[rdb]'")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(missing_requirement() is not None, reason=str(missing_requirement())),
]


@pytest.fixture(scope="module")
def address():
    """Start a server and yield the URL of its database."""
    with tempfile.TemporaryDirectory() as directory, postgres(Path(directory)) as address:
        yield address


def search(cwd, address, *more):
    return command(
        "run", "-m", *SMALL, "epochs=3", "trainer.monitor=dev/roc_auc", "sweep.name=s", "hydra/sweeper=optuna",
        "lr=tag(log,interval(1e-5,1e-3))", "hydra.sweeper.n_trials=4", f"hydra.sweeper.storage={address}",
        "hydra.sweeper.pruner=median", "hydra.sweeper.pruner_kwargs={n_startup_trials:2}", *more, cwd=cwd, timeout=280,
    )  # fmt: skip


def test_search_in_database(tmp_path, address):
    """Jobs report to the study in the database, and its password is neither printed nor written to a file."""
    done = search(tmp_path, address, "hydra.launcher.n_jobs=2")
    assert done.returncode == 0, done.stderr
    directory = tmp_path / "outputs/sweeps/s"
    trials = optuna.load_study(
        study_name=study_name(StudyConfig(storage=address), directory),
        storage=StudyConfig(storage=address).open_storage(directory),
    ).trials
    assert len(trials) == 4
    assert {trial.state for trial in trials} <= {TrialState.COMPLETE, TrialState.PRUNED}
    assert all(trial.intermediate_values for trial in trials)  # reported by the jobs
    assert not (directory / "journal.log").exists()
    assert PASSWORD not in done.stdout + done.stderr
    files = [path for path in (tmp_path / "outputs").rglob("*") if path.is_file() and ".hydra" not in path.parts]
    assert {"sweep.json", "multirun.yaml", "environment.json", "run.log", "console.log"} <= {
        path.name for path in files
    }
    assert [path for path in files if PASSWORD.encode() in path.read_bytes()] == []


def test_rejected_login(tmp_path, address):
    """A login that the database rejects is reported without the password."""
    done = search(tmp_path, address.replace(PASSWORD, "wrong-horse-battery"))
    assert done.returncode == 2
    assert "hydra.sweeper.storage: cannot be opened" in done.stderr
    assert "wrong-horse-battery" not in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
