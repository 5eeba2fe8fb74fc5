"""Pictures that the examples share: fields in a row, the spectrum of an error."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
import scipy.fft
from torch import Tensor

mpl.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from neuralop_kit.solvers.atomic import write_bytes

# One colour map per meaning: coefficients, solutions, errors of either sign.
COEFFICIENT, SOLUTION, ERROR = "cividis", "viridis", "RdBu_r"


def save(figure: Figure, path: Path) -> None:
    """Close a picture and leave it as a PNG file, whole or not at all, in a folder that may not be there yet."""
    content = io.BytesIO()
    figure.savefig(content, dpi=110)
    plt.close(figure)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, content.getvalue())


def shell_spectrum(field: np.ndarray) -> np.ndarray:
    """Root-mean-square cosine amplitude of a 2-D field in shells of wavenumber k - 1/2 <= |k| < k + 1/2.

    The cosine transform suits boxes with walls: the even extension of a field has no jump there.
    """
    amplitudes = scipy.fft.dctn(field, type=2, norm="forward")
    k = np.hypot(*np.meshgrid(*(np.arange(n) for n in field.shape), indexing="ij")).round().astype(int)
    counts = np.bincount(k.ravel())
    energy = np.bincount(k.ravel(), weights=amplitudes.ravel() ** 2)
    return np.sqrt(energy / counts)[: min(field.shape) // 2]


def draw_predictions(
    path: Path,
    *,
    coefficient: Tensor,
    truth: Tensor,
    predictions: Mapping[str, Tensor],
    extent: Sequence[float],
) -> None:
    """One row per model: input, truth, prediction, error, and the spectrum of the error below that of the truth.

    Args:
        path: of the PNG file.
        coefficient, truth: of one sample, ``(*space)``.
        predictions: per model, of the same sample, ``(*space)``.
        extent: of the domain: left, right, bottom, top.
    """
    rows = len(predictions)
    figure, axes = plt.subplots(rows, 5, figsize=(16, 3.1 * rows), squeeze=False, layout="constrained")
    target = truth.numpy()
    limit = max(np.abs(p.numpy() - target).max() for p in predictions.values())
    for row, (name, prediction) in zip(axes, predictions.items(), strict=True):
        values = prediction.numpy()
        error = values - target
        panels = [
            (coefficient.numpy(), COEFFICIENT, None, None, "coefficient a"),
            (target, SOLUTION, target.min(), target.max(), "truth u"),
            (values, SOLUTION, target.min(), target.max(), f"{name}: prediction"),
            (error, ERROR, -limit, limit, f"{name}: error ({_relative(values, target):.2%})"),
        ]
        for axis, (image, colours, low, high, title) in zip(row, panels, strict=False):
            # Space axis 0 is x and runs to the right, axis 1 is y and runs up.
            shown = axis.imshow(image.T, origin="lower", extent=extent, cmap=colours, vmin=low, vmax=high)
            axis.set(title=title, xticks=[], yticks=[])
            figure.colorbar(shown, ax=axis, shrink=0.8)
        _draw_spectrum(row[4], target, error)
    save(figure, path)


def _draw_spectrum(axis: Axes, target: np.ndarray, error: np.ndarray) -> None:
    for label, field in (("truth", target), ("error", error)):
        spectrum = shell_spectrum(field)
        axis.loglog(np.arange(1, len(spectrum)), spectrum[1:], label=label)
    axis.set(title="amplitude by wavenumber", xlabel="half cycles per length")
    axis.legend()
    axis.grid(alpha=0.3)


def _relative(values: np.ndarray, target: np.ndarray) -> float:
    return float(np.linalg.norm(values - target) / np.linalg.norm(target))


def draw_errors(path: Path, rows: Mapping[str, Mapping[int, float]], *, trained_at: Sequence[int]) -> None:
    """Error over resolution, one line per model; dotted lines mark the resolutions seen in training.

    What a name has behind a comma is a variant: it shares the colour, and the model itself is dashed.
    """
    figure, axes = plt.subplots(figsize=(8, 4.2), layout="constrained")
    models = list(dict.fromkeys(name.split(",")[0] for name in rows))
    for name, row in rows.items():
        style, colour = "-" if "," in name else "--", f"C{models.index(name.split(',')[0])}"
        axes.loglog(list(row), list(row.values()), style, color=colour, marker="o", label=name)
    for n in trained_at:
        axes.axvline(n, color="grey", linestyle=":")
    resolutions = list(next(iter(rows.values())))
    axes.set(xlabel="points per axis", ylabel="relative L2 error")
    axes.set_xticks(resolutions, [str(n) for n in resolutions])
    axes.tick_params(axis="x", which="minor", bottom=False, labelbottom=False)
    axes.grid(alpha=0.3)
    figure.legend(loc="outside right upper")
    save(figure, path)
