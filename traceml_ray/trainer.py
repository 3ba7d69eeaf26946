"""The Ray Train trainer whose `fit` is a run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ray.train import RunConfig
from ray.train.torch import TorchTrainer

from traceml_core.core.settings import SettingsArguments, resolve_settings
from traceml_ray.fit_run import open_fit_run
from traceml_ray.worker_loop import recorded_loop


class TraceMLTorchTrainer(TorchTrainer):
    """A `ray.train.torch.TorchTrainer` whose every `fit` ends with one report for all workers.

    ```python
    trainer = TraceMLTorchTrainer(train_loop, scaling_config=ScalingConfig(num_workers=2), traceml={"name": "digits"})
    result = trainer.fit()
    ```

    It takes what TorchTrainer takes. In the workers' loop, the callbacks of `traceml_lightning` and `traceml_hf` and
    `traceml_core.sdk.trace_run` join the run; without one of them the run knows its workers, and none of their steps.
    """

    def __init__(
        self,
        train_loop_per_worker: Callable[..., Any],
        *,
        traceml: SettingsArguments | None = None,
        **arguments: Any,
    ) -> None:
        """Build the trainer. `traceml` holds settings of `docs/settings.md`; all else goes to TorchTrainer.

        Raises:
            ValueError: a setting is unknown or not accepted; the message names it and what is accepted.
        """
        self._settings = resolve_settings(**(traceml or {}))
        self._loop = train_loop_per_worker
        # A RunConfig draws its own name, under which Ray keeps what was trained: every `fit` has this one.
        self._arguments = {**arguments, "run_config": arguments.get("run_config") or RunConfig()}
        super().__init__(train_loop_per_worker, **self._arguments)

    def fit(self) -> Any:
        """Train as TorchTrainer does, and print the report. Returns and raises what that does."""
        run = open_fit_run(self._settings, self._arguments.get("scaling_config"))
        if run is None:
            return super().fit()
        with run:
            loop = recorded_loop(self._loop, run.worker_settings, run.aggregator)
            return TorchTrainer(loop, **self._arguments).fit()
