"""Who this process is in torch's process group, and the store that ranks find each other by."""

from __future__ import annotations

import threading

import pytest

from traceml_core.instrumentation.process_group import MasterStore, identity_in_job, job_store
from traceml_core.runtime.rendezvous import Rendezvous
from traceml_core.transport.keys import make_keys, ticket_for

torch = pytest.importorskip("torch")
distributed = torch.distributed
TICKET = ticket_for(make_keys(), "tcp://127.0.0.1:1", "run")


@pytest.fixture
def kept():
    """A store as rank 0 or torchrun keeps it, for two workers."""
    return distributed.TCPStore("127.0.0.1", 0, 2, is_master=True, wait_for_workers=False)


@pytest.fixture
def address(kept):
    return {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(kept.port)}


@pytest.fixture
def process_group(kept):
    distributed.init_process_group("gloo", store=kept, rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


def test_the_process_group_names_the_rank_and_not_the_environment(process_group):
    identity = identity_in_job({"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1"})
    assert (identity.rank, identity.world_size, identity.local_rank) == (0, 1, 1)


def test_without_a_process_group_the_environment_does():
    assert identity_in_job({"RANK": "3", "WORLD_SIZE": "4"}).rank == 3


def test_a_ticket_goes_through_the_process_groups_store(process_group):
    Rendezvous().publish(job_store({}), TICKET)
    assert Rendezvous().fetch(job_store({}), threading.Event()).ticket == TICKET


def test_where_torch_has_renamed_it_a_client_reaches_the_same_server(process_group, address, monkeypatch):
    monkeypatch.delattr(distributed.distributed_c10d, "_get_default_store")
    assert isinstance(job_store(address), MasterStore)
    Rendezvous().publish(job_store(address), TICKET)
    assert Rendezvous().fetch(job_store(address), threading.Event()).ticket == TICKET
    assert job_store({}) is None


def test_before_the_process_group_is_up_torchruns_store_is_used(address):
    assert job_store(address) is None
    assert isinstance(job_store({**address, "TORCHELASTIC_USE_AGENT_STORE": "True"}), MasterStore)
