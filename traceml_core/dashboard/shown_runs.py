"""The runs as the dashboard shows them: the newest summary of each, and what to say where there is none."""

from __future__ import annotations

import time

import msgspec

from traceml_core.core.run_folder import UNDECODABLE, Manifest
from traceml_core.core.units import MISSING, seconds
from traceml_core.dashboard.runs_folder import FINAL, LIVE, MANIFEST, RunsFolder
from traceml_core.reporting.owner import owner_lives
from traceml_core.reporting.summary import FinalSummary, decode_summary

NOT_REPORTED = "It ended without a report. `traceml report` with its folder builds it; below is the last that was seen."
NOTHING_YET = "Nothing is known of it yet. Where it runs, its first numbers come within seconds."
NOTHING_LEFT = "It ended without a report. `traceml report` with its folder builds it, where it recorded anything."
UNREADABLE = "Its summary cannot be read by this version. `traceml report --rebuild` with its folder makes it anew."


class ShownRun(msgspec.Struct, frozen=True, kw_only=True):
    """One run. `note` says what is wrong with it, if anything is; `version` changes whenever any of this does."""

    name: str
    title: str
    status: str
    version: str
    started_at: str
    verdict: str = MISSING
    severity: str | None = None
    duration: str = MISSING
    summary: FinalSummary | None = None
    note: str | None = None


class ShownRuns:
    """The runs of one folder. Of those in the list no summary is held: there may be many, and each is large."""

    def __init__(self, folder: RunsFolder) -> None:
        """Show the runs of `folder`."""
        self._folder = folder
        self._kept: dict[str, ShownRun] = {}

    def all(self) -> list[ShownRun]:
        """Every run, the newest first."""
        before = self._kept
        briefs = {name: self._brief(name, before.get(name)) for name in self._folder.names()}
        runs = {name: run for name, run in briefs.items() if run is not None}
        self._kept = runs  # never changed, only replaced: other threads may be reading it
        return sorted(runs.values(), key=lambda run: (run.started_at, run.name), reverse=True)

    def version(self, name: str) -> str:
        """What changes whenever there is something new to show of a run; empty where there is no such run."""
        files = [self._folder.version(name, file) for file in (FINAL, LIVE, MANIFEST)]
        if not any(files):
            return ""
        return "/".join([*files, "" if files[0] else self._status_now(name)])

    def one(self, name: str) -> ShownRun | None:
        """One run; null where there is none of that name."""
        version = self.version(name)
        return self._shown(name, version) if version else None

    def _brief(self, name: str, kept: ShownRun | None) -> ShownRun | None:
        if kept is not None and kept.version == self.version(name):
            return kept
        run = self.one(name)
        return None if run is None else msgspec.structs.replace(run, summary=None)

    def _shown(self, name: str, version: str) -> ShownRun:
        final = self._folder.read(name, FINAL)
        data = self._folder.read(name, LIVE) if final is None else final
        manifest = self._manifest(name)
        title, started_at = (name, "") if manifest is None else (manifest.name, manifest.started_at)
        status = self._status_now(name) if final is None else "unknown"
        if data is None:
            note = NOTHING_YET if status == "running" else NOTHING_LEFT
            return ShownRun(name=name, title=title, status=status, version=version, started_at=started_at, note=note)
        try:
            summary = decode_summary(data)
        except UNDECODABLE:
            return ShownRun(
                name=name, title=title, status=status, version=version, started_at=started_at, note=UNREADABLE
            )
        is_left = final is None and status != "running"
        run = msgspec.structs.replace(summary.run, status="interrupted") if is_left else summary.run
        return ShownRun(
            name=name,
            title=run.name,
            status=run.status,
            version=version,
            started_at=run.started_at,
            verdict=summary.primary_diagnosis.label,
            severity=summary.primary_diagnosis.severity,
            duration=seconds(run.duration_s),
            summary=msgspec.structs.replace(summary, run=run),
            note=NOT_REPORTED if is_left else None,
        )

    def _status_now(self, name: str) -> str:
        """Of a run without a final summary: running while its owner lives."""
        changed_s = self._folder.changed_s(name, LIVE) or self._folder.changed_s(name, MANIFEST) or 0.0
        lives = owner_lives(self._manifest(name), silent_s=time.time() - changed_s)
        return "running" if lives else "interrupted"

    def _manifest(self, name: str) -> Manifest | None:
        try:
            return msgspec.json.decode(self._folder.read(name, MANIFEST) or b"", type=Manifest)
        except UNDECODABLE:
            return None
