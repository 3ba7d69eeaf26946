"""What joining adds to the start of a rank, in rounds: on its training thread, and until its run has heard of it.

    torchrun --standalone --nproc-per-node=2 benchmarks/joining.py

In every round all ranks open a run at the same moment, once as ranks of one job and once each on its own. What the
training thread pays for `open_session` is compared; the rest happens on the sender's thread, while training runs.
"""

from __future__ import annotations

import contextlib
import io
import statistics
import tempfile
import time

import torch.distributed as distributed

from traceml_core.core.identity import RankIdentity
from traceml_core.core.settings import resolve_settings
from traceml_core.instrumentation.process_group import identity_in_job, job_store
from traceml_core.runtime.session import open_session
from traceml_core.telemetry.facts import RunFacts

ROUNDS = 11


def main() -> None:
    """Measure, and print one line a rank."""
    distributed.init_process_group("gloo")
    job, alone = identity_in_job(), RankIdentity()
    rounds = [(_open(job, job_store()), _open(alone, None)) for _ in range(ROUNDS)][1:]  # the first one imports
    joined_ms, found_ms = (statistics.median(values) for values in zip(*(joined for joined, _ in rounds), strict=True))
    alone_ms = statistics.median(opened for _, (opened, _) in rounds)
    lines: list[str | None] = [None] * job.world_size
    opens = f"opens in {joined_ms:6.1f} ms, alone in {alone_ms:6.1f} ms"
    line = f"rank {job.rank}: {opens}; has its ticket after {found_ms:6.1f} ms"
    distributed.all_gather_object(lines, line)
    if job.rank == 0:
        print("\n".join(str(one) for one in lines))
    distributed.destroy_process_group()


def _open(identity: RankIdentity, store: object) -> tuple[float, float]:
    """Milliseconds until the training thread goes on, and until the rank has its ticket."""
    settings = resolve_settings(runs_dir=tempfile.mkdtemp(prefix="traceml-joining-"), report="off")
    distributed.barrier()
    began = time.perf_counter()
    with contextlib.redirect_stderr(io.StringIO()):
        session = open_session(settings, RunFacts(framework="manual"), identity, store=store)  # type: ignore[arg-type]
        opened = time.perf_counter()
        while session._runtime.has_ticket is None:  # type: ignore[attr-defined]
            time.sleep(0.0005)
        found = time.perf_counter()
        distributed.barrier()
        session.close()
    return (opened - began) * 1e3, (found - began) * 1e3


if __name__ == "__main__":
    main()
