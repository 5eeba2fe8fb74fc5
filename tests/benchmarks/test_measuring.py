"""What is measured: order and statistics of the timings, memory, errors against something better."""

import ctypes
import gc
from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks import (
    AgainstFloat64,
    AgainstPeer,
    AgainstReference,
    Call,
    Comparison,
    ErrorFunction,
    FieldCase,
    Forward,
    ForwardBackward,
    Setting,
    Study,
    TrainingStep,
)
from benchmarks.accuracy import Pair, relative_error
from benchmarks.memory import PROCESS, pages_kept, peak_bytes, return_free_pages, status_bytes
from benchmarks.settings import Profile
from benchmarks.timing import Samples, interleave, ratio_of

BRIEF = Profile("quick", seconds=0.0, min_pairs=4, max_pairs=4, warm_up_seconds=0.0)
CPU = torch.device("cpu")


class TestTiming:
    def run_with_fake_clock(self, seconds, profile=BRIEF):
        """Samples whose durations come from a list instead of a clock; the first two are the warm-up."""
        durations, calls = iter(seconds), []

        def clock(work, num_calls):
            work()
            calls.append(num_calls)
            return next(durations)

        log = []
        samples = interleave([lambda: log.append("A"), lambda: log.append("B")], profile, clock)
        return samples, log, calls

    def test_sides_alternate_and_the_order_is_recorded(self):
        samples, log, _ = self.run_with_fake_clock([1.0] * 10)
        assert samples.order == "ABABABAB"
        assert "".join(log) == "AB" + samples.order  # the warm-up first

    def test_a_machine_that_slows_down_does_not_move_the_ratio(self):
        drift = [1.5**i for i in range(4)]
        timeline = [1.0, 2.0, *(factor * side for factor in drift for side in (1.0, 2.0))]
        ratio = ratio_of(self.run_with_fake_clock(timeline)[0])
        assert (ratio.median, ratio.low, ratio.high) == (2.0, 2.0, 2.0)
        # Negative control: one side after the other, on the same slowing machine, is off by far.
        one_after_the_other = Samples(((1.0, 1.5, 2.25, 3.4), (10.1, 15.2, 22.8, 34.2)), (1, 1), "AAAABBBB")
        assert ratio_of(one_after_the_other).median > 5.0

    def test_short_calls_are_repeated_until_they_fill_a_sample(self):
        samples, _, calls = self.run_with_fake_clock([1e-4, 1.0] + [1.0] * 8)
        assert samples.calls_per_sample == (20, 1)
        assert calls[2:] == [20, 1] * 4

    def test_number_of_pairs_stays_in_its_bounds(self):
        patient = replace(BRIEF, seconds=1e9, max_pairs=6)
        assert len(self.run_with_fake_clock([1.0] * 14, patient)[0].seconds[0]) == 6

    def test_interval_holds_the_median_and_quartiles_are_ordered(self):
        noise = np.random.default_rng(0).lognormal(0.0, 0.3, (2, 101))
        ratio = ratio_of(Samples((tuple(noise[0]), tuple(3 * noise[1])), (1, 1), "AB" * 101))
        assert ratio.low <= 3.0 <= ratio.high
        assert ratio.lower_quartile < ratio.low < ratio.median < ratio.high < ratio.upper_quartile

    def test_garbage_collector_rests_and_returns(self):
        seen = []
        interleave([lambda: seen.append(gc.isenabled())], BRIEF, lambda work, n: float(work() is None))
        assert seen[1:] == [False] * 4  # the warm-up is not timed
        assert gc.isenabled()


@pytest.mark.skipif(not PROCESS.exists(), reason="resident high-water marks are Linux's")
class TestMemory:
    @pytest.mark.parametrize("allocate", [torch.ones, np.ones], ids=["torch", "numpy"])
    def test_peak_is_what_the_call_needs(self, allocate):
        num_values = 4 * 2**20
        dtype = torch.float64 if allocate is torch.ones else np.float64

        def work():
            first = allocate(num_values, dtype=dtype)  # 32 MiB
            return (first + 1).sum()  # and 32 more

        work()
        assert peak_bytes(work, CPU) == pytest.approx(64 * 2**20, abs=6 * 2**20)

    def test_what_exists_before_does_not_count(self):
        before = torch.ones(8 * 2**20)
        assert peak_bytes(lambda: before.sum(), CPU) < 6 * 2**20


class Rounded(nn.Module):
    """A linear map whose float32 result is off by a known relative amount; exact in float64."""

    def __init__(self, defect=0.0, scale=1.0):
        super().__init__()
        self.weight = nn.Parameter(torch.full((3,), scale))
        self.defect = defect

    def forward(self, u):
        factor = 1.0 if u.dtype == torch.float64 else 1.0 + self.defect
        return (u * self.weight) * factor


def pair(ours, peer=None, **options):
    return Pair(ours, peer, FieldCase(2, 1, (4, 3)).inputs(torch.Generator().manual_seed(0)), **options)


