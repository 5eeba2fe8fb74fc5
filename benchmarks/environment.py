"""Where the numbers come from: versions, hardware, threads, commit. No host names, no paths."""

import os
import platform
import re
import subprocess
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).parents[1]
ALWAYS_RECORDED = ("neuralop-kit", "torch", "numpy", "scipy", "h5py")


def describe_environment(device: torch.device, packages: tuple[str, ...] = ()) -> dict[str, Any]:
    """Everything that a reader needs to judge or repeat a measurement.

    Args:
        device: where the tensors live.
        packages: further distributions to record, the peers.
    """
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": cpu_model(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "omp_num_threads": os.environ.get("OMP_NUM_THREADS"),
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "cuda": torch.version.cuda,
        "packages": {distribution(item): version_of(item) for item in (*ALWAYS_RECORDED, *packages)},
        **git_state(),
    }


def version_of(requirement: str) -> str | None:
    """Installed version of a distribution, given by name or requirement; ``None`` if it is not installed.

    >>> version_of("no-such-distribution>=1") is None
    True
    """
    try:
        return metadata.version(distribution(requirement))
    except metadata.PackageNotFoundError:
        return None


def distribution(requirement: str) -> str:
    """The name at the start of a requirement.

    >>> distribution("torch-harmonics>=0.8,!=0.9.0")
    'torch-harmonics'
    """
    return re.split(r"[\s\[<>=!~;]", requirement.strip())[0]


def cpu_model() -> str:
    """The processor's name."""
    table = Path("/proc/cpuinfo")
    found = re.search(r"^model name\s*:\s*(.+)$", table.read_text(), re.MULTILINE) if table.exists() else None
    return found[1] if found else platform.processor() or "unknown"


@cache
def git_state() -> dict[str, Any]:
    """Commit, and whether the tree differs from it, when first asked; both ``None`` outside a checkout."""
    commit, changes = git("rev-parse", "HEAD"), git("status", "--porcelain")
    return {"commit": commit, "dirty": None if changes is None else bool(changes)}


def git(*arguments: str) -> str | None:
    """Output of a git command, ``None`` if it fails or there is no git."""
    try:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
