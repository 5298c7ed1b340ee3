"""The copy of conf/ in a sweep's directory may come from somebody else: it names no code of its own."""

import os

import pytest
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_search_path_impl import ConfigSearchPathImpl
from hydra.core.plugins import Plugins
from hydra.types import RunMode

from afqmc.utils.errors import InputError
from hydra_plugins.afqmc_sweeps._config_snapshot import frozen_loader


@pytest.fixture
def live(tmp_path):
    """A conf/ with a schedule of the user's own."""
    (tmp_path / "conf/scheduler").mkdir(parents=True)
    (tmp_path / "conf/scheduler/linear.yaml").write_text("_target_: mine.linear\n", "utf-8")
    Plugins.instance()  # registers where configs come from
    found = ConfigSearchPathImpl()
    found.append("main", f"file://{tmp_path}/conf")
    found.append("hydra", "pkg://hydra.conf")
    found.append("schema", "structured://")
    return ConfigLoaderImpl(found)


@pytest.fixture
def sweep(live, tmp_path):
    """A sweep that has begun."""
    (tmp_path / "sweep").mkdir()
    frozen_loader(live, tmp_path / "sweep", begun=False)
    return tmp_path / "sweep"


@pytest.mark.parametrize(
    "text",
    [
        "_target_: os.system",
        "_target_: evil.build",
        "a: {b: [{_target_: evil.build}]}",
        "hydra: {callbacks: {x: {_target_: evil.build}}}",
        "hydra: {sweeper: {params: {optimizer._target_: evil.build}}}",
        "hydra: {sweeper: {params: ['+optimizer._target_=evil.build']}}",
        "hydra: {searchpath: ['file:///elsewhere']}",
        "notes: ${oc.env:HOME}",
        "notes: ${ oc.env:HOME}",
        "notes: ${oc.${name}:HOME}",
        "_target_: ${x}",
        "_target_: !!python/name:os.system",
    ],
)
def test_code_that_conf_does_not_name_is_refused(text, live, sweep):
    (sweep / ".conf/0/scheduler/linear.yaml").write_text(text, "utf-8")
    with pytest.raises(InputError, match="linear.yaml"):
        frozen_loader(live, sweep, begun=True)


def test_a_copy_that_is_a_fifo_is_not_waited_for(live, sweep):
    os.mkfifo(sweep / ".conf/0/more.yaml")
    with pytest.raises(InputError, match="more.yaml: not a regular file"):
        frozen_loader(live, sweep, begun=True)


def test_values_that_were_edited_and_known_libraries_are_used(live, sweep):
    """The user's own target stays legal, and so does a schedule of torch."""
    assert not frozen_loader(live, sweep, begun=True).changed
    text = "_target_: torch.optim.lr_scheduler.LinearLR\ntotal_iters: 3\n"
    (sweep / ".conf/0/scheduler/linear.yaml").write_text(text, "utf-8")
    assert frozen_loader(live, sweep, begun=True).changed


MAIN = """
defaults: [{scheduler: linear}, _self_]
lr: 1
sweep: {name: mine}
hydra:
  sweep: {dir: "out/${sweep.name}"}
  sweeper: {max_batch_size: 3, params: {lr: "1,2"}}
"""


@pytest.fixture
def begun(live, tmp_path):
    """A sweep over a whole conf/ that has begun; its copy, and how a job of it is composed."""
    (tmp_path / "conf/config.yaml").write_text(MAIN, "utf-8")
    (tmp_path / "sweep").mkdir()
    frozen_loader(live, tmp_path / "sweep", begun=False)
    main = live.load_configuration("config", ["hydra.job.config_name=config"], RunMode.MULTIRUN)

    def composed():
        return frozen_loader(live, tmp_path / "sweep", begun=True).load_sweep_config(main, ["lr=2"])

    def prepared():
        return frozen_loader(live, tmp_path / "sweep", begun=True).prepared(main, [])

    return tmp_path / "sweep/.conf/0", composed, prepared


