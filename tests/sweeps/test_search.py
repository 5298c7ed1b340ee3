"""Searches: the space, samplers, pruning, and resuming."""

import json
import os
import random
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import optuna
import pytest
from helpers import PATIENCE_S, SMALL, command
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState

from afqmc.sweeps.pruning import TrialPruner
from afqmc.sweeps.search_space import boundary_trials, grid_points, suggest_overrides
from afqmc.sweeps.study import SAMPLERS, StudyConfig, direction, open_study, study_name
from afqmc.utils.errors import InputError
from hydra_plugins.afqmc_sweeps._override_grammar import parse_dimension
from hydra_plugins.afqmc_sweeps._trials import Space

TINY = (*SMALL, "epochs=1", "dataset.max_train_samples=32", "hydra/sweeper=optuna")
LR = "lr=tag(log,interval(1e-5,1e-3))"
SPACE = (LR, "batch_size=tag(int,interval(8,64))", "optimizer=adamw,sgd")
ONLY_SGD = "optimizer.momentum=tag('if optimizer=sgd',interval(0.5,0.9))"


def dimensions(*overrides):
    return [parse_dimension(override) for override in OverridesParser.create().parse_overrides(list(overrides))]


def space_of(*overrides):
    return Space.of(OverridesParser.create().parse_overrides(list(overrides)))


def trials_of(directory):
    storage = StudyConfig().open_storage(directory)
    return optuna.load_study(study_name=study_name(StudyConfig(), directory), storage=storage).trials


@pytest.mark.parametrize(
    ("override", "distribution"),
    [
        (LR, FloatDistribution(1e-5, 1e-3, log=True)),
        ("x=interval(0,1)", FloatDistribution(0, 1)),
        ("x=tag(int,log,interval(1,64))", IntDistribution(1, 64, log=True)),
        ("x=range(1,9,2)", IntDistribution(1, 7, step=2)),
        ("x=range(3)", IntDistribution(0, 2)),
        ("x=range(0.5,0.9,0.2)", FloatDistribution(0.5, 0.7, step=0.2)),
        ("x=a,b", CategoricalDistribution(("a", "b"))),
        ("x=choice(8,16)", CategoricalDistribution(("8", "16"))),
    ],
)
def test_sweep_override_gives_distribution(override, distribution):
    """Hydra sweep overrides are converted to Optuna distributions."""
    assert dimensions(override)[0].distribution == distribution


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("x=tag(lgo,interval(1,2))", "tag 'lgo': allowed: log, int"),
        ("x=tag(log,interval(0,1))", "x=tag"),
        ("x=interval(2,1)", "x=interval"),
        ("x=tag(log,choice(1,2))", "is only for an interval"),
        ("x=tag('if y',interval(0,1))", "'if key=value'"),
        ("x=range(3,3)", "an empty range"),
    ],
)
def test_invalid_sweep_override_is_refused(override, message):
    """The error names the override and the reason."""
    with pytest.raises(InputError, match="x=") as refused:
        dimensions(override)
    assert message in str(refused.value)


def test_conditional_dimension_needs_its_condition():
    """A conditional parameter is sampled only in trials that meet its condition."""
    space = dimensions(*SPACE, ONLY_SGD)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    seen = [suggest_overrides(study.ask(), space) for _ in range(20)]
    for overrides in seen:
        assert ("optimizer=sgd" in overrides) == any(one.startswith("optimizer.momentum=") for one in overrides)
    assert {len(overrides) for overrides in seen} == {3, 4}


def test_boundary_trials_contain_all_bounds():
    """Boundary trials contain both ends of each range, and all choices, with conditions met."""
    result = [override for overrides in boundary_trials(dimensions(*SPACE, ONLY_SGD)) for override in overrides]
    assert {"lr=1e-05", "lr=0.001", "batch_size=8", "batch_size=64", "optimizer=adamw", "optimizer=sgd"} <= set(result)
    with_momentum = [
        one for one in boundary_trials(dimensions(*SPACE, ONLY_SGD)) if any("momentum" in key for key in one)
    ]
    assert len(with_momentum) == 2
    assert all("optimizer=sgd" in overrides for overrides in with_momentum)


