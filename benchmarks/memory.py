"""Peak memory of one call: what it needs on top of its inputs and parameters, which exist before it.

What else a subject keeps between calls (gradients and states of an optimizer) exists before as well, and is added.

CUDA: torch's allocator peak minus what was allocated before.

CPU: the process's resident high-water mark during the call (Linux resets it on request) minus what was resident before,
after free heap pages were handed back. This sees every allocator (torch, numpy, FFT and sparse-solver workspaces),
unlike torch's profiler; it counts pages, and is good to about 2 MiB. Elsewhere than on Linux nothing is reported.
"""

import ctypes
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from benchmarks.measures import Work

PROCESS = Path("/proc/self")
# Parameters of glibc's mallopt, and what its own adjustment ends at.
TRIM_THRESHOLD, MMAP_THRESHOLD, MMAP_MAX = -1, -3, -4
USUAL = {TRIM_THRESHOLD: 2**26, MMAP_THRESHOLD: 2**25, MMAP_MAX: 2**16}


def peak_bytes(work: Work, device: torch.device, *, held: int = 0) -> int | None:
    """Extra bytes at the worst moment of one (already warm) call, or ``None`` where they cannot be measured.

    Args:
        work: the call.
        device: where it computes.
        held: bytes that were there before the call and belong to what is measured.
    """
    extra = cuda_peak(work, device) if device.type == "cuda" else resident_peak(work)
    return None if extra is None else extra + held


def cuda_peak(work: Work, device: torch.device) -> int:
    """Peak of torch's CUDA allocator."""
    torch.cuda.synchronize(device)
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    work()
    torch.cuda.synchronize(device)
    return int(torch.cuda.max_memory_allocated(device)) - before


def resident_peak(work: Work) -> int | None:
    """Peak of the resident set on Linux."""
    return_free_pages()
    try:
        (PROCESS / "clear_refs").write_text("5")  # "5" resets VmHWM; see proc(5)
        before = status_bytes("VmRSS")
        work()
        return max(0, status_bytes("VmHWM") - before)
    except OSError:
        return None


def status_bytes(field: str) -> int:
    """One number of ``/proc/self/status``."""
    match = re.search(rf"^{field}:\s+(\d+) kB", (PROCESS / "status").read_text(), re.MULTILINE)
    if match is None:
        raise OSError(f"expected a line {field} in /proc/self/status, got none; this kernel does not count it")
    return int(match[1]) * 1024


def return_free_pages() -> None:
    """Ask glibc for its free pages, or memory freed earlier would hide what this call needs."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


@contextmanager
def pages_kept() -> Iterator[None]:
    """Freed memory is used again, as torch's allocator does on CUDA, instead of being handed back to the kernel.

    Fields of more than 32 MiB otherwise come as new pages, each of which the kernel clears: for cheap layers that costs
    as much as the computation. Without glibc nothing happens.
    """
    tune = getattr(ctypes.CDLL(None), "mallopt", None)
    if tune is None:
        yield
        return
    tune(MMAP_MAX, 0)
    tune(TRIM_THRESHOLD, 2**31 - 1)
    try:
        yield
    finally:
        for parameter, value in USUAL.items():
            tune(parameter, value)
        return_free_pages()
