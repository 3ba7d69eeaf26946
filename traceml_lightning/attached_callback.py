"""The callback that a trainer gets without a line in its script."""

from __future__ import annotations

from traceml_lightning.callback import TraceMLCallback


class AttachedCallback(TraceMLCallback):
    """Leaves a trainer that has a TraceMLCallback of its own to that one, without a word."""

    gives_way = True
