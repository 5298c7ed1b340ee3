"""Plug-ins: found by dotted name, their arguments held to the signature, every refusal with its key."""

import functools

import pytest
import torch

from afqmc.utils.errors import InputError
from afqmc.utils.targets import check_arguments, import_target


def test_a_dotted_path_gives_what_it_names(plug):
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
def test_a_target_that_is_not_there_is_refused_with_its_key(target, message):
    with pytest.raises(InputError, match=rf"^optimizer\._target_={target}: {message}"):
        import_target(target, "optimizer._target_")


@pytest.mark.parametrize(
    ("name", "own"),
    [("lr_scheduler.partial", "functools.partial"), ("lr_scheduler.Counter", "collections.Counter")],
)
def test_what_a_well_known_library_only_imports_is_named_by_its_own_path(name, own):
    with pytest.raises(InputError, match=f"torch.optim.{name}: is not defined in that library .it is {own}"):
        import_target(f"torch.optim.{name}", "scheduler._target_")
    assert import_target(own, "scheduler._target_")


def test_a_module_whose_own_import_fails_is_refused_with_the_missing_name(plug):
    name = plug("import no_such_dependency\ndef build(): pass")
    with pytest.raises(InputError, match="cannot import 'no_such_dependency'"):
        import_target(f"{name}.build", "model._target_")


def build(params, lr, *, decay=0.0, momentum):
    """Stands for something plugged in."""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["momentum", "deca"], r"^opt\.deca: build has no such argument; did you mean 'decay'\?$"),
        (["momentum", "qq"], r"^opt\.qq: build has no such argument; allowed: decay, momentum$"),
        (["momentum", "lr"], r"^opt\.lr: is passed by afqmc itself"),
        (["decay"], r"^opt: build needs the argument 'momentum': add opt\.momentum=\.\.\.$"),
    ],
)
def test_a_wrong_or_missing_argument_is_refused_with_the_nearest(arguments, message):
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
def test_arguments_that_the_signature_takes_pass(function, arguments):
    check_arguments(function, arguments, "opt", provided=("params", "lr"))


@pytest.mark.parametrize("source", ["def (:", "1 / 0"])
def test_a_module_that_does_not_import_is_refused_with_its_key(plug, source):
    with pytest.raises(InputError, match="model._target_="):
        import_target(f"{plug(source)}.build", "model._target_")


def test_a_target_with_two_leading_dots_is_refused_with_its_key():
    with pytest.raises(InputError, match="model._target_="):
        import_target("..AdamW", "model._target_")


def test_a_target_that_cannot_be_called_is_refused_as_such():
    with pytest.raises(InputError, match=r"math\.pi.*class or function"):
        import_target("math.pi", "model._target_")


def test_an_argument_that_the_project_passes_itself_is_refused_also_beside_others():
    with pytest.raises(InputError, match=r"args\.num_labels"):
        check_arguments(lambda num_labels, **others: None, ["num_labels"], "args", provided=("num_labels",))
