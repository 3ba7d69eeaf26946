"""What a run is: the facts that an adapter knows about it, none of them measured."""

from __future__ import annotations

import msgspec


class LoaderFacts(msgspec.Struct, frozen=True, kw_only=True):
    """How the training loader was built; null where the loader does not say."""

    num_workers: int | None = None
    prefetch_factor: int | None = None
    persistent_workers: bool | None = None
    pin_memory: bool | None = None


class RunFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What an adapter tells of its run, at the start or later by `Session.describe`; null where it is not known.

    `batch_size` is samples per micro-batch and rank; `accumulation` micro-batches per step; `precision` as the
    framework spells it; `device` a torch device type such as 'cpu' or 'cuda'. `unmeasured` holds the keys of phases
    that this framework and strategy cannot separate (DeepSpeed's optimizer, FSDP's grad_sync): they are stored as null
    and rules that need them abstain.
    """

    framework: str
    versions: dict[str, str] = {}
    device: str | None = None
    precision: str | None = None
    batch_size: int | None = None
    accumulation: int | None = None
    loader: LoaderFacts | None = None
    unmeasured: tuple[str, ...] = ()
