"""JAX's compilation: how long it takes, and where its results are kept."""

import contextlib
import dataclasses
import functools
import hashlib
import os
import platform
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import platformdirs

DEFAULT_CACHE_BYTES = 2 << 30
CACHE_VARIABLE = "MBCONV_NAS_CACHE"

_CPU_OPTIONS = {
    "xla_cpu_use_fusion_emitters": False,
    "xla_cpu_prefer_vector_width": 512,  # bits; where the CPU has them
    "xla_cpu_parallel_codegen_split_count": 1,  # a tenth quicker on a single core
}

LOAD_EVENT = "/mbconv_nas/load_traced_program_duration"  # see `trainers.programs`
_EVENTS = (
    LOAD_EVENT,
    "/jax/core/compile/jaxpr_trace_duration",
    "/jax/core/compile/jaxpr_to_mlir_module_duration",
    "/jax/core/compile/backend_compile_duration",
)


@dataclasses.dataclass
class CompileTime:
    """Seconds so far; loading from the persistent cache counts as compiling."""

    seconds: float = 0.0

    def add(self, event: str, duration_secs: float, **_: str | int) -> None:
        """Listens to `jax.monitoring`."""
        if event in _EVENTS:
            self.seconds += duration_secs


@contextlib.contextmanager
def measured() -> Iterator[CompileTime]:
    """Counts compilation within the block, in this process."""
    spent = CompileTime()
    jax.monitoring.register_event_duration_secs_listener(spent.add)
    try:
        yield spent
    finally:
        jax.monitoring.unregister_event_duration_listener(spent.add)


@functools.cache
def options() -> dict[str, bool | int]:
    """Returns XLA's options for many small programs on this process's backend.

    On a CPU the older code generator compiles a network's units in three quarters of
    the time, and they run as fast; whole vector registers make them a third faster
    than XLA's choice of half of one. A version of XLA without these is left at its
    defaults.
    """
    if jax.default_backend() != "cpu":
        return {}
    try:
        jax.jit(jnp.negative, compiler_options=_CPU_OPTIONS)(0)
    except jax.errors.JaxRuntimeError:
        return {}
    return _CPU_OPTIONS


def default_cache_folder() -> Path:
    """Returns the folder named by MBCONV_NAS_CACHE, or one in the user's cache."""
    named = os.environ.get(CACHE_VARIABLE)
    return Path(named) if named else platformdirs.user_cache_path("mbconv-nas") / "xla"


def use_cache(folder: Path, *, max_bytes: int = DEFAULT_CACHE_BYTES) -> bool:
    """Keeps compiled programs in `folder`, for other processes and later runs.

    Several processes may use one folder at once. JAX ignores an entry that it cannot
    read, and compiles again. Programs for a CPU go to a folder of their own for each
    kind of CPU, since a shared home may serve several. The oldest entries beyond
    `max_bytes` are removed now; JAX's own limit would list the folder at every entry.

    Returns:
      Whether the folder can be used; without one everything works, only slower.
    """
    own = folder / _processor()
    try:
        own.mkdir(parents=True, exist_ok=True)
        _prune(own, max_bytes)
    except OSError:
        return False
    jax.config.update("jax_compilation_cache_dir", str(own))
    # Most units compile in less than the second that is the default threshold.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    return True


def _processor() -> str:
    """Names the kind of CPU: compiled code uses every instruction it offers."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    features = [line for line in lines if line.startswith(("flags", "Features"))][:1]
    described = "\n".join([platform.machine(), platform.processor(), *features])
    return hashlib.sha256(described.encode()).hexdigest()[:12]


def _prune(folder: Path, max_bytes: int) -> None:
    entries = [
        (entry.stat().st_mtime, entry.stat().st_size, entry.path)
        for entry in os.scandir(folder)
        if entry.is_file(follow_symlinks=False)
    ]
    total = sum(size for _, size, _ in entries)
    for _, size, path in sorted(entries):
        if total <= max_bytes:
            break
        Path(path).unlink(missing_ok=True)  # another process may be pruning too
        total -= size
