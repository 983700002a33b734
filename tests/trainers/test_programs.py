"""Programs that are traced once, across processes."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from trainers.runtime import compilation
from trainers.runtime.programs import Program

PROCESS = """
import pathlib, sys
import jax, jax.numpy as jnp
from trainers.runtime import compilation
from trainers.runtime.programs import Program
assert compilation.use_cache(pathlib.Path(sys.argv[1]))

def function(x, factors):
    print("traced")
    return x * factors["by"], None, x.sum()

double = Program(function, "scaled")
for _ in range(2):
    product, total = double(jnp.arange(3.0), {"by": jnp.float32(2)})
print(product.tolist(), float(total))
"""
RESULT = "[0.0, 2.0, 4.0] 3.0"


def lines(folder):
    done = subprocess.run(
        [sys.executable, "-c", PROCESS, str(folder)],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.splitlines()


def test_another_process_does_not_trace_again(tmp_path):
    assert lines(tmp_path) == ["traced", RESULT]
    assert lines(tmp_path) == [RESULT]


@pytest.mark.parametrize("damage", [lambda b: b[:-9], lambda b: b[:40] + b"?" + b[41:]])
def test_a_damaged_file_is_replaced(tmp_path, damage):
    lines(tmp_path)
    (kept,) = tmp_path.rglob("*.exported")
    whole = kept.read_bytes()
    kept.write_bytes(damage(whole))
    assert lines(tmp_path) == ["traced", RESULT]
    assert lines(tmp_path) == [RESULT]
    assert not list(tmp_path.rglob("tmp*"))


def test_arrays_of_numpy_are_taken_with_a_cache_too(tmp_path):
    cache = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", str(tmp_path))
    try:
        (product,) = Program(lambda x: x * 2, "of NumPy")(np.arange(3.0, dtype="f4"))
    finally:
        jax.config.update("jax_compilation_cache_dir", cache)
    assert list(tmp_path.glob("*.exported"))
    np.testing.assert_array_equal(product, [0.0, 2.0, 4.0])


def test_shapes_absent_arguments_and_dtypes_are_told_apart():
    program = Program(lambda x, y: x if y is None else x + y, "sum")
    for x in (jnp.ones(2), jnp.ones(3), jnp.ones(3, jnp.bfloat16)):
        for y, want in ((None, 1.0), (jnp.asarray(2, x.dtype), 3.0)):
            (got,) = program(x, y)
            assert got.dtype == x.dtype
            np.testing.assert_array_equal(got.astype(float), np.full(x.shape, want))


def test_donated_arguments_are_overwritten():
    program = Program(lambda x, y: (x + y, x.sum()), "add", donated=[1])
    x, y = jnp.ones(64), jnp.ones(64)
    program(x, y)
    assert y.is_deleted()
    assert not x.is_deleted()


def test_loading_counts_as_compiling():
    with compilation.measured() as spent:
        jax.monitoring.record_event_duration_secs(compilation.LOAD_EVENT, 1.5)
    assert spent.seconds == 1.5
