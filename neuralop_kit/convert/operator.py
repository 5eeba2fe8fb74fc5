"""to_operator: a trained network, read as a map between functions."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from neuralop_kit.convert.arrival import Grid, reference_layout
from neuralop_kit.convert.checking import ConversionError, check_equality, check_it_runs
from neuralop_kit.convert.converter import Converter, Record, Slot, Step
from neuralop_kit.convert.grid import input_layout
from neuralop_kit.convert.kernels import Hat, Kernel, kernel_of
from neuralop_kit.convert.registry import Settings
from neuralop_kit.convert.report import Report
from neuralop_kit.convert.tracing import Untraceable, is_leaf, num_required_inputs, skeleton, trace
from neuralop_kit.convert.watching import keep, watch
from neuralop_kit.solvers.domain import Domain
from neuralop_kit.solvers.errors import ArgumentError, DomainError
from neuralop_kit.solvers.sphere import SphereDomain


class Operator(nn.Module):
    """A network that takes the same function at any resolution; made by :func:`to_operator`.

    It holds the very parameters of the network under their names. A call works out from the shape of its input how
    much finer than the reference each axis is, and keeps this to itself: calls at several resolutions may run at once.

    Shape: ``(batch, in_channels, *space)`` to what the network returns; space axes on the grid of the input.
    """

    def __init__(self, root: nn.Module, steps: Sequence[Step], output: Any, layout: Any, grid: Grid) -> None:
        super().__init__()
        # The same tables: whatever replaces a parameter in one replaces it in both.
        for table in ("_parameters", "_buffers", "_modules", "_non_persistent_buffers_set"):
            self.__dict__[table] = root.__dict__[table]
        self._root = (root,)
        self.training = root.training
        self._steps, self._output, self._layout, self._grid = list(steps), output, layout, grid
        self._records: tuple[Record, ...] = ()

    @property
    def domain(self) -> Domain:
        """Where the fields live."""
        return self._grid.domain

    @property
    def resolution(self) -> tuple[int, ...]:
        """The reference resolution, at which the operator is the network."""
        return self._grid.resolution

    def forward(self, u: Tensor) -> Any:
        """Apply the operator."""
        self._grid.check(u)
        shape = tuple(u.shape[2:])
        ratios = self._grid.ratios(shape)
        values: list[Any] = [self._grid.arrive(u, ratios)]
        for step in self._steps:
            values.append(self._run(step, values, ratios))
            for index in step.finished:
                values[index] = None
        return self._grid.leave(_filled(self._output, values), self._layout, shape, ratios)

    def report(self) -> Report:
        """What each part of the network is read as, whether exact at the reference, and what it converges to."""
        return Report(self._records)

    def _run(self, step: Step, values: list[Any], ratios: tuple[int, ...]) -> Any:
        if step.attribute is not None:
            owner, name = step.attribute
            return getattr(self._root[0].get_submodule(owner), name)
        args, kwargs = _filled(step.args, values), _filled(step.kwargs, values)
        return step.target(*args, ratios=ratios, **kwargs) if step.takes_ratios else step.target(*args, **kwargs)

    def extra_repr(self) -> str:
        """Shown by ``print(operator)``."""
        return f"{self.domain}, reference {self.resolution}"


def _filled(structure: Any, values: list[Any]) -> Any:
    if isinstance(structure, Slot):
        return values[structure.index]
    if isinstance(structure, tuple | list):
        return type(structure)([_filled(item, values) for item in structure])
    if isinstance(structure, dict):
        return {key: _filled(item, values) for key, item in structure.items()}
    if isinstance(structure, slice):
        return slice(*(_filled(part, values) for part in (structure.start, structure.stop, structure.step)))
    return structure


def to_operator(
    net: nn.Module,
    domain: Domain,
    *,
    resolution: Sequence[int] = (64, 64),
    kernel: Kernel | str = Hat(),  # noqa: B008 - a plain value
    latent: str = "ratio",
    strict: bool = True,
    in_channels: int | None = None,
    example_input: Tensor | None = None,
    trapezoid: bool = False,
    alias_free: bool = False,
) -> Operator:
    """Read a trained network as a neural operator that equals it at its own resolution and converges on finer grids.

        (K u)(x) = integral K(x, y) u(y) dy

    Sums over trained grid points become such integrals, with kernels that pass through the trained weights, and
    neighbourhoods keep their size in the units of the domain. The operator holds the parameters of ``net`` themselves:
    it can be trained on at several resolutions, and state dicts load both ways.

    Args:
        net: a network of one field ``(batch, channel, *space)``; further arguments stay at their defaults. It is left
            as it is: its mode, hooks and buffers.
        domain: where the field lives; a box.
        resolution: points per axis on which the network was trained, the reference.
        kernel: what lies between the taps of convolutions: :class:`Hat` (order 2), :class:`Cubic` (order 4),
            :class:`Spectral` (periodic axes) or :class:`Dilated` (exact at common points), or one of their names.
        latent: ``"ratio"``: inner grids are refined with the input. ``"fixed"``: behind the first stride or pooling
            they stay as they were trained, as tokens of a transformer do.
        strict: refuse networks that have a part without a rule. Otherwise that part runs at the reference resolution,
            between two changes of the grid, and the report says so.
        in_channels: of the field; by default what the first layer with a number of channels expects.
        example_input: used in place of a random field of two items, in the dtype of the network; only its shape and
            dtype matter as long as no branch looks at values.
        trapezoid: weigh points by the trapezoidal rule in norms, means and attention also at the reference. This
            changes the network's output there, where walls are nodes.
        alias_free: compute activations on a grid twice as fine along periodic axes. This changes the output as well.

    Raises:
        ConversionError: a part has no rule and ``strict``; its ``reasons`` list paths and reasons. Or hooks
            compute weights. Or the operator differs from the network at the reference resolution, which is checked.
        ArgumentError: an argument is out of range, the channels can not be told, or the network itself does not run
            at this resolution or is TorchScript.
        DomainError: the domain is a sphere, or can not carry the resolution.

    Source: Berner et al. (2025), arXiv 2506.10973, for the reading of layers.
    Non-integer ratios go through the next finer integer one by interpolation; grids coarser than the reference through
    the reference itself, with a :class:`CoarseGridWarning`.

    >>> net = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1, padding_mode="circular"), nn.GELU(), nn.Conv2d(4, 1, 1))
    >>> operator = to_operator(net, Domain.periodic((1.0, 1.0)), resolution=(16, 16))
    >>> u = torch.randn(2, 1, 16, 16)
    >>> torch.equal(operator(u), net(u)), operator(torch.randn(2, 1, 48, 32)).shape
    (True, torch.Size([2, 1, 48, 32]))
    """
    if latent not in ("ratio", "fixed"):
        raise ArgumentError(f"expected latent 'ratio' or 'fixed', got {latent!r}; 'fixed' keeps tokens as trained")
    if not isinstance(net, nn.Module):
        raise ArgumentError(f"expected a network, an nn.Module, got {type(net).__name__}; put it into a module")
    if num_required_inputs(net) != 1:
        raise ArgumentError(
            f"expected a network of one field, got {num_required_inputs(net)} arguments without a default; "
            "wrap it in a module that takes a field"
        )
    if isinstance(domain, SphereDomain):
        raise DomainError(
            f"expected a box, got {domain}: pixels of a latitude-longitude grid shrink towards the poles, and kernels "
            "trained on them are no kernels on the sphere; build an SFNO, or pass the box of angles to accept that"
        )
    domain.check_shape(resolution)
    settings = Settings(domain, kernel_of(kernel), latent == "fixed", trapezoid, alias_free)
    example = _example(net, domain, tuple(resolution), in_channels) if example_input is None else example_input
    grid = Grid(domain, resolution, example.shape[1])
    grid.check(example)
    if tuple(example.shape[2:]) != tuple(resolution):
        raise ArgumentError(
            f"expected an example on {tuple(resolution)} points, got {tuple(example.shape)}; resample it"
        )
    check_it_runs(net, example)
    operator, reasons = _convert(net, settings, example, grid, strict=strict)
    if reasons and strict:
        listed = "\n".join(f"  {path or '(the network itself)'}: {reason}" for path, reason in reasons)
        raise ConversionError(
            f"expected a network that rules can convert, got {len(reasons)} part(s) that none can:\n{listed}\n"
            "change them, add a rule with register_rule, or take strict=False to keep them at the reference resolution",
            reasons,
        )
    check_equality(net, operator, example, is_exact=operator.report().is_exact)
    return operator


def _convert(
    net: nn.Module, settings: Settings, example: Tensor, grid: Grid, *, strict: bool
) -> tuple[Operator, list[tuple[str, str]]]:
    """Trace, walk through, assemble; where code can not be traced, exchange modules and run it."""
    root, layout = skeleton(net).eval(), input_layout(settings.domain, example.shape)
    if is_leaf(net):
        converter = Converter(root, settings)
        return _assembled(net, converter, *converter.run_alone(example, layout), grid)
    finer = example.new_zeros((len(example) + 1, *example.shape[1:2], *settings.domain.refine(grid.resolution, 3)))
    try:
        graph, opaque, constants = trace(skeleton(net).eval(), example, finer)
    except Untraceable as error:
        watched = watch(root, settings, grid, example, why=error.reason)
        if watched[0].refusals and not strict:
            watched = keep(skeleton(net).eval(), watched[0], settings, grid, example)
        return _finished(net, *watched, grid)
    if opaque:
        watched = watch(root, settings, grid, example, why=f"in {min(opaque)} {opaque[min(opaque)]}")
        if not watched[0].refusals:
            return _finished(net, *watched, grid)
        root = skeleton(net).eval()
    for name, constant in constants.items():
        root.register_buffer(name, constant, persistent=False)
    converter = Converter(root, settings)
    return _assembled(net, converter, *converter.run(graph, opaque, example, layout), grid)


def _assembled(
    net: nn.Module, converter: Converter, output: Any, value: Any, grid: Grid
) -> tuple[Operator, list[tuple[str, str]]]:
    """From the slots and the value of the output."""
    layouts = reference_layout(value, grid.domain, grid.resolution)
    return _finished(net, converter, converter.steps, output, layouts, grid)


def _finished(
    net: nn.Module, converter: Converter, steps: list[Step], output: Any, layouts: Any, grid: Grid
) -> tuple[Operator, list[tuple[str, str]]]:
    operator = Operator(converter.root, steps, output, layouts, grid)
    operator._records = tuple(converter.records)
    _copy_modes(net, operator)
    return operator, converter.refusals


def _copy_modes(net: nn.Module, operator: nn.Module) -> None:
    """Training or evaluation, module by module."""
    modes = {name: module.training for name, module in net.named_modules()}
    for name, module in operator.named_modules():
        module.training = modes.get(name, net.training)


def _example(net: nn.Module, domain: Domain, resolution: tuple[int, ...], in_channels: int | None) -> Tensor:
    channels = in_channels or next((n for n in map(_channels_of, net.modules()) if n), None)
    if channels is None:
        raise ArgumentError("expected a layer that tells the number of channels, got none; pass in_channels")
    like = next((p for p in net.parameters() if p.is_floating_point() or p.is_complex()), torch.empty(0))
    # Any values will do; a generator of its own leaves the global one where it was.
    generator = torch.Generator().manual_seed(0)
    dtype = torch.complex128 if like.is_complex() else torch.float64
    example = torch.randn(2, channels, *resolution, generator=generator, dtype=dtype)
    return example.to(like)


def _channels_of(module: nn.Module) -> int | None:
    for name in ("in_channels", "num_channels", "num_features", "input_size", "in_features"):
        value = getattr(module, name, None)
        if isinstance(value, int):
            return value
    return None
