"""Memory of batches is used again, and nobody who holds a part of a batch ever sees it change."""

import copy
import gc
import pickle
import threading

import numpy as np
import pytest
import torch

from neuralop_kit.datasets import generate, open_dataset
from neuralop_kit.datasets.lending import ALIGNMENT, MAX_KEPT, Batch, Lender

SHAPE = (3, [2, 1], (4, 5), np.dtype("float32"))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("darcy")
    return open_dataset(generate("darcy", folder, samples=12, resolution=8, splits={"train": 1.0}), "train")


def graph(u):
    weight = torch.ones_like(u, requires_grad=True)
    return (u * weight).sum()


HOLDERS = {
    "tensor": lambda u: u,
    "view": lambda u: u[1:2, :, ::2],
    "detached": lambda u: u.detach(),
    "numpy": lambda u: u.numpy(),
    "view in numpy": lambda u: u[1].numpy()[..., ::2],
    "bytes": lambda u: memoryview(u.numpy()),
    "storage": lambda u: u.untyped_storage(),
    "dlpack": lambda u: np.from_dlpack(u),
    "graph": graph,
    "parameter": lambda u: torch.nn.Parameter(u),
    "dictionary": lambda u: {"u": [u]},
}


@pytest.mark.parametrize("hold", HOLDERS.values(), ids=HOLDERS)
@pytest.mark.parametrize("which", [0, 1])
def test_what_is_held_keeps_its_memory_and_what_is_not_gives_it_back(hold, which):
    lender = Lender()
    tensors = lender.lend(*SHAPE).tensors()
    place = tensors[0].data_ptr()
    held = hold(tensors[which])
    del tensors
    gc.collect()
    assert all(lender.lend(*SHAPE).tensors()[0].data_ptr() != place for _ in range(4))
    lender = Lender()
    tensors = lender.lend(*SHAPE).tensors()
    place, held = tensors[0].data_ptr(), hold(tensors[which])
    del tensors, held
    gc.collect()
    assert lender.lend(*SHAPE).tensors()[0].data_ptr() == place


ALWAYS_FREE = property(lambda self: True)


@pytest.mark.parametrize(("is_free", "stays"), [(Batch.is_free, True), (ALWAYS_FREE, False)], ids=["ours", "control"])
def test_kept_batches_do_not_change(data, monkeypatch, is_free, stays):
    """The control is a lender that does not ask who holds what."""
    expected = [(u.clone(), v.clone()) for u, v in (data[i] for i in range(12))]
    monkeypatch.setattr(Batch, "is_free", is_free)
    kept = [data.read(range(start, start + 3)) for _ in range(3) for start in range(0, 12, 3)]
    views = [pair for u, v in kept for pair in zip(u, v, strict=True)]
    del kept
    same = [torch.equal(a, c) and torch.equal(b, d) for (a, b), (c, d) in zip(views, 3 * expected, strict=True)]
    assert all(same) == stays


def test_dropped_batches_are_used_again_and_few_are_kept(data):
    places = set()
    for _ in range(3):
        for start in range(0, 12, 3):
            u, _ = data.read(range(start, start + 3))
            places.add(u.data_ptr())
    assert len(places) <= MAX_KEPT
    held = [data.read(range(3)) for _ in range(3 * MAX_KEPT)]
    assert len({u.data_ptr() for u, _ in held}) == len(held)
    assert len(data._lender._kept) == MAX_KEPT


def test_tensors_lie_as_torchs_own_do():
    batch = Batch(*SHAPE)
    u, v = batch.tensors()
    assert u.shape == (3, 2, 4, 5)
    assert v.shape == (3, 1, 4, 5)
    for k, field in enumerate(batch.fields):
        field[:] = np.full(20, k, np.float32).tobytes()
    assert torch.equal(u[..., 0, 0], torch.tensor([[0.0, 3.0], [1.0, 4.0], [2.0, 5.0]]))
    assert torch.equal(v[:, 0, 3, 4], torch.tensor([6.0, 7.0, 8.0]))
    for tensor in (u, v):
        assert tensor.is_contiguous()
        assert tensor.data_ptr() % ALIGNMENT == 0
        assert tensor.untyped_storage().nbytes() == 4 * tensor.numel()


def test_threads_do_not_share_memory(data):
    expected = [part.clone() for part in data.read(range(12))]
    wrong = []

    def read():
        for _ in range(50):
            if not all(map(torch.equal, data.read(range(12)), expected)):
                wrong.append(1)

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize("again", [lambda d: pickle.loads(pickle.dumps(d)), copy.deepcopy])
def test_a_copy_has_its_own(data, again):
    u, _ = data.read(range(3))
    copied = again(data)
    assert torch.equal(copied.read(range(3))[0], u)
    assert copied._lender is not data._lender
