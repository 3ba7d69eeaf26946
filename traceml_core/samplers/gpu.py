"""The GPU sampler: utilisation, memory, temperature and power of the GPUs that the job can see, each by one rank."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from traceml_core.core.rows import Row
from traceml_core.samplers.base import SamplerContext
from traceml_core.samplers.nvml import Gpu, gpus_of_this_process, library


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
    """Looks at every visible GPU, on the first rank of a node; on the others where each was left GPUs of its own."""

    def __init__(self, context: SamplerContext, find_library: Callable[[], Any | None] = library) -> None:
        """Find the GPUs once."""
        self._unix_ns = context.unix_ns
        self._nvml = find_library() if _must_look(context.identity.local_rank) else None
        self._gpus = [] if self._nvml is None else gpus_of_this_process(self._nvml)

    def sample(self) -> Sequence[Row]:
        """A row a GPU; none without a driver."""
        return [gpu_row(self._nvml, gpu, self._unix_ns()) for gpu in self._gpus]


def _must_look(local_rank: int) -> bool:
    """Whether this rank was left GPUs that the node's first cannot see: too few for it and all ranks before it."""
    variable = os.environ.get("CUDA_VISIBLE_DEVICES")
    return local_rank == 0 or (variable is not None and len(variable.split(",")) <= local_rank)


def gpu_row(nvml: Any, gpu: Gpu, at_ns: int) -> GpuRow:
    """What the driver tells of one GPU now, at `at_ns`."""
    handle = gpu.handle

    def ask(question: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return question(handle, *arguments)
        except nvml.NVMLError:
            return None  # this driver or GPU does not tell

    memory = ask(nvml.nvmlDeviceGetMemoryInfo)
    utilization = ask(nvml.nvmlDeviceGetUtilizationRates)
    temperature = ask(nvml.nvmlDeviceGetTemperature, nvml.NVML_TEMPERATURE_GPU)
    temperature_limit = ask(nvml.nvmlDeviceGetTemperatureThreshold, nvml.NVML_TEMPERATURE_THRESHOLD_SLOWDOWN)
    power_mw = ask(nvml.nvmlDeviceGetPowerUsage)
    power_limit_mw = ask(nvml.nvmlDeviceGetEnforcedPowerLimit)
    return GpuRow(
        at_ns,
        gpu.index,
        gpu.uuid,
        gpu.name,
        None if utilization is None else float(utilization.gpu),
        None if memory is None else int(memory.used),
        None if memory is None else int(memory.total),
        None if temperature is None else float(temperature),
        None if temperature_limit is None else float(temperature_limit),
        None if power_mw is None else power_mw / 1000,
        None if power_limit_mw is None else power_limit_mw / 1000,
        ask(nvml.nvmlDeviceGetCurrentClocksThrottleReasons),
    )
