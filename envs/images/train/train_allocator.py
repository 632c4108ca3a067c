"""Memory for tensors on CPU: blocks that a step frees are kept for the next one."""

import ctypes

MMAP_THRESHOLD, TRIM_THRESHOLD = -3, -1  # of mallopt, in malloc.h
KEPT = 1 << 30


def keep_blocks() -> None:
    """Lets glibc keep up to 1 GiB of freed blocks instead of returning each large one to the system.

    By default every large tensor is mapped anew, and its pages are cleared and faulted in at each step. Where the C
    library has no mallopt, nothing changes. No value that is computed depends on it.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(MMAP_THRESHOLD, KEPT)
        mallopt(TRIM_THRESHOLD, KEPT)
