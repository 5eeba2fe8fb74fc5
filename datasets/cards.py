"""Pictures of a dataset: a contact sheet, and a film of a trajectory."""

import textwrap
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from neuralop_kit.datasets.field_dataset import FieldDataset
from neuralop_kit.datasets.layout import dimension_names
from neuralop_kit.datasets.readers.contents import Numbers
from neuralop_kit.datasets.survey import spread
from neuralop_kit.datasets.task_dataset import TaskDataset
from neuralop_kit.solvers.atomic import explained
from neuralop_kit.solvers.domain import Domain
from neuralop_kit.solvers.errors import DataError, MissingExtraError

MAX_ROWS, MAX_COLUMNS, MAX_FRAMES = 4, 5, 60
FRAMES_PER_SECOND = 12
# Fields of either sign are shown around zero, others from their smallest to their largest value.
EITHER_SIGN, ONE_SIGN = "RdBu_r", "viridis"


def draw_card(data: FieldDataset, folder: str | Path, *, name: str) -> list[Path]:
    """Save pictures of some samples; returns what was written.

        <name>.png          steady: one row per sample, one column per channel; in time: one row per channel, one column
                            per frame (of one space dimension: per sample, time upwards)
        <name>.gif, .mp4    the first trajectory, every channel; the film only where ffmpeg is installed

    Args:
        data: from :func:`open_dataset`.
        folder: for the pictures; made if missing.
        name: of the files.

    Raises:
        MissingExtraError: matplotlib is not installed.
        DataError: the folder cannot be made.
    """
    try:
        import matplotlib.animation  # noqa: F401 - everything that is needed later comes with it
    except ImportError as error:
        raise MissingExtraError("expected matplotlib, got none; pip install 'neuralop-kit[examples]'") from error
    folder = Path(folder)
    with explained(DataError, f"to make the folder {folder} for pictures"):
        folder.mkdir(parents=True, exist_ok=True)
    sheet = folder / f"{name}.png"
    if not isinstance(data, TaskDataset) or data.contents.num_frames is None:
        _draw_pairs(data, sheet)
        return [sheet]
    if data.domain.num_dims == 1:
        _draw_histories(data, sheet)
    else:
        _draw_frames(data, sheet)
    return [sheet, *_draw_film(data, folder / name)]


@dataclass(frozen=True)
class Scale:
    """Limits and colours of one channel, the same in all its panels."""

    low: float
    high: float
    colours: str

    @classmethod
    def of(cls, fields: Iterable[Numbers]) -> "Scale":
        """Symmetric around zero for fields of either sign."""
        ends = [(float(field.min()), float(field.max())) for field in fields]
        low, high = min(end[0] for end in ends), max(end[1] for end in ends)
        size = max(-low, high)
        return cls(-size, size, EITHER_SIGN) if low < 0 < high else cls(low, high, ONE_SIGN)


def _draw_pairs(data: FieldDataset, path: Path) -> None:
    chosen = spread(len(data), MAX_ROWS)
    inputs, targets = data.read(chosen)
    names = [f"input {n}" for n in data.input_names] + [f"target {n}" for n in data.target_names]
    fields = np.concatenate([inputs.numpy(), targets.numpy()], axis=1)
    kept = spread(len(names), MAX_COLUMNS)
    panels = [[fields[row, channel] for channel in kept] for row in range(len(chosen))]
    scales = [Scale.of(fields[:, channel]) for channel in kept]
    figure, axes = _grid(len(chosen), len(kept))
    for row, images in enumerate(panels):
        for axis, image, scale in zip(axes[row], images, scales, strict=True):
            _draw(axis, image, data.domain, scale)
    _finish(figure, axes, data, titles=[names[k] for k in kept], labels=[f"sample {k}" for k in chosen])
    figure.savefig(path, dpi=110)


def _draw_frames(data: TaskDataset, path: Path) -> None:
    """One row per channel, one column per frame of the first trajectory."""
    whole = data.trajectories
    channels, frames = spread(len(whole.names), MAX_ROWS), spread(data.files[0].num_frames, MAX_COLUMNS)
    u, times = _slices(data, frames), whole.times(0)[frames].tolist()
    figure, axes = _grid(len(channels), len(frames))
    for row, channel in enumerate(channels):
        scale = Scale.of(u[:, channel])
        for axis, image in zip(axes[row], u[:, channel], strict=True):
            _draw(axis, image, data.domain, scale)
    titles = [f"t = {time:.4g}" for time in times]
    _finish(figure, axes, data, titles=titles, labels=[whole.names[channel] for channel in channels])
    figure.savefig(path, dpi=110)


