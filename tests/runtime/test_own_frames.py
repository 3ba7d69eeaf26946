"""Other people's tracebacks read as they do without TraceML."""

from __future__ import annotations

import traceback
from dataclasses import dataclass

import pytest

from traceml_core.runtime import own_frames
from traceml_core.runtime.own_frames import hide_own_frames
from traceml_core.runtime.rendezvous import Rendezvous
from traceml_core.sdk import trace_run


class RaisingStore:
    """What the user's code does when a function of ours calls it."""

    def __init__(self, error=None):
        self.error = error or ValueError("theirs")

    def check(self, keys):
        raise self.error from KeyError("before it")


def test_frames_of_ours_between_theirs_are_left_out():
    with pytest.raises(ValueError, match="theirs") as raised:
        Rendezvous().fetch(RaisingStore(), None, lambda: 0.0)
    error = raised.value
    assert "rendezvous.py" in "".join(traceback.format_exception(error))
    hide_own_frames(error)
    shown = "".join(traceback.format_exception(error))
    assert "rendezvous.py" not in shown
    assert "in check" in shown


def test_an_error_of_ours_keeps_its_frames():
    with pytest.raises(AttributeError) as raised:
        Rendezvous().fetch(None, None, lambda: 0.0)  # type: ignore[arg-type]
    before = traceback.format_exception(raised.value)
    hide_own_frames(raised.value)
    assert traceback.format_exception(raised.value) == before


def test_errors_that_refer_to_each_other_come_to_an_end():
    first, second = ValueError("first"), ValueError("second")
    first.__context__, second.__context__ = second, first
    hide_own_frames(first)


@dataclass(frozen=True)
class Diverged(Exception):
    """An error whose class forbids that anything is assigned to it."""

    step: int


@pytest.mark.parametrize("enabled", [True, False])
def test_an_error_whose_class_allows_no_assignment_goes_on_as_it_is(enabled, tmp_path):
    error = Diverged(3)
    with pytest.raises(Diverged) as raised, trace_run(enabled=enabled, runs_dir=str(tmp_path), report="off"):
        raise error
    assert raised.value is error


def test_such_an_error_loses_our_frames_all_the_same():
    with pytest.raises(Diverged) as raised:
        Rendezvous().fetch(RaisingStore(Diverged(3)), None, lambda: 0.0)
    hide_own_frames(raised.value)
    assert "rendezvous.py" not in "".join(traceback.format_exception(raised.value))


def test_our_packages_are_where_this_one_lies():
    assert own_frames.__file__.startswith(own_frames.PACKAGES)
