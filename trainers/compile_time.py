"""How long JAX spends tracing, lowering and compiling, from its own events."""

import contextlib
import dataclasses
from collections.abc import Iterator

import jax

_EVENTS = (
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