def _draw_histories(data: TaskDataset, path: Path) -> None:
    """One row per channel, one column per sample of one space dimension; time runs upwards."""
    whole = data.trajectories
    channels, chosen = spread(len(whole.names), MAX_ROWS), spread(len(whole), MAX_COLUMNS)
    fields, space = [whole[k].numpy() for k in chosen], data.domain.axes[0]
    figure, axes = _grid(len(channels), len(chosen))
    for row, channel in enumerate(channels):
        scale = Scale.of(u[:, channel] for u in fields)
        for axis, u, sample in zip(axes[row], fields, chosen, strict=True):
            times = whole.times(sample)
            extent = [space.start, space.stop, float(times[0]), float(times[-1])]
            image = axis.imshow(
                u[:, channel], origin="lower", extent=extent, aspect="auto", vmin=scale.low, vmax=scale.high,
                cmap=scale.colours,
            )  # fmt: skip
            axis.figure.colorbar(image, ax=axis, shrink=0.8)
            axis.set(xlabel="x")
    titles = [f"sample {k}" for k in chosen]
    _finish(figure, axes, data, titles=titles, labels=[f"{whole.names[channel]}, t" for channel in channels])
    figure.savefig(path, dpi=110)


def _draw_film(data: TaskDataset, stem: Path) -> list[Path]:
    from matplotlib.animation import PillowWriter, writers

    whole = data.trajectories
    channels, frames = spread(len(whole.names), MAX_ROWS), spread(data.files[0].num_frames, MAX_FRAMES)
    u, times = _slices(data, frames), whole.times(0)[frames].tolist()
    makers: dict[str, Any] = {".gif": PillowWriter}
    if writers.is_available("ffmpeg"):
        makers[".mp4"] = writers["ffmpeg"]
    for suffix, maker in makers.items():
        figure, axes = _grid(1, len(channels))
        pictures = [
            _draw(axis, u[0, channel], data.domain, Scale.of(u[:, channel]))
            for axis, channel in zip(axes[0], channels, strict=True)
        ]
        _finish(figure, axes, data, titles=[whole.names[channel] for channel in channels], labels=[""])
        writer = maker(fps=FRAMES_PER_SECOND)
        with writer.saving(figure, str(stem.with_suffix(suffix)), dpi=80):
            for k, time in enumerate(times):
                for picture, channel in zip(pictures, channels, strict=True):
                    picture(u[k, channel])
                figure.suptitle(f"{data.contents.name}, t = {time:.4g}")
                writer.grab_frame()
    return [stem.with_suffix(suffix) for suffix in makers]


def _slices(data: TaskDataset, frames: list[int]) -> Numbers:
    """Frames of the first trajectory, ``(frame, channel, *space)``, the middle slice of what has three dimensions."""
    file, one = data.files[0], data.samples[0][:1]
    fields = [file.read(one, range(k, k + 1), ("state",))[0, 0] for k in frames]
    while fields[0].ndim > 3:
        fields = [field[..., field.shape[-1] // 2] for field in fields]
    return np.stack(fields)


def _grid(rows: int, columns: int) -> tuple[Any, Any]:
    """A figure of its own: nothing of matplotlib's global state is touched."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.0 * columns + 0.6, 2.4 * rows + 0.6), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, squeeze=False)


def _draw(axis: Any, field: Numbers, domain: Domain, scale: Scale) -> Callable[[Numbers], None]:
    """One field: a line in one dimension, an image in two, the middle slice in more; returns how to show another."""
    names = dimension_names(domain)
    while field.ndim > 2:
        field = field[..., field.shape[-1] // 2]
    if domain.num_dims == 1:
        margin = 0.05 * (scale.high - scale.low) or 1.0
        (line,) = axis.plot(domain.axis_coordinates(0, len(field)).numpy(), field)
        axis.set(xlabel=names[0], ylim=(scale.low - margin, scale.high + margin))
        return lambda other: line.set_ydata(other)
    extent = [end for a in domain.axes[:2] for end in (a.start, a.stop)]
    # Space axis 0 is x and runs to the right, axis 1 is y and runs up.
    image = axis.imshow(field.T, origin="lower", extent=extent, vmin=scale.low, vmax=scale.high, cmap=scale.colours)
    axis.set(xticks=[], yticks=[])
    axis.figure.colorbar(image, ax=axis, shrink=0.8)
    return lambda other: image.set_data(other.T)


def _finish(figure: Any, axes: Any, data: FieldDataset, *, titles: list[str], labels: list[str]) -> None:
    """Names above the columns and beside the rows, the equation on top."""
    for axis, title in zip(axes[0], titles, strict=True):
        axis.set_title(title)
    for axis, label in zip(axes[:, 0], labels, strict=True):
        axis.set_ylabel(label)
    about: Any = data.contents if isinstance(data, TaskDataset) else getattr(data, "description", None)
    if about is not None:
        head = f"{about.name}: {about.equation}" if about.equation else about.name
        figure.suptitle("\n".join(textwrap.wrap(head, width=42 * axes.shape[1])), fontsize="medium")
