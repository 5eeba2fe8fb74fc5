"""An append-only file of equal records that a killed writer leaves readable up to its last whole record.

HDF5 promises nothing about a file whose writer was killed, and a disk that fills up inside it can take the process
down. So samples go here first, one write and one checksum each, and become an HDF5 file only when a shard is whole.
"""

import hashlib
import os
import time
from pathlib import Path
from types import TracebackType

from neuralop_kit.solvers.atomic import reached
from neuralop_kit.solvers.errors import DataError

DIGEST_BYTES = hashlib.sha256().digest_size


class Journal:
    """Records of ``record_bytes`` each, in a file that only one process writes at a time.

        identity (32 bytes)  |  record 0, sha256  |  record 1, sha256  |  ...

    Opening keeps the whole records of an earlier, killed writer with the same ``identity`` and cuts off what follows
    them: a torn record, or one whose checksum is wrong. Records of another identity are all dropped.

    Args:
        path: the file, made if it is not there.
        identity: 32 bytes that say what the records are; a different identity means different data.
        record_bytes: size of each record.
        patience: seconds to wait for another writer to let go; a worker whose parent was killed ends within this time.

    Raises:
        DataError: another process writes this journal.
        OSError: as the system reports it.
    """

    def __init__(self, path: Path, *, identity: bytes, record_bytes: int, patience: float = 10.0) -> None:
        self.path = path
        self.record_bytes = record_bytes
        self._identity = identity
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            self._lock(patience)
            self.num_records = self._recover()
        except BaseException:
            self.close()
            raise

    def append(self, record: bytes) -> None:
        """Add one record: one that is in the file when this returns outlives the process."""
        if len(record) != self.record_bytes:
            raise ValueError(f"expected a record of {self.record_bytes} bytes, got {len(record)}")
        position = self._position(self.num_records)
        try:
            self._write(record, position)
            reached("record half written")
            self._write(self._digest(self.num_records, record), position + self.record_bytes)
        except OSError:
            # Give back what a full disk took, so that others may still finish.
            os.ftruncate(self._descriptor, position)
            raise
        self.num_records += 1
        reached("record written")

    def read(self, index: int) -> bytes:
        """One record, checked again."""
        content = os.pread(self._descriptor, self.record_bytes + DIGEST_BYTES, self._position(index))
        record = content[: self.record_bytes]
        if content[self.record_bytes :] != self._digest(index, record):
            raise DataError(f"expected record {index} of {self.path} intact, got another checksum; delete the file")
        return record

    def remove(self) -> None:
        """Delete the file; the journal is then closed."""
        self.path.unlink(missing_ok=True)
        self.close()

    def close(self) -> None:
        """Let others write."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> "Journal":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _lock(self, patience: float) -> None:
        import fcntl  # here, so that reading data works where this module does not exist

        deadline = time.monotonic() + patience
        while True:
            try:
                return fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as reason:
                if time.monotonic() > deadline:
                    raise DataError(
                        f"expected to be the only writer of {self.path}, got a lock held by another process "
                        f"({reason.strerror}); wait for it or end it"
                    ) from reason
                time.sleep(0.02)

    def _recover(self) -> int:
        """Number of whole records; the file ends behind the last of them."""
        if os.pread(self._descriptor, len(self._identity), 0) != self._identity:
            os.ftruncate(self._descriptor, 0)
            self._write(self._identity, 0)
            return 0
        present = (os.fstat(self._descriptor).st_size - len(self._identity)) // (self.record_bytes + DIGEST_BYTES)
        whole = 0
        while whole < present and self._is_whole(whole):
            whole += 1
        os.ftruncate(self._descriptor, self._position(whole))
        return whole

    def _is_whole(self, index: int) -> bool:
        try:
            self.read(index)
        except DataError:
            return False
        return True

    def _position(self, index: int) -> int:
        return len(self._identity) + index * (self.record_bytes + DIGEST_BYTES)

    def _digest(self, index: int, record: bytes) -> bytes:
        # The index is part of it, so that a block of the disk that reappears elsewhere does not pass.
        return hashlib.sha256(record + index.to_bytes(8, "little")).digest()

    def _write(self, content: bytes, position: int) -> None:
        view = memoryview(content)
        while view:
            written = os.pwrite(self._descriptor, view, position)
            view, position = view[written:], position + written
