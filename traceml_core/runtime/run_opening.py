"""What the owner of a run does to its folder, be it rank 0 or an actor: it makes it, and may say there how it ended."""

from __future__ import annotations

import os
from datetime import datetime, timezone

import msgspec

from traceml_core.core.identity import RankIdentity
from traceml_core.core.process_birth import birth_of, pid_namespace
from traceml_core.core.run_folder import (
    Ending,
    Manifest,
    Owner,
    RunFolder,
    create_run_folder,
    read_manifest,
    write_manifest,
)
from traceml_core.core.settings import Settings
from traceml_core.loggers.error_log import open_error_log


def claim_run_folder(settings: Settings) -> RunFolder:
    """A new run folder whose manifest names this process as the run's owner; this process's failures go there.

    Raises:
        OSError: it cannot be written; the message is for a person.
    """
    folder = create_run_folder(settings)
    if folder is None:
        raise OSError("neither the run folder nor the temporary folder can be written")
    open_error_log(folder.errors_log)
    write_manifest(folder, _manifest(folder, settings))
    return folder


def tell_ending(folder: RunFolder, ending: Ending) -> None:
    """Say how the run ended, before the aggregator is stopped: its report then says so, whatever its ranks said.

    Raises:
        OSError: it could not be written.
    """
    manifest = read_manifest(folder.path)
    if manifest is not None:
        write_manifest(folder, msgspec.structs.replace(manifest, ending=ending))


def _manifest(folder: RunFolder, settings: Settings) -> Manifest:
    return Manifest(
        run_id=folder.run_id,
        name=folder.name,
        started_at=datetime.now(timezone.utc).isoformat(timespec="milliseconds"),
        labels=settings.labels,
        owner=Owner(
            host=RankIdentity().host, pid=os.getpid(), birth=birth_of(os.getpid()), pid_namespace=pid_namespace()
        ),
    )
