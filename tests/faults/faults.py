"""The faults, each as something that happens to a run of simulated ranks, with what has to be true afterwards.

The default tests do each once, `tox -e chaos` many times: `chance` decides when and how long.
"""

from __future__ import annotations

import os
import resource
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from random import Random

import msgspec
import psutil
import pytest
from kept_asleep import kept_asleep
from own_time import OwnTime, own_seconds_until_gone
from relay import Relay
from simulated_run import REPORT_LIMIT_S, SimulatedRun, Stored, check
from small_disk import SmallDisk
from two_hosts import ADDRESSES, TwoHosts
from waiting import LIMIT_S, wait_for

from traceml_core.runtime.rendezvous import KEY, Notice
from traceml_core.transport.keys import Ticket

# After a cut of any length: a rank tries again every 3 s.
HEAL_LIMIT_S = 10.0
# The outbox's 64 MiB, the queue between training and sender, and what the allocator keeps.
MOST_GROWTH_BYTES = 128 * 2**20
# Of a run whose clock is set.
SHORTER_THAN_A_JUMP_S = 1_800.0


def aggregator_is_killed(run: SimulatedRun, chance: Random) -> None:
    """Killed at any moment, also twice: started again by its owner, no row missing, none twice."""
    run.start_all()
    for _ in range(chance.choice((1, 2))):
        time.sleep(chance.uniform(0.0, 1.0))
        kill_aggregator(run)
    summary, _ = end(run)
    assert (summary.run.status, summary.telemetry.rows_lost) == ("completed", 0)


def aggregator_is_killed_before_its_first_word(run: SimulatedRun, chance: Random) -> None:
    """Killed while it is still starting."""
    for rank in range(run.ranks):
        run.start(rank)
    aggregator = run.aggregator()
    time.sleep(chance.uniform(0.0, 0.3))
    aggregator.kill()
    for rank in range(run.ranks):
        run.wait_for_rows(rank)
    end(run)


def aggregator_is_killed_at_the_end(run: SimulatedRun, chance: Random) -> None:
    """Killed while the ranks say their last words and wait for the report."""
    run.start_all()
    aggregator = run.aggregator()
    (run.place / "stop").touch()
    time.sleep(chance.uniform(0.0, 0.3))
    with suppress(psutil.NoSuchProcess):  # the run was quicker: a round that does nothing
        aggregator.kill()
    end(run)


def rank_is_killed(run: SimulatedRun, chance: Random) -> None:
    """The others' rows are complete, the dead rank's all but its last 2 s; the report names what has no end."""
    run.start_all()
    time.sleep(chance.uniform(0.0, 1.5))
    run.kill(run.ranks - 1)
    run.wait_for_rows(0, more=5)
    summary, _ = end(run)
    assert summary.telemetry.unended_ranks == [run.ranks - 1]
    assert f"Rank {run.ranks - 1} did not say how it ended" in run.said_by(0)


def owner_is_killed(run: SimulatedRun, chance: Random) -> None:
    """The aggregator ends the run by itself, as interrupted, though other ranks go on for a while."""
    run.start_all()
    time.sleep(chance.uniform(0.0, 1.5))
    aggregator = run.aggregator()
    run.kill(0)
    assert own_seconds_until_gone(aggregator, LIMIT_S) < REPORT_LIMIT_S
    assert run.summary().run.status == "interrupted"
    for process in run.processes.values():
        process.kill()  # what it measured after the report is nobody's
    run.processes = {}
    check(run)


def cable_is_pulled(run: SimulatedRun, chance: Random) -> None:
    """Cut for a while, with nobody told, and healed: nothing is lost."""

    def cut(relay: Relay) -> None:
        relay.silence()
        time.sleep(chance.uniform(2.5, 6.0))
        relay.heal()

    over_a_relay(run, cut)


def connections_are_reset(run: SimulatedRun, chance: Random) -> None:
    """Cut once or more so that both ends notice, as by a firewall: nothing is lost."""

    def cut(relay: Relay) -> None:
        for _ in range(chance.randint(1, 3)):
            relay.reset()
            time.sleep(chance.uniform(0.0, 0.5))

    over_a_relay(run, cut)


