"""The step recorder: closes the clock's time into one frozen record a step, and hands it over without waiting."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from threading import Event
from time import perf_counter_ns, time_ns
from typing import TYPE_CHECKING

from traceml_core.instrumentation.phase_clock import PhaseClock
from traceml_core.instrumentation.step_record import StepRecord

if TYPE_CHECKING:
    from traceml_core.instrumentation.device_timeline import DeviceTimeline
    from traceml_core.instrumentation.step_memory import StepMemory

QUEUE_LIMIT = 20_000
# A sender that is this late for its turn waits for the interpreter. A training that hands it out for moments only, by
# short system calls in a loop of plain Python, has it back before a waiting thread wakes, each time, for minutes.
LATE_NS = 250_000_000
# A turn takes some milliseconds, more where rows have piled up. One that does not end waits for something else: it is
# given more time at ever longer intervals, in the end for 1.2 % of the training's.
GIVE_WAY_S = 0.05
LONGEST_INTERVAL_NS = 16 * LATE_NS
NEVER_NS = 2**63


class StepRecorder:
    """Turns fetches, micro-batches and optimizer steps into step records.

    A step is one batch window after which an optimizer stepped. It owns the interval from its first fetch to the next
    step's first fetch. Records wait in a bounded queue that the sender thread empties; when it is full, new ones are
    dropped and counted. Only the training thread calls the methods, but for `expect_sender`; any thread may read the
    attributes. Where the sender is late because it cannot get the interpreter, the end of a step gives way to it.

    `gradients_arrived` is what a `GradientArrival` has to call as well where a device is timed; null elsewhere.
    """

    __slots__ = (
        "_clock",
        "_device",
        "_in_loop",
        "_interval_ns",
        "_late_ns",
        "_memory",
        "_micro_batches",
        "_queue_limit",
        "_samples",
        "_tokens",
        "_turn_ended",
        "_unix_offset_ns",
        "dropped",
        "given_way_ns",
        "gradients_arrived",
        "has_stepped",
        "queue",
        "step",
        "steps_done",
    )

    def __init__(
        self,
        clock: PhaseClock,
        *,
        device: DeviceTimeline | None = None,
        memory: StepMemory | None = None,
        queue_limit: int = QUEUE_LIMIT,
    ) -> None:
        """Record what `clock` tells, from its start on. `device` and `memory` see an accelerator."""
        self.queue: deque[StepRecord] = deque()
        self.dropped = 0
        self.given_way_ns = 0
        self.steps_done = 0
        self.step = 0
        self._clock = clock
        self._device = device
        self._memory = memory
        self._queue_limit = queue_limit
        self._unix_offset_ns = time_ns() - perf_counter_ns()
        self._late_ns = NEVER_NS
        self._interval_ns = LATE_NS
        self._turn_ended = Event()
        self._in_loop = False
        self.has_stepped = False
        self._micro_batches = 0
        self._samples = 0
        self._tokens = 0
        self.gradients_arrived: Callable[[], None] | None = None if device is None else device.gradients_arrived
        if device is not None:
            clock.on_boundary(device.boundary, device.booked)
        if memory is not None:
            clock.on_boundary(memory.boundary)

    def unix_ns(self) -> int:
        """The present moment on the clock of `StepRecord.started_ns`: Unix time that no clock change makes jump."""
        return perf_counter_ns() + self._unix_offset_ns

    def expect_sender(self, within_s: float | None) -> None:
        """The sender, on its own thread: this turn is over, and the next begins within so many seconds (null: none)."""
        self._interval_ns = LATE_NS
        self._late_ns = NEVER_NS if within_s is None else perf_counter_ns() + int(within_s * 1e9) + LATE_NS
        self._turn_ended.set()

    def start_at(self, step: int) -> None:
        """The framework's step counter before the first step: 0, or where a resumed run goes on."""
        self.step = step

    def fetch(self) -> None:
        """A batch is about to be fetched: close the step before it, if its optimizer has stepped."""
        step = None
        if not self._in_loop:
            self._in_loop = True
        elif self.has_stepped:
            self.steps_done += 1
            self.step = step = self.step + 1
        else:
            self._clock.keep_short()
            return
        self.has_stepped = False
        stretches = self._clock.take()
        # Read also where none is kept: it is the next step's baseline.
        memory = None if self._memory is None else self._memory.read()
        record = StepRecord(
            step,
            stretches,
            self._unix_offset_ns,
            self._micro_batches,
            self._samples or None,
            self._tokens or None,
            None,
            None if step is None else memory,
        )
        self._micro_batches = self._samples = self._tokens = 0
        if self._device is not None:
            self._hand_over(self._device.close(record))
        elif len(self.queue) < self._queue_limit:
            self.queue.append(record)
        else:
            self.dropped += 1
        if stretches.ended_ns > self._late_ns:
            self._give_way()

    def micro_batch(self, samples: int | None = None, tokens: int | None = None) -> None:
        """One forward and backward of the open step was fed by this many samples and tokens of this rank."""
        self._micro_batches += 1
        if samples is not None:
            self._samples += samples
        if tokens is not None:
            self._tokens += tokens

    def optimizer_step(self) -> None:
        """An optimizer stepped, or would have (a gradient scaler's skip).

        A second one in the same window changes nothing, and neither does one that belongs to no window. A hook that
        runs at every step saves a call by setting `has_stepped`.
        """
        self.has_stepped = True

    def finish(self) -> None:
        """The loop has ended, or the run closes: close the open step and record what lies after it."""
        if self.has_stepped and self._in_loop:
            self.fetch()
        self._in_loop = False
        self.fetch()  # closes what belongs to no step, as before the first one
        self._in_loop = False
        if self._device is not None:
            self._hand_over(self._device.drain())

    def _give_way(self) -> None:
        """Let the sender have the interpreter until its turn is over, within limits."""
        began_ns = perf_counter_ns()
        self._turn_ended.clear()
        is_over = self._late_ns > began_ns or self._turn_ended.wait(GIVE_WAY_S)  # it may have ended this moment
        now_ns = perf_counter_ns()
        self.given_way_ns += now_ns - began_ns
        if not is_over:
            self._late_ns = now_ns + self._interval_ns
            self._interval_ns = min(2 * self._interval_ns, LONGEST_INTERVAL_NS)

    def _hand_over(self, records: Iterable[StepRecord]) -> None:
        for record in records:
            if len(self.queue) < self._queue_limit:
                self.queue.append(record)
            else:
                self.dropped += 1
