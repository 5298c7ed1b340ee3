"""``_target_``: import a dotted name, and check arguments against the signature."""

import functools

import pytest
import torch

from afqmc.utils.errors import InputError
from afqmc.utils.targets import check_arguments, import_target


def test_import_target(plug):
    assert import_target("torch.optim.AdamW", "optimizer._target_") is torch.optim.AdamW
    assert import_target(f"{plug('def one(): return 1')}.one", "model._target_")() == 1


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("AdamW", "must be a dotted path, such as torch.optim.AdamW"),
        (".AdamW", "must be a dotted path"),
        ("no_such_package.AdamW", "cannot import 'no_such_package' .*is it installed here"),
        ("torch.optim.AdmW", "torch.optim has no 'AdmW'; did you mean 'AdamW'"),
        ("math.qqqq", r"math has no 'qqqq'; allowed: acos, .* and \d+ more"),
    ],
)
def test_missing_target_is_refused(target, message):
    with pytest.raises(InputError, match=rf"^optimizer\._target_={target}: {message}"):
        import_target(target, "optimizer._target_")


@pytest.mark.parametrize(
    ("name", "real_path"),
    [("lr_scheduler.partial", "functools.partial"), ("lr_scheduler.Counter", "collections.Counter")],
)
def test_reexported_name_is_refused(name, real_path):
    """A name that a library only imports is refused; the error has its real path."""
    with pytest.raises(InputError, match=f"torch.optim.{name}: is not defined in that library .it is {real_path}"):
        import_target(f"torch.optim.{name}", "scheduler._target_")
    assert import_target(real_path, "scheduler._target_")


def test_missing_dependency_is_named(plug):
    name = plug("import no_such_dependency\ndef build(): pass")
    with pytest.raises(InputError, match="cannot import 'no_such_dependency'"):
        import_target(f"{name}.build", "model._target_")


def build(params, lr, *, decay=0.0, momentum):
    """A target of a user."""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["momentum", "deca"], r"^opt\.deca: build has no such argument; did you mean 'decay'\?$"),
        (["momentum", "qq"], r"^opt\.qq: build has no such argument; allowed: decay, momentum$"),
        (["momentum", "lr"], r"^opt\.lr: is passed by afqmc itself"),
        (["decay"], r"^opt: build needs the argument 'momentum': add opt\.momentum=\.\.\.$"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    """A wrong argument is refused with the nearest name; a missing one is named."""
    with pytest.raises(InputError, match=message):
        check_arguments(build, arguments, "opt", provided=("params", "lr"))


@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        (build, ["momentum"]),
        (lambda params, lr, **others: None, ["anything"]),
        (functools.partial(build, momentum=0.9), ["decay"]),
        (dict, ["anything"]),  # has no signature
    ],
)
def test_valid_arguments_are_accepted(function, arguments):
    check_arguments(function, arguments, "opt", provided=("params", "lr"))


@pytest.mark.parametrize("source", ["def (:", "1 / 0"])
def test_broken_module_is_refused(plug, source):
    with pytest.raises(InputError, match="model._target_="):
        import_target(f"{plug(source)}.build", "model._target_")


def test_relative_target_is_refused():
    with pytest.raises(InputError, match="model._target_="):
        import_target("..AdamW", "model._target_")


def test_target_must_be_callable():
    with pytest.raises(InputError, match=r"math\.pi.*class or function"):
        import_target("math.pi", "model._target_")


def test_reserved_argument_is_refused():
    """An argument that afqmc passes itself is refused, even if the signature takes any argument."""
    with pytest.raises(InputError, match=r"args\.num_labels"):
        check_arguments(lambda num_labels, **others: None, ["num_labels"], "args", provided=("num_labels",))
