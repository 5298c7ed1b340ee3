"""Config: every YAML composes, ranges hold, what is saved is loaded back equal."""

import math
import subprocess
import sys
from dataclasses import fields, is_dataclass
from pathlib import Path

import pytest
from helpers import command, small
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.utils import instantiate
from omegaconf import OmegaConf

from afqmc import config as schema
from afqmc.config import Config, compose, conf_dir, slug
from afqmc.utils.errors import InputError

CONF = Path(conf_dir())
GROUPS = ("dataset", "model", "optimizer", "scheduler", "trainer", "tracker", "sweep", "experiment", "debug")
OPTIONS = [f"{group}={path.stem}" for group in GROUPS for path in sorted((CONF / group).glob("*.yaml"))]


def test_no_yaml_is_left_out():
    ours = [path for path in CONF.rglob("*.yaml") if "hydra" not in path.parts]
    assert len(OPTIONS) == len(ours) - 2 == 39  # less config.yaml and wandb-sweep.yaml


@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_composes(option):
    assert isinstance(compose([option]), Config)


@pytest.mark.parametrize(
    ("option", "sweeper"),
    [("default", "Grid"), ("lr_seed", "Grid"), ("paper_grid", "Grid"), ("tpe", "Search"), ("asha", "Search")],
)
def test_a_prepared_search_has_the_sweeper_that_it_is_written_for(option, sweeper):
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        node = hydra_compose("config", [f"sweep={option}"], return_hydra_config=True).hydra.sweeper
    made = instantiate(node)
    assert type(made).__name__ == sweeper
    assert bool(made.params) == (option != "default")


def union(found, said):
    """``found``, with what is said in its place."""
    if not isinstance(said, dict):
        return said
    return found | {key: union(found.get(key, {}), value) for key, value in said.items()}


@pytest.mark.parametrize("option", [one for one in OPTIONS if one.startswith(("sweep=", "experiment=", "debug="))])
def test_what_a_file_about_the_whole_run_says_is_what_the_run_has(option):
    schema.register()
    said = OmegaConf.to_container(OmegaConf.load(CONF / f"{option.replace('=', '/')}.yaml"))
    said.pop("defaults", None)
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        node = hydra_compose("config", [option], return_hydra_config=True)
    found = OmegaConf.to_container(node, enum_to_str=True)
    if "hydra" in said:
        said["hydra"].pop("mode", None)  # compose() has none of its own
    assert union(found, said) == found


@pytest.mark.parametrize("path", sorted(CONF.rglob("*.yaml")), ids=lambda path: str(path.relative_to(CONF)))
def test_every_file_opens_with_what_it_is_for_and_the_command(path):
    lines = path.read_text(encoding="utf-8").splitlines()
    head = [line for line in lines if line.startswith("#")]
    assert lines[0].startswith("#")
    if "hydra" not in path.parts:
        assert any("python -m afqmc." in line for line in head), path


def test_a_directory_is_not_named_after_a_secret():
    assert slug(["lr=1e-5", "+model.args.api_key=abc", "dataset.url=https://me:pw@host/a?token=xyz"]) == (
        "lr-1e-5_api_key_url-https-host-a-token"
    )


def test_the_default_is_the_tutorials_recipe():
    config = compose([])
    assert (config.lr, config.batch_size, config.epochs) == (1e-5, 4, 3)
    assert config.model.name_or_path == "google-bert/bert-base-chinese"
    assert config.model.pooling.value == "cls"
    assert config.optimizer["_target_"] == "torch.optim.AdamW"
    assert config.scheduler["_target_"] == "transformers.get_linear_schedule_with_warmup"
    assert config.scheduler["warmup_steps"] == 0 == config.scheduler["warmup_ratio"]


def test_an_experiment_sets_the_keys_at_the_top_and_an_override_wins():
    assert compose(["experiment=quickstart"]).lr == 5e-4
    assert compose(["experiment=quickstart", "lr=1e-3"]).lr == 1e-3


@pytest.mark.parametrize("option", OPTIONS)
def test_a_saved_config_is_loaded_back_equal(option, tmp_path):
    config = compose([option])
    schema.save(config, tmp_path / "config.yaml")
    assert schema.load(tmp_path) == config


def bounded(node=None, prefix=""):
    """Every numeric field with its bounds."""
    node = node or Config()
    for item in fields(node):
        value = getattr(node, item.name)
        if is_dataclass(value):
            yield from bounded(value, f"{prefix}{item.name}.")
        elif item.metadata.get("bounds"):
            yield prefix + item.name, item.metadata["bounds"]


@pytest.mark.parametrize(("key", "bounds"), list(bounded()))
def test_each_bound_is_held_and_named(key, bounds):
    outside = [value - 1 if name in ("ge", "gt") else value + 1 for name, value in bounds.items()]
    for value in outside:
        number = value if isinstance(value, float) and not value.is_integer() else int(value)
        with pytest.raises(InputError, match=f"{key}=.*must be") as refused:
            compose([f"{key}={number}"])
        assert "must be" in str(refused.value)


def test_infinite_and_nan_are_no_learning_rates():
    for value in (math.inf, math.nan):
        with pytest.raises(InputError, match="lr="):
            compose([f"lr={value}"])


def test_two_numbers_are_the_knobs_whose_type_is_whole():
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
def test_a_directory_name_holds_the_overrides_and_no_separator(overrides, name):
    assert slug(overrides) == name


def test_help_and_the_config_are_shown_without_importing_torch(tmp_path):
    for arguments in (["--help"], ["--cfg", "job"]):
        code = f"import sys; sys.argv = ['afqmc.run', *{arguments}]; from afqmc.run import main; main()"
        code += "; assert 'torch' not in sys.modules and 'transformers' not in sys.modules"
        shown = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
        assert shown.returncode == 0, shown.stderr
        assert "quickstart" in shown.stdout or "lr: 1.0e-05" in shown.stdout


def test_the_completion_that_the_help_names_can_be_installed(tmp_path):
    shown = command("run", "-sc", "install=bash", cwd=tmp_path)
    assert shown.returncode == 0
    assert "complete" in shown.stdout


def test_a_config_from_an_unreadable_directory_is_refused(tmp_path):
    with pytest.raises(InputError, match="not a run directory"):
        schema.load(tmp_path)
    (tmp_path / "config.yaml").write_text("lr: [", encoding="utf-8")
    with pytest.raises(InputError, match="not readable YAML"):
        schema.load(tmp_path)


def test_the_small_config_of_these_tests_has_dropout():
    assert small().model.architecture["hidden_dropout_prob"] == 0.1
