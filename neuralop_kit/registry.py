"""Models by name: a class remembers how it was built, so that a folder of JSON and weights can rebuild it.

    @register_model("fno")                the class is found by this name, its objects carry ``model.config``
    build_model("fno", config)            the same model again, freshly initialised
    register_component("gelu")            the same for the small objects and functions that models are given

Only registered names are ever built from a file; nothing is imported by a path that a file names.
"""

import functools
import importlib
import inspect
import json
import math
from collections.abc import Callable, Mapping
from numbers import Integral
from typing import Any, TypeVar

import torch
from torch import nn

from neuralop_kit.solvers.domain import Domain
from neuralop_kit.solvers.errors import RegistryError
from neuralop_kit.solvers.sphere import SphereDomain

Config = dict[str, Any]
Registered = TypeVar("Registered", bound=Callable[..., Any])
Model = TypeVar("Model", bound=type[nn.Module])

_MODELS: dict[str, type[nn.Module]] = {}
_COMPONENTS: dict[str, Callable[..., Any]] = {}
# Rooms whose import registers what is in them; imported when a name is first asked for, not before.
_ROOMS = ("neuralop_kit.models", "neuralop_kit.training")


def register_model(name: str) -> Callable[[Model], Model]:
    """Class decorator: make a model known by ``name`` and let its objects record their constructor arguments.

    After construction ``model.config`` maps every argument, defaults included, to plain JSON values. Arguments may be
    numbers, strings, ``None``, tuples and lists (they come back as tuples), string-keyed dicts, dtypes, domains, and
    anything registered. A ``torch.Generator`` is recorded as ``None``: it only draws initial weights. A subclass that
    is not registered itself carries no config, for it is another model.

    Raises:
        RegistryError: the name is taken, or the constructor has ``*args``, ``**kwargs`` or positional-only arguments.

    >>> @register_model("doctest_scale")
    ... class Scale(nn.Module):
    ...     def __init__(self, channels: int, *, factor: float = 2.0) -> None:
    ...         super().__init__()
    ...         self.factor = factor
    >>> Scale(3).config
    {'channels': 3, 'factor': 2.0}
    >>> build_model("doctest_scale", {"channels": 3, "factor": 0.5}).factor
    0.5
    """

    def register(cls: Model) -> Model:
        _claim(name, _MODELS, cls)
        _record_arguments(cls)
        return cls

    return register


def register_component(name: str) -> Callable[[Registered], Registered]:
    """Decorator for what models are given as arguments: a class (also a frozen dataclass) or a plain function.

    An object of a registered class is written with its own arguments, a function or the class itself by name alone.

    Raises:
        RegistryError: the name is taken, or the constructor has ``*args``, ``**kwargs`` or positional-only arguments.

    >>> square = register_component("doctest_square")(lambda x: x * x)
    >>> decode(encode(square)) is square
    True
    """

    def register(component: Registered) -> Registered:
        _claim(name, _COMPONENTS, component)
        if isinstance(component, type):
            _record_arguments(component)
        return component

    return register


def model_names() -> tuple[str, ...]:
    """Names that :func:`build_model` knows, sorted."""
    _import_rooms()
    return tuple(sorted(_MODELS))


def name_of(model: nn.Module) -> str:
    """Registered name of a model's class.

    Raises:
        RegistryError: the class itself is not registered; being derived from a registered one is not enough.
    """
    for name, cls in _MODELS.items():
        if cls is type(model):
            return name
    raise RegistryError(
        f"expected a model of a registered class, got {type(model).__qualname__}; "
        'decorate it: @register_model("its_name"), from neuralop_kit.registry'
    )


def config_of(model: nn.Module) -> Config:
    """A copy of ``model.config``, checked to be complete: every argument could be written.

    Raises:
        RegistryError: the class is not registered, or an argument is of a kind that JSON cannot hold.
    """
    name = name_of(model)
    config: Config = json.loads(json.dumps(model.config))
    if problem := _first_unwritable(config):
        raise RegistryError(
            f"expected arguments of {name!r} that can be written as JSON, got {problem}; "
            "register it: register_component(name), from neuralop_kit.registry"
        )
    return config


def build_model(name: str, config: Mapping[str, Any]) -> nn.Module:
    """The model of this name and recorded arguments, with fresh weights.

    Raises:
        RegistryError: the name is unknown (the message lists the known ones), or the arguments do not fit.
    """
    if name not in _MODELS:
        _import_rooms()
    if name not in _MODELS:
        raise RegistryError(f"expected a registered model among {sorted(_MODELS)}, got {name!r}; import its module")
    return _build(name, _MODELS[name], config)


