"""The device timeline: which phase the accelerator's time belongs to, from one pooled event per phase boundary."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from itertools import pairwise
from typing import Any, Protocol

import msgspec

from traceml_core.core.phases import BACKWARD, GRAD_SYNC, UNATTRIBUTED, Phase
from traceml_core.instrumentation.step_record import StepRecord
from traceml_core.loggers.error_log import get_error_logger, report_failure

PENDING_LIMIT = 64
logger = get_error_logger("DeviceTimeline")


class DeviceEvent(Protocol):
    """A moment on the device's stream, as `torch.cuda.Event(enable_timing=True)` has it."""

    def query(self) -> bool:
        """Whether the device has come this far."""
        ...

    def elapsed_time(self, end_event: Any, /) -> float:
        """Milliseconds from this event to a later one."""
        ...


class _PendingStep:
    """A record that waits for its events. `slots[i]` owns the device from `events[i]` to the next one, then to `end`.

    `end` is the first event of the step after it, which owns it; null where the device was not timed throughout.
    """

    __slots__ = ("end", "events", "record", "slots", "split")

    def __init__(
        self, record: StepRecord, events: list[Any], slots: list[int], end: DeviceEvent | None, split: bool
    ) -> None:
        self.record = record
        self.events = events
        self.slots = slots
        self.end = end
        self.split = split


class DeviceTimeline:
    """Times the training stream of one device; listens to the clock, and fills in the records of the recorder.

    A record is held until the device has passed the step's last event, which is also the first one of the next step,
    so that steps lie end to end. Events are only ever asked, never waited for, and on the training thread alone.
    Around-step phases get no device time; the in-step phases get none of theirs. A step is left with host time where
    an event could not be recorded (a graph was being captured), failed, or did not complete while `pending_limit`
    later steps closed. The device's `grad_sync` is null where the host alone saw the gradients of one of the step's
    backwards arrive; its time is then part of `backward`.
    """

    def __init__(
        self,
        new_event: Callable[[], Any],
        record_event: Callable[[Any], None],
        *,
        leave_alone: Callable[[], bool] = lambda: False,
        pending_limit: int = PENDING_LIMIT,
    ) -> None:
        """Nothing is timed before the first `close`.

        Args:
            new_event: makes a `DeviceEvent`; used again after its step.
            record_event: records one on the training stream.
            leave_alone: whether events must not be touched now: a graph is being captured, or the device is not used.
            pending_limit: so many steps may wait for the device; beyond, the oldest is left with host time.
        """
        self._new_event = new_event
        self._record_event = record_event
        self._leave_alone = leave_alone
        self._pending_limit = pending_limit
        self._pool: list[Any] = []
        self._pending: deque[_PendingStep] = deque()
        self._slot = int(Phase.STARTUP)
        self._events: list[Any] = []
        self._slots: list[int] = []
        self._is_whole = False
        self._is_split = True
        self._arrival: Any = None

    def boundary(self, slot: int) -> None:
        """Another slot of the clock owns the time from now on."""
        if self._arrival is not None:
            self._events.append(self._arrival)
            self._slots.append(GRAD_SYNC)
            self._arrival = None
        before = self._slot
        self._slot = slot
        if self._is_whole and (slot <= UNATTRIBUTED or before <= UNATTRIBUTED):
            self._mark(slot)

    def booked(self, slot: int) -> None:
        """The clock gave the stretch up to now to `slot`."""
        if self._is_whole:
            self._slots[-1] = slot
            self._mark(self._slot)

    def gradients_arrived(self) -> None:
        """A gradient is there: called where it is made, which may be a thread of autograd's. The last one counts."""
        if self._is_whole and self._slot == BACKWARD:
            self._free(self._arrival)
            self._arrival = self._recorded()
            self._is_split = self._is_split and self._arrival is not None

    def close(self, record: StepRecord) -> list[StepRecord]:
        """End a step; the next one begins. Gives the records that are complete by now, in order.

        Records of no step are passed on with host time.
        """
        self._free(self._arrival)
        self._arrival = None
        end = self._recorded()
        timed_until = end if self._is_whole and record.step is not None else None
        self._pending.append(_PendingStep(record, self._events, self._slots, timed_until, self._is_split))
        self._begin(end)
        return self._resolved(self._pending_limit)

    def drain(self) -> list[StepRecord]:
        """All records that are left, in order; those that the device has not passed yet with host time."""
        self._pool += self._events
        self._begin(None)
        return self._resolved(0)

    def _begin(self, first: DeviceEvent | None) -> None:
        self._is_whole = first is not None
        self._is_split = True
        self._events = [] if first is None else [first]
        self._slots = [self._slot]

    def _mark(self, slot: int) -> None:
        event = self._recorded()
        if event is None:
            self._is_whole = False
        else:
            self._events.append(event)
            self._slots.append(slot)

    def _recorded(self) -> Any:
        """A new event on the training stream; None where that is not possible now."""
        try:
            if self._leave_alone():
                return None
            event = self._pool.pop() if self._pool else self._new_event()
            self._record_event(event)
        except (RuntimeError, ValueError) as error:
            report_failure(logger, "recording a device event", error)
            return None
        return event

    def _free(self, event: Any) -> None:
        if event is not None:
            self._pool.append(event)

    def _resolved(self, pending_limit: int) -> list[StepRecord]:
        pending = self._pending
        records = []
        while pending:
            step = pending[0]
            record = self._timed(step)
            if record is None:
                if len(pending) <= pending_limit:
                    break
                record = step.record
            records.append(record)
            pending.popleft()
            self._pool += step.events
        return records

    def _timed(self, step: _PendingStep) -> StepRecord | None:
        """The record with the device's time, or as it was where that cannot be had; null where it has to wait."""
        end = step.end
        if end is None:
            return step.record
        try:
            if self._leave_alone() or not end.query() or not all(event.query() for event in step.events):
                return None
            slots = step.slots if step.split else [BACKWARD if slot == GRAD_SYNC else slot for slot in step.slots]
            device_ns = _nanoseconds_per_phase([*step.events, end], slots)
        except (RuntimeError, ValueError) as error:
            report_failure(logger, "asking a device event", error)
            return step.record
        if not step.split:
            device_ns[GRAD_SYNC] = None
        return msgspec.structs.replace(step.record, device_ns=device_ns)


