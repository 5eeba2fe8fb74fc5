"""Whole networks: equal at the reference, convergent beyond it, the same parameters; and the plain network fails."""

import copy
import math
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, jvp, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks.networks import Recurrent, ViT
from neuralop_kit import Domain
from neuralop_kit.convert import ConvergenceReport, convergence_report, to_operator
from tests.convert.cases import CASES, CHANNEL, TORUS, Case, waves

each = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


def field(case: Case, *, batch: int = 2, n: int | None = None) -> torch.Tensor:
    return torch.randn(batch, 1, *(n or case.reference,) * 2, dtype=torch.float64)


def passes(report: ConvergenceReport, case: Case) -> bool:
    """The check of every conversion: an order of at least 1.7 in two neighbouring steps, and still the trained map."""
    return report.fitted_order >= 1.7 and max(report.drift) <= case.max_drift


@each
def test_equals_the_network_at_the_reference(case):
    net = case.network()
    operator, u = case.operator(net).eval(), field(case)
    expected = net(u)
    assert (operator(u) - expected).abs().max() <= 1e-10 * expected.abs().max()


@each
def test_converges_where_the_report_says_so(case):
    operator = case.operator(case.network())
    assert operator.report().is_exact
    assert operator.report().is_convergent
    assert not operator.report().kept
    measured = convergence_report(operator, TORUS, waves, case.resolutions)
    assert passes(measured, case), f"\n{measured}"


@each
def test_the_plain_network_fails_the_same_check(case):
    net = case.network()
    try:
        measured = convergence_report(net, TORUS, waves, case.resolutions)
    except RuntimeError:
        # A number of tokens is part of its weights.
        return
    assert not passes(measured, case), f"\n{measured}"


@each
def test_gradients_reach_the_same_parameters(case):
    net = case.network()
    operator = case.operator(net)
    mine, theirs = dict(operator.named_parameters()), dict(net.named_parameters())
    assert mine.keys() == theirs.keys()
    assert all(mine[name] is theirs[name] for name in mine)
    operator(field(case, n=2 * case.reference)).square().sum().backward()
    silent = [name for name, parameter in net.named_parameters() if parameter.grad is None]
    assert not silent


@each
def test_state_moves_both_ways(case):
    net, other = case.network(), case.network()
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(0.1)
    operator, u = case.operator(net), field(case)
    assert operator.state_dict().keys() == net.state_dict().keys()
    operator.load_state_dict(other.state_dict())
    torch.testing.assert_close(operator(u), other(u), rtol=0, atol=1e-12)
    third = case.network()
    third.load_state_dict(operator.state_dict())
    assert torch.equal(third(u), other(u))


@each
def test_single_precision_becomes_double(case):
    operator = case.operator(case.network().float()).double()
    assert operator(field(case, n=2 * case.reference)).dtype == torch.float64


@each
def test_transforms_of_functions(case):
    operator = case.operator(case.network())
    u = field(case, batch=2, n=2 * case.reference)
    stacked = torch.stack([u, 2 * u])
    mapped = vmap(operator)(stacked)
    torch.testing.assert_close(mapped, torch.stack([operator(v) for v in stacked]), rtol=1e-10, atol=1e-10)
    direction = torch.randn_like(u)
    # Torch's fused attention has no forward derivative.
    with sdpa_kernel(SDPBackend.MATH):
        _, tangent = jvp(operator, (u,), (direction,))
    step = 1e-6
    slope = (operator(u + step * direction) - operator(u - step * direction)) / (2 * step)
    torch.testing.assert_close(tangent, slope, rtol=1e-5, atol=1e-6)


@each
def test_exports(case):
    operator, u = case.operator(case.network()), field(case, n=2 * case.reference)
    program = torch.export.export(operator, (u,))
    torch.testing.assert_close(program.module()(u), operator(u), rtol=1e-10, atol=1e-10)


