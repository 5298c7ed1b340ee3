"""hydra/sweeper=race: levels, decisions, and a race that is killed and resumed."""

import json
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from helpers import PATIENCE_S, SMALL, command, environment
from scipy.stats import norm
from simulated import simulate, write_sweep

from afqmc.comparison.race import RaceTests, SequentialTests, conclusion, verdicts
from afqmc.sweeps.race import Ending, Look, RaceConfig, decide, nominal_levels
from afqmc.utils.errors import InputError

EVERY_FIFTH = tuple(np.arange(1, 6) / 5)


@pytest.mark.parametrize(
    ("spent", "bounds"),
    [  # of five looks at the two-sided level 0.05, Jennison and Turnbull (2000)
        (lambda t: 4 * norm.sf(norm.isf(0.0125) / np.sqrt(t)), [4.877, 3.357, 2.680, 2.290, 2.031]),
        (lambda t: 0.05 * np.log(1 + (np.e - 1) * t), [2.438, 2.427, 2.410, 2.397, 2.386]),
    ],
    ids=["O'Brien-Fleming", "Pocock"],
)
def test_levels_equal_published_ones(spent, bounds):
    """The levels of Lan and DeMets' two spending functions are those of published tables."""
    levels = nominal_levels(tuple(spent(np.array(EVERY_FIFTH))), EVERY_FIFTH)
    np.testing.assert_allclose(norm.isf(np.array(levels) / 2), bounds, atol=1e-3)


def test_levels_are_divided_by_pairs():
    """The levels rise with each look, stay below alpha, and are smaller with more settings."""
    two, twenty = RaceConfig().levels(2), RaceConfig().levels(20)
    assert list(two) == list(range(3, 11))
    assert sorted(two.values()) == list(two.values())
    assert two[10] < 0.05
    assert all(twenty[seeds] < two[seeds] / 190 * 2 for seeds in two)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"min_seeds": 1}, "hydra.sweeper.min_seeds=1: must be a whole number >= 2"),
        ({"min_seeds": 4, "max_seeds": 3}, "hydra.sweeper.max_seeds=3: must be a whole number >= min_seeds=4"),
        ({"max_seeds": 7.5}, "max_seeds=7.5: must be a whole number"),
        ({"max_runs": 0}, "hydra.sweeper.max_runs=0: must be a whole number >= 1"),
        ({"alpha": 1.5}, "hydra.sweeper.alpha=1.5: must be > 0 and < 1"),
    ],
)
def test_invalid_keys_are_refused(config, message):
    """The message names the key, its value and what is allowed."""
    with pytest.raises(InputError) as refused:
        RaceConfig(**config)
    assert message in str(refused.value)


def comparing(p, means):
    """Return a comparison with these p-values of each pair, whatever the seeds."""
    matrix = np.ones((len(means), len(means)))
    for (a, b), value in p.items():
        matrix[a, b] = matrix[b, a] = value
    return lambda seeds: (matrix, np.array(means, dtype=float))


def completed(*seeds):
    """Return the runs of settings with these numbers of completed seeds."""
    return {(setting, seed): True for setting, count in enumerate(seeds) for seed in range(1, count + 1)}


CONFIG = RaceConfig(min_seeds=3, max_seeds=5)


def test_race_begins_with_all_settings():
    """Every setting first gets min_seeds seeds; unfinished runs come with them."""
    state = decide(CONFIG, 3, {}, comparing({}, [0, 0, 0]))
    assert state.batch == [(setting, seed) for seed in (1, 2, 3) for setting in range(3)]
    state = decide(CONFIG, 3, completed(3, 2, 3) | {(1, 3): None}, comparing({}, [0, 0, 0]))
    assert state.batch == [(1, 3)]


def test_worse_setting_gets_no_more_seeds():
    """A setting that is worse than another one is dropped; the best one and those close to it come first."""
    state = decide(CONFIG, 4, completed(3, 3, 3, 3), comparing({(0, 2): 1e-9, (0, 1): 0.1, (0, 3): 0.5}, [4, 2, 1, 3]))
    assert state.dropped == {2: Look(2, 0, 3, 1e-9, CONFIG.levels(4)[3])}
    assert state.batch == [(0, 4), (3, 4), (1, 4)]
    assert state.ending is None
    assert state.best == 0


def test_race_ends_with_one_setting_or_all_seeds():
    """The race ends when one setting is left, or when those left have max_seeds."""
    state = decide(CONFIG, 2, completed(3, 3), comparing({(0, 1): 1e-9}, [1, 2]))
    assert (state.ending, [*state.dropped], state.batch) == (Ending.one_left, [0], [])
    state = decide(CONFIG, 2, completed(5, 5), comparing({}, [1, 2]))
    assert (state.ending, state.dropped, state.best) == (Ending.max_seeds, {}, 1)


def test_budget_goes_to_least_settled_comparison():
    """max_runs limits the number of runs; the last ones compare the best setting with the one closest to it."""
    p = comparing({(0, 1): 0.1, (0, 2): 0.6}, [3, 2, 1])
    state = decide(RaceConfig(3, 5, max_runs=11), 3, completed(3, 3, 3), p)
    assert state.batch == [(0, 4), (2, 4)]
    assert decide(RaceConfig(3, 5, max_runs=10), 3, completed(3, 3, 3), p).batch == []  # one run is not compared
    state = decide(RaceConfig(3, 5, max_runs=11), 3, completed(4, 3, 4), p)
    assert (state.batch, state.ending) == ([], Ending.max_runs)
    assert state.last[2].seeds == 4  # compared by four seeds, although setting 1 has three
    assert state.last[1].seeds == 3


