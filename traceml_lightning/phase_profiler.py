"""A profiler that stands in for the trainer's: it books actions to phases, and passes all on to the user's own."""

from __future__ import annotations

from typing import Any

from traceml_lightning.action_contexts import Both
from traceml_lightning.actions import ActionTable


def make_phase_profiler(lightning: Any, inner: Any, table: ActionTable) -> Any:
    """A `Profiler` of the trainer's own Lightning around `inner`, the profiler that it stands in for."""
    stock = isinstance(inner, lightning.profilers.PassThroughProfiler)

    class PhaseProfiler(lightning.profilers.Profiler):  # type: ignore[misc]
        """Books actions to phases; for everything else it is the profiler that it stands in for."""

        def __init__(self) -> None:
            # Not the base's __init__: every attribute but these two is the inner profiler's.
            self.__dict__.update(inner=inner, table=table)

        def profile(self, action_name: str) -> Any:
            """The context of one action."""
            ours = table.known(action_name) or table.context(action_name)
            return ours if stock else Both(inner.profile(action_name), ours)

        def start(self, action_name: str) -> None:
            """Begin an action."""
            inner.start(action_name)
            (table.known(action_name) or table.context(action_name)).__enter__()

        def stop(self, action_name: str) -> None:
            """End an action."""
            (table.known(action_name) or table.context(action_name)).__exit__(None, None, None)
            inner.stop(action_name)

        def summary(self) -> str:
            """The inner profiler's."""
            return str(inner.summary())

        def describe(self) -> None:
            """The inner profiler's."""
            inner.describe()

        def setup(self, *arguments: Any, **options: Any) -> None:
            """The inner profiler's; it is set up already where we take its place, and again at the next stage."""
            inner.setup(*arguments, **options)

        def teardown(self, *arguments: Any, **options: Any) -> None:
            """The inner profiler's."""
            inner.teardown(*arguments, **options)

        def __reduce__(self) -> tuple[Any, ...]:
            """A copy or pickle, of a whole trainer say, is one of the inner profiler's: the measuring stays here."""
            return _itself, (inner,)

        def __getattr__(self, name: str) -> Any:
            return getattr(inner, name)

        def __setattr__(self, name: str, value: Any) -> None:
            setattr(inner, name, value)

    return PhaseProfiler()


def _itself(profiler: Any) -> Any:
    return profiler
