"""Memory that a program will want again a moment later is kept, and not returned to the system."""

from __future__ import annotations

import ctypes

# Of mallopt(3), glibc's <malloc.h>.
_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8


def keep_freed_memory() -> bool:
    """Call before jax is imported. Says whether the C library allows it: glibc does, on Linux.

    XLA on CPU asks for the scratch memory of a program anew every time it runs, and the C library, which maps such large
    pieces for each request, has the system clear them page by page: a fifth of the time of a training step. With one arena
    that neither maps nor shrinks, the pages of the last run serve the next. Resident memory stays at its high-water mark.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    return all([mallopt(_ARENA_MAX, 1), mallopt(_MMAP_MAX, 0), mallopt(_TRIM_THRESHOLD, -1)])
