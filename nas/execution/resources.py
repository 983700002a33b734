"""What each child may use of a machine: cores, GPUs, TPU chips; and pinning to cores.

Nothing here imports ray or starts JAX.
"""

import dataclasses
import fcntl
import os
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, TextIO

import tyro

from nas.options.command_line import quantity
from nas.options.quantity import format_duration, parse_duration
from nas.runs.journal import MAX_PENDING
from trainers.runtime import private_folder

TPU_CHIPS = (1, 2, 4, 8)  # what Ray can hand out of one TPU host

# Two children on one GPU at half a GPU each must leave room for the CUDA contexts.
_GPU_MEMORY_SHARE = 0.9


# A GPU machine takes minutes to start, and a cloud that has none to give takes longer.
_PATIENCE_SECONDS = 1800.0


class ResourceError(ValueError):
    """Workers that cannot be had. One line: rule, value and remedy."""


class NotThereError(ResourceError):
    """Workers that could be had if there were more machines."""


def _parse_limit(text: str) -> float | None:
    return None if text == "none" else parse_duration(text)


Seconds = Annotated[
    float | None,
    quantity("--child-time-limit", "TIME", _parse_limit, format_duration),
]


@dataclasses.dataclass(frozen=True, kw_only=True)
class WorkerOptions:
    """Who trains the children: a worker for each accelerator, or else for each core."""

    workers: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """Children trained at the same time; as many as the machine holds by default."""
    cpus_per_child: Annotated[int, tyro.conf.arg(metavar="N")] = 1
    """Cores for each worker."""
    devices_per_child: Annotated[float | None, tyro.conf.arg(metavar="X")] = None
    """Accelerators for each worker. GPUs: a whole number, or a fraction to share one.
    TPU chips: 1, 2, 4 or 8. 0 stays on the cores. By default one where Ray sees any."""
    child_time_limit: Seconds = None
    """Stop a child that takes longer than this, such as 90s or 10min, and count it as
    infeasible. By default a child may take as long as it likes."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class WorkerResources:
    """What Ray reserves for one child."""

    cpus: int
    gpus: float
    tpus: int

    @property
    def ray_resources(self) -> dict[str, float]:
        """The request in Ray's names."""
        request: dict[str, float] = {"CPU": self.cpus}
        if self.gpus:
            request["GPU"] = self.gpus
        if self.tpus:
            request["TPU"] = self.tpus
        return request

    @property
    def ray_options(self) -> dict[str, Any]:
        """The request as an actor's options."""
        options: dict[str, Any] = {"num_cpus": self.cpus, "num_gpus": self.gpus}
        return options | ({"resources": {"TPU": self.tpus}} if self.tpus else {})

    @property
    def num_devices(self) -> int:
        """Devices over which a child's batch is split."""
        return max(1, int(self.gpus), self.tpus)

    @property
    def platforms(self) -> tuple[str, ...]:
        """The JAX platforms that a worker may find itself on."""
        if self.gpus:
            return ("gpu", "cuda", "rocm")
        return ("tpu",) if self.tpus else ("cpu",)

    @property
    def environment(self) -> dict[str, str]:
        """Environment variables that a worker sets before JAX starts."""
        if 0 < self.gpus < 1:
            share = _GPU_MEMORY_SHARE * self.gpus
            return {"XLA_PYTHON_CLIENT_MEM_FRACTION": f"{share:.3f}"}
        return {}

    def __str__(self) -> str:
        """For the screen."""
        parts = [f"{self.cpus} core{'s' if self.cpus > 1 else ''}"]
        if self.gpus:
            parts.append(f"{self.gpus:g} GPU{'s' if self.gpus > 1 else ''}")
        if self.tpus:
            parts.append(f"{self.tpus} TPU chip{'s' if self.tpus > 1 else ''}")
        return " and ".join(parts)


def check(options: WorkerOptions) -> None:
    """Refuses what no machine can hand out.

    Raises:
      ResourceError: for such amounts.
    """
    if options.workers is not None and not 1 <= options.workers <= MAX_PENDING:
        raise ResourceError(
            f"--workers must be at least 1 and at most {MAX_PENDING:,}, got"
            f" {options.workers}"
        )
    if options.cpus_per_child < 1:
        raise ResourceError(
            f"--cpus-per-child must be at least 1, got {options.cpus_per_child}"
        )
    devices = options.devices_per_child or 0.0
    if not (0.0 <= devices <= 1.0 or (devices > 1.0 and devices.is_integer())):
        raise ResourceError(
            "--devices-per-child must be a whole number, or a fraction below 1 to "
            f"share a GPU, got {devices:g}"
        )


