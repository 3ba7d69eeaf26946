"""Starting and stopping the aggregator and the runtime: once, twice, in a forked child, after a kill."""

from __future__ import annotations

import os
import statistics

import psutil
import pytest
from own_time import OwnTime
from telemetry_factory import make_finish, make_hello, make_identity
from waiting import LIMIT_S, wait_for

from traceml_core.core.run_folder import create_run_folder
from traceml_core.core.settings import resolve_settings
from traceml_core.instrumentation.phase_clock import PhaseClock
from traceml_core.instrumentation.step_recorder import StepRecorder
from traceml_core.runtime import lifecycle
from traceml_core.runtime.forked import let_go_when_forked
from traceml_core.runtime.lifecycle import RESTARTS, start_aggregator, start_runtime
from traceml_core.runtime.spawn import module_places
from traceml_core.samplers.base import SamplerContext
from traceml_core.telemetry.facts import RunFacts
from traceml_core.telemetry.messages import Welcome
from traceml_core.transport.client import TelemetryClient

SETTINGS = resolve_settings({}, report="off")


@pytest.fixture
def aggregator(tmp_path):
    folder = create_run_folder(resolve_settings({}, runs_dir=str(tmp_path / "runs")))
    handle = start_aggregator(folder, SETTINGS)
    yield handle
    handle.stop()


@pytest.fixture
def runtime():
    """Starts runtimes that find no run; ends them."""
    started = []

    def start(clock=None, steps=None, **options):
        clock = clock or PhaseClock()
        handle = start_runtime(
            make_identity(),
            SETTINGS,
            clock,
            steps or StepRecorder(clock),
            options.pop("find_ticket", lambda stopped: None),
            lambda: RunFacts(framework="manual"),
            started_ns=0,
            **options,
        )
        started.append(handle)
        return handle

    yield start
    for handle in started:
        handle.stop()


