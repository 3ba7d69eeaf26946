"""A hand-written loop as a run: the loop itself marks its fetches, steps and phases. Needs no torch."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from threading import get_ident
from time import perf_counter_ns
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from traceml_core.core.phases import STEP_PHASES, Phase
from traceml_core.core.settings import Settings, resolve_settings
from traceml_core.instrumentation.loader_facts import loader_facts
from traceml_core.instrumentation.process_group import identity_in_job, job_store
from traceml_core.runtime.session import Session, open_session
from traceml_core.sdk.run_ending import status_of
from traceml_core.sdk.traced_batches import LoopState, TracedBatches
from traceml_core.telemetry.facts import RunFacts

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack

    from traceml_core.core.settings import SettingsArguments

Sample = TypeVar("Sample")
_PHASES = {phase.key: phase for phase in Phase if phase is not Phase.UNATTRIBUTED}


def trace_run(**settings: Unpack[SettingsArguments]) -> TracedRun:
    """Record a hand-written training loop.

    >>> with trace_run(enabled=False) as run:
    ...     for batch in run.batches([[1.0], [2.0]]):
    ...         with run.step():
    ...             with run.phase("forward"):
    ...                 output = batch[0] * 2

    Takes the settings of `docs/settings.md`. The run begins with the `with` block and ends with it.

    Raises:
        ValueError: a setting's value is not accepted; the message names it and what is.
    """
    return TracedRun(resolve_settings(**settings))


class TracedRun:
    """One run of a hand-written loop: `batches` waits for data, `step` marks a step, `phase` names what happens in it.

    A step owns the time from the fetch of its first batch (without `batches`: from its block's begin) to the next
    step's. A phase that the loop never marks counts as not measured. What other threads mark is not heard.
    """

    def __init__(self, settings: Settings) -> None:
        """A run that `with` opens, once."""
        self._settings = settings
        self._opened: Session | None = None
        self._thread = 0
        self._loop = LoopState()
        self._unmeasured: list[str] = []
        self._marks: dict[str, PhaseMark] = {}

    def __enter__(self) -> Self:
        if self._opened is not None:
            raise RuntimeError("this run was opened before; call trace_run() for each run")
        started_ns = perf_counter_ns()
        device = _device()
        absent = {Phase.GRAD_SYNC} if device != "cpu" else {Phase.GRAD_SYNC, Phase.H2D}
        self._unmeasured = [phase.key for phase in STEP_PHASES if phase not in absent]
        facts = RunFacts(framework="manual", versions=_versions(), device=device, unmeasured=tuple(self._unmeasured))
        self._thread = get_ident()
        identity = identity_in_job()
        store = job_store() if identity.world_size > 1 else None
        self._opened = open_session(self._settings, facts, identity, started_ns=started_ns, store=store)
        if self._opened.world_size > 1:
            self._unmeasured.append(Phase.GRAD_SYNC.key)
            self._opened.describe(unmeasured=tuple(self._unmeasured))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        status = status_of(error)
        self._session.close(status, None if status == "completed" else error)

    def batches(self, loader: Iterable[Sample]) -> Iterator[Sample]:
        """The loader's batches; the time that the loop waits for each is `input_wait`.

        Making the iterator is `loader_start`, and so is the first batch where the loader has workers. Inside
        `phase("validation")` and the like the waits belong to that phase.
        """
        session = self._session
        if session.clock.owner <= Phase.STARTUP:
            self._measured(Phase.INPUT_WAIT)
            session.describe(**loader_facts(loader))
        return TracedBatches(loader, session.clock, session.steps, self._loop)

    def step(self) -> StepMark:
        """A `with` block that holds one step's work; at its end the optimizer has stepped.

        A block that raises is no step.
        """
        return StepMark(self._session, self._loop, self._thread)

    def phase(self, name: str) -> PhaseMark:
        """A `with` block whose time belongs to the phase `name`, such as 'forward' or 'checkpoint'.

        Raises:
            ValueError: there is no such phase; the message names those there are.
        """
        mark = self._marks.get(name)
        if mark is None:
            if name not in _PHASES:
                raise ValueError(f"phase {name!r} is not known; the phases are {', '.join(_PHASES)}")
            mark = self._marks[name] = PhaseMark(self._session, self._thread, _PHASES[name])
            self._measured(_PHASES[name])
        return mark

    def start_at(self, step: int) -> None:
        """Say, before the first step, how many steps were done before this loop: it goes on from a checkpoint.

        Steps that are done again after a restart are told by their numbers.
        """
        self._session.steps.start_at(step)

    def describe(self, **facts: Any) -> None:
        """Tell what the run is: fields of `RunFacts`, such as `device`, `precision`, `batch_size`, `accumulation`.

        Raises:
            ValueError: there is no such field; the message names those there are.
        """
        for name in facts:
            if name not in RunFacts.__struct_fields__:
                raise ValueError(f"fact {name!r} is not known; the facts are {', '.join(RunFacts.__struct_fields__)}")
        self._session.describe(**facts)

    @property
    def _session(self) -> Session:
        if self._opened is None:
            raise RuntimeError("the run is not open: use `with trace_run(...) as run:`")
        return self._opened

    def _measured(self, phase: Phase) -> None:
        if phase.key in self._unmeasured:
            self._unmeasured.remove(phase.key)
            self._session.describe(unmeasured=tuple(self._unmeasured))


class PhaseMark:
    """The `with` block of one phase; may be used again and again, and nested."""

    __slots__ = ("_clock", "_phase", "_thread")

    def __init__(self, session: Session, thread: int, phase: Phase) -> None:
        """Mark `phase` on the session's clock, on this thread alone."""
        self._clock = session.clock
        self._thread = thread
        self._phase = phase

    def __enter__(self) -> None:
        if get_ident() == self._thread:
            self._clock.enter(self._phase)

    def __exit__(self, *error: object) -> None:
        if get_ident() == self._thread:
            self._clock.leave(self._phase)


class StepMark:
    """The `with` block of one step."""

    __slots__ = ("_loop", "_session", "_thread")

    def __init__(self, session: Session, loop: LoopState, thread: int) -> None:
        """Mark a step of the session, on this thread alone."""
        self._session = session
        self._loop = loop
        self._thread = thread

    def __enter__(self) -> None:
        if get_ident() == self._thread:
            self._loop.in_step = True
            self._session.clock.leave(Phase.STARTUP)
            self._session.steps.fetch()

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        if get_ident() == self._thread:
            self._loop.in_step = False
            if kind is None:
                self._session.steps.optimizer_step()


def _versions() -> dict[str, str]:
    torch = sys.modules.get("torch")
    return {} if torch is None else {"torch": str(torch.__version__)}


def _device() -> str:
    """The device type that the loop can be expected to train on; torch is asked only where it is loaded already."""
    torch = sys.modules.get("torch")
    return "cuda" if torch is not None and torch.cuda.is_available() else "cpu"