@pytest.mark.parametrize("sampler", sorted(SAMPLERS))
def test_sampler_is_unaffected_by_interruption(tmp_path, sampler):
    """Every sampler draws the same trials in a search that is interrupted and resumed."""
    space = dimensions("x=range(8)", "y=range(4)") if sampler == "grid" else dimensions("x=interval(0,1)", "y=range(4)")
    settings = StudyConfig(
        sampler=sampler, sampler_kwargs={"n_startup_trials": 3} if sampler in ("tpe", "cmaes", "gp") else {}
    )

    def draw(directory, cuts):
        directory.mkdir()
        study, result = open_study(settings, directory, ["dev/f1"]), []
        for number in range(7):
            if number in cuts:
                study = open_study(settings, directory, ["dev/f1"])
            study.sampler = settings.sampler_for(number, space)
            trial = study.ask()
            result.append(suggest_overrides(trial, space))
            study.tell(trial, sum(map(float, trial.params.values())))
        return result

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        uninterrupted, cut = draw(tmp_path / "a", ()), draw(tmp_path / "b", (2, 5))
    assert uninterrupted == cut
    assert len({tuple(one) for one in uninterrupted}) > 3


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sampler": "tpee"}, "did you mean 'tpe'"),
        ({"pruner": "halving"}, "pruner=halving"),
        ({"n_trials": 0}, "n_trials=0: must be >= 1"),
        ({"objectives": ["dev/f2"]}, "dev/f2; did you mean"),
        ({"objectives": ["dev/f1", "total_seconds"], "pruner": "median"}, "a single objective"),
        ({"objectives": ["total_seconds"], "pruner": "median"}, "a dev metric"),
        ({"pruner": "wilcoxon"}, "give several seeds: seed=1,2,3"),
    ],
)
def test_invalid_settings_are_refused(settings, message):
    """The error names the setting and what is allowed."""
    with pytest.raises(InputError) as refused:
        StudyConfig(**settings).check_repetitions(1)
    assert message in str(refused.value)


def test_grid_sampler_tries_every_point_once(tmp_path):
    """Every grid point is tried once, without those that violate a condition; intervals are refused."""
    space = dimensions(
        "optimizer=adamw,sgd", "optimizer.momentum=tag('if optimizer=sgd',range(0.5,0.9,0.2))", "x=range(2)"
    )
    settings = StudyConfig(sampler="grid")
    study, result = open_study(settings, tmp_path, ["dev/f1"], space), []
    for number in range(len(grid_points(space))):
        study.sampler = settings.sampler_for(number, space)
        trial = study.ask()
        result.append(tuple(suggest_overrides(trial, space)))
        study.tell(trial, 0.5)
    assert len(set(result)) == len(result) == 2 + 2 * 2
    assert result[:2] == [("optimizer=adamw", "x=0"), ("optimizer=adamw", "x=1")]
    with pytest.raises(InputError, match="lr: sampler=grid needs values"):
        grid_points(dimensions(LR))


def test_seeds_and_folds_are_repetitions():
    """Seeds and folds are not searched: each trial has one job per combination of them."""
    space = space_of(LR, "seed=range(1,3)", "dataset.fold=0,1,2", "dataset.num_folds=3")
    assert [dimension.key for dimension in space.dimensions] == ["lr"]
    jobs = space.jobs(optuna.create_study().ask())
    assert [job.directory.partition("_")[2] for job in jobs][:2] == ["seed-1_fold-0", "seed-1_fold-1"]
    assert len({job.overrides for job in jobs}) == 6
    probed = {override for job in space.probes() for override in job.overrides}
    assert {"lr=1e-05", "lr=0.001", "seed=1", "seed=2", "dataset.fold=0", "dataset.fold=2"} <= probed
    for wrong in ("seed=interval(1,5)", "seed=1,1"):
        with pytest.raises(InputError, match="seed="):
            space_of(LR, wrong)


def test_study_of_another_space_is_refused(tmp_path):
    """A changed distribution is refused; a further parameter is allowed."""
    study = open_study(StudyConfig(), tmp_path, ["dev/f1"], dimensions("lr=1e-3,1e-4"))
    suggest_overrides(study.ask(), dimensions("lr=1e-3,1e-4"))
    for other in (LR, "lr=1e-3,1e-5"):
        with pytest.raises(InputError, match="lr was searched in"):
            open_study(StudyConfig(), tmp_path, ["dev/f1"], dimensions(other))
    assert len(open_study(StudyConfig(), tmp_path, ["dev/f1"], dimensions("lr=1e-3,1e-4", "x=1,2")).trials) == 1