class TestAccuracy:
    @pytest.mark.parametrize("measure", [Forward(), ForwardBackward(), Call()])
    def test_float64_shows_the_defect(self, measure):
        subject = Rounded(defect=1e-3)
        assert AgainstFloat64(1e-5).error(subject, pair(subject), measure) == pytest.approx(1e-3, rel=1e-3)
        sound = Rounded()
        assert AgainstFloat64(1e-5).error(sound, pair(sound), measure) < 1e-6
        assert sound.weight.dtype == torch.float32

    def test_a_wrong_gradient_is_seen_only_with_the_backward_pass(self):
        class Halved(torch.autograd.Function):
            @staticmethod
            def forward(ctx, u):
                return 1.0 * u

            @staticmethod
            def backward(ctx, slope):
                return slope if slope.dtype == torch.float64 else 0.5 * slope

        accuracy = AgainstFloat64(1e-5)
        assert accuracy.error(Halved.apply, pair(Halved.apply), Forward()) < 1e-7
        assert accuracy.error(Halved.apply, pair(Halved.apply), ForwardBackward()) == pytest.approx(0.5)

    def test_shared_weights_let_the_implementations_check_each_other(self):
        ours, other = Rounded(scale=1.0), Rounded(scale=2.0)
        accuracy = AgainstFloat64(1e-5)
        assert accuracy.error(other, pair(ours, other, same_function=True), Forward()) == pytest.approx(1.0)
        assert accuracy.error(other, pair(ours, other), Forward()) < 1e-6

    def test_peer_reference_and_error_function(self):
        ours, peer = Rounded(), Rounded(scale=1.01)
        both = pair(ours, peer)
        assert AgainstPeer(1e-5).error(ours, both, Forward()) == pytest.approx(0.01 / 1.01, rel=1e-4)
        assert AgainstPeer(1e-5).error(peer, both, Forward()) is None
        assert AgainstPeer(1e-5).error(ours, pair(ours), Forward()) is None
        assert AgainstReference(lambda u: u, 1e-5).error(peer, both, Forward()) == pytest.approx(0.01, rel=1e-4)
        assert ErrorFunction(lambda outputs, inputs: 7.0, 1e-5).error(ours, both, Forward()) == 7.0

    def test_nan_is_an_infinite_error(self):
        ours = Rounded(defect=float("nan"))
        assert AgainstFloat64(1e-5).error(ours, pair(ours), Forward()) == float("inf")
        assert ErrorFunction(lambda *_: float("nan"), 1.0).error(ours, pair(ours), Forward()) == float("inf")

    def test_other_shapes_are_not_compared(self):
        with pytest.raises(ValueError, match=r"expected outputs of shapes \[\(2,\)\].*got \[\(3,\)\]"):
            relative_error((torch.ones(3),), (torch.ones(2),))

    def test_training_step_trains_and_checks_a_copy(self):
        measure = TrainingStep(optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.1))
        model, inputs = Rounded(), pair(Rounded()).inputs
        before = model.weight.clone()
        first = measure.outputs(model, inputs)
        assert torch.equal(model.weight, before)
        work = measure.prepare(model, inputs)
        losses = [work().item() for _ in range(3)]
        assert losses[2] < losses[1] < losses[0]
        assert losses[2] == first[0].item()
        assert AgainstFloat64(1e-5).error(Rounded(), pair(Rounded()), measure) < 1e-6
        with pytest.raises(TypeError, match=r"use Call"):
            measure.prepare(torch.sin, inputs)


class TestEntries:
    comparison = Comparison(name="a/b", ours=lambda case: torch.sin, case=FieldCase(1, 1, (2,)))
    study = Study(name="a/b", run=lambda size, setting: [], columns=("n",), quick=1)

    @pytest.mark.parametrize("item", [comparison, study, comparison.case, Forward(), AgainstPeer(0.0), Setting()])
    def test_data_is_frozen(self, item):
        name = next(iter(item.__dataclass_fields__))
        with pytest.raises(FrozenInstanceError):
            setattr(item, name, None)

    @pytest.mark.parametrize("name", ["", "alone", "Upper/case", "a b/c", "../up", "a//b", "/a/b", "a/../b"])
    def test_names_are_safe_paths(self, name):
        with pytest.raises(ValueError, match="rename the entry"):
            replace(self.comparison, name=name)

    def test_empty_entries_are_refused(self):
        with pytest.raises(ValueError, match="at least one measure"):
            replace(self.comparison, measure=())
        with pytest.raises(ValueError, match="quick= or full="):
            replace(self.study, quick=None)

    def test_cases_draw_the_same_numbers_from_the_same_seed(self):
        case, setting = FieldCase(2, 3, (5,)), Setting(seed=4)
        (first,), (second,) = case.inputs(setting.generator()), case.inputs(setting.generator())
        assert torch.equal(first, second)
        assert first.shape == (2, 3, 5)


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="tunes glibc")
def test_freed_pages_stay_with_the_process_where_that_is_asked_for():
    def left_behind(num_bytes: int = 2**27) -> int:
        return_free_pages()
        before = status_bytes("VmRSS")
        torch.ones(num_bytes // 4)
        return status_bytes("VmRSS") - before

    assert left_behind() < 2**25
    with pages_kept():
        assert left_behind() > 2**26
    assert left_behind() < 2**25  # and no longer than that
