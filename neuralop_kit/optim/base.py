"""What the optimizers of this package share: one step, states that keep their precision, clear refusals."""

from collections.abc import Callable, Iterable
from typing import Any, ClassVar, Literal, TypeVar

import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer, ParamsT, StateDict

from neuralop_kit.optim.sharded import ELEMENTWISE, refuse_sharded
from neuralop_kit.solvers.errors import ArgumentError

Group = dict[str, Any]
State = dict[str, Any]
Result = TypeVar("Result")
StepKind = Literal["gradient", "closure", "residual", "value"]


class KitOptimizer(Optimizer):
    """Base of the optimizers of this package; a leaf says how a state begins and how a group moves.

    :attr:`step_kind` tells a training loop what ``step`` wants to be given:

        gradient    nothing: ``backward`` has filled ``p.grad``
        closure     a function that clears the gradients, computes the loss, calls ``backward`` and returns the loss
        residual    a function that returns the signed residual vector, or a dict of named ones; no ``backward``
        value       a function that returns the loss; no ``backward``, nothing has to be differentiable

    An optimizer without the attribute is of the first kind.

    States are kept in float32 at least, also for bfloat16 parameters, and keep their dtype through ``load_state_dict``;
    they hold tensors and plain numbers only, so that checkpoints load with ``weights_only=True``.

    ``lr`` may be a tensor, which schedulers then fill; no step of the first kind waits for the device to read it.

    Schedulers that cycle a momentum, ``OneCycleLR`` and ``CyclicLR``, find it in the options ``momentum`` or ``betas``;
    optimizers without either need ``cycle_momentum=False``, as those of torch do.

    ``torch.compile(optimizer.step)`` works for the first kind: two or three graphs for the first steps and all others,
    one more for steps at the end of a period, however often a scheduler changes ``lr``, a number or (for CUDA graphs) a
    tensor. Other numbers of a group are part of the graph: ``cycle_momentum=False`` leaves them be. A step of another
    kind is the plain one: most of it are calls of the function that it is given, which may be compiled itself.

    A rule that cannot work on parts of a weight says why in :attr:`needs_whole`, and what to do in :attr:`instead`;
    DTensors (FSDP2) are then refused.
    """

    step_kind: ClassVar[StepKind] = "gradient"
    needs_whole: ClassVar[str] = ""
    instead: ClassVar[str] = f"keep the model whole with DistributedDataParallel, or take {ELEMENTWISE}"

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if cls.step_kind != "gradient" and "step" in cls.__dict__:
            # Traced, it falls into dozens of graphs, and what it looks for in the function is not seen there.
            cls.step = torch.compiler.disable(cls.step)  # type: ignore[method-assign]

    def __init__(self, params: ParamsT, defaults: Group) -> None:
        super().__init__(params, defaults)
        for group in self.param_groups:
            self.check_group(group)

    def add_param_group(self, param_group: Group) -> None:
        """Add a group; its options are checked like those of the constructor."""
        super().add_param_group(param_group)
        if self.needs_whole:
            parameters = self.param_groups[-1]["params"]
            refuse_sharded(parameters, type(self).__name__, self.needs_whole, self.instead)
        self.check_group(self.param_groups[-1])

    def __getstate__(self) -> Group:
        # torch keeps state and groups only; what else a leaf was made with is as much part of a copy. Not `step`: a
        # scheduler writes its own there, bound to this optimizer, and a copy would move the weights of the original.
        return {name: value for name, value in self.__dict__.items() if not name.startswith("_") and name != "step"}

    def check_group(self, group: Group) -> None:
        """Raise an :class:`ArgumentError` when an option of ``group`` is outside its valid range."""
        check_nonnegative("lr", group["lr"])
        check_nonnegative("weight_decay", group.get("weight_decay", 0.0))

    def init_state(self, parameter: Tensor, group: Group) -> State:
        """The state of a parameter that meets its first gradient."""
        return {}

    def update(self, group: Group, parameters: list[Tensor], gradients: list[Tensor], states: list[State]) -> None:
        """Move the parameters of one group in place; gradients are not to be changed."""
        raise NotImplementedError

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step; with a closure, its value, computed with gradients enabled.

        Raises:
            ArgumentError: a gradient is sparse.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            self.update_group(group)
        return loss

    def update_group(self, group: Group) -> None:
        """:meth:`update` for the parameters of the group that have a gradient; the others stay as they are."""
        parameters = [p for p in group["params"] if p.grad is not None]
        if not parameters:
            return
        gradients = [dense_gradient(p, type(self).__name__) for p in parameters]
        states = []
        for parameter in parameters:
            state = self.state[parameter]
            if not state:
                state.update(self.init_state(parameter, group))
            states.append(state)
        if group.get("maximize"):
            gradients = list(torch._foreach_neg(gradients))
        if torch.compiler.is_compiling():
            # A number would be part of the graph wherever it is an option of an operation, and every rate a new graph.
            group = {**group, "lr": torch.ones((), dtype=torch.float64) * group["lr"]}
        self.update(group, parameters, gradients, states)

    def load_state_dict(self, state_dict: StateDict) -> None:
        """Load what :meth:`state_dict` gave; torch's own version would cast every state to the parameter's dtype.

        Raises:
            ArgumentError: it is of an optimizer with other options.
        """
        missing = self.defaults.keys() - set.intersection(*map(set, state_dict["param_groups"]))
        if missing:
            raise ArgumentError(
                f"expected a state dict of {type(self).__name__}, got one without {sorted(missing)} in its groups; "
                "load it into the optimizer that it was saved from"
            )
        super().load_state_dict({**state_dict, "state": {}})
        saved_ids = [i for group in state_dict["param_groups"] for i in group["params"]]
        parameters = [p for group in self.param_groups for p in group["params"]]
        for index, parameter in zip(saved_ids, parameters, strict=True):
            if index in state_dict["state"]:
                self.state[parameter] = _copy_state(state_dict["state"][index], parameter.device)