@each
def test_copies_and_replaced_parameters(case):
    operator, u = case.operator(case.network()), field(case, n=2 * case.reference)
    expected = operator(u)
    twin = copy.deepcopy(operator)
    doubled = {name: 2 * parameter for name, parameter in operator.named_parameters()}
    changed = functional_call(operator, doubled, (u,))
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.mul_(2)
    torch.testing.assert_close(twin(u), changed, rtol=1e-10, atol=1e-10)
    assert torch.equal(operator(u), expected)
    assert not torch.allclose(changed, expected)


def test_calls_at_two_resolutions_at_once():
    case = CASES[1]
    operator = case.operator(case.network())
    fields = [field(case, n=n) for n in (16, 32, 48, 32, 16, 48)] * 3
    with torch.no_grad():
        alone = [operator(u) for u in fields]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(torch.no_grad()(operator), fields))
    assert all(torch.equal(a, b) for a, b in zip(alone, together, strict=True))


def test_compiles_without_graph_break():
    case = CASES[1]
    operator = case.operator(case.network())
    compiled = torch.compile(operator, fullgraph=True, backend="aot_eager")
    for n in (16, 32):
        u = field(case, n=n)
        torch.testing.assert_close(compiled(u), operator(u), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("nodes", "sizes"), [("vertex", (17, 33)), ("cell", (16, 32)), ("interior", (15, 31))])
