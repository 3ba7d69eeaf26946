"""Failures of our own leave a trace in errors.log, and nowhere else."""

from __future__ import annotations

import gc
import logging
import logging.config
import weakref
from collections import Counter

import pytest

from traceml_core.loggers.error_log import (
    FAILURES,
    close_error_log,
    fail_open,
    get_error_logger,
    open_error_log,
)

logger = get_error_logger("Part")


@pytest.fixture(autouse=True)
def _no_log_is_open():
    close_error_log()
    yield
    close_error_log()


@pytest.fixture
def log(tmp_path):
    open_error_log(tmp_path / "errors.log")
    return tmp_path / "errors.log"


def fail(doing: str = "working", error: Exception | None = None, **options) -> None:
    with fail_open(logger, doing, **options):
        raise error or ValueError("no")


def test_a_failure_is_written_with_its_traceback_and_survived(log):
    fail()
    text = log.read_text()
    assert "[TraceML] working failed" in text
    assert "Traceback" in text
    assert "ValueError: no" in text


def test_one_cause_is_written_once_and_counted_each_time(log):
    for _ in range(3):
        fail()
    fail("working", KeyError("other"))
    fail("resting")
    assert log.read_text().count("[TraceML]") == 3
    assert dict(FAILURES) == {"Part": 5}


def test_failures_are_counted_where_the_caller_says(log):
    mine: Counter[str] = Counter()
    fail(failures=mine)
    assert mine == Counter(Part=1)
    assert not FAILURES


def test_the_end_of_the_process_and_ctrl_c_are_not_survived(log):
    for error in (KeyboardInterrupt, SystemExit):
        with pytest.raises(error), fail_open(logger, "working"):
            raise error


def test_without_failures_there_is_no_file(log):
    with fail_open(logger, "working"):
        pass
    assert not log.exists()


def test_what_failed_before_the_run_had_a_folder_is_written_once_it_has(tmp_path):
    fail("starting")
    open_error_log(tmp_path / "errors.log")
    fail("working")
    first, second = [line for line in (tmp_path / "errors.log").read_text().splitlines() if "[TraceML]" in line]
    assert "starting" in first
    assert "working" in second


def test_what_failed_in_one_run_is_not_told_of_the_next(tmp_path, log):
    fail()
    close_error_log()
    open_error_log(tmp_path / "second.log")
    fail()
    assert "working" in (tmp_path / "second.log").read_text()
    assert dict(FAILURES) == {"Part": 1}


def test_nothing_reaches_the_users_logging_or_the_terminal(log, caplog, capfd):
    with caplog.at_level(logging.DEBUG):
        fail()
        get_error_logger("Part").warning("[TraceML] careful")
    assert caplog.records == []
    assert capfd.readouterr() == ("", "")


def test_the_users_logging_configuration_does_not_switch_it_off(log):
    logging.config.dictConfig({"version": 1, "disable_existing_loggers": True})
    fail()
    assert "working failed" in log.read_text()


@pytest.mark.parametrize("target", ["missing/errors.log", "."])
def test_a_log_that_cannot_be_written_is_counted_and_survived(tmp_path, target, capfd):
    open_error_log(tmp_path / target)
    fail()
    assert dict(FAILURES) == {"Part": 1, "error_log": 1}
    assert capfd.readouterr() == ("", "")


def test_text_that_is_not_unicode_is_written_all_the_same(log):
    fail(error=ValueError("file \udcff"))
    assert "\\udcff" in log.read_text()


def test_a_failure_keeps_nothing_of_the_users_alive():
    class Model:
        pass

    def work() -> weakref.ref[Model]:
        model = Model()
        fail()
        return weakref.ref(model)

    kept = work()
    gc.collect()
    assert kept() is None