def _copy_state(saved: State, device: torch.device) -> State:
    """A copy of a state: floating tensors go to the device of their parameter, others (random states) stay."""
    copy = {}
    for name, value in saved.items():
        if isinstance(value, Tensor):
            moves = value.is_floating_point() or value.is_complex()
            value = value.detach().to(device if moves else value.device, copy=True)
        copy[name] = value
    return copy


def dense_gradient(parameter: Tensor, optimizer: str) -> Tensor:
    """The gradient of ``parameter``; an :class:`ArgumentError` when there is none, or a sparse one."""
    gradient = parameter.grad
    if gradient is None:
        raise ArgumentError(f"expected a gradient for {optimizer}, got None; call backward() before step()")
    if gradient.is_sparse:
        raise ArgumentError(
            f"expected dense gradients for {optimizer}, got a sparse one of shape {tuple(gradient.shape)}; "
            "use sparse=False in the embedding, or torch.optim.SparseAdam for that parameter"
        )
    return gradient


def state_dtype(parameter: Tensor) -> torch.dtype:
    """dtype of moments and factors: that of the parameter, but no less precise than float32."""
    return torch.promote_types(parameter.dtype, torch.float32)


def as_written(function: Callable[[], Result]) -> Callable[[], Result]:
    """``function``, in which what ``torch.compile`` was made of runs as it was written.

    Compiled code can be differentiated backwards and once; what looks at its operations sees none.
    """

    def run() -> Result:
        with torch.compiler.set_stance("force_eager"):
            return function()

    return run


def descend(parameter: Tensor, direction: Tensor, lr: float | Tensor) -> None:
    """``p <- p - lr * direction``, in place."""
    if isinstance(lr, Tensor):
        # As `alpha` it would be read, and so waited for.
        parameter.sub_(direction * lr)
    else:
        parameter.add_(direction, alpha=-lr)


def real_view(tensor: Tensor) -> Tensor:
    """A complex tensor as pairs of reals, a real one as it is; shares memory, unless a conjugate is pending."""
    return torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor


def check_nonnegative(name: str, value: Any) -> None:
    """Raise an :class:`ArgumentError` unless ``0 <= value < inf``; tensors are taken as they are, without a sync."""
    if isinstance(value, Tensor):
        return
    if not 0.0 <= value < float("inf"):
        raise ArgumentError(f"expected {name} >= 0 and finite, got {value}; choose a value in that range")


def check_fractions(name: str, values: Iterable[float]) -> None:
    """Raise an :class:`ArgumentError` unless every value is in ``[0, 1)``."""
    values = tuple(values)
    if not all(0.0 <= value < 1.0 for value in values):
        raise ArgumentError(f"expected {name} in [0, 1), got {values}; 0.9 to 0.999 is usual")