def resolve(options: WorkerOptions, available: Mapping[str, float]) -> WorkerResources:
    """Returns what each child gets of `available`, which is in Ray's names.

    Devices are GPUs where there are any, else TPU chips.

    Raises:
      ResourceError: for amounts that cannot be handed out there.
      NotThereError: if there are no devices at all.
    """
    check(options)
    num_gpus, num_tpus = available.get("GPU", 0.0), available.get("TPU", 0.0)
    devices = options.devices_per_child
    if devices is None:
        devices = 1.0 if num_gpus >= 1 or num_tpus >= 1 else 0.0
    gpus, tpus = 0.0, 0
    if devices and num_gpus >= 1:
        gpus = devices
    elif devices and num_tpus >= 1:
        if devices not in TPU_CHIPS:
            raise ResourceError(
                f"--devices-per-child must be one of {', '.join(map(str, TPU_CHIPS))} "
                f"on TPUs, the parts into which a host divides, got {devices:g}"
            )
        tpus = int(devices)
    elif devices:
        raise NotThereError(
            f"--devices-per-child {devices:g} needs GPUs or TPUs, and Ray sees none; "
            "drop it, or start Ray with --num-gpus where it does not find them"
        )
    return WorkerResources(cpus=options.cpus_per_child, gpus=gpus, tpus=tpus)


def check_batch(batch_size: int, worker_resources: WorkerResources) -> None:
    """Refuses a batch that cannot be split evenly over a child's devices.

    Raises:
      ResourceError: if it cannot.
    """
    number = worker_resources.num_devices
    if batch_size % number:
        raise ResourceError(
            f"--batch-size must be a multiple of the {number} devices of a child, got "
            f"{batch_size}; try {batch_size + number - batch_size % number}"
        )


def count_workers(
    options: WorkerOptions,
    worker_resources: WorkerResources,
    available: Mapping[str, float],
) -> int:
    """Returns how many children fit into `available` (in Ray's names) at once.

    Raises:
      NotThereError: if that is none, or fewer than were asked for.
    """
    request = worker_resources.ray_resources
    fitting = min(
        int(available.get(name, 0.0) / amount + 1e-9)
        for name, amount in request.items()
    )
    wanted = options.workers or max(1, fitting)
    if fitting < wanted:
        held = ", ".join(f"{available.get(name, 0.0):g} {name}" for name in request)
        several = "s" if wanted > 1 else ""
        raise NotThereError(
            f"{wanted} worker{several} of {worker_resources} each must fit into what"
            f" there is ({held}); ask for fewer with --workers, or for less with"
            " --cpus-per-child and the like"
        )
    return wanted


def on_cluster() -> bool:
    """Whether RAY_ADDRESS names a cluster; else Ray runs on this machine."""
    return (os.environ.get("RAY_ADDRESS") or "local") != "local"


def wait_for_workers(
    options: WorkerOptions,
    available_now: Callable[[], Mapping[str, float]],
    say: Callable[[str], None],
) -> tuple[WorkerResources, int]:
    """Returns what each worker gets, and how many to use.

    The machines of a cluster join when they are up. Where it is known how many workers
    are wanted, the first of them is waited for, and the others are used as they come.

    Args:
      options: what was asked for.
      available_now: tells what there is, in Ray's names.
      say: tells people what is waited for.

    Raises:
      ResourceError: if there is no room, in time, for a worker.
    """
    wanted = options.workers
    if wanted is None or not on_cluster():
        each = resolve(options, available_now())
        return each, count_workers(options, each, available_now())
    first = dataclasses.replace(options, workers=1)
    deadline = time.monotonic() + _PATIENCE_SECONDS
    is_announced = False
    while True:
        try:
            each = resolve(first, available_now())
            count_workers(first, each, available_now())
        except NotThereError:
            if time.monotonic() >= deadline:
                raise
        else:
            return each, wanted
        if not is_announced:
            say("for a machine with room for a worker to join")
            is_announced = True
        time.sleep(1.0)


def local_cores() -> int:
    """Returns the number of cores that this process may use."""
    return len(_allowed_cores())


@dataclasses.dataclass(frozen=True)
class CoreClaim:
    """Cores that this process holds for as long as it lives."""

    cores: tuple[int, ...]
    _locks: tuple[TextIO, ...]


def claim_cores(number: int, folder: Path | None = None) -> CoreClaim | None:
    """Pins this process to `number` cores that no other claimant holds.

    A claim is a lock on a file of the core's in `folder` (by default one of the
    user's own in the temporary directory). The system lets go of it when the process
    dies, however it dies. To be called before JAX starts, whose threads inherit the
    pinning and are as many as the cores.

    Returns None, and pins nothing, where the system has no pinning, or where fewer
    cores are free.
    """
    if not hasattr(os, "sched_setaffinity"):
        return None
    folder = folder or _slots_folder()
    locks: dict[int, TextIO] = {}
    for core in sorted(_allowed_cores()):
        file = (folder / f"core-{core}").open("a")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            continue
        locks[core] = file
        if len(locks) == number:
            os.sched_setaffinity(0, locks)
            return CoreClaim(tuple(locks), tuple(locks.values()))
    for file in locks.values():
        file.close()
    return None


def _allowed_cores() -> set[int]:
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))


def _slots_folder() -> Path:
    """The user's own folder of core slots.

    Raises:
      PermissionError: if someone else made a folder of that name, or can write to it.
    """
    folder = Path(tempfile.gettempdir()) / f"mbconv-nas-cores-{os.getuid()}"
    private_folder.prepare(folder)
    return folder
