"""The untrusted copy of conf/ in a sweep's directory: it must not name code that conf/ does not."""

import os

import pytest
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_search_path_impl import ConfigSearchPathImpl
from hydra.core.plugins import Plugins
from hydra.types import RunMode

from afqmc.utils.errors import InputError
from hydra_plugins.afqmc_sweeps._config_snapshot import snapshot_loader


@pytest.fixture
def live(tmp_path):
    """A loader of a conf/ with a custom schedule."""
    (tmp_path / "conf/scheduler").mkdir(parents=True)
    (tmp_path / "conf/scheduler/linear.yaml").write_text("_target_: mine.linear\n", "utf-8")
    Plugins.instance()  # registers the config sources
    result = ConfigSearchPathImpl()
    result.append("main", f"file://{tmp_path}/conf")
    result.append("hydra", "pkg://hydra.conf")
    result.append("schema", "structured://")
    return ConfigLoaderImpl(result)


@pytest.fixture
def sweep(live, tmp_path):
    """A sweep that has started."""
    (tmp_path / "sweep").mkdir()
    snapshot_loader(live, tmp_path / "sweep", started=False)
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
def test_untrusted_code_is_refused(text, live, sweep):
    """Code, search paths and environment access that conf/ does not have are refused."""
    (sweep / ".conf/0/scheduler/linear.yaml").write_text(text, "utf-8")
    with pytest.raises(InputError, match="linear.yaml"):
        snapshot_loader(live, sweep, started=True)


def test_fifo_in_copy_is_refused(live, sweep):
    """A FIFO in the copy is refused without waiting for it."""
    os.mkfifo(sweep / ".conf/0/more.yaml")
    with pytest.raises(InputError, match="more.yaml: not a regular file"):
        snapshot_loader(live, sweep, started=True)


def test_edited_values_and_known_libraries_are_allowed(live, sweep):
    """Edited values are used, and so are targets of conf/ and of well-known libraries."""
    assert not snapshot_loader(live, sweep, started=True).changed
    text = "_target_: torch.optim.lr_scheduler.LinearLR\ntotal_iters: 3\n"
    (sweep / ".conf/0/scheduler/linear.yaml").write_text(text, "utf-8")
    assert snapshot_loader(live, sweep, started=True).changed


MAIN = """
defaults: [{scheduler: linear}, _self_]
lr: 1
sweep: {name: mine}
hydra:
  sweep: {dir: "out/${sweep.name}"}
  sweeper: {max_batch_size: 3, params: {lr: "1,2"}}
"""


@pytest.fixture
def started(live, tmp_path):
    """A started sweep: its copy of conf/, and functions that compose a job and read the prepared space."""
    (tmp_path / "conf/config.yaml").write_text(MAIN, "utf-8")
    (tmp_path / "sweep").mkdir()
    snapshot_loader(live, tmp_path / "sweep", started=False)
    main = live.load_configuration("config", ["hydra.job.config_name=config"], RunMode.MULTIRUN)

    def composed():
        return snapshot_loader(live, tmp_path / "sweep", started=True).load_sweep_config(main, ["lr=2"])

    def prepared():
        return snapshot_loader(live, tmp_path / "sweep", started=True).prepared_params(main, [])

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
def test_changed_hydra_settings_are_refused(files, key, started):
    """Settings under hydra that differ from conf/ are refused, however they are set."""
    copy, composed, _ = started
    for name, content in files.items():
        if isinstance(content, str):
            (copy / name).write_text(content, "utf-8")
        else:
            change(copy / name, *content)
    with pytest.raises(InputError, match=f"{key}: the copy has .*changed files: .*/{list(files)[-1]}"):
        composed()


@pytest.mark.parametrize("text", ["scheduler: {_target_: evil.build}", "notes: '${oc.env:HOME}'"])
def test_config_outside_copy_is_checked(text, started):
    """A config file outside of the copy is checked for untrusted code too."""
    copy, composed, _ = started
    (copy / "../../x.yaml").write_text(f"{GLOBAL}{text}", "utf-8")
    change(copy / "config.yaml", "_self_]", "_self_, ../../x]")
    with pytest.raises(InputError, match="not in conf/"):
        composed()


@pytest.mark.parametrize(
    "param", ["hydra.job.env_set.X: '1'", "+scheduler@hydra.job: x", "hydra/job_logging: x", "+scheduler@_global_: x"]
)
def test_prepared_space_must_use_run_keys(param, started):
    """A prepared search space can only contain keys of a run, not of Hydra."""
    copy, _, prepared = started
    key, _, value = param.partition(": ")
    change(copy / "config.yaml", 'lr: "1,2"', f"'{key}': {value}")
    with pytest.raises(InputError, match="is not a key of a run"):
        prepared()


def test_prepared_space_outside_copy_is_checked(started):
    """A search space prepared outside of the copy is checked for untrusted code."""
    copy, _, prepared = started
    text = "hydra: {sweeper: {params: {scheduler: '{_target_: evil.build}'}}}"
    (copy / "../../x.yaml").write_text(f"{GLOBAL}{text}", "utf-8")
    change(copy / "config.yaml", "_self_]", "_self_, ../../x]")
    with pytest.raises(InputError, match="not in conf/"):
        prepared()


def test_sweeper_comes_from_current_conf(started, tmp_path):
    """The sweeper comes from the current conf/, run settings and search space from the copy."""
    copy, composed, prepared = started
    change(tmp_path / "conf/config.yaml", "max_batch_size: 3", "max_batch_size: 5")
    change(tmp_path / "conf/config.yaml", '"1,2"', '"3"')
    change(copy / "config.yaml", "name: mine", "name: other")
    config = composed()
    assert (config.hydra.sweeper.max_batch_size, config.hydra.sweep.dir) == (5, "out/mine")
    assert config.sweep.name == "other"
    assert prepared() == {"lr": "1,2"}
