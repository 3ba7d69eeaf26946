"""How often, and under which seed: `tox -e chaos -- --count 20 --seed 7`."""

from __future__ import annotations

import secrets
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "faults"))


def pytest_addoption(parser):
    group = parser.getgroup("chaos")
    group.addoption("--count", type=int, default=20, help="how many rounds of each fault")
    group.addoption(
        "--seed", type=int, default=None, help="the seed of the first round; by default another one each time"
    )


def pytest_configure(config):
    # Drawn once: the workers of pytest-xdist are told what their parent drew.
    drawn = getattr(config, "workerinput", {}).get("chaos_seed")
    config.chaos_seed = drawn or config.getoption("seed") or secrets.randbelow(10**6)


def pytest_configure_node(node):
    node.workerinput["chaos_seed"] = node.config.chaos_seed


def pytest_report_header(config):
    return f"chaos: seeds {config.chaos_seed} to {config.chaos_seed + config.getoption('count') - 1}"


def pytest_generate_tests(metafunc):
    if "seed" in metafunc.fixturenames:
        first = metafunc.config.chaos_seed
        seeds = range(first, first + metafunc.config.getoption("count"))
        metafunc.parametrize("seed", seeds, ids=lambda seed: f"seed{seed}")
