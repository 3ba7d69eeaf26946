"""What launchers say in the environment, where the framework says nothing."""

from __future__ import annotations

import pytest

from traceml_core.core.launch_environment import identity_in, nodes_in


def test_torchruns_variables_name_this_process():
    said = {"RANK": "5", "LOCAL_RANK": "1", "WORLD_SIZE": "8", "GROUP_WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "4"}
    identity = identity_in(said)
    assert (identity.rank, identity.local_rank, identity.world_size, identity.nodes) == (5, 1, 8, 2)


@pytest.mark.parametrize(
    "said",
    [
        {},
        {"LOCAL_RANK": "3", "WORLD_SIZE": "4"},  # a local rank is no global one
        {"RANK": "3"},
        {"RANK": "4", "WORLD_SIZE": "4"},
        {"RANK": "-1", "WORLD_SIZE": "4"},
        {"RANK": "", "WORLD_SIZE": "four"},
        {"SLURM_PROCID": "3", "SLURM_NTASKS": "4"},  # srun starts independent trainings too
    ],
)
def test_what_names_no_rank_leaves_the_process_alone(said):
    identity = identity_in(said)
    assert (identity.rank, identity.world_size, identity.nodes) == (0, 1, 1)


@pytest.mark.parametrize(
    ("said", "nodes"),
    [
        ({}, 1),
        ({"GROUP_WORLD_SIZE": "3", "SLURM_NTASKS": "8", "SLURM_NNODES": "4"}, 3),
        ({"SLURM_NTASKS": "8", "SLURM_NNODES": "4"}, 4),
        ({"SLURM_NTASKS": "2", "SLURM_NNODES": "4"}, 1),  # the ranks are not srun's tasks
        ({"LOCAL_WORLD_SIZE": "4"}, 2),
        ({"LOCAL_WORLD_SIZE": "6"}, 2),  # nodes of different size
        ({"OMPI_COMM_WORLD_LOCAL_SIZE": "1"}, 8),
        ({"GROUP_WORLD_SIZE": "100"}, 8),
    ],
)
def test_the_nodes_under_eight_ranks(said, nodes):
    assert nodes_in(8, said) == nodes
