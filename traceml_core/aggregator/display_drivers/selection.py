"""Which display driver serves which mode."""

from __future__ import annotations

from collections.abc import Callable

from traceml_core.aggregator.display_drivers.base import DisplayDriver
from traceml_core.aggregator.display_drivers.cli import CliDriver
from traceml_core.aggregator.display_drivers.summary import SummaryDriver
from traceml_core.core.run_folder import RunFolder
from traceml_core.loggers.error_log import get_error_logger

DISPLAY_DRIVERS: tuple[tuple[str, Callable[[RunFolder], DisplayDriver]], ...] = (
    ("summary", SummaryDriver),
    ("cli", CliDriver),
    ("dashboard", SummaryDriver),  # where it has no socket: see `service`
)

_logger = get_error_logger("display")


def driver_for(mode: str, folder: RunFolder) -> DisplayDriver:
    """The driver of a mode; the summary's where the mode has none, which errors.log then says."""
    drivers = dict(DISPLAY_DRIVERS)
    if mode not in drivers:
        _logger.warning("[TraceML] mode %r has no display of its own in this version; recording goes on without", mode)
    return drivers.get(mode, SummaryDriver)(folder)