def test_compiles_between_walls(nodes, sizes):
    # Means over points that weigh differently, averages that lack a part, and zeros that a ramp leads to.
    torch.manual_seed(0)
    mixed = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.GroupNorm(2, 4), nn.Conv2d(4, 4, 3, padding=1)).double()
    domain = Domain.box((1.0, 1.0), boundary="neumann" if nodes != "interior" else "dirichlet", nodes=nodes)
    operator = to_operator(mixed, domain, resolution=(sizes[0],) * 2)
    compiled = torch.compile(operator, fullgraph=True, backend="aot_eager")
    for n in sizes:
        u = torch.randn(2, 1, n, n, dtype=torch.float64)
        torch.testing.assert_close(compiled(u), operator(u), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("shape", [(48, 32), (40, 23), (17, 50)], ids=str)
def test_any_shape(shape):
    # Anisotropic, not nested, not a multiple of anything: the output lies on the grid of the input, near the fine one.
    case = CASES[1]
    operator = case.operator(case.network())
    measured = convergence_report(operator, TORUS, waves, [shape, (128, 128)])
    assert measured.error[0] < 0.03, f"\n{measured}"


def test_tokens_refined_with_the_input():
    torch.manual_seed(0)
    net = ViT(unpatch="conv", by_hand=True).double().eval()
    operator = to_operator(net, TORUS, resolution=(16, 16))
    u = torch.randn(2, 1, 16, 16, dtype=torch.float64)
    assert torch.equal(operator(u), net(u))
    measured = convergence_report(operator, TORUS, waves, [16, 32, 64, 128])
    assert measured.step[2] < 0.1 * measured.step[1]
    # Ratios of the two axes differ, which flattened tokens alone do not show.
    assert operator(torch.randn(1, 1, 48, 32, dtype=torch.float64)).shape == (1, 1, 48, 32)


def recurrent(kind):
    torch.manual_seed(0)
    net = Recurrent(kind).double()
    with torch.no_grad():
        # A state that remembers, as after training; a bias would make every output look alike.
        net.rnn.weight_hh_l0.mul_(2.5)
        net.rnn.bias_ih_l0.mul_(2.5)
        net.head.bias.zero_()
    return net


def wave(x):
    return torch.sin(4 * x[0] + 0.4)


@pytest.mark.parametrize(("kind", "max_drift"), [("GRU", 0.1), ("LSTM", 0.25)])
def test_recurrence_reads_time(kind, max_drift):
    net = recurrent(kind)
    operator = to_operator(net, CHANNEL, resolution=(17,))
    u = torch.randn(2, 1, 17, dtype=torch.float64)
    assert (operator(u) - net(u)).abs().max() <= 1e-10
    grids = [17, 33, 65, 129, 257]
    measured = convergence_report(operator, CHANNEL, wave, grids)
    assert 1.7 <= measured.fitted_order <= 2.3, f"\n{measured}"
    assert measured.drift[-1] <= max_drift, f"\n{measured}"
    plain = convergence_report(net, CHANNEL, wave, grids)
    assert plain.drift[-1] > 3 * measured.drift[-1], f"\n{plain}"


@pytest.mark.parametrize("domain", [Domain.periodic((1.0,)), CHANNEL])
def test_recurrence_backwards_begins_where_the_axis_ends(domain):
    # On a circle the last point moves towards the end as the grid is refined; the first steps are that much shorter.
    class Backwards(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = nn.LSTM(1, 4, batch_first=True, bidirectional=True)

        def forward(self, u: Tensor) -> Tensor:
            return self.rnn(u.transpose(1, 2))[0][..., 4:].transpose(1, 2)

    torch.manual_seed(0)
    shapes = [domain.refine((16,) if domain.is_periodic else (17,), 2**k) for k in range(5)]
    operator = to_operator(Backwards(), domain, resolution=shapes[0])
    measured = convergence_report(operator, domain, lambda x: torch.sin(2 * math.pi * x[0] + 0.4), shapes)
    assert 1.7 <= measured.fitted_order <= 2.5, f"\n{measured}"


def test_recurrence_by_euler_steps_is_of_first_order(monkeypatch):
    # Negative control: a fraction of the change that the cell makes, and nothing else.
    def euler(cell, before, u, state, weights, size):
        return tuple(old + size * (new - old) for old, new in zip(state, cell(u, state, weights), strict=True))

    operator, grids = to_operator(recurrent("GRU"), CHANNEL, resolution=(17,)), [17, 33, 65, 129]
    monkeypatch.setattr("neuralop_kit.convert.rules.recurrent._step", euler)
    measured = convergence_report(operator, CHANNEL, wave, grids)
    assert 0.85 <= measured.fitted_order <= 1.25, f"\n{measured}"


def test_recurrence_compiles_without_graph_break():
    operator, u = to_operator(recurrent("GRU"), CHANNEL, resolution=(9,)), torch.randn(2, 1, 17, dtype=torch.float64)
    compiled = torch.compile(operator, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(u), operator(u), rtol=1e-10, atol=1e-10)


def test_recurrence_between_cell_centres():
    # The first centre moves with the grid; refined by two it is half a step from where a whole number would lead.
    net = recurrent("GRU")
    domain = Domain.box((1.0,), boundary="neumann", nodes="cell")
    operator = to_operator(net, domain, resolution=(16,))
    measured = convergence_report(operator, domain, wave, [16, 48, 144, 432])
    assert 1.7 <= measured.fitted_order <= 2.3, f"\n{measured}"
    error = {n: convergence_report(operator, domain, wave, [n, 432]).error[0] for n in (32, 48, 64)}
    assert error[64] < error[48] < error[32], error


def test_complex_numbers_are_pairs_of_real_ones():
    torus = Domain.periodic((1.0, 1.0))
    net = nn.Conv2d(1, 2, 3, padding=1, padding_mode="circular", bias=False, dtype=torch.complex128)
    operator = to_operator(net, torus, resolution=(8, 8))
    parts = []
    for weight in (net.weight.real, net.weight.imag):
        part = nn.Conv2d(1, 2, 3, padding=1, padding_mode="circular", bias=False, dtype=torch.float64)
        part.load_state_dict({"weight": weight})
        parts.append(to_operator(part, torus, resolution=(8, 8)))
    u = torch.randn(2, 1, 20, 16, dtype=torch.complex128)
    (a, b), (c, d) = ((part(u.real), part(u.imag)) for part in parts)
    torch.testing.assert_close(operator(u), torch.complex(a - d, b + c), rtol=1e-12, atol=1e-13)