def over_a_relay(run: SimulatedRun, cut: Callable[[Relay], None]) -> None:
    """Rank 0 speaks to its aggregator directly, the others over a wire that is cut."""
    run.start(0)
    endpoint = wait_for(lambda: ticket_of(run)).endpoint
    relay = Relay(int(endpoint.rpartition(":")[2]))
    try:
        for rank in range(1, run.ranks):
            run.start(rank, SIM_VIA=relay.endpoint)
        for rank in range(run.ranks):
            run.wait_for_rows(rank)
        cut(relay)
        for rank in range(1, run.ranks):
            run.wait_for_rows(rank, more=5)
        summary, _ = end(run)
    finally:
        relay.close()
    assert (summary.run.status, summary.telemetry.rows_lost) == ("completed", 0)


def disk_is_full(run: SimulatedRun, chance: Random) -> None:
    """Full for a while, then freed: everything is stored in the end, and that it failed is counted."""
    run.start_all()
    with no_room_for_the_history(run):
        time.sleep(chance.uniform(0.0, 2.0))
    for rank in range(run.ranks):
        run.wait_for_rows(rank, more=5)
    summary, _ = end(run)
    assert summary.telemetry.rows_lost == 0
    assert summary.telemetry.failures["ingest"] > 0


def disk_is_full_until_rows_are_dropped(run: SimulatedRun, chance: Random) -> None:
    """What could not be kept is counted and said."""
    run.set(SIM_BOUND=str(12_000))
    run.start_all()
    with no_room_for_the_history(run):
        for rank in range(run.ranks):
            run.wait_for_drops(rank)
        time.sleep(chance.uniform(0.0, 1.0))
    for rank in range(run.ranks):
        run.wait_for_rows(rank, more=5)
    summary, _ = end(run, lost=True)
    assert summary.telemetry.rows_lost > 0
    assert "rows were lost; the numbers miss them" in run.said_by(0)


def clock_jumps(run: SimulatedRun, chance: Random) -> None:
    """The wall clock is set back or forth by up to a day: rows keep their order and their time."""
    run.start_all()
    (run.place / "clock").write_text(str(chance.choice((-1, 1)) * chance.uniform(3_600.0, 86_400.0)))
    for rank in range(run.ranks):
        run.wait_for_rows(rank, more=6)
    summary, stored = end(run)
    assert (summary.run.status, summary.telemetry.rows_lost) == ("completed", 0)
    assert summary.run.duration_s < SHORTER_THAN_A_JUMP_S
    for times_s in stored.times_s.values():
        assert times_s == sorted(times_s)
        assert times_s[-1] - times_s[0] < SHORTER_THAN_A_JUMP_S


def aggregator_is_stalled(run: SimulatedRun, chance: Random) -> None:
    """Stopped and continued: memory on the ranks is bounded, training as fast as before, drops are counted."""
    run.set(SIM_BOUND=str(12_000))
    run.start_all()
    time.sleep(0.5)
    aggregator = run.aggregator()
    aggregator.suspend()
    (run.place / "stalled").touch()
    for rank in range(run.ranks):
        run.wait_for_drops(rank)
    time.sleep(chance.uniform(0.0, 1.0))
    (run.place / "stalled").unlink()
    aggregator.resume()
    for rank in range(run.ranks):
        run.wait_for_rows(rank, more=5)
    summary, _ = end(run, lost=True)
    assert summary.telemetry.rows_lost > 0
    for told in run.ended.values():
        assert told["cost_s"]["stalled"] < 1.5 * told["cost_s"]["free"] + 0.001
        assert told["peak_kib"] < 120 * 1024