def change(file, old, new):
    text = file.read_text("utf-8")
    assert text.count(old) == 1
    file.write_text(text.replace(old, new), "utf-8")


GLOBAL = "# @package _global_\n"
SET = "env_set: {LD_PRELOAD: /x.so}\n"


@pytest.mark.parametrize(
    ("files", "key"),
    [
        ({"config.yaml": ("hydra:", "hydra:\n  job: {env_set: {PATH: /x}}")}, "hydra.job.env_set.PATH"),
        ({"scheduler/linear.yaml": f"# @package hydra.job\n{SET}"}, "hydra.job.env_set.LD_PRELOAD"),
        ({"scheduler/linear.yaml": f"{GLOBAL}hydra: {{job: {{{SET.strip()}}}}}"}, "LD_PRELOAD"),
        (
            {"scheduler/x.yaml": SET, "config.yaml": ("_self_]", "scheduler@hydra.job: x, _self_]")},
            "hydra.job.env_set.LD_PRELOAD",
        ),
        (
            {"../../x.yaml": f"{GLOBAL}hydra: {{output_subdir: /x}}", "config.yaml": ("_self_]", "../../x, _self_]")},
            "hydra.output_subdir",
        ),
        ({"config.yaml": ("sweep: {dir", "run: {dir: /x}\n  sweep: {dir")}, "hydra.run.dir"),
    ],
)  # fmt: skip
def test_a_job_with_other_settings_of_hydra_than_conf_has_is_refused(files, key, begun):
    copy, composed, _ = begun
    for name, content in files.items():
        if isinstance(content, str):
            (copy / name).write_text(content, "utf-8")
        else:
            change(copy / name, *content)
    with pytest.raises(InputError, match=f"{key}: the copy has .*changed files: .*/{list(files)[-1]}"):
        composed()


@pytest.mark.parametrize("text", ["scheduler: {_target_: evil.build}", "notes: '${oc.env:HOME}'"])
def test_a_config_beside_the_copy_names_no_code_either(text, begun):
    copy, composed, _ = begun
    (copy / "../../x.yaml").write_text(f"{GLOBAL}{text}", "utf-8")
    change(copy / "config.yaml", "_self_]", "_self_, ../../x]")
    with pytest.raises(InputError, match="not in conf/"):
        composed()


@pytest.mark.parametrize(
    "param", ["hydra.job.env_set.X: '1'", "+scheduler@hydra.job: x", "hydra/job_logging: x", "+scheduler@_global_: x"]
)
def test_an_axis_of_the_copy_is_about_the_keys_of_a_run(param, begun):
    copy, _, prepared = begun
    key, _, value = param.partition(": ")
    change(copy / "config.yaml", 'lr: "1,2"', f"'{key}': {value}")
    with pytest.raises(InputError, match="is not about a run's key"):
        prepared()


def test_an_axis_outside_of_the_copy_names_no_code(begun):
    copy, _, prepared = begun
    text = "hydra: {sweeper: {params: {scheduler: '{_target_: evil.build}'}}}"
    (copy / "../../x.yaml").write_text(f"{GLOBAL}{text}", "utf-8")
    change(copy / "config.yaml", "_self_]", "_self_, ../../x]")
    with pytest.raises(InputError, match="not in conf/"):
        prepared()


def test_an_edited_sweeper_is_that_of_conf_and_the_directory_that_of_the_command(begun, tmp_path):
    """Values of a run stay as they were, and so do the axes."""
    copy, composed, prepared = begun
    change(tmp_path / "conf/config.yaml", "max_batch_size: 3", "max_batch_size: 5")
    change(tmp_path / "conf/config.yaml", '"1,2"', '"3"')
    change(copy / "config.yaml", "name: mine", "name: other")
    config = composed()
    assert (config.hydra.sweeper.max_batch_size, config.hydra.sweep.dir) == (5, "out/mine")
    assert config.sweep.name == "other"
    assert prepared() == {"lr": "1,2"}
