"""Models by name: recorded arguments rebuild the same model, and only registered names are ever built."""

import copy
import json
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from neuralop_kit import registry
from neuralop_kit.registry import build_model, config_of, decode, encode, register_component, register_model
from neuralop_kit.solvers import Domain
from neuralop_kit.solvers.errors import RegistryError


@register_component("test_smoother")
@dataclass(frozen=True)
class Smoother:
    sweeps: int
    damping: float = 0.1


@register_model("test_model")
class Example(nn.Module):
    def __init__(self, in_channels: int, out_channels: int, *, domain: Domain, modes: tuple[int, ...] = (4, 4),
                 smoother: object = None, activation: object = nn.functional.gelu, dtype: torch.dtype | None = None,
                 head: nn.Module | None = None, generator: torch.Generator | None = None) -> None:  # fmt: skip
        super().__init__()
        self.domain, self.modes, self.smoother, self.activation = domain, modes, smoother, activation
        self.dense = nn.Linear(in_channels, out_channels, dtype=dtype)
        self.head = head

    def forward(self, u: Tensor) -> Tensor:
        return self.dense(u)


@pytest.fixture
def scratch() -> Iterator[None]:
    """Names registered inside a test are forgotten after it."""
    models, components = dict(registry._MODELS), dict(registry._COMPONENTS)
    yield
    for table, before in ((registry._MODELS, models), (registry._COMPONENTS, components)):
        table.clear()
        table.update(before)


def make(**changes: object) -> Example:
    arguments = {"domain": Domain.periodic((1.0, 2.0)), "smoother": Smoother(3), "dtype": torch.float64, **changes}
    return Example(2, 3, **arguments)


def test_config_is_plain_json_and_rebuilds_the_model():
    model = make(modes=(3, 5), head=make(), activation=torch.tanh, generator=torch.Generator())
    config = json.loads(json.dumps(config_of(model)))
    again = build_model("test_model", config)
    assert isinstance(again, Example)
    assert isinstance(again.head, Example)
    assert again.domain == model.domain
    assert (again.modes, again.smoother, again.activation) == ((3, 5), Smoother(3, 0.1), torch.tanh)
    assert again.dense.weight.dtype == torch.float64
    assert config_of(again) == {**config, "generator": None}


def test_defaults_are_recorded_so_that_later_defaults_do_not_change_old_models():
    assert config_of(make())["modes"] == [4, 4]


def test_state_dict_holds_nothing_extra():
    assert set(make().state_dict()) == {"dense.weight", "dense.bias"}


def test_deepcopy_keeps_an_independent_config():
    model = make()
    twin = copy.deepcopy(model)
    twin.config["modes"] = [1]
    assert model.config["modes"] == [4, 4]


def test_compiled_model_shows_its_config():
    assert torch.compile(make(), backend="eager").config == make().config


def test_signature_and_docstring_survive_the_decorator():
    assert next(iter(registry.inspect.signature(Example).parameters)) == "in_channels"


class TestSubclasses:
    def test_registered_subclass_records_its_own_arguments(self, scratch):
        @register_model("test_child")
        class Child(Example):
            def __init__(self, *, depth: int) -> None:
                super().__init__(1, 1, domain=Domain.periodic((1.0,)))
                self.depth = depth

        assert config_of(Child(depth=2)) == {"depth": 2}

    def test_registered_subclass_without_constructor_takes_its_parents(self, scratch):
        @register_model("test_child")
        class Child(Example):
            pass

        child = Child(1, 2, domain=Domain.periodic((1.0,)))
        assert type(build_model("test_child", config_of(child))) is Child

    def test_unregistered_subclass_is_refused_not_taken_for_its_parent(self):
        class Child(Example):
            pass

        child = Child(1, 2, domain=Domain.periodic((1.0,)))
        assert not hasattr(child, "config")
        with pytest.raises(RegistryError, match="register_model"):
            config_of(child)


class TestRefusals:
    @pytest.mark.parametrize("register", [register_model, register_component])
    @pytest.mark.parametrize("name", ["test_model", "test_smoother", "gelu"])
    def test_a_name_is_registered_once(self, register, name):
        with pytest.raises(RegistryError, match="registered already"):
            register(name)(nn.Linear)

    def test_unknown_model_lists_the_known_ones(self):
        with pytest.raises(RegistryError, match="test_model"):
            build_model("fnoo", {})

    def test_wrong_arguments_are_named(self):
        with pytest.raises(RegistryError, match="another version"):
            build_model("test_model", {"in_channels": 1, "width": 3})

    def test_variadic_constructor_is_refused_and_not_entered(self):
        with pytest.raises(RegistryError, match="named arguments"):
            register_model("test_variadic")(nn.Sequential)
        assert "test_variadic" not in registry.model_names()

    def test_unwritable_argument_is_found_when_it_matters(self):
        model = make(activation=lambda x: x)  # building such a model is fine ...
        with pytest.raises(RegistryError, match="activation=<function"):
            config_of(model)  # ... writing it is not

    def test_unwritable_argument_is_found_inside_components(self):
        with pytest.raises(RegistryError, match=r"smoother\.arguments\.damping"):
            config_of(make(smoother=Smoother(1, damping=object())))

    @pytest.mark.parametrize(
        "value",
        [
            {"$object": "os.system", "arguments": {}},
            {"$object": "gelu", "arguments": {"x": 1}},
            {"$object": "test_smoother", "arguments": 3},
            {"$name": "os.system"},
            {"$name": []},
            {"$dtype": "load"},
            {"$new": 1},
        ],
    )
    def test_files_cannot_reach_unregistered_things(self, value):
        with pytest.raises(RegistryError):
            decode(value)


@pytest.mark.parametrize(
    "value",
    [None, True, 3, 0.1, "x", (), (1, (2, 3)), {"a": (1,)}, torch.float64, torch.tanh, Smoother],
)
def test_values_survive(value):
    assert decode(json.loads(json.dumps(encode(value)))) == value
