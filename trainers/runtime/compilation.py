"""JAX's compilation: how long it takes, and where its results are kept."""

import contextlib
import dataclasses
import functools
import hashlib
import os
import platform
from collections.abc import Generator
from pathlib import Path

import jax
import jax.numpy as jnp
import platformdirs
from jax._src import compilation_cache
from jax._src.compilation_cache_interface import CacheInterface

from trainers.runtime import entries, private_folder

DEFAULT_CACHE_BYTES = 2 << 30
CACHE_VARIABLE = "MBCONV_NAS_CACHE"

_CPU_OPTIONS = {
    "xla_cpu_use_fusion_emitters": False,
    "xla_cpu_prefer_vector_width": 512,  # bits; where the CPU has them
    "xla_cpu_parallel_codegen_split_count": 1,  # a tenth quicker on a single core
}

LOAD_EVENT = (
    "/mbconv_nas/load_traced_program_duration"  # see `trainers.runtime.programs`
)
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
def measured() -> Generator[CompileTime]:
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

    Several processes may use one folder at once. An entry that is damaged, or was
    written under another name, is compiled again and replaced. Programs for a CPU go
    to a folder of their own for each kind of CPU, since a shared home may serve
    several. The oldest entries beyond `max_bytes` are removed now.

    Returns:
      Whether the folder can be used; without one everything works, only slower.
    """
    if refusal(folder) is not None:
        return False
    own = _own_folder(folder)
    try:
        entries.prune(own, max_bytes)
    except OSError:
        return False
    # JAX's own files do not know their names, may be written by half, and stay for
    # ever once damaged. What it keeps them with is not among its settings.
    compilation_cache.reset_cache()
    compilation_cache.get_file_cache = _entries_for_jax
    jax.config.update("jax_compilation_cache_dir", str(own))
    # Most units compile in less than the second that is the default threshold.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    return True


def refusal(folder: Path) -> str | None:
    """Returns why compiled programs are not kept in `folder`, in one line.

    Whoever can write to it decides what this process runs, so it has to be this
    user's alone. None if it can be used; it is made if it is missing.
    """
    try:
        own = _own_folder(folder)
        for part in (own.parent, own):
            private_folder.prepare(part)
        private_folder.check_above(own)
    except OSError as error:
        why = error if error.strerror is None else f"{folder}: {error.strerror}"
        return f"{why}; or name another folder with {CACHE_VARIABLE}"
    return None


class _Entries(CacheInterface):
    """JAX's programs, as `trainers.runtime.entries` keeps files."""

    def __init__(self, folder: str) -> None:
        self._path = Path(folder)

    def get(self, key: str) -> bytes | None:  # pyright: ignore[reportIncompatibleMethodOverride]  # JAX annotates no result
        """Returns the program, if it is there and whole."""
        return entries.read(self._path / f"{key}-cache")

    def put(self, key: str, value: bytes) -> None:
        """Keeps a program that was not found."""
        entries.write(self._path / f"{key}-cache", value)


def _entries_for_jax(folder: str) -> tuple[CacheInterface, str]:
    return _Entries(folder), folder


def _own_folder(folder: Path) -> Path:
    return Path(os.path.realpath(folder)) / _processor()


def _processor() -> str:
    """Names the kind of CPU: compiled code uses every instruction it offers."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    features = [line for line in lines if line.startswith(("flags", "Features"))][:1]
    described = "\n".join([platform.machine(), platform.processor(), *features])
    return hashlib.sha256(described.encode()).hexdigest()[:12]
