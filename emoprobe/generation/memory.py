"""Out of memory, said in words: what to lower, and that what was done is kept."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

from emoprobe.errors import RunError


@contextlib.contextmanager
def out_of_memory(flag: str = "--batch-size") -> Iterator[None]:
    """Turn torch's out-of-memory errors, of a GPU or of the CPU's allocator, into a RunError."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as problem:
        raise _told(flag) from problem
    except RuntimeError as problem:
        if "can't allocate memory" in str(problem) or "out of memory" in str(problem):
            raise _told(flag) from problem
        raise


def _told(flag: str) -> RunError:
    return RunError(f"out of memory: lower {flag}; finished batches are kept")
