"""One small Ray for all tests of a module, and trainers in it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

# A crowded machine may start Ray slowly; that it is full of others is no reason to kill workers.
RAYS_OWN = {
    "RAY_raylet_start_wait_time_s": "120",
    "RAY_memory_monitor_refresh_ms": "0",
    "RAY_local_fs_capacity_threshold": "1",
}


@pytest.fixture(scope="module")
def ray_of_two_cpus() -> Iterator[Any]:
    """Ray without its dashboard, as if on two CPUs; its workers find the loops of the tests."""
    pytest.importorskip("ray.train.torch")
    import ray

    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("PYTHONPATH", os.pathsep.join((str(Path(__file__).parent), os.environ["PYTHONPATH"])))
        for name, value in RAYS_OWN.items():
            environment.setenv(name, value)
        ray.init(num_cpus=2, include_dashboard=False, object_store_memory=80 * 2**20, log_to_driver=False)
        yield ray
        ray.shutdown()


@pytest.fixture
def trainer(ray_of_two_cpus: Any, tmp_path: Path, runs_dir: Path) -> Callable[..., Any]:
    """Makes a TraceMLTorchTrainer for a loop; it records to `runs_dir`."""
    from ray.train import FailureConfig, RunConfig, ScalingConfig

    from traceml_ray import TraceMLTorchTrainer

    def make(loop: Any, workers: int = 1, max_failures: int = 0, settings: Any = None, **config: Any) -> Any:
        return TraceMLTorchTrainer(
            loop,
            train_loop_config={"folder": str(tmp_path), **config},
            scaling_config=ScalingConfig(num_workers=workers),
            run_config=RunConfig(
                storage_path=str(tmp_path / "storage"), failure_config=FailureConfig(max_failures=max_failures)
            ),
            traceml={"name": "test", "runs_dir": str(runs_dir), **(settings or {})},
        )

    return make


@pytest.fixture
def aggregators(runs_dir: Path) -> Callable[[], list[psutil.Process]]:
    """The processes that hold the history of a run in `runs_dir` open."""

    def find() -> list[psutil.Process]:
        found = []
        for process in psutil.process_iter():
            try:
                held = any(file.path.startswith(str(runs_dir)) for file in process.open_files())
            except psutil.Error:
                continue
            if held:
                found.append(process)
        return found

    return find
