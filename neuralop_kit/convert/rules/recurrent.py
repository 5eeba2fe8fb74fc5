"""Recurrent networks along an axis: a gated cell is one large step of an ordinary differential equation."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from neuralop_kit.convert.grid import Line, Size, as_line, is_free
from neuralop_kit.convert.registry import Call, Conversion, Refusal, adopt, register_rule

Cell = Callable[[Tensor, tuple[Tensor, ...], list[Any]], tuple[Tensor, ...]]


class SteppedRecurrence(nn.Module):
    """GRU, LSTM or RNN whose step is a fraction ``s = dt/dt0`` of the trained one.

        h' = f(u, h) / dt0,      f(u, h) = cell(u, h) - h
        h(t + dt) = h(t) + s [s f_e + (1 - s) f_m],      f_e = f(u(t + dt), h(t)),
                                                         f_m = f(u(t + dt/2), h(t) + s f_e / 2)

    At ``s = 1`` this is Euler's rule, and the cell itself. As ``s`` falls it becomes the midpoint rule: what is left of
    Euler's is ``s`` times an error of ``O(s^2)`` per step, so the order is two, not Euler's one.

    The input before the first point is taken to be its first value, that behind the last one its last where time runs
    backwards. Time is sequential: one step after the other, in
    Python, wherever the grid is finer than the reference.
    """

    line: Line
    batch_first: bool
    num_layers: int
    bidirectional: bool
    hidden_size: int
    mode: str
    bias: bool
    dropout: float

    def forward(self, u: Tensor) -> tuple[Tensor, Any]:
        """``(batch, time, channel)`` with ``batch_first``; the initial state is zero."""
        axis = 1 if self.batch_first else 0
        ratio = self.line.ratio(u.shape[axis])
        if ratio == 1:
            return self._trained(u)
        steps = u.movedim(axis, 0)
        lasts = []
        for layer in range(self.num_layers):
            outputs = [self._scan(steps, layer, "", ratio)]
            if self.bidirectional:
                outputs.append(self._scan(steps.flip(0), layer, "_reverse", ratio))
                outputs[1] = (outputs[1][0].flip(0), outputs[1][1])
            steps = torch.cat([values for values, _ in outputs], dim=-1)
            lasts += [last for _, last in outputs]
        states = tuple(torch.stack(part) for part in zip(*lasts, strict=True))
        return steps.movedim(0, axis), states if self.mode == "LSTM" else states[0]

    def _scan(self, steps: Tensor, layer: int, direction: str, ratio: int) -> tuple[Tensor, tuple[Tensor, ...]]:
        names = [f"{kind}_l{layer}{direction}" for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
        weights = [getattr(self, name, None) for name in names]
        zero = steps.new_zeros(steps.shape[1], self.hidden_size)
        state: tuple[Tensor, ...] = (zero, zero) if self.mode == "LSTM" else (zero,)
        # The trained network has made one whole step when it arrives at its first point; a finer grid begins
        # elsewhere, and takes the time from there in whole steps behind a part of one.
        offset = int(2 * self.line.offset)
        if direction:
            # Its first point is the last one, whose distance from the end of the interval may be another.
            offset = 2 * (self.line.nodes.num_intervals(self.line.num_points) - self.line.num_points + 1) - offset
        whole, half = divmod(ratio * (2 - offset) + offset, 2)
        cell, outputs = _CELLS[self.mode], []
        for size in [0.5 / ratio] * half + [1 / ratio] * whole:
            state = _step(cell, steps[0], steps[0], state, weights, size)
        outputs.append(state[0])
        for index in range(1, steps.shape[0]):
            state = _step(cell, steps[index - 1], steps[index], state, weights, 1 / ratio)
            outputs.append(state[0])
        return torch.stack(outputs), state

    def _trained(self, u: Tensor) -> tuple[Tensor, Any]:
        """As torch does it."""
        directions = ("", "_reverse") if self.bidirectional else ("",)
        kinds = ("weight_ih", "weight_hh", "bias_ih", "bias_hh") if self.bias else ("weight_ih", "weight_hh")
        names = [f"{k}_l{layer}{d}" for layer in range(self.num_layers) for d in directions for k in kinds]
        weights = [getattr(self, name) for name in names]
        zero = u.new_zeros(self.num_layers * len(directions), u.shape[0 if self.batch_first else 1], self.hidden_size)
        options = (
            weights,
            self.bias,
            self.num_layers,
            self.dropout,
            self.training,
            self.bidirectional,
            self.batch_first,
        )
        if self.mode == "LSTM":
            values, *states = torch.lstm(u, (zero, zero), *options)
            return values, tuple(states)
        values, state = _FUSED[self.mode](u, zero, *options)
        return values, state


def _step(
    cell: Cell, before: Tensor, u: Tensor, state: tuple[Tensor, ...], weights: list[Any], size: float
) -> tuple[Tensor, ...]:
    """One step of ``size`` trained ones, from where the input is ``before`` to where it is ``u``."""
    euler = [new - old for new, old in zip(cell(u, state, weights), state, strict=True)]
    if size == 1:
        return tuple(old + slope for old, slope in zip(state, euler, strict=True))
    half = tuple(old + size / 2 * slope for old, slope in zip(state, euler, strict=True))
    middle = [new - old for new, old in zip(cell((before + u) / 2, half, weights), half, strict=True)]
    slopes = (size * first + (1 - size) * second for first, second in zip(euler, middle, strict=True))
    return tuple(old + size * slope for old, slope in zip(state, slopes, strict=True))


def _lstm(u: Tensor, state: tuple[Tensor, ...], weights: list[Any]) -> tuple[Tensor, ...]:
    return torch.lstm_cell(u, state, *weights)


def _gru(u: Tensor, state: tuple[Tensor, ...], weights: list[Any]) -> tuple[Tensor, ...]:
    return (torch.gru_cell(u, state[0], *weights),)


def _tanh(u: Tensor, state: tuple[Tensor, ...], weights: list[Any]) -> tuple[Tensor, ...]:
    return (torch.rnn_tanh_cell(u, state[0], *weights),)


def _relu(u: Tensor, state: tuple[Tensor, ...], weights: list[Any]) -> tuple[Tensor, ...]:
    return (torch.rnn_relu_cell(u, state[0], *weights),)


_FUSED: dict[str, Any] = {"GRU": torch.gru, "RNN_TANH": torch.rnn_tanh, "RNN_RELU": torch.rnn_relu}
_CELLS: dict[str, Cell] = {"LSTM": _lstm, "GRU": _gru, "RNN_TANH": _tanh, "RNN_RELU": _relu}


@register_rule(nn.GRU, nn.LSTM, nn.RNN)
def recurrence(call: Call) -> Conversion:
    """Along one axis, from a zero state."""
    module: Any = call.target
    layout = call.field.layout
    time = 1 if module.batch_first else 0
    line = as_line(layout[time])
    width = module.hidden_size * (2 if module.bidirectional else 1)
    target = (*layout[:-1], (Size(width),))
    batch = layout[0 if module.batch_first else 1]
    state: Any = ((Size(call.output[0].shape[0]),), batch, (Size(module.hidden_size),))
    if module.mode == "LSTM":
        state = (state, state)
    if not is_free(layout[time]):
        return Conversion((target, state), "recurrence", limit="fixed latent grid")
    if line is None:
        raise Refusal("it runs over flattened points, whose order is no axis; run it along one axis")
    if len(call.edges) > 1:
        raise Refusal("its initial state is given; start from zero")
    if getattr(module, "proj_size", 0):
        raise Refusal("projections inside of an LSTM have no rule; put a Linear behind it")
    converted = adopt(module, SteppedRecurrence, line=line)
    return Conversion((target, state), "recurrence, smaller steps", target=converted, limit="order 2")


@register_rule(nn.GRUCell, nn.LSTMCell, nn.RNNCell)
def cell(call: Call) -> Conversion:
    """One step at every point: time is not an axis of the domain here, and stays discrete."""
    module: Any = call.target
    layout = call.field.layout
    target = (*layout[:-1], (Size(module.hidden_size),))
    pair = (target, target) if isinstance(module, nn.LSTMCell) else target
    return Conversion(pair, "cell at every point", limit="pointwise, its time is discrete")
