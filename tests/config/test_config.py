"""Config: every YAML composes, ranges are checked, and a saved config loads back equal."""

import math
import re
import subprocess
import sys
from dataclasses import fields, is_dataclass
from pathlib import Path

import pytest
from helpers import SMALL, command, quick_compose, small
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.utils import instantiate
from omegaconf import OmegaConf

from afqmc import config as schema
from afqmc.config import Config, compose, conf_dir, slug, to_config
from afqmc.config.renamed_keys import upgrade, upgrade_figures
from afqmc.utils.errors import InputError

CONF = Path(conf_dir())
GROUPS = sorted(path.name for path in CONF.iterdir() if path.is_dir() and path.name != "hydra")
OPTIONS = [f"{group}={path.stem}" for group in GROUPS for path in sorted((CONF / group).glob("*.yaml"))]


def test_every_yaml_is_listed():
    """The tests below cover every YAML file in conf/."""
    files = [path for path in CONF.rglob("*.yaml") if "hydra" not in path.parts]
    assert len(OPTIONS) == len(files) - 3 == 68  # without config.yaml, pretrain.yaml and wandb-sweep.yaml


@pytest.mark.parametrize(
    ("option", "sweeper"),
    [
        ("default", "GridSweeper"),
        ("lr_seed", "GridSweeper"),
        ("paper_grid", "GridSweeper"),
        ("tpe", "OptunaSweeper"),
        ("asha", "OptunaSweeper"),
        ("race", "RaceSweeper"),
    ],
)
def test_sweep_option_selects_its_sweeper(option, sweeper):
    """Each option of the sweep group selects the sweeper that it is written for; all but the default have params."""
    schema.register()
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        node = hydra_compose("config", [f"sweep={option}"], return_hydra_config=True).hydra.sweeper
    instance = instantiate(node)
    assert type(instance).__name__ == sweeper
    assert bool(instance.params) == (option != "default")


def merged(composed, content):
    """Return ``composed`` with the values of ``content``."""
    if not isinstance(content, dict):
        return content
    return composed | {key: merged(composed.get(key, {}), value) for key, value in content.items()}


@pytest.mark.parametrize("option", [item for item in OPTIONS if item.startswith(("sweep=", "experiment=", "debug="))])
def test_global_files_take_effect(option):
    """Every value of a file about the whole run is in the composed config: nothing composed later overrides it."""
    schema.register()
    content = OmegaConf.to_container(OmegaConf.load(CONF / f"{option.replace('=', '/')}.yaml"))
    content.pop("defaults", None)
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        node = hydra_compose("config", [option], return_hydra_config=True)
    composed = OmegaConf.to_container(node, enum_to_str=True)
    if "hydra" in content:
        content["hydra"].pop("mode", None)  # compose() ignores it
    assert merged(composed, content) == composed


@pytest.mark.parametrize("path", sorted(CONF.rglob("*.yaml")), ids=lambda path: str(path.relative_to(CONF)))
def test_every_file_states_purpose_and_command(path):
    """Every YAML file opens with a comment about its purpose; ours name the command too."""
    lines = path.read_text(encoding="utf-8").splitlines()
    head = [line for line in lines if line.startswith("#")]
    assert lines[0].startswith("#")
    if "hydra" not in path.parts:
        assert any("-m afqmc." in line for line in head), path


def test_slug_redacts_secrets():
    """The name of a run directory contains no secret value."""
    assert slug(["lr=1e-5", "+model.kwargs.api_key=abc", "dataset.url=https://me:pw@host/a?token=xyz"]) == (
        "lr-1e-5_api_key_url-https-host-a-token"
    )


