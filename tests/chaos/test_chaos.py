"""Every fault many times, and several at once in one run. A test is named after its seed: `--seed N --count 1`.

Ranks wait for their report no longer than the product does: run these on a machine of your own.
"""

from __future__ import annotations

import time
from random import Random

import pytest
from faults import FAULTS, LONG_FAULTS, disk_has_no_room, end, kill_aggregator, make_place, network_is_cut, ticket_of
from relay import Relay
from simulated_run import SimulatedRun
from small_disk import SmallDisk
from two_hosts import NotPermittedError, TwoHosts
from waiting import wait_for

# The owner gives an aggregator up that dies more often within a minute.
MOST_KILLS = 4


@pytest.fixture
def place(tmp_path):
    return make_place(tmp_path / "run")


@pytest.mark.parametrize("fault", FAULTS + LONG_FAULTS, ids=lambda fault: fault.__name__)
def test_a_fault_at_any_moment(place, fault, seed):
    run = SimulatedRun(place, is_patient=False)
    try:
        fault(run, Random(f"{fault.__name__} {seed}"))
    finally:
        run.close()


def test_a_disk_that_is_filled_to_its_last_byte_for_a_while(place, seed):
    run = SimulatedRun(place, is_patient=False)
    try:
        disk = SmallDisk(place / "runs")
    except NotPermittedError as error:
        pytest.skip(f"no disk can be mounted here: {error}")
    try:
        disk_has_no_room(run, disk, Random(seed))
    finally:
        run.close()
        disk.close()


def test_a_network_that_is_cut_for_half_a_minute(place, seed):
    try:
        hosts = TwoHosts()
    except NotPermittedError as error:
        pytest.skip(f"two hosts cannot be made here: {error}")
    run = SimulatedRun(place, step_s=0.02, is_patient=False)
    try:
        network_is_cut(run, hosts, seconds=30.0)
    finally:
        run.close()
        hosts.close()


def test_many_faults_in_one_run(place, seed):
    chance = Random(seed)
    run = SimulatedRun(place, ranks=chance.randint(2, 4), is_patient=False)
    relay = None
    try:
        run.start(0)
        endpoint = wait_for(lambda: ticket_of(run)).endpoint
        relay = Relay(int(endpoint.rpartition(":")[2]))
        for rank in range(1, run.ranks):
            run.start(rank, SIM_VIA=relay.endpoint)
        for rank in range(run.ranks):
            run.wait_for_rows(rank)
        wreak_havoc(run, relay, chance, seconds=8.0)
        relay.heal()
        for rank in run.processes:
            run.wait_for_rows(rank, more=2)
        summary, _ = end(run)
        assert summary.telemetry.rows_lost == 0
        dead = sorted({rank for rank, *_ in run.killed} - set(run.processes))
        assert summary.telemetry.unended_ranks == dead
    finally:
        run.close()
        if relay is not None:
            relay.close()


def wreak_havoc(run: SimulatedRun, relay: Relay, chance: Random, seconds: float) -> None:
    """Do things to the run, one after the other."""
    until_s = time.monotonic() + seconds
    kills = 0
    while time.monotonic() < until_s:
        deed = chance.choice(("kill", "stall", "cut", "reset", "rank", "again", "wait"))
        if deed == "kill" and kills < MOST_KILLS:
            kills += 1
            kill_aggregator(run)
        elif deed == "stall":
            aggregator = run.aggregator()
            aggregator.suspend()
            time.sleep(chance.uniform(0.1, 3.0))
            aggregator.resume()
        elif deed == "cut":
            relay.silence()
            time.sleep(chance.uniform(0.1, 3.0))
            relay.heal()
        elif deed == "reset":
            relay.reset()
        elif deed == "rank" and len(run.processes) > 2:
            run.kill(chance.choice([rank for rank in run.processes if rank > 0]))
        elif deed == "again":
            for rank in sorted({rank for rank, *_ in run.killed} - set(run.processes))[:1]:
                run.start(rank, SIM_VIA=relay.endpoint, SIM_FROM=str(chance.randint(0, 100)))
                run.wait_for_rows(rank)
        time.sleep(chance.uniform(0.0, 0.5))
