"""The GPU sampler: utilisation, memory, temperature and power of the GPUs that the job can see, once a node."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from traceml_core.core.rows import Row
from traceml_core.samplers.base import SamplerContext
from traceml_core.samplers.nvml import library, visible_devices


class GpuRow(Row, frozen=True):
    """One GPU. What its driver does not tell is null; `throttle_reasons` is NVML's bit mask."""

    table: ClassVar[str] = "gpu"

    at_ns: int
    gpu_index: int
    uuid: str
    name: str
    gpu_utilization_percent: float | None
    gpu_memory_used_bytes: int | None
    gpu_memory_total_bytes: int | None
    gpu_temperature_c: float | None
    gpu_temperature_limit_c: float | None
    gpu_power_w: float | None
    gpu_power_limit_w: float | None
    throttle_reasons: int | None


class GpuSampler:
    """Looks at every visible GPU, on one rank a node."""

    def __init__(self, context: SamplerContext) -> None:
        """Find the GPUs once."""
        first = context.identity.local_rank == 0
        self._devices = visible_devices() if first else []

    def sample(self) -> Sequence[Row]:
        """A row a GPU; none without a driver."""
        nvml = library() if self._devices else None
        return [] if nvml is None else [_row(nvml, index, handle) for index, handle in self._devices]


def _row(nvml: Any, index: int, handle: Any) -> GpuRow:
    def ask(question: Callable[[], Any]) -> Any:
        try:
            return question()
        except nvml.NVMLError:
            return None  # this driver or GPU does not tell

    memory = ask(lambda: nvml.nvmlDeviceGetMemoryInfo(handle))
    utilization = ask(lambda: nvml.nvmlDeviceGetUtilizationRates(handle))
    power = ask(lambda: nvml.nvmlDeviceGetPowerUsage(handle))
    power_limit = ask(lambda: nvml.nvmlDeviceGetEnforcedPowerLimit(handle))
    limit = ask(lambda: nvml.nvmlDeviceGetTemperatureThreshold(handle, nvml.NVML_TEMPERATURE_THRESHOLD_SLOWDOWN))
    temperature = ask(lambda: nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU))
    return GpuRow(
        time.time_ns(),
        index,
        _text(nvml.nvmlDeviceGetUUID(handle)),
        _text(nvml.nvmlDeviceGetName(handle)),
        None if utilization is None else float(utilization.gpu),
        None if memory is None else int(memory.used),
        None if memory is None else int(memory.total),
        None if temperature is None else float(temperature),
        None if limit is None else float(limit),
        None if power is None else power / 1000,
        None if power_limit is None else power_limit / 1000,
        ask(lambda: int(nvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle))),
    )


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