def test_default_is_the_tutorials_recipe():
    """Without overrides, a run uses the hyperparameters of the AFQMC tutorial."""
    config = compose([])
    assert (config.lr, config.batch_size, config.epochs) == (1e-5, 4, 3)
    assert config.model.name_or_path == "google-bert/bert-base-chinese"
    assert config.model.pooling.value == "cls"
    assert config.optimizer["_target_"] == "torch.optim.AdamW"
    assert config.scheduler["_target_"] == "transformers.get_linear_schedule_with_warmup"
    assert config.scheduler["warmup_steps"] == 0 == config.scheduler["warmup_ratio"]


def test_experiment_sets_keys_and_override_wins():
    """An experiment sets top-level keys, and an override takes precedence over it."""
    assert compose(["experiment=quickstart"]).lr == 5e-4
    assert compose(["experiment=quickstart", "lr=1e-3"]).lr == 1e-3


@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_composes_and_loads(option, tmp_path):
    """Every option of every group composes to a valid config, which loads back equal once it is saved."""
    is_pretraining = option.startswith("masking=") or option == "objective=masked_lm"
    config = compose([option], config_name="pretrain" if is_pretraining else "config")
    schema.save(config, tmp_path / "config.yaml")
    assert schema.load(tmp_path) == config


def bounded(node=None, prefix=""):
    """Yield the key and the bounds of every numeric field."""
    node = node or Config()
    for item in fields(node):
        value = getattr(node, item.name)
        if is_dataclass(value):
            yield from bounded(value, f"{prefix}{item.name}.")
        elif item.metadata.get("bounds"):
            yield prefix + item.name, item.metadata["bounds"]


@pytest.mark.parametrize(("key", "bounds"), list(bounded()))
def test_every_bound_is_checked(key, bounds):
    """A value outside of a bound is rejected with the key and the bound."""
    outside = [value - 1 if name in ("ge", "gt") else value + 1 for name, value in bounds.items()]
    for value in outside:
        invalid = value if isinstance(value, float) and not value.is_integer() else int(value)
        node = OmegaConf.structured(Config)
        OmegaConf.update(node, key, invalid)
        with pytest.raises(InputError, match=f"{key}=.*must be"):
            to_config(node)


def test_infinite_learning_rate_is_invalid():
    """An infinite or NaN learning rate is rejected."""
    for value in (math.inf, math.nan):
        with pytest.raises(InputError, match="lr="):
            compose([f"lr={value}"])


def test_fraction_is_invalid_for_whole_number():
    """A fraction is rejected for a key that takes a whole number."""
    with pytest.raises(InputError, match="batch_size=1.5"):
        compose(["batch_size=1.5"])


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        (["lr=1e-5", "model=mini"], "lr-1e-5_model-mini"),
        (["dataset.path=/a b/数据", "lr=1"], "lr-1_path-a-b"),
        ([], "default"),
        (["lr=" + "1" * 200], "lr-" + "1" * 57),
        (["epochs=2", "lr=1e-5", "epochs=8"], "epochs-8_lr-1e-5"),
        (["+optimizer.eps=1", "++optimizer.eps=2"], "eps-2"),
        (["model.name_or_path=" + "a" * 40, "dataset.path=" + "b" * 5, "lr=1"], "lr-1_name_or_path-" + "a" * 40),
        (
            ["dataset.path=/data/first-half-of-a-long-path/second-half-of-it-is-cut-here"],
            "path-data-first-half-of-a-long-path-second-half-of-it-is",
        ),
    ],
)
def test_slug(overrides, name):
    """The name of a run directory lists the overrides, top-level keys first, within 60 characters of a file name."""
    assert slug(overrides) == name


def test_help_does_not_import_torch(tmp_path):
    """--help and --cfg job are quick, since they import no heavy library, and --help not even Hydra."""
    libraries = {"torch", "transformers", "numpy", "sklearn", "optuna", "plotly", "statsmodels", "pandas", "wandb"}
    for_hydra = {"hydra", "omegaconf", "importlib.metadata"}
    for arguments, heavy in (["--help"], libraries | for_hydra), (["--cfg", "job"], libraries):
        code = f"import sys; sys.argv = ['afqmc.run', *{arguments}]; from afqmc.run import main; main()"
        code += f"; loaded = {heavy} & {{*sys.modules}}; assert not loaded, loaded"
        shown = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
        assert shown.returncode == 0, shown.stderr
        assert "quickstart" in shown.stdout or "lr: 1.0e-05" in shown.stdout


