"""The GPU sampler on a made-up driver: which GPUs are the job's, and what the driver tells of them."""

from __future__ import annotations

import os
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from traceml_core.core.identity import RankIdentity
from traceml_core.loggers.error_log import FAILURES, close_error_log
from traceml_core.samplers import nvml as nvml_module
from traceml_core.samplers.base import SamplerContext
from traceml_core.samplers.gpu import GpuSampler
from traceml_core.samplers.nvml import library, process_memory_bytes, visible_gpus

GIB = 2**30


class Driver:
    """NVML with some GPUs, each a dict of what it tells; what a GPU does not tell raises, as NVML does."""

    NVML_TEMPERATURE_GPU = 0
    NVML_TEMPERATURE_THRESHOLD_SLOWDOWN = 1

    class NVMLError(Exception):
        pass

    def __init__(self, *gpus: dict[str, Any], mig: dict[str, dict[str, Any]] | None = None):
        self.gpus = gpus
        self.mig = mig or {}

    def nvmlDeviceGetCount(self):
        return len(self.gpus)

    def nvmlDeviceGetHandleByIndex(self, number):
        if self.gpus[number].get("is_lost"):
            raise self.NVMLError("GPU is lost")
        return self.gpus[number]

    def nvmlDeviceGetHandleByUUID(self, uuid):
        if uuid not in self.mig:
            raise self.NVMLError("not found")
        return self.mig[uuid]

    def _told(self, gpu, name):
        if gpu.get(name) is None:
            raise self.NVMLError("not supported")
        return gpu[name]

    def nvmlDeviceGetUUID(self, gpu):
        return self._told(gpu, "uuid")

    def nvmlDeviceGetName(self, gpu):
        return self._told(gpu, "name")

    def nvmlDeviceGetMemoryInfo(self, gpu):
        used, total = self._told(gpu, "memory")
        return SimpleNamespace(used=used, total=total)

    def nvmlDeviceGetUtilizationRates(self, gpu):
        return SimpleNamespace(gpu=self._told(gpu, "utilization"))

    def nvmlDeviceGetTemperature(self, gpu, sensor):
        return self._told(gpu, "temperature")

    def nvmlDeviceGetTemperatureThreshold(self, gpu, threshold):
        return self._told(gpu, "temperature_limit")

    def nvmlDeviceGetPowerUsage(self, gpu):
        return self._told(gpu, "power_mw")

    def nvmlDeviceGetEnforcedPowerLimit(self, gpu):
        return self._told(gpu, "power_limit_mw")

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, gpu):
        return self._told(gpu, "throttle_reasons")

    def nvmlDeviceGetComputeRunningProcesses(self, gpu):
        return [SimpleNamespace(pid=pid, usedGpuMemory=used) for pid, used in self._told(gpu, "processes")]


def make_gpu(uuid: str = "GPU-aaaa1111", **told: Any) -> dict[str, Any]:
    values = {
        "uuid": uuid,
        "name": "NVIDIA H100",
        "memory": (10 * GIB, 80 * GIB),
        "utilization": 97,
        "temperature": 61,
        "temperature_limit": 90,
        "power_mw": 350_500,
        "power_limit_mw": 700_000,
        "throttle_reasons": 4,
        "processes": [(7, GIB)],
    }
    return {**values, **told}


FOUR = [make_gpu(f"GPU-{letter * 4}0000") for letter in "abcd"]


@pytest.mark.parametrize(
    ("variable", "expected"),
    [
        (None, "abcd"),
        ("2,0", "ca"),
        ("3", "d"),
        ("GPU-bbbb", "b"),
        ("GPU-bbbb0000,GPU-dddd0000", "bd"),
        (" 1 , 2 ", "bc"),
        ("", ""),
        ("-1", ""),
        ("NoDevFiles", ""),
        ("1,9,2", "b"),
        ("0,-1,1", "a"),
        ("GPU-", ""),
    ],
)
def test_only_the_gpus_that_the_job_can_see_are_found_in_its_order(variable, expected):
    found = visible_gpus(Driver(*FOUR), variable)
    assert [gpu.uuid[4] for gpu in found] == list(expected)
    assert [gpu.index for gpu in found] == list(range(len(expected)))


def test_a_mig_instance_is_found_by_its_uuid():
    driver = Driver(*FOUR, mig={"MIG-1234": make_gpu("MIG-1234", name="NVIDIA H100 MIG 1g.10gb")})
    found = visible_gpus(driver, "MIG-1234,MIG-gone")
    assert [(gpu.uuid, gpu.name) for gpu in found] == [("MIG-1234", "NVIDIA H100 MIG 1g.10gb")]


def test_a_lost_gpu_does_not_hide_the_others():
    driver = Driver(FOUR[0], make_gpu(is_lost=True), FOUR[2])
    assert [gpu.uuid[4] for gpu in visible_gpus(driver, None)] == ["a", "c"]
    assert [gpu.uuid[4] for gpu in visible_gpus(driver, "2")] == ["c"]


def test_names_as_bytes_are_read_too():
    (gpu,) = visible_gpus(Driver(make_gpu(b"GPU-aaaa", name=b"Tesla V100")), None)
    assert (gpu.uuid, gpu.name) == ("GPU-aaaa", "Tesla V100")


