"""NVIDIA's management library: loaded when a sampler first needs it, silently absent where there is no driver."""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from typing import Any


@functools.cache
def library() -> Any | None:
    """The initialised `pynvml` module, or None where there is no NVIDIA driver."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None
    return pynvml


def visible_devices() -> list[tuple[int, Any]]:
    """Index (as torch counts them) and handle of every GPU that this process can see."""
    nvml = library()
    if nvml is None:
        return []
    handles = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())]
    uuids = [_text(nvml.nvmlDeviceGetUUID(handle)) for handle in handles]
    visible = visible_positions(os.environ.get("CUDA_VISIBLE_DEVICES"), uuids)
    return [(index, handles[position]) for index, position in enumerate(visible)]


def visible_positions(variable: str | None, uuids: Sequence[str]) -> list[int]:
    """Which GPUs CUDA_VISIBLE_DEVICES leaves, in its order: by index or by (the beginning of) a UUID.

    As CUDA does, everything after the first entry that names no GPU is left out. A MIG instance names no GPU here.
    """
    if variable is None:
        return list(range(len(uuids)))
    positions: list[int] = []
    for entry in (part.strip() for part in variable.split(",")):
        if entry.isdigit() and int(entry) < len(uuids):
            positions.append(int(entry))
            continue
        matches = [index for index, uuid in enumerate(uuids) if entry and uuid.startswith(entry)]
        if len(matches) != 1:
            break
        positions.append(matches[0])
    return positions


def process_memory_bytes(pid: int) -> int | None:
    """GPU memory of a process over all visible GPUs; null where the driver does not tell (containers often do not)."""
    nvml = library()
    if nvml is None:
        return None
    total: int | None = None
    for _, handle in visible_devices():
        for process in nvml.nvmlDeviceGetComputeRunningProcesses(handle):
            if process.pid == pid and process.usedGpuMemory is not None:
                total = (total or 0) + int(process.usedGpuMemory)
    return total


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