def test_study_names_are_unique_in_database(tmp_path):
    """Sweeps of the same name have different studies in a database, but the same study name in a journal."""
    for place in ("a/s", "b/s"):
        (tmp_path / place).mkdir(parents=True)
    one, other = (study_name(StudyConfig(storage="sqlite://"), tmp_path / place) for place in ("a/s", "b/s"))
    assert one != other
    assert one == study_name(StudyConfig(storage="sqlite://"), tmp_path / "a/s")
    assert study_name(StudyConfig(), tmp_path / "a/s") == study_name(StudyConfig(), tmp_path / "b/s")


def test_direction_of_objectives():
    """Metrics are maximized; losses and costs are minimized."""
    assert [direction(name) for name in ("dev/roc_auc", "dev/loss", "total_seconds")] == [
        "maximize",
        "minimize",
        "minimize",
    ]


def test_median_pruner_spares_last_evaluation(tmp_path):
    """A run below the median is pruned, but not after its last evaluation."""
    settings = StudyConfig(pruner="median", pruner_kwargs={"n_startup_trials": 2})
    study = open_study(settings, tmp_path, ["dev/f1"])
    for value in (0.5, 0.6):
        trial = study.ask()
        TrialPruner(settings, tmp_path, trial.number, "dev/f1")(1, {"f1": value}, False)
        study.tell(trial, value)
    number = study.ask().number
    pruner = TrialPruner(settings, tmp_path, number, "dev/f1")
    assert pruner(1, {"f1": 0.1}, True) is None
    pruner = TrialPruner(settings, tmp_path, number, "dev/f1")  # the resumed run reports it again
    assert pruner(1, {"f1": 0.1}, False).startswith("pruned after evaluation 1: dev/f1 0.1")


