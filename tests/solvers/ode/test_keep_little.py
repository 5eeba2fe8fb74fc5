"""Compiled steps keep little for their gradients, which are the same."""

import sys

import pytest
import torch
from torch._dynamo.backends.common import aot_autograd
from torch._dynamo.backends.debugging import boxed_nop
from torch._functorch.partitioners import min_cut_rematerialization_partition

from neuralop_kit.solvers.ode import Bosh3, PerSample, trial
from neuralop_kit.solvers.ode.keep_little import KeepLittle
from tests.solvers.ode.problems import F64, Network, VanDerPol, several_starts


def derivatives(step, field):
    stepper = trial.Stepper(Bosh3(), field, PerSample(), 1e-6, 1e-6)
    y = several_starts(4).requires_grad_()
    t, h = torch.zeros(4, dtype=F64), torch.full((4,), 0.1, dtype=F64)
    found = step(stepper, t, y, field(t[:, None], y), h)
    value = found.y.square().sum() + found.error.sum() + found.stiffness.sum()
    return torch.autograd.grad(value, [y, *field.parameters()])


def compiled_with(rule, field):
    """Gradients; how many tensors are kept for them; how many matrix products they take."""
    counts = []

    def cut(gm, joint_inputs, *, num_fwd_outputs, **settings):
        forward, backward = rule(gm, joint_inputs, num_fwd_outputs=num_fwd_outputs, **settings)
        num_kept = len(forward.graph.output_node().args[0]) - num_fwd_outputs
        counts.append((num_kept, sum("mm" in str(node.target) for node in backward.graph.nodes)))
        return forward, backward

    backend = aot_autograd(fw_compiler=boxed_nop, bw_compiler=boxed_nop, partition_fn=cut)
    torch.compiler.reset()
    found = derivatives(torch.compile(trial.take_step, fullgraph=True, backend=backend), field)
    ((num_kept, num_products),) = counts
    return found, num_kept, num_products


@pytest.mark.parametrize("field", [VanDerPol(force=1.0), Network()], ids=["oscillator", "network"])
def test_fewer_tensors_for_the_same_gradients_and_no_product_twice(field):
    gradients, num_kept, num_products = compiled_with(KeepLittle(), field)
    _, usual, usual_products = compiled_with(min_cut_rematerialization_partition, field)
    assert num_kept < usual
    assert num_products == usual_products
    for found, expected in zip(gradients, derivatives(trial.take_step, field), strict=True):
        assert torch.allclose(found, expected, rtol=1e-12)


@pytest.mark.parametrize(("size", "keeps_little"), [(2, True), (trial.SMALL, False)])
def test_large_states_are_left_to_the_compiler(size, keeps_little, monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda function, **settings: settings["options"])
    options = trial.compiled(trial.take_step, (object(),), PerSample(), torch.zeros(2, size))
    assert ("custom_partitioner_fn" in options) == keeps_little


def test_a_torch_without_such_rules_compiles_as_it_does_by_itself(monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda function, **settings: settings["options"])
    monkeypatch.setitem(sys.modules, "neuralop_kit.solvers.ode.keep_little", None)
    options = trial.compiled(trial.take_step, (int,), PerSample(), torch.zeros(2, 2))
    assert "custom_partitioner_fn" not in options
