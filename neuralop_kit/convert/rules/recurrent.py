"""Recurrent networks along an axis: a gated cell is one Euler step of an ordinary differential equation."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from neuralop_kit.convert.grid import Line, Size, as_line, is_free
from neuralop_kit.convert.registry import Call, Conversion, Refusal, adopt, register_rule


class EulerRecurrence(nn.Module):
    """GRU, LSTM or RNN whose step is a fraction of the trained one.

        h(t + dt) = h(t) + dt/dt0 (cell(u, h) - h)

    which is the cell itself at ``dt = dt0``. The input before the first point is taken to be its first value.
    Time is sequential: one step after the other, in Python, wherever the grid is finer than the reference.
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
        # The trained network has made one whole step when it arrives at its first point.
        offset = self.line.offset
        before = math.floor(ratio * (1 - offset) + offset) - 1
        outputs = []
        for index in range(-before, steps.shape[0]):
            new = _CELLS[self.mode](steps[max(index, 0)], state, weights)
            state = tuple(old + (value - old) / ratio for old, value in zip(state, new, strict=True))
            if index >= 0:
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


def _lstm(u: Tensor, state: tuple[Tensor, ...], weights: list[Any]) -> tuple[Tensor, ...]:
    return torch.lstm_cell(u, state, *weights)


def _gru(u: Tensor, state: tuple[Tensor, ...], weights: list[Any]) -> tuple[Tensor, ...]:
    return (torch.gru_cell(u, state[0], *weights),)


def _tanh(u: Tensor, state: tuple[Tensor, ...], weights: list[Any]) -> tuple[Tensor, ...]:
    return (torch.rnn_tanh_cell(u, state[0], *weights),)


def _relu(u: Tensor, state: tuple[Tensor, ...], weights: list[Any]) -> tuple[Tensor, ...]:
    return (torch.rnn_relu_cell(u, state[0], *weights),)


_FUSED: dict[str, Any] = {"GRU": torch.gru, "RNN_TANH": torch.rnn_tanh, "RNN_RELU": torch.rnn_relu}
_CELLS: dict[str, Any] = {"LSTM": _lstm, "GRU": _gru, "RNN_TANH": _tanh, "RNN_RELU": _relu}


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
    converted = adopt(module, EulerRecurrence, line=line)
    return Conversion((target, state), "recurrence, Euler step", target=converted, limit="order 1")


@register_rule(nn.GRUCell, nn.LSTMCell, nn.RNNCell)
def cell(call: Call) -> Conversion:
    """One step at every point: time is not an axis of the domain here, and stays discrete."""
    module: Any = call.target
    layout = call.field.layout
    target = (*layout[:-1], (Size(module.hidden_size),))
    pair = (target, target) if isinstance(module, nn.LSTMCell) else target
    return Conversion(pair, "cell at every point", limit="pointwise, its time is discrete")