def make_context(local_rank: int = 0) -> SamplerContext:
    return SamplerContext(
        identity=RankIdentity(local_rank=local_rank),
        clock=None,
        steps=None,
        watched_pid=os.getpid(),
        device=lambda: "cuda",
        unmeasured=frozenset,
        aggregator_pid=lambda: None,
    )


@pytest.fixture(autouse=True)
def every_gpu_is_visible(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def test_a_gpu_gives_a_row_with_its_figures_in_the_units_of_their_names():
    (row,) = GpuSampler(make_context(), lambda: Driver(make_gpu())).sample()
    assert (row.gpu_index, row.uuid, row.name) == (0, "GPU-aaaa1111", "NVIDIA H100")
    assert (row.gpu_utilization_percent, row.throttle_reasons) == (97.0, 4)
    assert (row.gpu_memory_used_bytes, row.gpu_memory_total_bytes) == (10 * GIB, 80 * GIB)
    assert (row.gpu_temperature_c, row.gpu_temperature_limit_c) == (61.0, 90.0)
    assert (row.gpu_power_w, row.gpu_power_limit_w) == (350.5, 700.0)


def test_what_a_gpu_does_not_tell_is_null():
    silent = dict.fromkeys(make_gpu()) | {"uuid": "GPU-aaaa", "name": "Old"}
    (row,) = GpuSampler(make_context(), lambda: Driver(silent)).sample()
    told = {name: getattr(row, name) for name in row.__struct_fields__}
    assert {name for name, value in told.items() if value is not None} == {"at_ns", "gpu_index", "uuid", "name"}


def test_a_gpu_that_is_lost_in_the_middle_of_a_run_is_null_from_then_on():
    gpu = make_gpu()
    sampler = GpuSampler(make_context(), lambda: Driver(gpu))
    assert sampler.sample()[0].gpu_utilization_percent == 97.0
    gpu.update(dict.fromkeys(gpu))
    assert sampler.sample()[0].gpu_utilization_percent is None


def test_gpus_are_looked_at_by_one_rank_of_a_node_alone():
    assert GpuSampler(make_context(local_rank=1), lambda: pytest.fail("asked for the driver")).sample() == []


def test_a_rank_that_was_bound_to_a_gpu_of_its_own_looks_at_it(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    (row,) = GpuSampler(make_context(local_rank=1), lambda: Driver(*FOUR)).sample()
    assert row.uuid[4] == "b"


def test_ranks_that_share_their_gpus_leave_them_to_the_first(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
    assert GpuSampler(make_context(local_rank=1), lambda: pytest.fail("asked for the driver")).sample() == []


def test_without_a_driver_there_are_no_rows():
    assert GpuSampler(make_context(), lambda: None).sample() == []


def test_memory_of_a_process_is_added_up_over_its_gpus():
    driver = Driver(make_gpu(processes=[(7, GIB), (8, 5 * GIB)]), make_gpu(processes=[(7, 2 * GIB)]))
    gpus = visible_gpus(driver, None)
    assert process_memory_bytes(driver, gpus, 7) == 3 * GIB
    assert process_memory_bytes(driver, gpus, 99) is None  # in a container the driver knows other numbers


@pytest.mark.parametrize("processes", [None, [(7, None)]])
def test_memory_that_the_driver_does_not_tell_is_null(processes):
    driver = Driver(make_gpu(processes=processes))
    assert process_memory_bytes(driver, visible_gpus(driver, None), 7) is None


def test_on_a_machine_without_a_driver_the_library_is_not_even_loaded():
    code = """
import sys
from pathlib import Path
from traceml_core.samplers import nvml
nvml.DRIVER_FILES = (Path("/no/such/file"),)
assert nvml.library() is None
assert "pynvml" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, env=_importable())


@pytest.mark.parametrize(
    ("code", "counted"), [("LIBRARY_NOT_FOUND", 0), ("DRIVER_NOT_LOADED", 0), ("LIB_RM_VERSION_MISMATCH", 1)]
)
def test_no_driver_is_no_failure_and_one_that_does_not_work_is_one(tmp_path, monkeypatch, code, counted):
    pynvml = pytest.importorskip("pynvml")
    device_file = tmp_path / "nvidiactl"
    device_file.touch()

    def refuse():
        raise pynvml.NVMLError(getattr(pynvml, f"NVML_ERROR_{code}"))

    monkeypatch.setattr(nvml_module, "DRIVER_FILES", (device_file,))
    monkeypatch.setattr(pynvml, "nvmlInit", refuse)
    close_error_log()
    library.cache_clear()
    assert library() is None
    assert library() is None
    assert FAILURES["Nvml"] == counted
    library.cache_clear()
    close_error_log()


def _importable() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}


@pytest.mark.gpu
def test_a_real_gpu_tells_what_torch_knows_of_it():
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    rows = GpuSampler(make_context()).sample()
    assert [row.name for row in rows] == [torch.cuda.get_device_name(index) for index in range(len(rows))]
    assert all(row.gpu_memory_total_bytes > GIB for row in rows)
