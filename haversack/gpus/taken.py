"""Give a job GPUs of its own (`haversack run --gpus N`), or let it wait until enough are free.

A GPU is free if no other job holds its lock and no other program uses it (`Gpu.is_idle`). A job gets all GPUs that it
asks for at once, so two jobs never wait for each other, and in the order in which jobs began to wait. Other users' jobs
have other locks: only what nvidia-smi shows of them counts, so two users who start at the same moment may get the same
GPU. A job without `--gpus` takes none and sees all.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence

from haversack.errors import InputError
from haversack.gpus import locks
from haversack.gpus.locks import GpuHolder
from haversack.gpus.nvidia_smi import VISIBLE, Gpu, present, visible
from haversack.gpus.queue import QueuePlace

_ORDER = "CUDA_DEVICE_ORDER"
_INTERVAL = 1.0  # seconds between two looks of a job that waits


class TakenGpus:
    """GPUs that a job holds until `release`, or until its process and all that inherit `locks` have ended.

    Attributes:
        gpus: the GPUs.
        locks: the file descriptors of their locks, for the kernels to inherit.
        variables: the environment variables that show a process these GPUs only.
    """

    def __init__(self, gpus: Sequence[Gpu], locks: Sequence[int], *, by_uuid: bool) -> None:
        """Args: `gpus`, their `locks`, and whether `variables` name them by UUID rather than by index."""
        self.gpus = tuple(gpus)
        self.locks = tuple(locks)
        if by_uuid:
            self.variables = {VISIBLE: ",".join(gpu.uuid for gpu in gpus)}
        else:
            # Some programs read numbers only. nvidia-smi's order is not CUDA's own.
            self.variables = {VISIBLE: ",".join(str(gpu.index) for gpu in gpus), _ORDER: "PCI_BUS_ID"}

    def __str__(self) -> str:
        return ", ".join(f"{gpu} ({gpu.name})" for gpu in self.gpus)

    def release(self) -> None:
        """Close the locks. Does nothing the second time."""
        descriptors, self.locks = self.locks, ()
        for descriptor in descriptors:
            os.close(descriptor)


def check(count: int, environment: Mapping[str, str] = os.environ) -> None:
    """Raise `InputError` if a job can never get `count` GPUs, and `JobError` if nvidia-smi fails."""
    if count != 0:
        _candidates(count, environment)


def take(count: int, job: str, notify: Callable[[str], None], environment: Mapping[str, str] = os.environ) -> TakenGpus:
    """Take `count` GPUs for a job; waits until so many are free and no job has waited longer for some of the same.

    Raises what `check` raises, `OSError`, and `KeyboardInterrupt` while it waits.

    Args:
        count: how many; 0 hides all from the job.
        job: the job's name, for those that wait for its GPUs.
        notify: called with one sentence that says who holds the GPUs, before the job waits.
        environment: its `CUDA_VISIBLE_DEVICES` limits which are taken.
    """
    if count == 0:
        return TakenGpus([], [], by_uuid=True)
    candidates = _candidates(count, environment)
    with QueuePlace(job, candidates) as place:
        is_notified = False
        while True:
            with locks.locked(locks.folder() / "choose.lock"):
                taken = None if place.before() else _take_free(count, job, candidates)
            if taken is not None:
                return taken
            if not is_notified:
                notify(_waiting(count, candidates, place.before()))
                is_notified = True
            time.sleep(_INTERVAL)


def _candidates(count: int, environment: Mapping[str, str]) -> list[Gpu]:
    """Return the GPUs from which `count` may be taken. Raises what `check` raises."""
    if count < 0:
        raise InputError(f"A job cannot have {count} GPUs.", "Give --gpus a number of at least 0.")
    gpus = present()
    candidates = visible(gpus, environment.get(VISIBLE))
    if len(candidates) < count:
        has = f"has {len(gpus)}" if gpus else "has none that nvidia-smi shows"
        limit = f", and {VISIBLE} allows {len(candidates)}" if len(candidates) < len(gpus) else ""
        remedy = "Ask for fewer GPUs." if candidates else "Run without --gpus; haversack doctor shows which GPUs work."
        raise InputError(f"--gpus {count} is more than there are: this machine {has}{limit}.", remedy)
    if count > 1 and sum(not gpu.is_mig for gpu in candidates) < count:
        raise InputError("A process can use one MIG device only.", "Ask for one: --gpus 1")
    return candidates


def _take_free(count: int, job: str, candidates: Sequence[Gpu]) -> TakenGpus | None:
    """Lock `count` of `candidates` that are free and return them; None, with nothing locked, if these are fewer."""
    held = {gpu: lock for gpu in candidates if (lock := locks.lock(gpu)) is not None}
    kept: set[Gpu] = set()
    try:
        if len(held) < count:
            return None
        now = present()
        chosen = _free(count, list(held), now)
        for gpu in chosen:
            locks.sign(held[gpu], GpuHolder(job, os.getpid()))
        kept.update(chosen)
        is_divided = any(gpu.is_mig for gpu in now)  # then an index is ambiguous
        return TakenGpus(chosen, [held[gpu] for gpu in chosen], by_uuid=is_divided) if chosen else None
    finally:
        for gpu in held.keys() - kept:
            os.close(held[gpu])


def _free(count: int, locked: Sequence[Gpu], now: Sequence[Gpu]) -> list[Gpu]:
    """Return the first `count` of `locked` that nobody uses `now`; [] if these are fewer."""
    idle = {gpu.uuid for gpu in now if gpu.is_idle and not (count > 1 and gpu.is_mig)}
    free = [gpu for gpu in locked if gpu.uuid in idle]
    return free[:count] if len(free) >= count else []


def _waiting(count: int, candidates: Sequence[Gpu], older: Sequence[str]) -> str:
    """Return the sentence that says what a job waits for. `older` are the jobs that have waited longer."""
    wanted = {gpu.uuid for gpu in candidates}
    reasons = [why for gpu in present() if gpu.uuid in wanted and (why := _why_busy(gpu))]
    if older:
        reasons.append(f"{', '.join(older)} {'has' if len(older) == 1 else 'have'} waited longer")
    what = "a free GPU" if count == 1 else f"{count} free GPUs"
    return f"Waiting for {what}: {'; '.join(reasons) or 'one was taken a moment ago'}."


def _why_busy(gpu: Gpu) -> str:
    """Return who uses a GPU, as a clause; "" if it is free."""
    if held := locks.holder(gpu):
        return f"{gpu} is held by {held}"
    if gpu.processes:
        return f"{gpu} is used by process {', '.join(gpu.processes)}"
    return "" if gpu.is_idle else f"{(gpu.used or 0) / 10**9:.1f} GB of {gpu} are in use"
