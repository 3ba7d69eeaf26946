"""What is known of one prepared loader: what its batches lead to, and how large the newest one is."""

from __future__ import annotations


class LoaderRole:
    """What is known of one prepared loader: what its batches lead to.

    `trains` once a batch of it led to a backward; `evaluates` once a batch of it was used by inference only. Training
    wins whenever both have been seen. `size` is the samples and tokens of the batch that the loop was given last,
    `fresh` until a backward has used it.
    """

    __slots__ = ("evaluates", "fresh", "inferred", "loops", "size", "trains", "workers")

    def __init__(self, workers: int = 0) -> None:
        """A loader that fetches with this many worker processes."""
        self.workers = workers
        self.trains = False
        self.evaluates = False
        self.inferred = False
        self.loops = 0
        self.fresh = False
        self.size: tuple[int | None, int | None] = (None, None)


def joint_size(roles: list[LoaderRole]) -> tuple[int | None, int | None]:
    """The samples and tokens of batches that were used together."""
    for role in roles:
        role.fresh = False
    samples = [role.size[0] for role in roles if role.size[0] is not None]
    tokens = [role.size[1] for role in roles if role.size[1] is not None]
    return sum(samples) if samples else None, sum(tokens) if tokens else None
