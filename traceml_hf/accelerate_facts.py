"""What an `Accelerator` says of its run: who this process is, what runs, and what cannot be measured there."""

from __future__ import annotations

import sys
from typing import Any

from traceml_core.core.identity import RankIdentity
from traceml_core.core.launch_environment import nodes_in
from traceml_core.core.phases import Phase
from traceml_core.instrumentation.process_group import job_store
from traceml_core.telemetry.facts import RunFacts

_UNMEASURED = {
    "DEEPSPEED": (Phase.BACKWARD, Phase.GRAD_SYNC, Phase.OPTIMIZER),
    "MEGATRON_LM": (Phase.FORWARD, Phase.BACKWARD, Phase.GRAD_SYNC, Phase.OPTIMIZER),
    "FSDP": (Phase.GRAD_SYNC,),
}


def identity_of(accelerator: Any) -> RankIdentity:
    """This process, as the accelerator's `PartialState` names it; that does not count nodes, the launcher does."""
    world_size = accelerator.num_processes
    return RankIdentity(
        rank=accelerator.process_index,
        local_rank=accelerator.local_process_index,
        world_size=world_size,
        nodes=nodes_in(world_size),
    )


def store_of(accelerator: Any) -> Any | None:
    """The rendezvous store of the process group that the accelerator set up; null in one process."""
    return job_store() if accelerator.num_processes > 1 else None


def facts_of(accelerator: Any) -> RunFacts:
    """The facts that hold from the start; the loader's come when it is known which one trains."""
    return RunFacts(
        framework="accelerate",
        versions={
            name: str(sys.modules[name].__version__)
            for name in ("torch", "accelerate")
            if hasattr(sys.modules.get(name), "__version__")
        },
        device=accelerator.device.type,
        precision=accelerator.mixed_precision,
        accumulation=accelerator.gradient_accumulation_steps,
        unmeasured=unmeasured_of(accelerator),
    )


def unmeasured_of(accelerator: Any) -> tuple[str, ...]:
    """The keys of the phases that this strategy does not let an outsider separate.

    DeepSpeed's engine steps and synchronises inside its backward, Megatron-LM does everything in one call, FSDP
    gathers and scatters inside forward and backward, and DDP synchronises inside backward, where it may be told apart
    once the model is prepared.
    """
    phases = _UNMEASURED.get(accelerator.distributed_type.name, ())
    if not phases and accelerator.num_processes > 1:
        phases = (Phase.GRAD_SYNC,)
    return tuple(phase.key for phase in phases)


def copies_out_of_sight(accelerator: Any, loader: Any) -> bool:
    """Whether batches go to another device in a way that the loader's proxy does not see."""
    if accelerator.device.type == "cpu":
        return False
    return type(loader).__name__ != "DataLoaderShard" or loader.device is None