@pytest.mark.slow
def test_trials_are_run_directories(tmp_path):
    """Each trial has a run directory with its number; a larger n_trials continues the search."""
    arguments = ("-m", *TINY, LR, "hydra.sweeper.n_trials=2", "sweep.name=s", "trainer.monitor=dev/roc_auc")
    done = command("run", *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.rstrip().endswith("2 completed: outputs/sweeps/s")
    directory = tmp_path / "outputs/sweeps/s"
    trials = trials_of(directory)
    for trial in trials:
        run = next(directory.glob(f"{trial.number}-*"))
        assert trial.value == json.loads((run / "summary.json").read_text())["best"]["dev/roc_auc"]
        assert f"lr: {trial.params['lr']!r}" in (run / "config.yaml").read_text()
    more = command("run", *(one.replace("n_trials=2", "n_trials=3") for one in arguments), cwd=tmp_path, timeout=200)
    assert more.returncode == 0, more.stderr
    assert more.stdout.count(" starts") == 1
    assert [one.params for one in trials_of(directory)][:2] == [one.params for one in trials]


def test_invalid_bound_is_reported_before_start(tmp_path):
    """A bound that is invalid for a run is reported before the first trial."""
    done = command("run", "-m", *TINY, "lr=interval(-1,1)", "sweep.name=s", cwd=tmp_path)
    assert done.returncode == 2
    assert "lr=-1.0: must be > 0" in done.stderr
    assert not list((tmp_path / "outputs/sweeps/s").glob("*/status.json"))


@pytest.mark.slow
def test_objective_is_mean_over_seeds(tmp_path):
    """Objectives are averaged over seeds, and a search with changed settings is refused."""
    arguments = ("-m", *TINY, LR, "hydra.sweeper.n_trials=1", "seed=1,2", "sweep.name=s")
    arguments += ("hydra.sweeper.objectives=[dev/roc_auc,total_seconds]",)
    done = command("run", *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    directory = tmp_path / "outputs/sweeps/s"
    summaries = [json.loads(path.read_text()) for path in sorted(directory.glob("0-*_seed-*/summary.json"))]
    assert len(summaries) == 2
    aucs, seconds = [one["best"]["dev/roc_auc"] for one in summaries], [one["total_seconds"] for one in summaries]
    assert trials_of(directory)[0].values == pytest.approx([sum(aucs) / 2, sum(seconds) / 2])
    objectives = "hydra.sweeper.objectives=[dev/roc_auc,dev/f1]"
    for changed, message in (
        ((*arguments, "epochs=2"), "fixed: it was started with epochs=1 and without epochs=2"),
        (
            (*(one for one in arguments if one != "seed=1,2"), "seed=1,2,3"),
            "repetitions: it was started without seed=3",
        ),
        ((*arguments[:-1], objectives), "objectives: it was started with total_seconds and without dev/f1"),
        (("-m", *SMALL, "lr=1e-3", "sweep.name=s"), "sweeper: it was started with optuna and without grid"),
    ):
        done = command("run", *changed, cwd=tmp_path)
        assert done.returncode == 2, done.stdout
        assert message in done.stderr
    assert len(trials_of(directory)) == 1


@pytest.mark.slow
def test_killed_search_gives_same_trials(tmp_path):
    """A pruned search that is killed twice gives the same trials as one that is not."""
    pruner = (
        "hydra.sweeper.pruner=hyperband",
        "hydra.sweeper.pruner_kwargs={min_resource:1,max_resource:6,reduction_factor:3}",
    )
    arguments = ("-m", *SMALL, "epochs=6", "trainer.monitor=dev/roc_auc", "hydra/sweeper=optuna", *pruner, LR)
    arguments += ("hydra.sweeper.n_trials=10", "hydra.sweeper.sampler_kwargs={n_startup_trials:4}")
    uninterrupted = command("run", *arguments, "sweep.name=s", "hydra.sweep.dir=uninterrupted/s", cwd=tmp_path)
    assert uninterrupted.returncode == 0, uninterrupted.stderr
    assert " pruned: " in uninterrupted.stdout

    directory = tmp_path / "killed/s"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    for enough in (3, 6):
        process = subprocess.Popen(
            [sys.executable, "-m", "afqmc.run", *arguments, "sweep.name=s", "hydra.sweep.dir=killed/s"],
            cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        since = time.monotonic()
        while len(list(directory.glob("*/metrics.jsonl"))) <= enough and time.monotonic() - since < PATIENCE_S:
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
        process.wait()
    last = command("run", *arguments, "sweep.name=s", "hydra.sweep.dir=killed/s", cwd=tmp_path)
    assert last.returncode == 0, last.stderr

    expected, resumed = trials_of(tmp_path / "uninterrupted/s"), trials_of(directory)
    assert [(t.params, t.state, t.values) for t in expected] == [(t.params, t.state, t.values) for t in resumed]
    assert TrialState.PRUNED in {trial.state for trial in expected}
    for trial in resumed:
        status = json.loads((next(directory.glob(f"{trial.number}-*")) / "status.json").read_text())["status"]
        assert status == ("pruned" if trial.state is TrialState.PRUNED else "completed")
    assert len(list(directory.glob("*/status.json"))) == 10


def test_asha_cost_matches_its_comment():
    """The cost in the comment of conf/sweep/asha.yaml agrees with a simulation."""
    file = Path(__file__).parents[2] / "conf/sweep/asha.yaml"
    assert "about 9 full runs, 6 to 14" in file.read_text("utf-8")
    sweeper = OmegaConf.load(file).hydra.sweeper
    settings = StudyConfig(pruner=sweeper["pruner"], pruner_kwargs=dict(sweeper["pruner_kwargs"]))

    def whole_runs(seed, looks_of_a_run=12):
        rng, looks = random.Random(seed), 0
        study = optuna.create_study(pruner=settings.build_pruner(), direction="maximize")
        for _ in range(sweeper["n_trials"]):
            trial, quality = study.ask(), rng.gauss(0, 1)
            for look in range(1, looks_of_a_run + 1):
                looks += 1
                trial.report(quality * (1 - 0.5**look) + rng.gauss(0, 0.3), look)
                if look < looks_of_a_run and trial.should_prune():
                    study.tell(trial, state=TrialState.PRUNED)
                    break
            else:
                study.tell(trial, quality)
        return looks / looks_of_a_run

    costs = [whole_runs(seed) for seed in range(20)]
    assert 8 < sum(costs) / len(costs) < 11
    assert 5 < min(costs) < max(costs) < 15.5
