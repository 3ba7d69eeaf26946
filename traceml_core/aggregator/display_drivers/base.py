"""What a display driver is: something that shows the summary of a run while it goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from traceml_core.reporting.summary import FinalSummary


class DisplayDriver(Protocol):
    """Called on the aggregator's report thread. Either method may raise: the run goes on, errors.log says why."""

    def show(self, summary: FinalSummary) -> str | None:
        """Show the summary as it is now, status `running`; a line for rank 0 to say in its terminal, if there is one.

        The aggregator has no terminal of its own: only the training process knows what else is drawn there.
        """
        ...

    def close(self) -> None:
        """The final summary is in place: the live one is over."""
        ...
