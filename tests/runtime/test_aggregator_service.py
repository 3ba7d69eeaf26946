"""The service's main loop: when it reports, with which status, and when it ends."""

from __future__ import annotations

import threading
from collections import Counter
from concurrent.futures import wait
from queue import Empty, SimpleQueue

import pytest
from telemetry_factory import make_batch, make_finish, make_hello, make_step_row
from waiting import LIMIT_S, wait_for

from traceml_core.aggregator import service as service_module
from traceml_core.aggregator.ingest import Ingest
from traceml_core.aggregator.service import Service
from traceml_core.history.reader import HistoryReader
from traceml_core.samplers.step_time import StepTimeRow
from traceml_core.telemetry.messages import Ack, FromAggregator, Report, Verdict, Welcome

RANK_0, RANK_1 = b"peer 0", b"peer 1"


class FakeServer:
    """The wire as two queues."""

    def __init__(self) -> None:
        self.inbox: SimpleQueue = SimpleQueue()
        self.said: SimpleQueue[tuple[bytes, FromAggregator]] = SimpleQueue()
        self.refused: Counter[str] = Counter()

    def receive(self, timeout_ms: int):
        try:
            messages = [self.inbox.get(timeout=timeout_ms / 1000)]
        except Empty:
            return []
        while not self.inbox.empty():
            messages.append(self.inbox.get())
        return messages

    def take_refused(self) -> Counter[str]:
        refused, self.refused = self.refused, Counter()
        return refused

    def send(self, peer: bytes, message: FromAggregator) -> None:
        self.said.put((peer, message))