def ranks_are_faster_than_a_stalled_aggregator(run: SimulatedRun, chance: Random) -> None:
    """Steps of no length, until the real bound is reached: memory stays within it."""
    run.set(SIM_STEP_S="0")
    run.ranks = 1
    run.set(WORLD_SIZE="1")
    run.start_all()
    time.sleep(0.5)
    process = psutil.Process(run.processes[0].pid)
    before = process.memory_info().rss
    aggregator = run.aggregator()
    aggregator.suspend()
    run.wait_for_drops(0)
    time.sleep(chance.uniform(0.0, 2.0))
    grown = process.memory_info().rss - before
    aggregator.resume()
    run.wait_for_rows(0, more=20)
    run.end()
    wait_for(lambda: not run.left())  # half a million steps: the report takes its time
    telemetry = run.summary().telemetry
    assert telemetry.rows_lost > 0
    assert telemetry.rows_received + telemetry.rows_lost == run.ended[0]["made"]
    assert grown < MOST_GROWTH_BYTES


def aggregator_is_stalled_to_the_end(run: SimulatedRun, chance: Random) -> None:
    """Nobody continues it: it is woken at the end of training, which has its report in time, with every row."""
    run.start_all()
    run.aggregator().suspend()
    time.sleep(chance.uniform(0.0, 1.0))
    summary, _ = end(run)
    assert (summary.run.status, summary.telemetry.rows_lost) == ("completed", 0)


def aggregator_cannot_be_woken(run: SimulatedRun, chance: Random) -> None:
    """Whatever wakes it, it is stopped again: training ends in time and says that there is no report yet."""
    run.is_patient = False
    run.start_all()
    with kept_asleep(run.aggregator()):
        time.sleep(chance.uniform(0.0, 1.0))
        run.end()
        assert "no report was made in time" in run.said_by(0)
        for told in run.ended.values():
            assert told["close_s"] < 5.5
        # In the moment between being woken and stopped again it may have stored what a rank had sent.
        says_so = "rows could not be stored and are missing from the report" in run.said_by(1)
        assert says_so == (run.ended[1]["unstored"] > 0)
    run.wait_until_nobody_is_left()
    assert (run.folder / "final_summary.json").exists()


def aggregator_is_told_to_end(run: SimulatedRun, chance: Random) -> None:
    """SIGTERM to it alone, or to a job whose ranks go on through their grace time: its successor has the last word."""
    run.start_all()
    time.sleep(chance.uniform(0.0, 1.0))
    aggregator = run.aggregator()
    aggregator.send_signal(signal.SIGTERM)
    aggregator.wait(LIMIT_S)
    assert run.summary().run.status == "interrupted"
    for rank in range(run.ranks):
        run.wait_for_rows(rank, more=5)
    summary, _ = end(run)
    assert (summary.run.status, summary.telemetry.rows_lost) == ("completed", 0)


def scheduler_ends_the_job(run: SimulatedRun, chance: Random) -> None:
    """SIGTERM to every process of the job: the report is there within its grace time."""
    run.start_all()
    time.sleep(chance.uniform(0.0, 1.0))
    answered_s = min(run.wait_for_answers(rank) for rank in range(run.ranks))
    processes = run.left()
    chance.shuffle(processes)
    with OwnTime(run.left) as own_time:
        for process in processes:
            process.send_signal(signal.SIGTERM)
        for rank, process in run.processes.items():
            run.killed.append((rank, process.pid, answered_s))
            process.communicate(timeout=LIMIT_S)
        run.processes.clear()
        run.wait_until_nobody_is_left()
    assert own_time.seconds < REPORT_LIMIT_S
    summary, _ = check(run, lost=True)
    assert summary.run.status == "interrupted"


def rank_is_restarted(run: SimulatedRun, chance: Random) -> None:
    """A worker killed, and started again with its rank some steps back: both lives are kept, the redone counted."""
    run.start_all()
    rank = run.ranks - 1
    died = run.processes[rank].pid
    enough = chance.randint(100, 300)
    wait_for(lambda: len(Stored(run.folder).steps.get(died, [])) >= enough)
    run.kill(rank)
    run.start(rank, SIM_FROM=str(enough - 50))
    run.wait_for_rows(rank, more=6)
    summary, stored = end(run)
    assert summary.telemetry.incarnations == run.ranks + 1
    again = set(stored.steps[died]) & set(stored.steps[run.processes[rank].pid])
    assert len(again) == summary.telemetry.redone_steps > 0


