"""Copy a file inside of the kernel: without moving data where the file system or a file server can share it."""

from __future__ import annotations

import errno
import fcntl
import os
from functools import partial

_FICLONE = 0x40049409
_CHUNK_BYTES = 2**30
_NOT_HERE = {errno.EXDEV, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL, errno.EPERM, errno.ENOTTY}


def copy(source: int, target: int) -> None:
    """Copy all of one open file to another, empty one. What is shared is copied when one of them is written to."""
    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError:
        pass
    else:
        return
    for move in (_copy_range, _send):
        try:
            moved = sum(iter(partial(move, source, target), 0))
        except OSError as error:
            if error.errno not in _NOT_HERE or move is _send:
                raise
        else:
            if moved:  # some file systems answer 0 for what they cannot copy
                return


def _copy_range(source: int, target: int) -> int:
    return os.copy_file_range(source, target, _CHUNK_BYTES)


def _send(source: int, target: int) -> int:
    return os.sendfile(target, source, None, _CHUNK_BYTES)