class FakeReports:
    """Writes down what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.loads = threading.Event()
        self.loads.set()
        self.settles = threading.Event()
        self.settles.set()

    def warm_up(self) -> None:
        self.loads.wait(LIMIT_S)
        self.asked.append("warm up")

    def live(self) -> Verdict:
        self.asked.append("live")
        return Verdict("NORMAL", "info", "", "", {"traceml/lives": float(self.asked.count("live"))})

    def final(self, status, request, asked_s, on_read) -> Report:
        self.asked.append(status if request is None else f"{status}, asked for")
        return Report(f"card {len(self.finals)}", None)

    def settle(self) -> None:
        self.settles.wait(LIMIT_S)

    @property
    def finals(self) -> list[str]:
        return [asked for asked in self.asked if asked not in ("warm up", "live")]


class Aggregator:
    """A service that runs on a thread until its owner is gone."""

    def __init__(self, path, server: FakeServer | None = None) -> None:
        self.server = server or FakeServer()
        self.reports = FakeReports()
        self.gone = threading.Event()
        # The history is made on the thread that uses it, as in the process.
        self.thread = threading.Thread(target=self._serve, args=(path,), daemon=True)
        self.thread.start()

    def _serve(self, path) -> None:
        ingest = Ingest(path, (StepTimeRow,), self.server.send)
        self.service = Service(self.server, ingest, self.reports, self.gone.is_set)
        self.service.run()

    def hear(self, peer: bytes, message) -> None:
        self.server.inbox.put((peer, message))

    def answer(self) -> tuple[bytes, FromAggregator]:
        return self.server.said.get(timeout=LIMIT_S)

    def ask(self, peer: bytes, message) -> FromAggregator:
        self.hear(peer, message)
        told, answer = self.answer()
        assert told == peer
        return answer

    def lose_owner(self) -> None:
        self.gone.set()
        self.thread.join(LIMIT_S)
        assert not self.thread.is_alive()


@pytest.fixture
def aggregator(tmp_path):
    aggregator = Aggregator(tmp_path / "telemetry.sqlite")
    yield aggregator
    aggregator.reports.loads.set()
    aggregator.reports.settles.set()
    aggregator.gone.set()
    aggregator.thread.join(LIMIT_S)


def test_hello_and_batches_are_answered_while_reports_are_still_loading(aggregator):
    aggregator.reports.loads.clear()
    assert isinstance(aggregator.ask(RANK_0, make_hello(0)), Welcome)
    assert aggregator.ask(RANK_0, make_batch(1)) == Ack(1)
    assert aggregator.reports.asked == []


def test_a_finish_is_answered_with_the_report(aggregator):
    aggregator.ask(RANK_0, make_hello(0))
    assert aggregator.ask(RANK_0, make_finish(0)) == Report("card 1", None)
    assert aggregator.reports.finals == ["completed, asked for"]


def test_the_answer_does_not_wait_for_the_disk(aggregator):
    aggregator.reports.settles.clear()
    aggregator.ask(RANK_0, make_hello(0))
    assert aggregator.ask(RANK_0, make_finish(0)) == Report("card 1", None)


def test_a_repeated_finish_gets_the_same_report_again(aggregator):
    aggregator.ask(RANK_0, make_hello(0))
    first = aggregator.ask(RANK_0, make_finish(0))
    assert aggregator.ask(RANK_0, make_finish(0)) == first


def test_a_finish_without_a_hello_is_answered(aggregator):
    assert aggregator.ask(RANK_0, make_finish(0)) == Report("card 1", None)


def test_the_report_waits_for_the_other_ranks(aggregator, monkeypatch):
    monkeypatch.setattr(service_module, "OTHER_RANKS_S", 3600.0)
    aggregator.ask(RANK_0, make_hello(0))
    aggregator.ask(RANK_1, make_hello(1))
    aggregator.hear(RANK_0, make_finish(0))
    assert aggregator.ask(RANK_1, make_batch(1, rank=1)) == Ack(1)
    assert aggregator.reports.finals == []
    aggregator.hear(RANK_1, make_finish(1, status="failed"))
    assert aggregator.answer() == (RANK_0, Report("card 1", None))
    assert aggregator.reports.finals == ["failed, asked for"]


def test_the_report_does_not_wait_long_for_a_rank_that_hangs(aggregator, monkeypatch):
    monkeypatch.setattr(service_module, "OTHER_RANKS_S", 0.05)
    aggregator.ask(RANK_0, make_hello(0))
    aggregator.ask(RANK_1, make_hello(1))
    assert aggregator.ask(RANK_0, make_finish(0)) == Report("card 1", None)


def test_without_its_owner_the_run_is_reported_as_interrupted(aggregator):
    aggregator.ask(RANK_0, make_hello(0))
    aggregator.lose_owner()
    assert aggregator.reports.finals == ["interrupted"]


class TalkativeServer(FakeServer):
    """A wire on which ranks, once they are `talking`, say something whenever they are listened to."""

    def __init__(self) -> None:
        super().__init__()
        self.talking: tuple[int, ...] = ()
        self.seq = 0

    def receive(self, timeout_ms: int):
        if not self.talking:
            return super().receive(timeout_ms)
        self.seq += 1
        return [(b"peer %d" % rank, make_batch(self.seq, rank=rank)) for rank in self.talking]


@pytest.mark.parametrize("talking", [(0,), (1,), (0, 1)], ids=str)
def test_ranks_that_go_on_for_ever_do_not_keep_it_and_what_comes_after_the_last_report_is_not_acked(
    talking, tmp_path, monkeypatch
):
    monkeypatch.setattr(service_module, "DRAIN_LIMIT_S", 0.2)
    server = TalkativeServer()
    aggregator = Aggregator(tmp_path / "telemetry.sqlite", server)
    for rank in range(2):
        aggregator.ask(b"peer %d" % rank, make_hello(rank))
    statuses: list[str] = []
    acks: dict[bytes, int] = {}

    def final(status, *_):
        statuses.append(status)
        while not server.said.empty():
            peer, ack = server.said.get()
            acks[peer] = ack.seq
        return Report("card", None)

    monkeypatch.setattr(aggregator.reports, "final", final)
    server.talking = talking
    aggregator.lose_owner()
    assert statuses == ["interrupted"]
    assert server.said.empty(), "something was acked that is in no report"
    assert len(acks) == len(talking) and max(acks.values()) < server.seq


def test_a_stop_by_signal_reports_what_there_is(aggregator):
    aggregator.ask(RANK_0, make_hello(0))
    aggregator.service.stop()
    aggregator.thread.join(LIMIT_S)
    assert aggregator.reports.finals == ["interrupted"]


def test_a_run_without_a_single_row_or_rank_is_reported_too(aggregator):
    aggregator.lose_owner()
    assert aggregator.reports.finals == ["interrupted"]


def test_an_owner_that_leaves_after_its_report_costs_no_second_one(aggregator):
    aggregator.ask(RANK_0, make_hello(0))
    aggregator.ask(RANK_0, make_finish(0))
    aggregator.lose_owner()
    assert aggregator.reports.finals == ["completed, asked for"]


def test_what_a_late_rank_sends_after_the_report_is_reported_at_the_end(aggregator, monkeypatch):
    monkeypatch.setattr(service_module, "OTHER_RANKS_S", 0.0)
    aggregator.ask(RANK_0, make_hello(0))
    aggregator.ask(RANK_1, make_hello(1))
    aggregator.ask(RANK_0, make_finish(0))
    aggregator.ask(RANK_1, make_batch(1, [make_step_row(1)], rank=1))
    aggregator.hear(RANK_1, make_finish(1))
    aggregator.lose_owner()
    assert aggregator.reports.finals == ["completed, asked for", "completed"]


def test_live_summaries_follow_the_rows_and_their_verdict_rides_on_acks(aggregator, monkeypatch):
    monkeypatch.setattr(service_module, "LIVE_INTERVAL_S", 0.02)
    aggregator.ask(RANK_0, make_hello(0))
    verdict = None
    seq = 0
    while verdict is None or verdict.metrics["traceml/lives"] < 2:
        seq += 1
        ack = aggregator.ask(RANK_0, make_batch(seq))
        verdict = ack.verdict or verdict
    aggregator.ask(RANK_0, make_finish(0))
    assert aggregator.reports.asked[0] == "warm up"
    assert aggregator.reports.asked[-1] == "completed, asked for"


class Clock:
    """The service's clock: it goes on a little with each look that finds batches, and waits for a live summary."""

    def __init__(self, server: FakeServer) -> None:
        self.now_s = 1_000.0
        self.aggregator: Aggregator | None = None
        self._receive = server.receive
        server.receive = self._look

    def monotonic(self) -> float:
        return self.now_s

    def _look(self, timeout_ms: int):
        if self.aggregator is not None and self.aggregator.service._live is not None:
            wait((self.aggregator.service._live,))
        messages = self._receive(timeout_ms)
        self.now_s += 0.02 if messages else 0.0  # however many: on a busy machine they pile up
        return messages


