"""A process is known by its birth, whatever the clock says."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from traceml_core.core import process_birth
from traceml_core.core.process_birth import birth_of


def test_a_process_has_one_birth_and_none_once_it_has_ended():
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        birth = birth_of(process.pid)
        assert birth is not None and birth_of(process.pid) == birth != birth_of(os.getpid())
        process.stdin.close()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert birth_of(process.pid) is None, "nobody has waited for it, but it has ended"
    assert birth_of(process.pid) is None


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere the system tells it by the wall clock")
def test_setting_the_clock_does_not_make_a_process_another_one(monkeypatch):
    birth = birth_of(os.getpid())
    monkeypatch.setattr("time.time", lambda: 0.0)
    monkeypatch.setattr("psutil.boot_time", lambda: 0.0)
    assert birth_of(os.getpid()) == birth


def test_without_proc_it_is_told_by_psutil():
    assert process_birth._other_birth(os.getpid()) == process_birth._other_birth(os.getpid()) is not None
    assert process_birth._other_birth(2**22 + 1) is None
