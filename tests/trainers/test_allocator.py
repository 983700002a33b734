import os
import platform
import subprocess
import sys

import pytest

from trainers.runtime import allocator

# Page faults of a process that fills and frees eight arrays of 8 MB, ten times over.
_PROGRAM = """
import resource, numpy
def faults(): return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def step(): arrays = [numpy.ones(1 << 20) for _ in range(8)]
step()
before = faults()
for _ in range(10): step()
print(faults() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's own settings")
def test_memory_stays_with_the_process():
    def faults(**settings: str) -> int:
        run = subprocess.run(
            [sys.executable, "-c", _PROGRAM],
            env=os.environ | settings,
            capture_output=True,
            check=True,
            text=True,
        )
        return int(run.stdout)

    assert faults(**allocator.environment()) < 100 < faults(GLIBC_TUNABLES="")


def test_the_users_settings_have_the_last_word(monkeypatch):
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.arena_max=4")
    tunables = allocator.environment()["GLIBC_TUNABLES"].split(":")
    assert tunables[-1] == "glibc.malloc.arena_max=4"
    assert "glibc.malloc.hugetlb=1" in tunables
