"""One short round of every fault, with real signals and real cuts. `tox -e chaos` does each of them many times."""

from __future__ import annotations

from random import Random

import pytest
from faults import FAULTS, disk_has_no_room, make_place, network_is_cut
from simulated_run import SimulatedRun
from small_disk import SmallDisk
from two_hosts import NotPermittedError, TwoHosts


class ShortChance(Random):
    """Chance that keeps every span near its shortest."""

    def uniform(self, a: float, b: float) -> float:
        return a + 0.1 * (b - a)


@pytest.fixture
def run(tmp_path):
    run = SimulatedRun(make_place(tmp_path / "run"))
    yield run
    run.close()


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_after_a_fault_what_was_acked_is_in_the_report_and_nobody_is_left(run, fault):
    fault(run, ShortChance(fault.__name__))


def test_a_network_that_is_cut_and_heals_costs_no_row(run):
    try:
        hosts = TwoHosts()
    except NotPermittedError as error:
        pytest.skip(f"two hosts cannot be made here: {error}")
    try:
        network_is_cut(run, hosts, seconds=3.0)
    finally:
        hosts.close()


def test_a_disk_that_is_filled_to_its_last_byte_and_freed_costs_no_row(run):
    try:
        disk = SmallDisk(run.place / "runs")
    except NotPermittedError as error:
        pytest.skip(f"no disk can be mounted here: {error}")
    try:
        disk_has_no_room(run, disk, ShortChance("disk"))
    finally:
        run.close()
        disk.close()