def disk_has_no_room(run: SimulatedRun, disk: SmallDisk, chance: Random) -> None:
    """A real file system is filled to its last byte, and freed: everything is stored in the end."""
    run.start_all()
    disk.fill()
    hear_nothing(run, 0, chance.uniform(1.5, 3.0))
    disk.free()
    for rank in range(run.ranks):
        run.wait_for_rows(rank, more=5)
    summary, _ = end(run)
    assert summary.telemetry.rows_lost == 0
    assert summary.telemetry.failures["ingest"] > 0


def network_is_cut(run: SimulatedRun, hosts: TwoHosts, seconds: float) -> None:
    """Two hosts, the cable between them pulled and put back: nothing is lost."""
    run.set(SIM_NODES="2", MASTER_ADDR=ADDRESSES[0])
    for rank in range(2):
        run.start(rank, hosts.prefix(rank))
    for rank in range(2):
        run.wait_for_rows(rank)
    hosts.cut()
    hear_nothing(run, 1, seconds)
    with OwnTime(run.left) as own_time:
        hosts.heal()
        for rank in range(2):
            run.wait_for_rows(rank, more=5)
    assert own_time.seconds < HEAL_LIMIT_S
    summary, _ = end(run)
    assert (summary.run.status, summary.run.nodes, summary.telemetry.rows_lost) == ("completed", 2, 0)


FAULTS = (
    aggregator_is_killed,
    aggregator_is_killed_before_its_first_word,
    aggregator_is_killed_at_the_end,
    rank_is_killed,
    owner_is_killed,
    cable_is_pulled,
    connections_are_reset,
    disk_is_full,
    disk_is_full_until_rows_are_dropped,
    clock_jumps,
    aggregator_is_stalled,
    aggregator_is_stalled_to_the_end,
    aggregator_cannot_be_woken,
    scheduler_ends_the_job,
    rank_is_restarted,
)


# These take longer, and are left to `tox -e chaos`.
LONG_FAULTS = (aggregator_is_told_to_end, ranks_are_faster_than_a_stalled_aggregator)


@contextmanager
def no_room_for_the_history(run: SimulatedRun) -> Iterator[None]:
    """The aggregator cannot make its files any larger, and has noticed."""
    if not hasattr(resource, "prlimit"):
        pytest.skip("this system cannot limit another process's files")
    aggregator = run.aggregator()
    limits = resource.prlimit(aggregator.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(aggregator.pid, resource.RLIMIT_FSIZE, (run.history_bytes(), limits[1]))
    wait_for(run.is_behind)
    yield
    resource.prlimit(aggregator.pid, resource.RLIMIT_FSIZE, limits)


def hear_nothing(run: SimulatedRun, rank: int, seconds: float) -> None:
    """Wait until a rank has heard no ack for so long; what was under way when it began may still come in."""
    wait_for(lambda: time.monotonic() - run.heard_s(rank) > seconds)


def kill_aggregator(run: SimulatedRun) -> psutil.Process:
    """Kill it, and give its successor as soon as there is one."""
    killed = run.aggregator()
    killed.kill()
    return wait_for(lambda: next((one for one in run.aggregators() if one.pid != killed.pid), None))


def end(run: SimulatedRun, lost: bool = False):
    """Let the run end by itself, and look at what it left."""
    run.end()
    return check(run, lost=lost)


def ticket_of(run: SimulatedRun) -> Ticket | None:
    """The ticket in the store, once it is there."""
    path = run.place / "store" / KEY.replace("/", ".")
    return msgspec.json.decode(path.read_bytes(), type=Notice).ticket if path.exists() else None


def make_place(path: Path) -> Path:
    """The folder of one simulated run."""
    path.mkdir(parents=True)
    return Path(os.path.realpath(path))
