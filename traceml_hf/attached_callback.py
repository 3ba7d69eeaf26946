"""The callback that a trainer gets without a line in its script."""

from __future__ import annotations

from traceml_hf.trainer_callback import TraceMLCallback


class AttachedCallback(TraceMLCallback):
    """Leaves a trainer that has a TraceMLCallback of its own to that one, without a word.

    A type of its own: the Trainer warns of a second callback of one type.
    """

    gives_way = True
