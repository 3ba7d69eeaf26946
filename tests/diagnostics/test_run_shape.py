from __future__ import annotations

from traceml_core.core.run_folder import Ending, OwnerError
from traceml_core.diagnostics.run_shape import RunShape, run_shape_of
from traceml_core.history.reader import RankRecord
from traceml_core.telemetry.facts import LoaderFacts, RunFacts
from traceml_core.telemetry.messages import RunError


def record(rank=0, *, incarnation=1, started=0, elapsed_s=10.0, wall_s=None, status="completed", error=None, **more):
    return RankRecord(
        rank=rank,
        incarnation=incarnation,
        local_rank=rank,
        world_size=more.get("world_size", 1),
        nodes=1,
        host="a",
        pid=1,
        started_unix_ns=started,
        last_seen_unix_ns=started,
        elapsed_ns=int(elapsed_s * 1e9),
        wall_ns=None if wall_s is None else int(wall_s * 1e9),
        status=status,
        error=error,
        rows_received=0,
        rows_dropped=0,
        failures={},
        overhead_ns_per_step=None,
    )


def test_wall_time_is_the_mean_over_ranks_and_the_sum_over_incarnations():
    shape = run_shape_of(
        [record(0, wall_s=10), record(0, incarnation=2, started=5, wall_s=20), record(1, wall_s=10)], None
    )
    assert [(rank.rank, rank.wall_ns, rank.incarnations) for rank in shape.ranks] == [
        (0, 30 * 10**9, 2),
        (1, 10 * 10**9, 1),
    ]
    assert shape.wall_s == 20.0


def test_a_rank_that_has_not_finished_has_the_wall_time_of_its_last_word():
    assert run_shape_of([record(elapsed_s=7, wall_s=None, status="running")], None).wall_s == 7.0


def test_one_failed_rank_makes_a_failed_run_with_its_error():
    error = RunError("ValueError", "no", 3, 3)
    shape = run_shape_of([record(0, status="interrupted"), record(1, status="failed", error=error)], None)
    assert (shape.status, shape.error) == ("failed", error)


def test_only_the_last_start_of_a_rank_counts_for_how_the_run_ended():
    records = [record(0, status="failed"), record(0, incarnation=2, started=9, status="completed")]
    assert run_shape_of(records, None).status == "completed"


def test_the_last_start_is_the_one_that_came_last_whatever_its_clock_said():
    records = [record(0, started=9, status="failed"), record(0, incarnation=2, started=2, status="completed")]
    assert run_shape_of(records, None).status == "completed"


def test_whoever_knows_better_says_how_the_run_ended():
    assert run_shape_of([record(status="running")], None, status="interrupted").status == "interrupted"


def test_nothing_known_is_an_empty_shape():
    shape = run_shape_of([], None)
    assert (shape.wall_s, shape.device, shape.on_accelerator, shape.loader) == (0.0, None, False, LoaderFacts())
    assert shape.unmeasured == ()


def test_facts_are_passed_on():
    facts = RunFacts(framework="manual", device="cuda", loader=LoaderFacts(num_workers=3), unmeasured=("optimizer",))
    shape = RunShape(facts=facts)
    assert (shape.on_accelerator, shape.loader.num_workers, shape.unmeasured) == (True, 3, ("optimizer",))
    assert run_shape_of([record(world_size=8)], facts).world_size == 8


def ending(*errors, status="failed"):
    return Ending(status=status, errors=tuple(OwnerError(rank=rank, type=kind, message=None) for rank, kind in errors))


def test_the_owners_word_on_the_end_goes_before_that_of_the_ranks_and_of_whoever_reads():
    records = [record(0, status="running"), record(1, status="completed")]
    assert run_shape_of(records, None, status="interrupted", ending=ending(status="completed")).status == "completed"
    assert run_shape_of(records, None, ending=ending()).status == "failed"


def test_what_a_rank_died_of_goes_before_what_others_met_because_of_it():
    met = RunError("RuntimeError", "connection closed by peer", 3, 3)
    records = [record(0, status="failed", error=met), record(1, status="running")]
    heard = ending((0, "RuntimeError"), (1, "ActorDiedError"))
    assert run_shape_of(records, None, ending=heard).error.type == "ActorDiedError"


def test_an_error_of_which_its_rank_told_more_is_the_ranks():
    told = RunError("KeyError", "x", 3, 3)
    records = [record(0, status="failed", error=told), record(1, status="running")]
    assert run_shape_of(records, None, ending=ending((0, "KeyError"))).error == told


def test_where_no_rank_told_of_an_error_the_owners_is_the_runs():
    records = [record(0, status="completed")]
    assert run_shape_of(records, None, ending=ending((None, "ControllerError"))).error.type == "ControllerError"