def cuda_timeline(device: int | None = None) -> DeviceTimeline:
    """The timeline of a CUDA device's current stream; by default the device that is current at the first step.

    The recorder that is given the timeline connects it to the clock.
    """
    import torch

    cuda: Any = torch.cuda
    bound = device
    is_used = False

    def record(event: Any) -> None:
        nonlocal bound
        if bound is None:
            bound = cuda.current_device()
        event.record(cuda.current_stream(bound))

    def leave_alone() -> bool:
        nonlocal is_used
        is_used = is_used or cuda.is_initialized()  # never the first to wake the device
        return not is_used or cuda.is_current_stream_capturing()

    return DeviceTimeline(lambda: cuda.Event(enable_timing=True), record, leave_alone=leave_alone)


def _nanoseconds_per_phase(events: list[Any], slots: list[int]) -> list[int | None]:
    """The time between neighbouring events, given to the in-step phase that began at the earlier one.

    Events of different streams may lie in another order than they were recorded in: what is behind the latest so far
    takes no time.
    """
    spent_ms = [0.0] * (UNATTRIBUTED + 1)
    position_ms = latest_ms = 0.0
    for (event, later), slot in zip(pairwise(events), slots, strict=True):
        position_ms += event.elapsed_time(later)
        if position_ms > latest_ms:
            if slot <= UNATTRIBUTED:
                spent_ms[slot] += position_ms - latest_ms
            latest_ms = position_ms
    return [round(milliseconds * 1e6) for milliseconds in spent_ms]
