"""Import the ``_target_`` of a config group by its dotted path, and check its arguments against the signature."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any, TypeVar

from afqmc.utils.errors import InputError, did_you_mean

_T = TypeVar("_T")

_TRUSTED = {  # prefixes of the targets that an untrusted config may name, by key; under other keys, none
    "objective": ("afqmc.training.objectives.",),
    "callbacks.*": ("afqmc.training.callbacks.",),
    "optimizer": (
        "torch.optim.",
        "transformers.optimization.",
        "bitsandbytes.optim.",
        "pytorch_optimizer.",
        "afqmc.training.muon.",
    ),
    "optimizer.param_groups": ("afqmc.training.parameter_groups.",),
    "scheduler": ("torch.optim.lr_scheduler.", "transformers.get_", "transformers.optimization.get_"),
}
_PREFIXES = tuple(prefix for prefixes in _TRUSTED.values() for prefix in prefixes)
_DEFINED_IN = tuple(prefix for prefix in _PREFIXES if prefix.endswith("."))


def is_well_known(target: str) -> bool:
    """Return whether an untrusted config may name this target under at least one key."""
    return target.startswith(_PREFIXES)


def untrusted_targets(config: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Yield key and value of each ``_target_`` that an untrusted config may not name, at any depth.

    The name of a trusted target is not enough: ``import_target`` also checks where the object is defined.

    Args:
        config: Nested mappings and sequences.
        key: Of ``config`` itself, with dots.
    """
    if isinstance(config, Mapping):
        target = config.get("_target_")
        trusted = next((prefixes for pattern, prefixes in _TRUSTED.items() if fnmatchcase(key, pattern)), ())
        if target is not None and not str(target).startswith(trusted):
            yield f"{key}._target_", str(target)
        for name, value in config.items():
            yield from untrusted_targets(value, f"{key}.{name}" if key else str(name))
    elif isinstance(config, list | tuple):
        for index, value in enumerate(config):
            yield from untrusted_targets(value, f"{key}.{index}")


def import_target(target: str, key: str) -> Callable[..., Any]:
    """Import the callable at a dotted path such as ``torch.optim.AdamW``.

    Raises:
        InputError: naming ``key``, when the module cannot be imported or has no such callable.
    """
    module_name, _, name = target.rpartition(".")
    if not module_name or module_name.startswith("."):
        raise InputError(f"{key}={target}: must be a dotted path, such as torch.optim.AdamW")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        missing = error.name or module_name
        raise InputError(f"{key}={target}: cannot import {missing!r} ({error}); is it installed here?") from error
    except Exception as error:  # a user's module may raise anything
        raise InputError(f"{key}={target}: {module_name} fails to import: {type(error).__name__}: {error}") from error
    if not hasattr(module, name):
        public = [attribute for attribute in dir(module) if not attribute.startswith("_")]
        raise InputError(f"{key}={target}: {module_name} has no {name!r}{did_you_mean(name, public)}")
    function = getattr(module, name)
    if not callable(function):
        raise InputError(f"{key}={target}: is of type {type(function).__name__}; must be a class or function")
    module_name = str(getattr(function, "__module__", None))
    if is_well_known(target) and not f"{module_name}.".startswith(_DEFINED_IN):  # re-exported, such as torch.optim.sys
        path = f"{module_name}.{getattr(function, '__qualname__', name)}"
        raise InputError(f"{key}={target}: is not defined in that library (it is {path}); use that path")
    return function  # type: ignore[no-any-return]


