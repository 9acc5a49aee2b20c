"""Memory that a program will want again a moment later is kept, and not returned to the system."""

from __future__ import annotations

import ctypes

# Of mallopt(3), glibc's <malloc.h>.
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4


def keep_freed_memory() -> None:
    """Call before jax looks for devices. Where the C library is not glibc, nothing changes.

    XLA on CPU asks for the scratch memory of a program anew every time it runs, and the C library, which maps such large
    pieces for each request, has the system clear them page by page: a fifth of the time of a training step. A heap that
    neither maps nor shrinks serves the next run with the pages of the last. Only the main thread's heap can grow so
    large, therefore programs run on the thread that calls them; asynchronous dispatch hides nothing on a CPU whose cores
    the program uses all.
    """
    if _glibc('mallopt', _MMAP_MAX, 0) and _glibc('mallopt', _TRIM_THRESHOLD, -1):
        import jax  # here, so that a command's --help need not wait for it

        jax.config.update('jax_cpu_enable_async_dispatch', False)


def return_freed_memory() -> None:
    """Once, after something large that will not come again, such as compiling."""
    _glibc('malloc_trim', 0)


def _glibc(function: str, *args: int) -> int:
    """What a function of the C library says, or 0 where it has no such function."""
    try:
        return getattr(ctypes.CDLL(None), function)(*args)
    except (OSError, TypeError, AttributeError):  # TypeError: Windows has no library of the process itself
        return 0