def test_failed_setting_is_marked():
    """A setting with a failed run is neither dropped nor kept, and gets no more seeds; rerun, it takes part again."""
    runs = completed(3, 2, 3) | {(1, 3): False}
    state = decide(CONFIG, 3, runs, comparing({}, [3, 2, 1]))
    assert state.failed == {1: 3}
    assert state.batch == [(0, 4), (2, 4)]
    state = decide(CONFIG, 3, runs, comparing({(0, 2): 1e-9}, [3, 2, 1]))
    assert state.ending is Ending.failed
    state = decide(CONFIG, 3, runs | {(1, 3): True}, comparing({}, [3, 2, 1]))
    assert state.failed == {}
    assert (1, 4) in state.batch


def test_interval_excludes_zero_if_dropped():
    """The interval at a look excludes 0 if and only if the p-value is at most the level of this look."""
    from afqmc.comparison.bootstrap import resample

    answers, index = simulate(np.random.default_rng(0), 3, 3, 400, quality=(1.0, 1.4, 2.0))
    resampled = resample("accuracy", answers, resamples=200)
    for level in (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6):
        tests = SequentialTests(resampled, index, level, None)
        for a, b in ((0, 1), (0, 2), (1, 2)):
            difference = tests.difference(a, b)
            assert (difference.low * difference.high > 0) == (difference.p <= level)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Runs of two settings with four seeds each; the second one is much better."""
    return write_sweep(tmp_path_factory.mktemp("runs") / "sweep", 2, 4, 600, quality=(1.0, 2.0))


def test_sentences_of_finished_race(finished):
    """Each setting gets a sentence with its seeds, difference, interval and level; one says why the race has ended."""
    tests = RaceTests("dev/accuracy")
    for job, path in enumerate(sorted(finished.iterdir())):
        tests.add(job // 4, job % 4 + 1, path)
    state = decide(CONFIG, 2, completed(4, 4), tests.compare)
    assert [*state.dropped] == [0]
    rows = verdicts(tests, CONFIG, ["lr=1", "lr=2"], state)
    assert [(row["setting"], row["verdict"], row["seeds"]) for row in rows] == [
        ("lr=2", "kept", 4),
        ("lr=1", "dropped", 4),
    ]
    assert rows[0]["sentence"].startswith("lr=2: kept, the best after 4 seeds: dev/accuracy 0.")
    assert rows[1]["sentence"].startswith("lr=1: dropped after 3 seeds: worse than lr=2 by ")
    assert "required: at most 0.0" in rows[1]["sentence"]
    assert conclusion(CONFIG, ["lr=1", "lr=2"], state)[0] == (
        "the race has ended: lr=2 is better than all other settings"
    )


def test_compare_names_race(finished, tmp_path):
    """afqmc.compare notes that the seeds of a race depended on the results."""
    from afqmc.compare import compare_paths

    (finished / "sweep.json").write_text('{"sweeper": "race", "jobs": []}')
    assert any("sweep: a race, which gave more seeds" in caveat for caveat in compare_paths([str(finished)]).caveats)


TINY = (*SMALL, "epochs=1", "dataset.max_train_samples=32", "trainer.monitor=dev/roc_auc")
RACE = (
    "-m",
    *TINY,
    "hydra/sweeper=race",
    "lr=1e-3,1e-4",
    "sweep.name=race",
    "hydra.sweeper.min_seeds=2",
    "hydra.sweeper.max_seeds=2",
)


@pytest.mark.slow
def test_killed_race_resumes(tmp_path):
    """A race that was killed resumes and repeats no completed run; its number of seeds cannot be changed."""
    directory = tmp_path / "outputs/sweeps/race"
    process = subprocess.Popen(
        [sys.executable, "-m", "afqmc.run", *RACE],
        cwd=tmp_path, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    since = time.monotonic()
    while len(list(directory.glob("*/summary.json"))) < 1:
        assert process.poll() is None
        assert time.monotonic() - since < PATIENCE_S
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    before = {path: path.stat().st_mtime_ns for path in directory.glob("*/summary.json")}
    again = command("run", *RACE, cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert before == {path: path.stat().st_mtime_ns for path in before}
    assert len(list(directory.glob("*/summary.json"))) == 4
    result = json.loads((directory / "race.json").read_text(encoding="utf-8"))
    assert [row["seeds"] for row in result["settings"]] == [2, 2]
    assert all(sentence in again.stdout for sentence in [row["sentence"] for row in result["settings"]])
    assert again.stdout.rstrip().endswith("4 completed: outputs/sweeps/race")
    changed = command("run", *RACE, "hydra.sweeper.max_seeds=4", cwd=tmp_path)
    assert changed.returncode == 2
    assert "max_seeds: it was started with 2" in changed.stderr


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["lr=1e-3,1e-4", "seed=1,2"], "seed=1,2: a race gives the seeds 1 to hydra.sweeper.max_seeds itself"),
        (["lr=1e-3"], "there is only one setting"),
        (["trainer.monitor=dev/roc_auc,dev/f1"], "the settings have different trainer.monitor: dev/f1, dev/roc_auc"),
    ],
)
def test_unsuitable_axes_are_refused(tmp_path, overrides, message):
    """A seed, a single setting and different metrics are refused before anything starts."""
    arguments = [text for text in TINY if not text.startswith("trainer.monitor") or "monitor" not in overrides[0]]
    done = command("run", "-m", *arguments, "hydra/sweeper=race", *overrides, "sweep.name=bad", cwd=tmp_path)
    assert done.returncode == 2, done.stdout
    assert message in done.stderr
    assert not list((tmp_path / "outputs/sweeps/bad").glob("*/status.json"))