def encode(value: Any) -> Any:
    """``value`` as plain JSON; what cannot be written becomes ``{"$unwritable": repr}``."""
    if value is None or isinstance(value, bool | str) or (isinstance(value, float) and math.isfinite(value)):
        return value
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, tuple | list):
        return [encode(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): encode(item) for key, item in value.items()}
    if isinstance(value, Domain | SphereDomain):
        return {"$domain": value.to_json()}
    if isinstance(value, torch.dtype):
        return {"$dtype": str(value).removeprefix("torch.")}
    if isinstance(value, torch.Generator):
        return None
    for name, known in (*_MODELS.items(), *_COMPONENTS.items()):
        if value is known:
            return {"$name": name}
        if type(value) is known:
            return {"$object": name, "arguments": value.config}
    return {"$unwritable": repr(value)[:200]}


def decode(value: Any) -> Any:
    """Inverse of :func:`encode`; lists come back as tuples.

    Raises:
        RegistryError: a name is unknown, or a marker is malformed.
    """
    if isinstance(value, list):
        return tuple(decode(item) for item in value)
    if not isinstance(value, Mapping):
        return value
    if "$domain" in value:
        return Domain.from_json(value["$domain"])
    if "$dtype" in value:
        dtype = getattr(torch, str(value["$dtype"]), None)
        if isinstance(dtype, torch.dtype):
            return dtype
    elif "$name" in value:
        return _find(str(value["$name"]))
    elif "$object" in value:
        return _build(str(value["$object"]), _find(str(value["$object"])), value.get("arguments", {}))
    elif not any(str(key).startswith("$") for key in value):
        return {key: decode(item) for key, item in value.items()}
    raise RegistryError(
        f"expected a value written by neuralop_kit, got {str(value)[:200]}; the file is damaged or newer"
    )


def _claim(name: str, table: dict[str, Any], entry: Any) -> None:
    """Enter ``entry``; models and components share one set of names, so that a file is never ambiguous."""
    if not isinstance(name, str) or not name:
        raise RegistryError(f"expected a name, got {name!r}; write @register_model('name')")
    if name in _MODELS or name in _COMPONENTS:
        raise RegistryError(f"expected a new name, got {name!r}, which is registered already; choose another one")
    if isinstance(entry, type):
        _check_signature(entry)
    table[name] = entry


def _check_signature(cls: type) -> None:
    for parameter in inspect.signature(cls).parameters.values():
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise RegistryError(
                f"expected a constructor of named arguments, got {parameter} in {cls.__qualname__}; name each argument"
            )


def _record_arguments(cls: type) -> None:
    """Let ``cls.__init__`` leave its bound arguments in ``self.config``, for this very class and not for subclasses."""
    original: Callable[..., None] = cls.__init__  # type: ignore[misc]
    signature = inspect.signature(original)

    @functools.wraps(original)
    def construct(self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        if type(self) is cls:
            bound = signature.bind(self, *args, **kwargs)
            bound.apply_defaults()
            arguments = list(bound.arguments.items())[1:]
            # object.__setattr__ reaches frozen dataclasses too.
            object.__setattr__(self, "config", {key: encode(value) for key, value in arguments})

    cls.__init__ = construct  # type: ignore[misc]


def _build(name: str, entry: Callable[..., Any], config: Any) -> Any:
    if not isinstance(config, Mapping) or not isinstance(entry, type):
        raise RegistryError(f"expected a class and its arguments for {name!r}, got {config!r}; the file is damaged")
    arguments = {str(key): decode(value) for key, value in config.items()}
    try:
        inspect.signature(entry).bind(**arguments)
    except TypeError as error:
        raise RegistryError(
            f"expected the arguments of {name!r}, got {sorted(arguments)}: {error}; was it saved by another version?"
        ) from error
    return entry(**arguments)


def _find(name: str) -> Callable[..., Any]:
    if name not in _COMPONENTS and name not in _MODELS:
        _import_rooms()
    found = _COMPONENTS.get(name) or _MODELS.get(name)
    if found is None:
        raise RegistryError(f"expected a registered component among {sorted({*_COMPONENTS, *_MODELS})}, got {name!r}")
    return found


def _first_unwritable(value: Any, path: str = "") -> str | None:
    if isinstance(value, Mapping):
        if "$unwritable" in value:
            return f"{path}={value['$unwritable']}"
        items: list[tuple[str, Any]] = [(str(key), item) for key, item in value.items()]
    elif isinstance(value, list):
        items = [(str(index), item) for index, item in enumerate(value)]
    else:
        return None
    found = (_first_unwritable(item, f"{path}.{key}" if path else key) for key, item in items)
    return next((problem for problem in found if problem), None)


def _import_rooms() -> None:
    for room in _ROOMS:
        importlib.import_module(room)


def _register_activations() -> None:
    """The functions that models are usually given; ``tanh`` and ``sigmoid`` live in torch itself."""
    for name in ("relu", "gelu", "silu", "elu", "leaky_relu", "softplus"):
        register_component(name)(getattr(nn.functional, name))
    for name in ("tanh", "sigmoid", "sin"):
        register_component(name)(getattr(torch, name))


_register_activations()
