"""The driver's side of a run: it starts the recording actor before `fit`, and prints the report after it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import msgspec
import ray
from ray.exceptions import GetTimeoutError, RayActorError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from traceml_core.core.run_folder import script_name
from traceml_core.core.settings import ReportStyle, Settings
from traceml_core.loggers.error_log import fail_open, get_error_logger
from traceml_core.runtime.console import report_style, run_was_opened, say, show, shown, terminal
from traceml_ray.aggregator_actor import AggregatorActor, read_if_there

START_LIMIT_S = 15.0
STOP_LIMIT_S = 8.0
logger = get_error_logger("RayDriver")


class FitRun:
    """One `fit` that is recorded: it holds the actor that owns the aggregator."""

    def __init__(self, aggregator: Any, folder: Path, worker_settings: dict[str, Any], style: ReportStyle) -> None:
        """Hold an actor whose aggregator has been started, and record into `folder`."""
        self.aggregator = aggregator
        self.worker_settings = worker_settings
        self._folder = folder
        self._style = style

    def close(self) -> None:
        """End the run and print its card to stderr. Never raises, and waits 8 s at most."""
        with fail_open(logger, "ending the run"):
            summary = self._stop()
            if summary is not None and self._style != "off":
                self._print_card(summary)
        with fail_open(logger, "ending the recording actor"):
            ray.kill(self.aggregator)

    def _stop(self) -> bytes | None:
        """Have the actor end the run; the summary, or None where there is none and that was said."""
        told = f"`traceml report {shown(self._folder)}`"
        try:
            summary: bytes | None = ray.get(self.aggregator.stop.remote(), timeout=STOP_LIMIT_S)
        except RayActorError:
            say(f"the recording ended before training did, because its actor died; {told} tells of it up to then")
            return read_if_there(self._folder / "final_summary.json")
        except GetTimeoutError:
            summary = None
        if summary is None:
            say(f"no report was made in time; {told} makes it")
        return summary

    def _print_card(self, summary: bytes) -> None:
        from traceml_core.reporting.card import render_card
        from traceml_core.reporting.summary import decode_summary

        look = terminal()
        decoded, folder = decode_summary(summary), str(self._folder)
        show(render_card(decoded, columns=look.columns, color=look.color, style=self._style, folder=folder))


def open_fit_run(settings: Settings, scaling: Any) -> FitRun | None:
    """Start the recording of a `fit` with this ScalingConfig; None where it is off, or cannot and says so.

    Ray is started with its defaults where it is not running, as `fit` itself would. With `num_workers=0` the loop runs
    in this process, where the callbacks in it open runs as they do without Ray.
    """
    if not settings.enabled or sys.platform == "win32" or (scaling is not None and scaling.num_workers == 0):
        return None
    actor: Any = None
    try:
        if not ray.is_initialized():
            ray.init()
        style = report_style(settings.report)
        plain = msgspec.to_builtins(_for_elsewhere(settings))
        actor = _make_actor()
        folder, notice = ray.get(actor.start.remote(plain, _needs_several_nodes(scaling)), timeout=START_LIMIT_S)
    except Exception as error:  # noqa: BLE001 - an edge: whatever keeps TraceML from starting must not keep training
        say(f"nothing is recorded: {_reason(error)}")
        if actor is not None:
            ray.kill(actor)
        return None
    run_was_opened()
    if style != "off":
        say(notice or f"recording to {shown(Path(folder))}")
    return FitRun(actor, Path(folder), plain, style)


def _make_actor() -> Any:
    """The actor, on the driver's node: that is where a person looks for the run folder."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
    return ray.remote(AggregatorActor).options(num_cpus=0, scheduling_strategy=here).remote()


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
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    if len([node for node in nodes if node["Alive"]]) > 1:
        return True
    here: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    wanted = {} if scaling is None else scaling.total_resources
    return any(amount > here.get(resource, 0.0) for resource, amount in wanted.items())


def _reason(error: Exception) -> str:
    cause = error.cause if isinstance(error, RayTaskError) else error
    if isinstance(cause, GetTimeoutError):
        return f"the recording actor did not start within {START_LIMIT_S:g} s"
    return str(cause).splitlines()[0] if str(cause) else type(cause).__name__
