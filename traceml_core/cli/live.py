"""`traceml live`: a run on one screen while it goes on, followed by its folder from another terminal or machine."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from traceml_core.cli.failure import CommandError
from traceml_core.cli.printing import print_line
from traceml_core.cli.run_argument import log_failures_in
from traceml_core.cli.runs_dir_option import runs_dir_option
from traceml_core.core.presence import is_there

if TYPE_CHECKING:
    from traceml_core.reporting.followed_run import FollowedRun, Sighting
    from traceml_core.reporting.summary import FinalSummary

INTERVAL_S = 1.0


@click.command()
@click.argument("run", required=False)
@runs_dir_option
def live(run: str | None, runs_dir: str) -> None:
    """Show a run on one screen while it goes on.

    RUN is a run folder; none given: the newest. It is looked at once a second, from any machine that sees it, and
    nothing is changed. q or Ctrl-C leaves; when the run ends, its report stays. Where stdout is no terminal: a line for
    each change.

    Example: traceml live
    """
    from traceml_core.core.run_folder import RunLookupError, find_run
    from traceml_core.reporting.followed_run import FollowedRun
    from traceml_core.reporting.stored_summary import SummaryUnavailableError

    try:
        folder = find_run(run, runs_dir)
        followed = FollowedRun(folder)
        ended = _on_screen(followed, folder) if _has_screen() else _in_lines(followed)
        if ended is not None:
            _print_end(ended, folder)
    except (RunLookupError, SummaryUnavailableError) as error:
        raise CommandError(str(error)) from error
    except KeyboardInterrupt:
        raise SystemExit(128 + signal.SIGINT) from None


def _has_screen() -> bool:
    """Whether stdout is a terminal that can move its cursor."""
    return sys.stdout.isatty() and os.environ.get("TERM", "dumb") not in ("dumb", "unknown", "")


def _on_screen(followed: FollowedRun, folder: Path) -> Sighting | None:
    """Follow on the whole terminal; the last sighting, or None where a person has left."""
    from traceml_core.cli.live_screen import LiveScreen, Shown

    name = folder.name
    sighting = followed.look()
    if sighting.state in ("ended", "lost"):
        return sighting
    with LiveScreen(Shown(name, sighting)) as screen:
        while sighting.state not in ("ended", "lost"):
            screen.show(Shown(name, sighting))
            if screen.is_left_within(INTERVAL_S):
                return None
            sighting = followed.look()
    return sighting


def _in_lines(followed: FollowedRun) -> Sighting:
    """Follow with a line for each new summary; the last sighting."""
    from traceml_core.renderers.compact import compact_line

    told: FinalSummary | None = None
    while True:
        sighting = followed.look()
        if sighting.state in ("ended", "lost"):
            return sighting
        if sighting.summary is not None and sighting.summary is not told:
            told = sighting.summary
            print_line(compact_line(told))
        time.sleep(INTERVAL_S)


def _print_end(sighting: Sighting, folder: Path) -> None:
    """Print the report of a run that is over; of one that was killed, the one that its history gives."""
    from traceml_core.cli.report import print_report

    if sighting.state == "ended" and sighting.summary is not None:
        print_report(sighting.summary, folder)
        return
    from traceml_core.history.reader import HistoryUnreadableError
    from traceml_core.reporting.final import build_summary

    if not is_there(folder / "telemetry.sqlite"):
        raise CommandError(f"{folder} holds no telemetry, and what made it is gone; errors.log in it may say why")
    log_failures_in(folder)
    try:
        print_report(build_summary(folder), folder)
    except HistoryUnreadableError as error:
        raise CommandError(str(error)) from error
