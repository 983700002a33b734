"""How processes that train on a CPU get their memory.

A training step allocates its feature maps and frees them again. By default glibc then
hands the memory back to the system, which clears it page by page for the next step.
Kept by the process, and in huge pages, it makes children on a CPU train in 0.8 to 0.85
of the time (and PyTorch's in 0.73 to 0.88). Other systems' allocators ignore it.
"""

import os

_VARIABLE = "GLIBC_TUNABLES"
_TUNABLES = {
    "arena_max": 1,  # only the main arena's memory comes in huge pages
    "hugetlb": 1,  # asks for them where the system grants them on request
    "mmap_threshold": 32 << 20,  # bytes; the highest there is
    "top_pad": 64 << 20,
    "trim_threshold": 1 << 40,
}


def environment() -> dict[str, str]:
    """Returns variables for a new process; what is set in this one's goes before."""
    ours = ":".join(f"glibc.malloc.{name}={value}" for name, value in _TUNABLES.items())
    given = os.environ.get(_VARIABLE)
    return {_VARIABLE: f"{ours}:{given}" if given else ours}
