"""Other people's tracebacks read as they do without TraceML."""

from __future__ import annotations

import traceback

import pytest

from traceml_core.runtime import own_frames
from traceml_core.runtime.own_frames import hide_own_frames
from traceml_core.runtime.rendezvous import Rendezvous


class RaisingStore:
    """What the user's code does when a function of ours calls it."""

    def check(self, keys):
        raise ValueError("theirs") from KeyError("before it")


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


def test_our_packages_are_where_this_one_lies():
    assert own_frames.__file__.startswith(own_frames.PACKAGES)
