"""The driver's side of a run: it starts the recording actor as `fit` begins, and prints the report after it."""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec
import ray
from ray.exceptions import GetTimeoutError, RayActorError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from traceml_core.core.run_folder import Ending, script_name
from traceml_core.core.settings import ReportStyle, Settings
from traceml_core.loggers.error_log import fail_open, get_error_logger
from traceml_core.runtime.console import report_style, run_was_opened, say, show, shown, terminal
from traceml_core.runtime.own_frames import hide_own_frames
from traceml_ray.aggregator_actor import AggregatorActor, read_if_there
from traceml_ray.fit_ending import ending_of

START_LIMIT_S = 15.0
STOP_LIMIT_S = 8.0
logger = get_error_logger("RayDriver")


class FitRun:
    """One `fit` that is recorded: a `with` block around it, which holds the actor that owns the aggregator."""

    def __init__(self, aggregator: Any, worker_settings: dict[str, Any], style: ReportStyle) -> None:
        """Hold an actor that is being started: `fit` does not wait for it, and the first word of it comes meanwhile.

        Raises:
            RuntimeError: no thread can be started.
        """
        self.aggregator = aggregator
        self.worker_settings = worker_settings
        self._style = style
        self._folder: Path | None = None
        self._opening = threading.Thread(target=self._tell_opening, name="traceml-opening", daemon=True)
        self._opening.start()

    def __enter__(self) -> FitRun:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is not None:
            hide_own_frames(error)
        self.close(error)

    def close(self, error: BaseException | None = None) -> None:
        """End the run, with what `fit` raised, and print its card to stderr. Never raises, and waits 8 s at most."""
        until_s = time.monotonic() + STOP_LIMIT_S
        with fail_open(logger, "ending the run"):
            self._opening.join(STOP_LIMIT_S)
            if self._folder is not None:
                ending = ending_of(error, self.worker_settings["record_errors"])
                summary = self._stop(self._folder, ending, until_s)
                if summary is not None and self._style != "off":
                    self._print_card(summary, self._folder)
        with fail_open(logger, "ending the recording actor"):
            ray.kill(self.aggregator)

    def _tell_opening(self) -> None:
        """Say where the run is recorded, once that is known, or why it is not; on a thread of its own."""
        try:
            folder, notice = ray.get(self.aggregator.opened.remote(), timeout=START_LIMIT_S)
        except Exception as error:  # noqa: BLE001 - an edge: whatever keeps TraceML from starting must not keep training
            say(f"nothing is recorded: {_reason(error)}")
            with fail_open(logger, "ending the recording actor"):
                ray.kill(self.aggregator)  # one that comes too late must not record what was said to be lost
            return
        run_was_opened()
        if self._style != "off":
            say(notice or f"recording to {shown(Path(folder))}")
        self._folder = Path(folder)

    def _stop(self, folder: Path, ending: Ending, until_s: float) -> bytes | None:
        """Have the actor end the run; the summary, or None where there is none and that was said."""
        told = f"`traceml report {shown(folder)}`"
        answer = self.aggregator.stop.remote(ending)
        with fail_open(logger, "loading the card"):
            import traceml_core.reporting.card  # noqa: F401 - while the report is made
        try:
            summary: bytes | None = ray.get(answer, timeout=max(until_s - time.monotonic(), 0.0))
        except RayActorError:
            say(f"the recording ended before training did, because its actor died; {told} tells of it up to then")
            return read_if_there(folder / "final_summary.json")
        except GetTimeoutError:
            summary = None
        if summary is None:
            say(f"no report was made in time; {told} makes it")
        return summary

    def _print_card(self, summary: bytes, folder: Path) -> None:
        from traceml_core.reporting.card import render_card
        from traceml_core.reporting.summary import decode_summary

        look, decoded = terminal(), decode_summary(summary)
        show(render_card(decoded, columns=look.columns, color=look.color, style=self._style, folder=str(folder)))


def open_fit_run(settings: Settings, scaling: Any) -> FitRun | None:
    """Begin to record a `fit` with this ScalingConfig; None where recording is off, or cannot be begun and says so.

    Ray is started with its defaults where it is not running, as `fit` itself would. With `num_workers=0` the loop runs
    in this process, where the callbacks in it open runs as they do without Ray.
    """
    if not settings.enabled or sys.platform == "win32" or (scaling is not None and scaling.num_workers == 0):
        return None
    try:
        if not ray.is_initialized():
            ray.init()
        style = report_style(settings.report)
        plain = msgspec.to_builtins(_for_elsewhere(settings))
        return FitRun(_make_actor(plain, _needs_several_nodes(scaling)), plain, style)
    except Exception as error:  # noqa: BLE001 - an edge: whatever keeps TraceML from starting must not keep training
        say(f"nothing is recorded: {_reason(error)}")
        return None


def _make_actor(settings: dict[str, Any], several_nodes: bool) -> Any:
    """The actor, on the driver's node: that is where a person looks for the run folder."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
    options = {"num_cpus": 0, "scheduling_strategy": here}
    return ray.remote(AggregatorActor).options(**options).remote(settings, several_nodes)


def _for_elsewhere(settings: Settings) -> Settings:
    """The settings with what only the driver knows: the script's name, and where its relative paths begin."""
    return msgspec.structs.replace(
        settings,
        name=settings.name or script_name(),
        runs_dir=str(Path(settings.runs_dir).expanduser().absolute()),
        run_dir=None if settings.run_dir is None else str(Path(settings.run_dir).expanduser().absolute()),
    )


def _needs_several_nodes(scaling: Any) -> bool:
    """Whether workers may be on other nodes: there are some, or this one is too small, so that Ray will add some."""
    nodes: list[dict[str, Any]] = ray.nodes()
    if len([node for node in nodes if node["Alive"]]) > 1:
        return True
    here: dict[str, float] = ray.cluster_resources()
    wanted = {} if scaling is None else scaling.total_resources
    return any(amount > here.get(resource, 0.0) for resource, amount in wanted.items())


def _reason(error: Exception) -> str:
    cause = error.cause if isinstance(error, RayTaskError) else error
    if isinstance(cause, GetTimeoutError):
        return f"the recording actor did not start within {START_LIMIT_S:g} s"
    return str(cause).splitlines()[0] if str(cause) else type(cause).__name__
