"""What the driver tells of the end of a `fit`. Needs no Ray."""

from __future__ import annotations

import pytest

from traceml_core.core.run_folder import Ending, OwnerError
from traceml_ray.fit_ending import ending_of


class GroupError(Exception):
    """As Ray raises it: what each failed worker met, by rank."""

    def __init__(self, worker_failures):
        super().__init__("Training failed due to worker errors:\n…")
        self.worker_failures = worker_failures


def test_a_fit_that_returns_has_completed():
    assert ending_of(None, True) == Ending(status="completed")


def test_each_worker_that_failed_is_told_by_its_rank_with_the_line_that_says_how():
    died = RuntimeError("The actor died.\n\tpid: 17\nWorker exit type: SYSTEM_ERROR\n")
    told = ending_of(GroupError({1: died, 0: KeyError()}), True)
    assert told.status == "failed"
    assert told.errors == (
        OwnerError(rank=0, type="KeyError", message="rank 0"),
        OwnerError(rank=1, type="RuntimeError", message="rank 1: Worker exit type: SYSTEM_ERROR"),
    )


def test_without_record_errors_only_types_are_told():
    told = ending_of(GroupError({1: ValueError("secret")}), False)
    assert told.errors == (OwnerError(rank=1, type="ValueError", message=None),)


def test_an_error_of_no_worker_is_told_by_its_cause():
    error = RuntimeError("Training failed")
    error.__cause__ = TimeoutError("no workers in 30 s")
    assert ending_of(error, True).errors == (OwnerError(rank=None, type="TimeoutError", message="no workers in 30 s"),)
    assert ending_of(RuntimeError("no"), True).errors == (OwnerError(rank=None, type="RuntimeError", message="no"),)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(0)])
def test_a_fit_that_is_left_by_ctrl_c_was_interrupted(error):
    told = ending_of(error, True)
    assert (told.status, told.errors[0].type, told.errors[0].message) == ("interrupted", type(error).__name__, None)