def is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def has_ended(process: psutil.Process) -> bool:
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def in_a_forked_child(check) -> bool:
    child = os.fork()
    if child == 0:
        os._exit(0 if check() else 1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_stopping_an_aggregator_ends_its_process_and_is_safe_twice(aggregator):
    process = aggregator._process
    aggregator.stop()
    wait_for(lambda: not process.is_running())
    aggregator.stop()
    assert aggregator.keep_running() and not process.is_running()


def test_an_aggregator_that_lives_is_left_alone_and_one_that_died_is_started_again(aggregator):
    pid = aggregator.pid
    assert aggregator.keep_running() and aggregator.pid == pid
    os.kill(pid, 9)
    wait_for(lambda: aggregator.keep_running() and aggregator.pid != pid)
    client = TelemetryClient(aggregator.ticket)
    client.send(make_hello())
    assert isinstance(client.receive(int(LIMIT_S * 1000)), Welcome)
    client.close()


def test_an_aggregator_apart_is_nobodys_child_and_is_stopped_and_started_again_like_any_other(tmp_path):
    folder = create_run_folder(resolve_settings({}, runs_dir=str(tmp_path / "runs")))
    handle = start_aggregator(folder, SETTINGS, apart=True)
    process = psutil.Process(handle.pid)
    assert process.ppid() != os.getpid() and process not in psutil.Process().children(recursive=True)
    os.kill(handle.pid, 9)
    wait_for(lambda: handle.keep_running() and handle.pid != process.pid)
    process = psutil.Process(handle.pid)
    handle.stop()
    wait_for(lambda: has_ended(process))
    assert folder.final_summary_json.exists()


def test_an_owner_without_a_runtime_has_a_thread_keep_its_aggregator(aggregator):
    pid = aggregator.pid
    aggregator.keep_by_thread()
    os.kill(pid, 9)
    wait_for(lambda: aggregator.pid != pid)
    aggregator.stop()
    assert not aggregator._keeper.is_alive()
    wait_for(lambda: not aggregator._process.is_running())


def test_an_aggregator_listens_where_it_is_told_to(tmp_path):
    folder = create_run_folder(resolve_settings({}, runs_dir=str(tmp_path / "runs")))
    handle = start_aggregator(folder, SETTINGS, host="127.0.0.2")
    assert handle.ticket.endpoint.startswith("tcp://127.0.0.2:")
    handle.stop()


def test_after_too_many_deaths_in_a_minute_it_gives_up_and_says_so_once(aggregator, capfd):
    deaths = 0
    while aggregator.keep_running():
        if aggregator._process.is_running():
            os.kill(aggregator.pid, 9)
            aggregator._process.wait(LIMIT_S)
            deaths += 1
    assert (deaths, aggregator.has_given_up, aggregator.keep_running()) == (RESTARTS + 1, True, False)
    assert capfd.readouterr().err.count("TraceML:") == 1


def test_deaths_that_lie_far_apart_do_not_add_up(aggregator, monkeypatch):
    for _ in range(RESTARTS + 3):
        os.kill(aggregator.pid, 9)
        aggregator._process.wait(LIMIT_S)
        aggregator._restarts = [at - lifecycle.RESTART_WINDOW_S for at in aggregator._restarts]
        assert aggregator.keep_running()


def test_a_forked_child_holds_neither_the_socket_nor_the_pipe_and_cannot_stop_the_aggregator(aggregator):
    listening, pipe = aggregator._listener.fileno(), aggregator._process._write_end
    assert is_open(listening) and is_open(pipe)
    assert in_a_forked_child(lambda: not is_open(listening) and not is_open(pipe))
    assert in_a_forked_child(lambda: aggregator.stop() is None)
    assert is_open(listening) and is_open(pipe) and aggregator._process.is_running()


def test_what_is_forgotten_is_not_held_for_forks():
    class Held:
        def let_go(self):
            raise AssertionError("nobody holds this any more")

    let_go_when_forked(Held())
    assert in_a_forked_child(lambda: True)


def test_a_runtime_is_stopped_once_and_not_by_a_forked_child(runtime):
    handle = runtime(find_ticket=lambda stopped: stopped.wait(LIMIT_S) and None)
    assert in_a_forked_child(lambda: handle.stop() is None)
    assert handle._sender._thread.is_alive()
    handle.stop()
    handle.stop()
    assert not handle._sender._thread.is_alive()


def test_a_second_runtime_joins_the_first_and_leaves_it_running(runtime):
    first = runtime(find_ticket=lambda stopped: stopped.wait(LIMIT_S) and None)
    second = runtime(find_ticket=lambda stopped: None)
    assert (second.clock, second.steps) == (first.clock, first.steps)
    second.finish(make_finish())
    assert second.wait(0.0)
    second.stop()
    assert first._sender._thread.is_alive()
    first.stop()
    third = runtime()
    assert third.clock is not first.clock


def test_a_sampler_that_cannot_be_built_or_fails_costs_the_others_nothing(runtime, aggregator, monkeypatch):
    seen = []

    class Good:
        def __init__(self, context: SamplerContext) -> None:
            pass

        def sample(self):
            seen.append(1)
            return []

    class Failing(Good):
        def sample(self):
            raise OSError("no such counter")

    def unbuildable(context):
        raise ImportError("no driver")

    class Spec:
        name, interval_s = "toy", 0.0

        def __init__(self, build):
            self.build = build

    monkeypatch.setattr(lifecycle, "samplers_for", lambda *names: [Spec(b) for b in (unbuildable, Failing, Good)])
    runtime(find_ticket=lambda stopped: aggregator.ticket)
    wait_for(lambda: len(seen) > 2)


def test_modules_are_found_without_importing_them_and_never_in_the_working_directory(tmp_path):
    places = module_places(())
    assert places and all(os.path.isabs(place) for place in places)  # noqa: PTH117
    assert module_places(tuple(places)) == []


def test_an_aggregator_answers_soon_after_it_was_started(tmp_path):
    spans_s = []
    for _ in range(3):
        folder = create_run_folder(resolve_settings({}, runs_dir=str(tmp_path / "runs")))
        handle = start_aggregator(folder, SETTINGS)
        aggregator = psutil.Process(handle.pid)
        with OwnTime(lambda one=aggregator: [one]) as own_time:
            client = TelemetryClient(handle.ticket)
            client.send(make_hello())
            assert isinstance(client.receive(int(LIMIT_S * 1000)), Welcome)
        spans_s.append(own_time.seconds)
        client.close()
        handle.stop()
    # 0.5 s is what must hold on an idle machine; another one may be slower.
    assert statistics.median(spans_s) < 3.0