def test_what_was_refused_is_kept_while_the_run_goes_on(aggregator, monkeypatch, tmp_path):
    monkeypatch.setattr(service_module, "FAILURES_INTERVAL_S", 0.02)
    aggregator.ask(RANK_0, make_hello(0))
    aggregator.server.refused = Counter({"wrong key": 3})
    with HistoryReader(tmp_path / "telemetry.sqlite") as reader:
        wait_for(lambda: reader.failures() == {"refused.wrong key": 3})
    assert aggregator.reports.finals == []


def test_live_summaries_come_sooner_at_first(tmp_path, monkeypatch):
    server = FakeServer()
    clock = Clock(server)
    monkeypatch.setattr(service_module, "time", clock)
    aggregator = Aggregator(tmp_path / "telemetry.sqlite", server)
    lives_s: list[float] = []
    monkeypatch.setattr(aggregator.reports, "live", lambda: lives_s.append(clock.now_s))
    aggregator.ask(RANK_0, make_hello(0))
    clock.aggregator = aggregator
    seq = 0
    while len(lives_s) < 6:
        seq += 1
        aggregator.ask(RANK_0, make_batch(seq))
    aggregator.gone.set()
    wait_for(lambda: aggregator.service._ending_at)
    clock.now_s += 3_600
    aggregator.lose_owner()
    first_s, most_s = service_module.FIRST_LIVE_INTERVAL_S, service_module.LIVE_INTERVAL_S
    waited_s = [later_s - sooner_s for sooner_s, later_s in zip(lives_s, lives_s[1:], strict=False)]
    assert waited_s == pytest.approx([first_s, 2 * first_s, 4 * first_s, most_s, most_s], abs=0.06)


def test_nobody_is_left_when_the_owner_keeps_its_pipe_open_for_long(aggregator, monkeypatch):
    monkeypatch.setattr(service_module, "LINGER_S", 0.05)
    aggregator.ask(RANK_0, make_hello(0))
    aggregator.ask(RANK_0, make_finish(0))
    aggregator.thread.join(LIMIT_S)
    assert not aggregator.thread.is_alive()
