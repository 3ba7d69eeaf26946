"""What a callback adds to each step: main-thread CPU time and wall time, in paired rounds within one process.

    python benchmarks/overhead.py                       # ours against no callback and an empty one
    python benchmarks/overhead.py --peer PEER_PYTHON    # and the known tool, in its own environment, beside it
    torchrun --standalone --nproc-per-node=2 benchmarks/overhead.py    # the same on two ranks; rank 0 tells its own

The known tool attaches itself to every trainer of a process that its launcher started. So its baseline runs in
processes of its own, in the same environment, taking turns with the launched ones.

Each round runs every arm once, in an order that rotates. An arm's figures for a round are the 5 % and the 20 % quantile
of its steps (with `--settle N` without the first N of them, beside which the aggregator's process starts); what is
printed is the median over rounds of the difference to the same round's empty callback (Accelerate: to the untouched
loop), of the 5 % quantile with its quartiles. On several ranks it is the one to read: a rank that had to wait for
another, or for a core, does not lie in it.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

import training_loops as loops

FRAMEWORKS = ("lightning", "hf", "accelerate")
TOOLS = ("ours", "baseline", "peer")
PEER_TURNS = 3
Figure = tuple[float, float, float]


def main() -> None:
    """Measure, and print one table."""
    arguments = _arguments()
    if os.environ.get("RANK", "0") != "0":
        sys.stdout = io.StringIO()
    if arguments.output:
        figures = {framework: _rounds(framework, arguments.tool, arguments) for framework in arguments.frameworks}
        Path(arguments.output).write_text(json.dumps(figures))
        return
    rounds = f"{arguments.rounds} rounds of {arguments.steps} steps, the first {arguments.settle} of each left out"
    print(f"torch {loops.torch.__version__}, {rounds}, {loops.RANKS} rank(s), one thread")
    print(
        f"{'':12} {'arm':10} {'CPU a step':>12} {'added CPU':>12} {'quartiles':>18} {'at 20 %':>12} {'added wall':>12}"
    )
    ours = {}
    for framework in arguments.frameworks:
        ours[framework] = _rounds(framework, "ours", arguments)
        _print_framework(framework, ours[framework], "ours")
    if arguments.peer:
        peer = _run_peer(arguments)
        for framework in arguments.frameworks:
            _print_framework(framework, peer[framework], "peer")
        print("\nours ÷ the known tool, added CPU a step:")
        for framework in arguments.frameworks:
            mine, other = (_added(side[framework], tool, 0) for side, tool in ((ours, "ours"), (peer, "peer")))
            print(f"  {framework:12} {mine:6.1f} µs ÷ {other:6.1f} µs = {mine / other:5.2f}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frameworks", nargs="+", choices=FRAMEWORKS, default=list(FRAMEWORKS))
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--settle", type=int, default=0, help="leave out so many of each run's first steps")
    parser.add_argument("--peer", metavar="PYTHON", help="the Python of an environment that holds traceml-ai")
    parser.add_argument("--tool", choices=TOOLS, default="ours", help=argparse.SUPPRESS)
    parser.add_argument("--output", help=argparse.SUPPRESS)
    return parser.parse_args()


def _rounds(framework: str, tool: str, arguments: argparse.Namespace) -> dict[str, list[Figure]]:
    """Per arm, microseconds a step of every round: CPU at the 5 % and the 20 % quantile, and wall."""
    loops.quiet()
    loops.torch.set_num_threads(1)
    arms = ARMS[framework, tool]()
    figures: dict[str, list[Figure]] = {arm: [] for arm in arms}
    names = list(arms)
    for index in range(arguments.rounds + 1):
        for arm in names[index % len(names) :] + names[: index % len(names)]:
            with loops.silent_streams():
                began = time.perf_counter_ns()
                steps = arms[arm](arguments.steps)
                wall = (time.perf_counter_ns() - began) / arguments.steps / 1e3
            if index:  # the first round pays for imports and caches
                cuts = statistics.quantiles(steps[arguments.settle :], n=20)
                figures[arm].append((cuts[0] / 1e3, cuts[3] / 1e3, wall))
    return figures


def _lightning_arms(tool: str) -> dict[str, Callable[[int], list[int]]]:
    import lightning

    arms = _baseline(tool, loops.lightning_steps, lightning.Callback)
    if tool != "baseline":
        make = _our_callback("traceml_lightning") if tool == "ours" else _peer_lightning()
        arms[tool] = lambda steps: loops.lightning_steps(steps, [make()])
    return arms


def _hf_arms(tool: str) -> dict[str, Callable[[int], list[int]]]:
    import transformers

    arms = _baseline(tool, loops.hf_steps, transformers.TrainerCallback)
    if tool != "baseline":
        make = _our_callback("traceml_hf") if tool == "ours" else _peer_hf()
        arms[tool] = lambda steps: loops.hf_steps(steps, [make()])
    return arms


def _baseline(
    tool: str, run: Callable[[int, list[Any]], list[int]], empty: Callable[[], Any]
) -> dict[str, Callable[[int], list[int]]]:
    if tool == "peer":
        return {}
    return {"none": lambda steps: run(steps, []), "empty": lambda steps: run(steps, [empty()])}


def _accelerate_arms(tool: str) -> dict[str, Callable[[int], list[int]]]:
    if tool == "peer":
        import traceml_ai

        return {tool: lambda steps: loops.accelerate_steps(steps, step_context=traceml_ai.trace_step)}
    arms: dict[str, Callable[[int], list[int]]] = {"none": loops.accelerate_steps}
    if tool == "ours":
        make = _our_callback("traceml_hf.accelerate")
        arms[tool] = lambda steps: loops.accelerate_steps(steps, lambda accelerator: make().attach(accelerator))
    return arms


ARMS: dict[tuple[str, str], Callable[[], dict[str, Callable[[int], list[int]]]]] = {
    (framework, tool): (lambda make=make, tool=tool: make(tool))
    for framework, make in (("lightning", _lightning_arms), ("hf", _hf_arms), ("accelerate", _accelerate_arms))
    for tool in TOOLS
}


def _our_callback(module: str) -> Callable[[], Any]:
    import importlib

    runs_dir = tempfile.mkdtemp(prefix="traceml-overhead-")
    callback = importlib.import_module(module).TraceMLCallback
    return lambda: callback(runs_dir=runs_dir, report="off")


def _peer_lightning() -> Callable[[], Any]:
    from traceml_ai.integrations.lightning import TraceMLCallback, init

    init()
    return TraceMLCallback


def _peer_hf() -> Callable[[], Any]:
    from traceml_ai.integrations.huggingface import TraceMLTrainerCallback, init

    init()
    return TraceMLTrainerCallback


def _run_peer(arguments: argparse.Namespace) -> dict[str, dict[str, list[Figure]]]:
    """Run this same file in the known tool's environment, plainly and under its launcher in turn."""
    launcher = [str(Path(arguments.peer).parent / "traceml"), "run", "--mode", "summary"]
    figures: dict[str, dict[str, list[Figure]]] = {}
    for framework in arguments.frameworks:
        arms: dict[str, list[Figure]] = {}
        for turn in range(PEER_TURNS):
            with tempfile.TemporaryDirectory() as folder:
                launched = [*launcher, "--logs-dir", folder, "--run-name", f"turn-{turn}", __file__, "--args"]
                for tool, command in (("baseline", [arguments.peer, __file__]), ("peer", launched)):
                    output = Path(folder) / f"{tool}.json"
                    command = [*command, "--tool", tool, "--output", str(output), "--frameworks", framework]
                    command += ["--rounds", str(-(-arguments.rounds // PEER_TURNS)), "--steps", str(arguments.steps)]
                    command += ["--settle", str(arguments.settle)]
                    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                    for arm, rounds in json.loads(output.read_text())[framework].items():
                        arms.setdefault(arm, []).extend(rounds)
        figures[framework] = arms
    return figures


def _differences(figures: dict[str, list[Figure]], arm: str, index: int) -> list[float]:
    base = figures.get("empty", figures["none"])
    return [mine[index] - other[index] for mine, other in zip(figures[arm], base, strict=True)]


def _added(figures: dict[str, list[Figure]], arm: str, index: int) -> float:
    return statistics.median(_differences(figures, arm, index))


def _print_framework(framework: str, figures: dict[str, list[Figure]], tool: str) -> None:
    for arm, rounds in figures.items():
        cpu = statistics.median(figure[0] for figure in rounds)
        line = f"{framework:12} {arm:10} {cpu:9.1f} µs"
        if arm == tool:
            quartiles = statistics.quantiles(_differences(figures, arm, 0), n=4)
            line += f" {_added(figures, arm, 0):9.1f} µs {quartiles[0]:7.1f} to {quartiles[2]:5.1f} µs"
            line += "".join(f" {_added(figures, arm, index):9.1f} µs" for index in (1, 2))
        print(line, flush=True)


if __name__ == "__main__":
    main()
