"""A `fit` of Ray Train is one run, whatever trains inside it and however it ends."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

pytest.importorskip("ray.train")
pytest.importorskip("torch")

import ray_loops
from ray_loops import wait_for

pytestmark = pytest.mark.slow


def kinds(run) -> set[str]:
    return {issue.kind for issue in run.summary.sections["step_time"].issues}


def test_two_workers_end_with_one_report_that_names_the_slow_data(trainer, recorded, aggregators, capfd):
    result = trainer(ray_loops.slow_data, workers=2).fit()
    assert result.error is None
    run = recorded()
    told = run.summary.run
    assert (told.status, told.framework, told.name, told.world_size) == ("completed", "ray", "test", 2)
    assert [record.rank for record in run.ranks] == [0, 1]
    assert sorted(set(run.steps["rank"])) == [0, 1] and told.steps == 60
    assert run.summary.primary_diagnosis.kind == "INPUT_BOUND"
    assert run.summary.telemetry.rows_lost == 0
    assert {"ray", "torch"} <= set(told.versions)
    out, err = capfd.readouterr()
    assert "recording to" in err and "INPUT BOUND" in err and "TraceML" not in out
    assert aggregators() == []


def test_a_worker_that_is_killed_for_good_fails_the_run_which_says_which_one_it_was(
    trainer, recorded, aggregators, capfd
):
    from ray.train import TrainingFailedError

    with pytest.raises(TrainingFailedError):
        trainer(ray_loops.rank_1_is_killed, workers=2).fit()
    run = recorded()
    told = run.summary.run
    assert told.status == "failed" and told.error.message.startswith("rank 1: ")
    assert 1 in run.summary.telemetry.unended_ranks
    for rank in (0, 1):
        assert (run.steps["rank"] == rank).sum() >= 100
    assert "rank 1: " in capfd.readouterr().err
    assert aggregators() == []


def test_a_recording_actor_that_is_killed_leaves_its_report_and_no_process(
    trainer, ray_of_two_cpus, tmp_path: Path, runs_dir, recorded, aggregators, capfd, monkeypatch
):
    from traceml_ray import fit_run

    actors, make = [], fit_run._make_actor
    monkeypatch.setattr(fit_run, "_make_actor", lambda *given: actors.append(make(*given)) or actors[0])

    def kill() -> None:
        wait_for(lambda: (tmp_path / "started").exists())
        assert len(aggregators()) == 1
        ray_of_two_cpus.kill(actors[0])
        wait_for(lambda: list(runs_dir.glob("*/final_summary.json")))
        wait_for(lambda: aggregators() == [])  # while training goes on
        (tmp_path / "enough").touch()

    killer = threading.Thread(target=kill)
    killer.start()
    result = trainer(ray_loops.until_told).fit()
    killer.join()
    assert result.error is None
    run = recorded()
    assert run.summary.run.status == "interrupted" and run.summary.run.steps >= 90
    err = " ".join(capfd.readouterr().err.split())
    assert "its actor died" in err and "the actor that records it ended without a word" in err


def test_an_error_inside_lightning_surfaces_unchanged_and_its_callback_has_joined_the_run(trainer, recorded, tmp_path):
    pytest.importorskip("lightning")
    from ray.train import TrainingFailedError

    with pytest.raises(TrainingFailedError) as caught:
        trainer(ray_loops.lightning_that_fails).fit()
    [cause] = caught.value.worker_failures.values()
    assert isinstance(cause, KeyError) and cause.args == ("the user's own",)
    if sys.version_info >= (3, 11):
        assert "the user's own" in str(caught.value) and "traceml_ray" not in str(caught.value)
    assert not (tmp_path / "other").exists()
    run = recorded()
    told = run.summary.run
    assert (told.status, told.error.type, told.framework, told.steps) == ("failed", "KeyError", "ray", 50)
    assert {"ray", "lightning"} <= set(told.versions) and told.precision is not None
    assert run.typical_ms("forward") > 5


def test_a_trainer_inside_joins_the_run_and_goes_on_in_it_when_its_worker_was_killed(trainer, recorded, tmp_path):
    pytest.importorskip("transformers")
    trainer(ray_loops.hugging_face_killed_once, max_failures=1).fit()
    assert not (tmp_path / "other").exists()
    run = recorded()
    told = run.summary.run
    assert (told.status, told.framework, told.steps, told.batch_size) == ("completed", "ray", 100, 2)
    assert "transformers" in told.versions
    assert run.typical_ms("forward") > 5
    assert [record.rank for record in run.ranks] == [0, 0]
    assert run.summary.telemetry.incarnations == 2
    assert (run.steps["step"] == 50).sum() == 2  # the first process's steps are kept
    assert run.summary.telemetry.redone_steps > 50
    assert "steps were done again after a restart" in " ".join((run.folder / "final_summary.txt").read_text().split())


def test_where_the_recording_cannot_start_that_is_said_and_nothing_is_left(
    ray_of_two_cpus, runs_dir, aggregators, capfd
):
    import socket

    from traceml_core.core.settings import resolve_settings
    from traceml_ray.fit_run import open_fit_run

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with open_fit_run(resolve_settings(port=port, runs_dir=str(runs_dir)), None):
            pass
    assert f"nothing is recorded: port {port} cannot be had" in capfd.readouterr().err
    assert aggregators() == []


def test_trainers_that_are_switched_off_or_have_no_workers_record_nothing(ray_of_two_cpus):
    from ray.train import ScalingConfig

    from traceml_core.core.settings import resolve_settings
    from traceml_ray.fit_run import open_fit_run

    assert open_fit_run(resolve_settings(enabled=False), ScalingConfig(num_workers=2)) is None
    assert open_fit_run(resolve_settings(), ScalingConfig(num_workers=0)) is None


def test_where_workers_may_be_on_other_nodes_the_aggregator_listens_on_this_nodes_address(ray_of_two_cpus, runs_dir):
    import msgspec
    from ray.train import ScalingConfig

    from traceml_core.core.run_folder import Ending
    from traceml_core.core.settings import resolve_settings
    from traceml_ray import fit_run
    from traceml_ray.aggregator_actor import AggregatorActor

    assert not fit_run._needs_several_nodes(ScalingConfig(num_workers=2))
    assert fit_run._needs_several_nodes(ScalingConfig(num_workers=3))  # more than there are CPUs: Ray will add a node
    settings = msgspec.to_builtins(resolve_settings(runs_dir=str(runs_dir)))
    for several_nodes, address in ((False, "127.0.0.1"), (True, ray_of_two_cpus.util.get_node_ip_address())):
        owner = AggregatorActor(settings, several_nodes)
        assert owner.ticket().endpoint.startswith(f"tcp://{address}:")
        assert owner.stop(Ending(status="completed")) is not None


DRIVER = """
import sys
sys.path.insert(0, {helpers!r})
import ray, ray_loops
from ray.train import RunConfig, ScalingConfig
from traceml_ray import TraceMLTorchTrainer

ray.init(num_cpus=1, include_dashboard=False, object_store_memory=80 * 2**20, log_to_driver=False)
TraceMLTorchTrainer(
    ray_loops.until_told,
    train_loop_config={{"folder": {folder!r}}},
    scaling_config=ScalingConfig(num_workers=1),
    run_config=RunConfig(storage_path={folder!r} + "/storage"),
    traceml={{"runs_dir": {folder!r} + "/runs"}},
).fit()
"""


def test_a_driver_that_is_killed_leaves_a_report_and_no_aggregator(tmp_path, runs_dir, recorded, aggregators):
    helpers = str(Path(__file__).parent)
    script = DRIVER.format(helpers=helpers, folder=str(tmp_path))
    path = os.pathsep.join((helpers, os.environ["PYTHONPATH"]))
    driver = subprocess.Popen([sys.executable, "-c", script], env={**os.environ, "PYTHONPATH": path})
    wait_for(lambda: (tmp_path / "started").exists() or driver.poll() is not None)
    driver.kill()
    driver.wait()
    wait_for(lambda: list(runs_dir.glob("*/final_summary.json")))
    wait_for(lambda: aggregators() == [])
    run = recorded()
    assert run.summary.run.status == "interrupted" and run.summary.run.steps >= 90
