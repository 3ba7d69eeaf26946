"""What launchers say of a job in the environment: for what the framework does not say, and never before it."""

from __future__ import annotations

import os
from collections.abc import Mapping

from traceml_core.core.identity import RankIdentity


def identity_in(environment: Mapping[str, str] = os.environ) -> RankIdentity:
    """This process as RANK and WORLD_SIZE name it; the only one where they do not.

    Slurm's own variables are no sign of a job of several ranks: `srun` starts independent trainings as well.
    """
    rank, world_size = _number(environment, "RANK"), _number(environment, "WORLD_SIZE")
    if rank is None or not world_size or rank >= world_size:
        return RankIdentity()
    local_rank = _number(environment, "LOCAL_RANK") or 0
    return RankIdentity(
        rank=rank, local_rank=local_rank, world_size=world_size, nodes=nodes_in(world_size, environment)
    )


def nodes_in(world_size: int, environment: Mapping[str, str] = os.environ) -> int:
    """The number of machines under `world_size` ranks; 1 where the launcher does not say."""
    nodes = _number(environment, "GROUP_WORLD_SIZE")  # torchrun
    if not nodes and _number(environment, "SLURM_NTASKS") == world_size:
        nodes = _number(environment, "SLURM_NNODES")
    if not nodes:
        per_node = _number(environment, "LOCAL_WORLD_SIZE") or _number(environment, "OMPI_COMM_WORLD_LOCAL_SIZE")
        nodes = -(-world_size // per_node) if per_node else 1
    return min(nodes or 1, world_size)


def attempt_in(environment: Mapping[str, str] = os.environ) -> int:
    """How often torchrun has started this job's ranks again; 0 the first time, and where another launcher did."""
    return _number(environment, "TORCHELASTIC_RESTART_COUNT") or 0


def _number(environment: Mapping[str, str], name: str) -> int | None:
    text = environment.get(name, "")
    return int(text) if text.isdecimal() else None
