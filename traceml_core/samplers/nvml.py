"""NVIDIA's management library: loaded when a sampler first needs it, silently absent where there is no driver."""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from traceml_core.loggers.error_log import get_error_logger, report_failure

# The driver's device files: on Linux, in WSL, on Jetson. Without one there is no need to load anything.
DRIVER_FILES = (Path("/dev/nvidiactl"), Path("/dev/dxg"), Path("/dev/nvgpu"))
logger = get_error_logger("Nvml")


class Gpu(msgspec.Struct, frozen=True):
    """One GPU, or MIG instance, that this process can see; `index` is the one by which torch counts it."""

    index: int
    uuid: str
    name: str
    handle: Any


@functools.cache
def library() -> Any | None:
    """The initialised `pynvml` module; None where there is no NVIDIA driver, or it does not answer."""
    if not any(file.exists() for file in DRIVER_FILES):
        return None
    import pynvml

    try:
        pynvml.nvmlInit()
    except (pynvml.NVMLError_LibraryNotFound, pynvml.NVMLError_DriverNotLoaded):
        return None
    except pynvml.NVMLError as error:
        report_failure(logger, "asking the NVIDIA driver", error)
        return None
    return pynvml


def visible_gpus(nvml: Any, variable: str | None) -> list[Gpu]:
    """The GPUs that `variable` (CUDA_VISIBLE_DEVICES; null where it is not set) leaves, in its order.

    As CUDA does, everything after the first entry that names no GPU is left out. An entry is a number (in the order of
    the bus, as NVML counts), the beginning of a UUID, or the UUID of a MIG instance.
    """
    every = _all_gpus(nvml)
    if variable is None:
        return every
    found: list[Gpu] = []
    for entry in (part.strip() for part in variable.split(",")):
        gpu = _mig_instance(nvml, entry) if entry.startswith("MIG-") else _named(every, entry)
        if gpu is None:
            break
        found.append(msgspec.structs.replace(gpu, index=len(found)))
    return found


def gpus_of_this_process(nvml: Any) -> list[Gpu]:
    """The GPUs that this process can see."""
    return visible_gpus(nvml, os.environ.get("CUDA_VISIBLE_DEVICES"))


def process_memory_bytes(nvml: Any, gpus: Sequence[Gpu], pid: int) -> int | None:
    """Memory of a process on these GPUs; null where the driver does not tell (in containers it often does not)."""
    total: int | None = None
    for gpu in gpus:
        try:
            processes = nvml.nvmlDeviceGetComputeRunningProcesses(gpu.handle)
        except nvml.NVMLError:
            return None
        for process in processes:
            if process.pid == pid and process.usedGpuMemory is not None:
                total = (total or 0) + int(process.usedGpuMemory)
    return total


def _all_gpus(nvml: Any) -> list[Gpu]:
    gpus = []
    for number in range(nvml.nvmlDeviceGetCount()):
        try:
            gpus.append(_described(nvml, number, nvml.nvmlDeviceGetHandleByIndex(number)))
        except nvml.NVMLError:
            continue  # one that is lost, or not ours to look at
    return gpus


def _named(gpus: Sequence[Gpu], entry: str) -> Gpu | None:
    if entry.isdigit():
        return next((gpu for gpu in gpus if gpu.index == int(entry)), None)
    matches = [gpu for gpu in gpus if entry and gpu.uuid.startswith(entry)]
    return matches[0] if len(matches) == 1 else None


def _mig_instance(nvml: Any, uuid: str) -> Gpu | None:
    try:
        return _described(nvml, 0, nvml.nvmlDeviceGetHandleByUUID(uuid))
    except nvml.NVMLError:
        return None


def _described(nvml: Any, index: int, handle: Any) -> Gpu:
    return Gpu(index, _text(nvml.nvmlDeviceGetUUID(handle)), _text(nvml.nvmlDeviceGetName(handle)), handle)


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
