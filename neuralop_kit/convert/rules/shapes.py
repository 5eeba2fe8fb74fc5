"""What only rearranges dimensions: views, permutations, slices, sizes."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from neuralop_kit.convert.grid import (
    Atom,
    Dim,
    Layout,
    Line,
    Size,
    as_line,
    hold,
    is_free,
    num_points,
    plain_layout,
    sizes_at,
)
from neuralop_kit.convert.kernels import Kernel
from neuralop_kit.convert.registry import Call, Conversion, Derived, Edge, Refusal, register_rule
from neuralop_kit.convert.rules.names import functions
from neuralop_kit.convert.sampling import reference_of


def with_sizes(layout: Layout, shape: Sequence[int]) -> Layout:
    """The layout with dimensions that are no space given the sizes of ``shape``."""
    return tuple(
        dim if num_points(dim) == n else (Size(n),) for dim, n in zip(layout, shape, strict=True)
    )  # fmt: skip


class Reshape:
    """A view in which the sizes of free lines follow the input instead of the code."""

    takes_ratios = True

    def __init__(self, source: Layout, target: Layout, kernel: Kernel, *, projects: bool) -> None:
        self.source, self.target, self.kernel, self.projects = source, target, kernel, projects

    def __call__(self, x: Tensor, *args: Any, ratios: Sequence[int], **kwargs: Any) -> Tensor:
        """Arguments of the original call are ignored: they are sizes."""
        if self.projects:
            x = reference_of(x, self.source, ratios, self.kernel)
        sizes = []
        for dim in self.target:
            total = 1
            for n in sizes_at(dim, ratios):
                total *= n
            # A batch may have any size.
            sizes.append(-1 if any(isinstance(a, Size) and a.is_batch for a in dim) else total)
        return x.reshape(sizes)


def regroup(layout: Layout, shape: Sequence[int]) -> Layout:
    """Factors of a layout, in order, as dimensions of another shape; lines may be cut into patches."""
    atoms: list[Atom] = [atom for dim in layout for atom in dim if atom.num_points != 1 or _is_batch(atom)]
    dims: list[Dim] = []
    for n in shape:
        dim: list[Atom] = []
        while num_points(tuple(dim)) < n:
            if not atoms:
                raise Refusal(f"it regroups {tuple(map(num_points, layout))} in a way that no rule knows")
            missing = n // num_points(tuple(dim))
            atom = atoms.pop(0)
            if atom.num_points > missing:
                atom, rest = _cut(atom, missing)
                atoms.insert(0, rest)
            dim.append(atom)
        if num_points(tuple(dim)) != n:
            raise Refusal(f"it mixes points and channels: {tuple(map(num_points, layout))} to {tuple(shape)}")
        if not dim and atoms and atoms[0].num_points == 1:
            dim.append(atoms.pop(0))
        dims.append(tuple(dim) or (Size(1),))
    return tuple(dims)


def _is_batch(atom: Atom) -> bool:
    return isinstance(atom, Size) and atom.is_batch


def _cut(atom: Atom, outer: int) -> tuple[Atom, Atom]:
    inner, rest = divmod(atom.num_points, outer)
    if rest:
        raise Refusal(f"it cuts {atom.num_points} points or channels into {outer} unequal parts")
    if isinstance(atom, Size):
        if atom.is_batch:
            raise Refusal("it cuts the batch into parts")
        return Size(outer), Size(inner)
    first = atom.first(1) + atom.spacing * (inner - 1) / 2
    patches = atom.moved(first=first, spacing=atom.spacing * inner, num_points=outer, held=True)
    return patches, Size(inner)


@register_rule(
    nn.Flatten, nn.Unflatten, *functions("reshape", "view", "flatten", "unflatten", "reshape_as", "view_as", "ravel")
)
def reshape(call: Call) -> Conversion:
    """Factors regrouped; sizes of free lines follow the input."""
    source = call.field.layout
    target = regroup(source, call.output.shape)
    before = [atom for dim in source for atom in dim]
    cut = {atom for dim in source for atom in dim if isinstance(atom, Line) and not atom.held} - {
        atom for dim in target for atom in dim
    }
    if cut and not call.settings.fixed_latent:
        raise Refusal("it cuts the points of a grid into blocks; take latent='fixed', which keeps the blocks")
    if not cut:
        _refuse_written_sizes(call, target)
    if not any(isinstance(atom, Line) for atom in before):
        return Conversion(target, "view")
    kernel = call.settings.kernel
    target = hold(target) if cut else target
    return Conversion(
        target, "patches" if cut else "view", target=Reshape(source, target, kernel, projects=bool(cut)),
        limit=f"order {kernel.order}" if cut else "pointwise",
    )  # fmt: skip


def _refuse_written_sizes(call: Call, target: Layout) -> None:
    """A number of points in the code holds for one resolution; a flatten of everything is known to be one."""
    if isinstance(call.target, nn.Module) or getattr(call.target, "__name__", "") not in ("reshape", "view"):
        return
    sizes = call.args[1:] if len(call.args) > 1 else (call.kwargs.get("shape", ()),)
    if len(sizes) == 1 and isinstance(sizes[0], tuple | list):
        sizes = tuple(sizes[0])
    if len(target) == 2 and all(_is_batch(atom) for atom in target[0]):
        return
    for size, dim in zip(sizes, target, strict=False):
        if is_free(dim) and isinstance(size, int) and not isinstance(size, Derived) and size != -1:
            raise Refusal(
                f"the number of points {size} is written into a {call.target.__name__}; "
                "take it from x.shape, or use flatten"
            )


@register_rule(*functions("permute", "transpose", "swapaxes", "movedim", "t", "squeeze", "unsqueeze", "chunk", "split",
                          "unbind", "expand", "expand_as", "repeat", "narrow", "select", "flip"))  # fmt: skip
def rearrange(call: Call) -> Conversion:
    """Dimensions in another order, new ones of size one, channels taken apart."""
    return Conversion(_traced_layout(call), "rearrangement")


@register_rule(*functions("getitem"))
def take(call: Call) -> Conversion:
    """An item of a tuple, or a slice of a tensor that leaves the points alone."""
    container, index = call.args
    if isinstance(container, tuple | list):
        picked = container[index]
        return Conversion(_layout_of(picked), "item")
    return Conversion(_traced_layout(call), "slice")


def _layout_of(item: Any) -> Any:
    if isinstance(item, Edge):
        return item.layout
    return tuple(_layout_of(i) for i in item) if isinstance(item, tuple | list) else None


def _traced_layout(call: Call) -> Any:
    """Layout of a rearrangement, found by rearranging the coordinates of the tensor."""
    field = call.field
    layout, shape = field.layout, field.shape
    rest = [_without_edges(a) for a in call.args[1:]]
    kwargs = {name: _without_edges(value) for name, value in call.kwargs.items()}
    indices = torch.meshgrid(*map(torch.arange, shape), indexing="ij")
    tags = [call.target(index, *rest, **kwargs) for index in indices]
    if isinstance(tags[0], Tensor):
        return _match(layout, tags)
    return tuple(_match(layout, [tag[i] for tag in tags]) for i in range(len(tags[0])))


def _without_edges(value: Any) -> Any:
    if isinstance(value, tuple | list):
        return type(value)(_without_edges(v) for v in value)
    return value.value if isinstance(value, Edge) else value


def _match(layout: Layout, tags: list[Tensor]) -> Layout:
    """Which dimension of the input each one of the output is, from where coordinates vary."""
    shape = tags[0].shape
    result: list[Dim] = [(Size(n),) for n in shape]
    for source, tag in zip(layout, tags, strict=True):
        n = num_points(source)
        varying = [d for d in range(len(shape)) if shape[d] > 1 and bool((tag.diff(dim=d) != 0).any())]
        whole = len(varying) == 1 and shape[varying[0]] == n and bool(
            (tag.movedim(varying[0], -1).reshape(-1, n)[0] == torch.arange(n)).all()
        )  # fmt: skip
        if whole:
            result[varying[0]] = source
        elif is_free(source) and n > 1:
            raise Refusal("it takes some of the points, or repeats them, by their index")
    for d, n in enumerate(shape):
        if n == 1 and result[d] == (Size(1),):
            result[d] = next((dim for dim in layout if num_points(dim) == 1 and dim not in result), (Size(1),))
    return tuple(result)


class Roll:
    """A shift by the same distance at every resolution, along axes that are circles."""

    takes_ratios = True

    def __init__(self, shifts: Sequence[tuple[int, int, int | None]]) -> None:
        self.shifts = tuple(shifts)

    def __call__(self, x: Tensor, *args: Any, ratios: Sequence[int], **kwargs: Any) -> Tensor:
        """Dimension, reference points to shift by, and axis of the domain, for each shift."""
        steps = [n if axis is None else n * ratios[axis] for _, n, axis in self.shifts]
        return x.roll(steps, [dim for dim, _, _ in self.shifts])


@register_rule(*functions("roll"))
def roll(call: Call) -> Conversion:
    """Shifted windows: a shift in points becomes one in the domain."""
    layout = call.field.layout
    shifts, dims = (call.argument(i, name) for i, name in enumerate(("shifts", "dims"), start=1))
    pairs = zip(*((x,) if isinstance(x, int) else tuple(x) for x in (shifts, dims)), strict=True) if dims else ()
    moves: list[tuple[int, int, int | None]] = []
    for n, dim in pairs:
        line = as_line(layout[dim])
        if is_free(layout[dim]) and (line is None or not line.wraps):
            raise Refusal("it rolls points over the end of an axis that is no circle")
        moves.append((dim, n, None if line is None or line.held else line.axis))
    if not moves:
        raise Refusal("it rolls flattened points; name the dimensions")
    return Conversion(layout, "shift", target=Roll(moves))


class Shape:
    """Sizes as the network saw them at the reference resolution, except for that of the batch."""

    def __init__(self, layout: Layout, name: str) -> None:
        self.layout, self.name = layout, name

    def __call__(self, x: Tensor, *args: Any, **kwargs: Any) -> Any:
        """Numbers that code computes with then mean the same at every resolution; views find their sizes themselves."""
        batches = [all(isinstance(a, Size) and a.is_batch for a in dim) for dim in self.layout]
        sizes = torch.Size(
            [
                x.shape[d] if batch else num_points(dim)
                for d, (dim, batch) in enumerate(zip(self.layout, batches, strict=True))
            ]
        )
        if self.name == "size" and (args or kwargs):
            return sizes[args[0] if args else kwargs["dim"]]
        return sizes


@register_rule(*functions("size"))
def sizes(call: Call) -> Conversion:
    """Shapes as numbers."""
    return Conversion(None, "shape", target=Shape(call.field.layout, "size"))


@register_rule(getattr)
def attribute(call: Call) -> Conversion:
    """``x.shape``, and properties that do not depend on points."""
    container, name = call.args[:2]
    if isinstance(container, tuple):
        return Conversion(_layout_of(getattr(container, name)), "item")
    if name == "shape":
        return Conversion(None, "shape", target=Shape(call.field.layout, "shape"))
    if name in ("device", "dtype", "ndim"):
        return Conversion(None, "property")
    layout = call.field.layout
    if name == "T":
        return Conversion(tuple(reversed(layout)), "rearrangement")
    if name == "mT":
        return Conversion((*layout[:-2], layout[-1], layout[-2]), "rearrangement")
    if name in ("real", "imag"):
        return Conversion(layout, "pointwise")
    raise Refusal(f"the attribute {name!r} of a tensor is not known; call a method or function that has a rule")


@register_rule(*functions("dim", "numel", "is_floating_point"))
def properties(call: Call) -> Conversion:
    """Numbers about a tensor."""
    return Conversion(None, "property")


@register_rule(nn.PixelShuffle, nn.PixelUnshuffle, *functions("pixel_shuffle", "pixel_unshuffle"))
def pixel_shuffle(call: Call) -> Conversion:
    """Channels to points, on a latent grid of fixed size only."""
    layout = call.field.layout
    if any(is_free(dim) for dim in layout):
        raise Refusal("it turns channels into neighbouring points, which has no limit; take latent='fixed'")
    lines = [as_line(layout[d]) for d in (2, 3)]
    moved: list[Dim] = []
    for line, n in zip(lines, call.output.shape[2:], strict=True):
        if line is None:
            return Conversion(plain_layout(call.output.shape), "pixel shuffle")
        spacing = line.spacing * line.num_points / n
        first = line.first(1) + (spacing - line.spacing) / 2
        moved.append((line.moved(first=first, spacing=spacing, num_points=n, held=True),))
    return Conversion(
        (layout[0], (Size(call.output.shape[1]),), *moved), "pixel shuffle", limit="fixed latent grid"
    )  # fmt: skip