def test_completion_can_be_installed(tmp_path):
    """The completion command that the help names prints a script."""
    shown = command("run", "-sc", "install=bash", cwd=tmp_path)
    assert shown.returncode == 0
    assert "complete" in shown.stdout


def test_load_rejects_missing_and_broken_config(tmp_path):
    """A directory without a config, or with broken YAML, is rejected."""
    with pytest.raises(InputError, match="not a run directory"):
        schema.load(tmp_path)
    (tmp_path / "config.yaml").write_text("lr: [", encoding="utf-8")
    with pytest.raises(InputError, match="not readable YAML"):
        schema.load(tmp_path)


def test_small_config_has_dropout():
    """The small config of the tests uses dropout, so that tests of resuming cover its random numbers."""
    assert small().model.config_overrides["hidden_dropout_prob"] == 0.1


@pytest.mark.parametrize(
    "overrides",
    [
        ["lr=1e-3", "seed=2", "optimizer=sgd", "+optimizer.maximize=true", "scheduler.warmup_ratio=0.1"],
        ["callbacks=ema", "callbacks.ema.decay=0.9", "trainer.monitor=dev/loss", "dataset.labels=[0,1]"],
        ["model.config_overrides={hidden_size: 48}", "trainer.max_steps=null", "model.pooling=max"],
    ],
)
def test_quick_compose(overrides):
    """The tests' shortcut returns what Hydra composes, and its errors."""
    base = (*SMALL, "sweep.name=x")
    assert quick_compose(base, *overrides) == compose([*base, *overrides])
    for invalid in ("optimizer.foo=1", "trainer.foo=1", "lr=a"):
        with pytest.raises(InputError, match=re.escape(invalid.partition("=")[0])):
            quick_compose(base, *overrides, invalid)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ("dataset.folds=5", "dataset.folds: is now dataset.num_folds"),
        ("model.architecture.hidden_size=24", "model.architecture: is now model.config_overrides"),
        ("dataset.batching=bucketed", "dataset.batching=bucketed: is now dataset.batching=length"),
        ("model.pooling=pooler", "model.pooling=pooler: is now model.pooling=pooler_output"),
        ("trainer.monitor=dev/auc", "trainer.monitor=dev/auc: no such metric; is now dev/roc_auc"),
        ("dataset=jsonl", "dataset=jsonl: is now dataset=files"),
        ("+debug=steps", "debug=steps: is now debug=smoke"),
    ],
)  # fmt: skip
def test_old_names_are_answered(overrides, message):
    """The message for an old key, value or option names the new one."""
    with pytest.raises(InputError) as error:
        compose(["experiment=quickstart", overrides])
    assert message in str(error.value)


def test_old_saved_config_is_upgraded():
    """A config saved with old keys and values has those of this version, at every depth."""
    old = {
        "dataset.folds": 5, "dataset.batching": "tokens", "model.architecture.hidden_size": 24,
        "model.args": {"a": 1}, "trainer.monitor": "dev/auc", "objective._target_": "x",
    }  # fmt: skip
    assert upgrade(old) == {
        "dataset.num_folds": 5, "dataset.batching": "token_budget", "model.config_overrides.hidden_size": 24,
        "model.kwargs": {"a": 1}, "trainer.monitor": "dev/roc_auc", "objective._target_": "x",
    }  # fmt: skip
    assert upgrade_figures({"dev/auc": 0.5, "seconds": 2.0}) == {"dev/roc_auc": 0.5, "total_seconds": 2.0}