def signature_parameters(function: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    """Return the parameters of a callable by name; empty for C callables without a signature."""
    try:
        return inspect.signature(function).parameters
    except ValueError:
        return {}


def check_arguments(
    function: Callable[..., Any], arguments: Iterable[str], key: str, provided: Collection[str] = ()
) -> None:
    """Check keyword arguments against the signature of a callable.

    Args:
        function: The callable.
        arguments: Names of the arguments from the config.
        key: Of the config group, for messages.
        provided: Names of the arguments that afqmc passes itself.

    Raises:
        InputError: naming the first unknown or missing argument, with the most similar valid one.
    """
    parameters = signature_parameters(function).values()
    if not parameters:  # no signature to check against; the call itself may still fail
        return
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)
    named = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    names = [p.name for p in named if p.name not in provided]
    name = getattr(function, "__name__", str(function))
    for argument in arguments:
        if argument in provided:
            raise InputError(f"{key}.{argument}: is passed by afqmc itself; leave it out")
        if argument not in names and not takes_any:
            raise InputError(f"{key}.{argument}: {name} has no such argument{did_you_mean(argument, names)}")
    for argument in provided:
        if not takes_any and argument not in [p.name for p in named]:
            raise InputError(f"{key}: {name} must take an argument {argument!r}, which afqmc passes")
    for parameter in named:
        required = parameter.default is parameter.empty
        if required and parameter.name not in {*arguments, *provided}:
            raise InputError(f"{key}: {name} needs the argument {parameter.name!r}: add {key}.{parameter.name}=...")


Arguments = dict[str, Any]

# what constructors raise for an invalid argument
REJECTIONS = (TypeError, ValueError, RuntimeError, AssertionError, LookupError, ArithmeticError)


def split_target(config: Mapping[str, Any], key: str, example: str) -> tuple[str, Arguments]:
    """Return ``_target_`` and the other entries of a config group.

    Raises:
        InputError: when there is no ``_target_``.
    """
    arguments = dict(config)
    target = arguments.pop("_target_", None)
    if not isinstance(target, str):
        raise InputError(f"{key}._target_: is not set; must name a class or function, such as {example}")
    return target, arguments


def instantiate(
    config: Mapping[str, Any],
    key: str,
    example: str,
    offered: Mapping[str, Any] | None = None,
    base: type | None = None,
) -> Any:
    """Call the target of a config group with its arguments.

    Args:
        config: ``_target_`` and its keyword arguments.
        key: Of the group, for messages.
        example: A valid target, for the message if there is none.
        offered: Arguments that afqmc passes if the signature has them.
        base: The class that the target must be a subclass of; it is checked before the target is called.

    Raises:
        InputError: naming the argument that the target lacks or rejects, or the class that it must derive from.
    """
    target, arguments = split_target(config, key, example)
    function = import_target(target, f"{key}._target_")
    if base is not None and not (isinstance(function, type) and issubclass(function, base)):
        raise InputError(f"{key}._target_={target}: must be a subclass of {base.__module__}.{base.__qualname__}")
    provided = {name: value for name, value in (offered or {}).items() if name in signature_parameters(function)}
    check_arguments(function, arguments, key, provided=tuple(provided))
    try:
        return function(**provided, **arguments)
    except REJECTIONS as error:
        raise rejected(key, target, arguments, error, lambda kwargs: function(**provided, **kwargs)) from error
    except Exception as error:  # a user's code may raise anything
        raise InputError(f"{key}._target_={target}: cannot be built: {type(error).__name__}: {error}") from error


def instantiate_all(config: Mapping[str, Any], key: str, example: str, base: type[_T]) -> dict[str, _T]:
    """Call the targets of a group that has a name and a ``_target_`` with arguments per part.

    Args:
        config: By name.
        key: Of the group, for messages.
        example: A valid target, for the message if there is none.
        base: The class that each target must be a subclass of.

    Raises:
        InputError: naming the part, or the argument that it does not have or rejects.
    """
    parts = {}
    for name, entry in config.items():
        if not isinstance(entry, Mapping):
            raise InputError(f"{key}.{name}={entry}: must be a mapping with _target_, such as {{_target_: {example}}}")
        parts[name] = instantiate(entry, f"{key}.{name}", example, base=base)
    return parts


def rejected(
    key: str, target: str, arguments: Arguments, error: Exception, build: Callable[[Arguments], Any]
) -> InputError:
    """Return an error that names the argument without which ``build`` succeeds, or all arguments if there is none."""
    for name, value in arguments.items():
        try:
            build({other: value for other, value in arguments.items() if other != name})
        except REJECTIONS:
            continue
        if str(error).startswith(f"{name}="):  # a message of our own, which begins with the argument's name
            return InputError(f"{key}.{error}")
        return InputError(f"{key}.{name}={value}: {target} rejects it: {error}")
    return InputError(f"{key}={arguments}: {target} rejects it: {error}")
