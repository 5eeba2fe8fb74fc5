"""Weighted sums over neighbours: the dense product, the shifted copies, and what lies beyond the ends."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from neuralop_kit.convert import smoothing
from neuralop_kit.convert.smoothing import MODES, Extension, extend, weigh

ends = st.builds(
    Extension, st.sampled_from(MODES), ramp=st.integers(1, 3), wall=st.sampled_from([0.0, 0.5, 1.0])
)  # fmt: skip


def by_shifts(x, dim, weights, **options):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(smoothing, "MAX_DENSE_POINTS", 0)
        return weigh(x, dim, weights, **options)


@given(
    n=st.integers(1, 12), before=st.integers(-2, 15), after=st.integers(-2, 15), beyond=ends,
    weights=st.lists(st.floats(-2, 2), min_size=2, max_size=5), lowest=st.integers(-3, 0), step=st.integers(1, 3),
)  # fmt: skip
@settings(max_examples=200, deadline=None, derandomize=True)
def test_the_dense_product_equals_shifted_copies_and_a_convolution(n, before, after, beyond, weights, lowest, step):
    cut = max(lowest - before, 0) + max(-(after + lowest + len(weights) - 1), 0)
    if n - cut < 1 or n + before + after < 1:
        return
    x = torch.randn(2, n, 3, dtype=torch.float64)
    options = {"lowest": lowest, "before": before, "after": after, "ends": beyond, "step": step}
    dense = weigh(x, 1, weights, **options)
    torch.testing.assert_close(by_shifts(x, 1, weights, **options), dense, rtol=0, atol=1e-12)
    extended = extend(x, 1, before - lowest, after + lowest + len(weights) - 1, beyond).movedim(1, 2).reshape(6, 1, -1)
    kernel = torch.tensor(weights, dtype=torch.float64)[None, None]
    summed = functional.conv1d(extended, kernel, stride=step).reshape(2, 3, -1).movedim(2, 1)
    torch.testing.assert_close(dense, summed, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("mode", "torchs"), [("circular", "circular"), ("reflect", "reflect"), ("zeros", "constant"),
                                              ("replicate", "replicate")])  # fmt: skip
def test_points_beyond_the_ends_are_those_of_torch(mode, torchs):
    x = torch.randn(2, 3, 9, dtype=torch.float64)
    for before, after in ((0, 4), (3, 0), (5, 8)):
        ours = extend(x, 2, before, after, Extension(mode))
        torch.testing.assert_close(ours, functional.pad(x, (before, after), mode=torchs), rtol=0, atol=0)


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_any_dimension_and_memory_layout(dim):
    x = torch.randn(2, 7, 6, 5).to(memory_format=torch.channels_last)
    options = {"lowest": -1, "before": 1, "after": 0, "ends": Extension("reflect")}
    moved = weigh(x.movedim(dim, 0), 0, [0.2, 0.5, 0.3], **options).movedim(0, dim)
    torch.testing.assert_close(weigh(x, dim, [0.2, 0.5, 0.3], **options), moved)


def test_half_precision_is_summed_in_single():
    x = torch.randn(1, 2, 40).bfloat16()
    options = {"lowest": -1, "before": 0, "after": 0, "ends": Extension("zeros")}
    with torch.autocast("cpu", dtype=torch.bfloat16):
        summed = weigh(x, 2, [0.25, 0.5, 0.25], **options)
        assert weigh(x.float(), 2, [0.25, 0.5, 0.25], **options).dtype == torch.float32
    exact = weigh(x.double(), 2, [0.25, 0.5, 0.25], **options)
    assert torch.equal(summed, exact.bfloat16())


def test_rounded_products_do_not_move_values(monkeypatch):
    # As with torch.backends.mkldnn.matmul.fp32_precision = "bf16": copies must stay what they are.
    monkeypatch.setattr(smoothing, "products_are_rounded", lambda x: x.dtype == torch.float32)
    seen = []
    monkeypatch.setattr(smoothing, "left_multiply", lambda m, x: seen.append(x.dtype) or torch.matmul(m, x))
    x = torch.randn(1, 1, 20)
    summed = weigh(x, 2, [0.5, 0.5], lowest=0, before=0, after=0, ends=Extension("zeros"))
    assert summed.dtype == torch.float32
    assert seen == [torch.float64]
