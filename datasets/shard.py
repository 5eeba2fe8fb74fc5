"""Reading one shard: checked once when opened, then its chunks come straight from the file, each verified once."""

import json
import math
import os
from io import FileIO
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from neuralop_kit.datasets.description import Description
from neuralop_kit.datasets.fletcher import CHECKSUM_BYTES, matches
from neuralop_kit.datasets.layout import FORMAT, FORMAT_VERSION, chunk_shape
from neuralop_kit.datasets.positioned import OpenFile, read_pieces
from neuralop_kit.datasets.safety import attribute, open_safely
from neuralop_kit.datasets.statistics import Array, FieldStatistics
from neuralop_kit.solvers.atomic import explained
from neuralop_kit.solvers.errors import DataError, NonFiniteError

VERIFY_BYTES = 2**24
CACHE_BYTES = 2**17


class Shard:
    """An HDF5 file written by :func:`neuralop_kit.datasets.layout.shard_image`, open for reading.

    HDF5 is asked once where the chunks are; after that samples are read at these places without it. That is faster than
    its filter pipeline, takes no global lock, and survives a fork. The first read of a sample verifies its checksum and
    that it is finite; later reads by the same object trust the page cache.

    Args:
        path: the file.

    Attributes:
        offsets: where each function begins in the file, ``(field, function)``.
        verified: whether a function has been looked at, ``(function,)``.

    Raises:
        DataError: the file is damaged, incomplete, unsafe or not of our layout, at opening or at the first read.
        NonFiniteError: a sample contains NaN or infinity, at its first read.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        with open_safely(self.path) as file:
            self._check_format(file)
            self.description = Description.from_json(_json(file, "description"))
            self.generator: dict[str, Any] = _json(file, "generator")
            self.statistics = self._statistics(file)
            self.num_samples: int = attribute(file, "n_trajectories", int)
            self.offsets = np.stack([self._chunk_offsets(file, name) for name in self.description.field_names])
            self._stamp = _stamp(self.path.stat())
        self._file: FileIO | None = None
        self.verified = np.zeros(self.num_functions, dtype=bool)

    @property
    def num_functions(self) -> int:
        """Samples, times the frames of each; frame ``k`` of sample ``i`` is function ``i * num_frames + k``."""
        return self.num_samples * self.description.num_frames

    def close(self) -> None:
        """Close the file; the next read opens it again."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def read(self, samples: NDArray[np.intp], rows: NDArray[np.intp], out: list[tuple[int, Array]]) -> None:
        """Read ``samples``, or frames of trajectories, into ``rows`` of arrays.

        Args:
            samples: indices into the functions of this shard.
            rows: index of each of them into the first axis of the arrays.
            out: per array, the number of its first field and the array, ``(batch, channel, *space)``, contiguous.
        """
        new = ~self.verified[samples]
        with explained(DataError, f"to read {self.path}"):
            checksums = self._read_chunks(samples, rows, out)
        if new.any():
            for (_, array), found in zip(out, checksums, strict=True):
                self._verify(array, rows[new], found[new], samples[new])
            self.verified[samples] = True

    def verify(self) -> None:
        """Read every sample once, in bounded memory; raises what :meth:`read` raises."""
        shape = (len(self.description.field_names), *self.description.shape)
        step = max(1, VERIFY_BYTES // (self.description.field_bytes * shape[0]))
        for start in range(0, self.num_functions, step):
            samples = np.arange(start, min(start + step, self.num_functions))
            array = np.empty((len(samples), *shape), dtype=self.description.dtype)
            self.read(samples, np.arange(len(samples)), [(0, array)])

    def keep_in(self, offsets: NDArray[np.int64], verified: NDArray[np.bool_]) -> None:
        """From now on remember in these parts of larger arrays where functions begin, and which have been verified.

        Args:
            offsets: ``(field, function)``.
            verified: ``(function,)``.
        """
        offsets[...], verified[...] = self.offsets, self.verified
        self.offsets, self.verified = offsets, verified

    def opened(self) -> OpenFile:
        """The open file; a :class:`DataError` if it is not the one that was looked at."""
        if self._file is None:
            file = self.path.open("rb", buffering=0)
            if _stamp(os.fstat(file.fileno())) != self._stamp:
                file.close()
                raise DataError(f"expected {self.path} as it was, got a changed file; open the dataset again")
            self._file = file
        return OpenFile(self._file.fileno(), self.path)

    def _read_chunks(
        self, samples: NDArray[np.intp], rows: NDArray[np.intp], out: list[tuple[int, Array]]
    ) -> list[NDArray[np.uint8]]:
        """Fill rows of the arrays; returns the checksums ``(sample, channel, 4)`` of each that the file has."""
        size = self.description.field_bytes
        places, targets, marks, checksums = [], [], [], []
        for first, array in out:
            channels = array.shape[1]
            places.append(self.offsets[first : first + channels, samples].T.ravel())
            content = array.reshape(-1).view(np.uint8).data
            starts = (rows[:, None] * (channels * size) + np.arange(channels) * size).ravel().tolist()
            targets += [content[start : start + size] for start in starts]
            checksums.append(np.empty((len(samples), channels, CHECKSUM_BYTES), dtype=np.uint8))
            behind = checksums[-1].reshape(-1).data
            marks += [behind[k : k + CHECKSUM_BYTES] for k in range(0, len(behind), CHECKSUM_BYTES)]
        read_pieces({0: self.opened()}, np.concatenate(places), targets, behind=marks)
        return checksums

    def _verify(
        self, array: Array, rows: NDArray[np.intp], checksums: NDArray[np.uint8], samples: NDArray[np.intp]
    ) -> None:
        """Raise unless rows of an array match their checksums and are finite; in steps that stay in the cache."""
        step = max(1, CACHE_BYTES // array[0].nbytes)
        for start in range(0, len(rows), step):
            part = slice(start, start + step)
            values = array[rows[part]].reshape(-1, array.shape[1], math.prod(array.shape[2:]))
            intact = matches(values.view(np.uint8), checksums[part].view("<u4")[..., 0]).all(axis=1)
            if not intact.all():
                raise DataError(
                    f"expected intact samples, got wrong checksums of samples {samples[part][~intact].tolist()} in "
                    f"{self.path}; delete the file and generate or fetch it again"
                )
            finite = np.isfinite(values).all(axis=(1, 2))
            if not finite.all():
                raise NonFiniteError(
                    f"expected finite numbers, got NaN or infinity in samples {samples[part][~finite].tolist()} of "
                    f"{self.path}; delete the file and generate or fetch it again"
                )

    def _check_format(self, file: h5py.File) -> None:
        if "format" not in file.attrs or attribute(file, "format", bytes) != FORMAT.encode():
            raise DataError(
                f"expected a file in the layout {FORMAT!r}, got {self.path} with {sorted(file)[:8]} and without that "
                "mark; write it with neuralop_kit.datasets"
            )
        version = attribute(file, "format_version", int)
        if version != FORMAT_VERSION:
            raise DataError(
                f"expected format version {FORMAT_VERSION}, got {version} in {self.path}; update this package"
            )
        if "complete" not in file.attrs or not attribute(file, "complete", bool):
            raise DataError(f"expected a complete file, got {self.path} from an interrupted writer; generate it again")

    def _statistics(self, file: h5py.File) -> dict[str, FieldStatistics]:
        content = _json(file, "statistics")
        if set(content) != set(self.description.field_names):
            raise DataError(
                f"expected statistics of {self.description.field_names}, got {sorted(content)} in {self.path}"
            )
        return {name: FieldStatistics.from_json(content[name]) for name in self.description.field_names}

    def _chunk_offsets(self, file: h5py.File, name: str) -> NDArray[np.int64]:
        """Where the chunk of each function begins; after this, nothing else in the file is believed."""
        group = file.get("t0_fields")
        data = group.get(name) if isinstance(group, h5py.Group) else None
        shape = (self.num_samples, *self.description.sample_shape)
        if not isinstance(data, h5py.Dataset) or data.shape != shape or data.dtype != np.dtype(self.description.dtype):
            found = f"{data.dtype} {data.shape}" if isinstance(data, h5py.Dataset) else "none"
            raise DataError(
                f"expected dataset t0_fields/{name} of type {self.description.dtype} and shape {shape} in {self.path}, "
                f"got {found}; the file was changed"
            )
        creation = data.id.get_create_plist()
        filters = [creation.get_filter(i)[0] for i in range(creation.get_nfilters())]
        if data.chunks != chunk_shape(self.description) or filters != [h5py.h5z.FILTER_FLETCHER32]:
            raise DataError(
                f"expected t0_fields/{name} of {self.path} in chunks of one sample with a Fletcher checksum, got "
                f"chunks {data.chunks} and filters {filters}; the file was rewritten by another tool"
            )
        offsets = np.full(self.num_functions, -1, dtype=np.int64)
        frames = self.description.num_frames
        size, end = self.description.field_bytes + CHECKSUM_BYTES, self.path.stat().st_size

        def note(chunk: Any) -> None:
            sound = chunk.size == size and chunk.filter_mask == 0 and 0 < chunk.byte_offset <= end - size
            frame = chunk.chunk_offset[1] if self.description.times else 0
            if sound and 0 <= chunk.chunk_offset[0] < self.num_samples and 0 <= frame < frames:
                offsets[chunk.chunk_offset[0] * frames + frame] = chunk.byte_offset

        data.id.chunk_iter(note)
        if (offsets < 0).any():
            missing = np.flatnonzero(offsets < 0).tolist()
            raise DataError(
                f"expected every sample of {name} in {self.path}, got none for {missing[:8]}; the file was cut"
            )
        return offsets


def _stamp(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_ino, status.st_size, status.st_mtime_ns


def _json(file: h5py.File, name: str) -> Any:
    try:
        content = json.loads(attribute(file, name, bytes))
    except (ValueError, RecursionError) as error:
        raise DataError(f"expected JSON in attribute {name!r} of {file.filename}, got {error}") from error
    if not isinstance(content, dict):
        raise DataError(
            f"expected a JSON object in attribute {name!r} of {file.filename}, got {type(content).__name__}"
        )
    return content
