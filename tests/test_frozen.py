"""The copy of conf/ in a sweep's directory may come from somebody else: it names no code of its own."""

import os

import pytest
from hydra._internal.config_search_path_impl import ConfigSearchPathImpl
from hydra.core.plugins import Plugins

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
    return found


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
        "handlers: {x: {class: evil.Handler}}",
        "handlers: {x: {(): evil.build}}",
        "handlers: {x: {stream: 'ext://evil.build'}}",
        "hydra: {searchpath: ['file:///elsewhere']}",
        "notes: ${oc.env:HOME}",
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
    assert not frozen_loader(live, sweep, begun=True)[1]
    text = "_target_: torch.optim.lr_scheduler.LinearLR\ntotal_iters: 3\n"
    (sweep / ".conf/0/scheduler/linear.yaml").write_text(text, "utf-8")
    assert frozen_loader(live, sweep, begun=True)[1]
