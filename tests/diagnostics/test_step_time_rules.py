from __future__ import annotations

import numpy as np
import pytest
from factories import gpu_rows, join, owner_rows, run_of, step_rows, system_rows, tables_of

from traceml_core.diagnostics.step_time.api import diagnose
from traceml_core.diagnostics.step_time.context import build_context
from traceml_core.diagnostics.step_time.policy import LIVE_STEP_TIME_POLICY, SUMMARY_STEP_TIME_POLICY
from traceml_core.diagnostics.step_time.rules import RULES, TOO_FEW_STEPS
from traceml_core.telemetry.facts import LoaderFacts

STEPS = 100


def judge(*parts, owners=None, system=None, device="cpu", policy=SUMMARY_STEP_TIME_POLICY, **facts):
    steps = join(*parts)
    tables = {"step_time": steps, "owner_time": owners or {}, "system": system or {}}
    return diagnose(build_context(tables_of(tables), run_of(steps, device=device, **facts), policy), policy)


def kinds(diagnosis):
    return [issue.kind for issue in diagnosis.issues]


def every(number, milliseconds, offset=None):
    """So many milliseconds at every `number`-th of the steps."""
    values = np.zeros(STEPS)
    values[(number - 1 if offset is None else offset) :: number] = milliseconds
    return values


def once(milliseconds, place=-1):
    values = np.zeros(STEPS)
    values[place] = milliseconds
    return values


def test_a_healthy_run_is_compute_bound_and_nothing_else():
    diagnosis = judge(step_rows(STEPS))
    assert kinds(diagnosis) == ["COMPUTE_BOUND"]
    assert diagnosis.primary.severity == "info"
    assert diagnosis.primary.impact_share is None


@pytest.mark.parametrize("phase", ["forward", "backward", "optimizer"])
def test_compute_bound_names_the_largest_phase(phase):
    primary = judge(step_rows(STEPS, **{f"{phase}_ms": 25.0})).primary
    assert (primary.kind, primary.evidence["phase"]) == ("COMPUTE_BOUND", phase)
    assert phase in primary.summary


def test_compute_bound_abstains_where_the_unmeasured_could_be_larger():
    facts = {"unmeasured": ("optimizer",)}
    diagnosis = judge(step_rows(STEPS, optimizer_ms=9.0, unmeasured=["optimizer"]), **facts)
    assert diagnosis.primary.kind == "INCOMPLETE_DATA"
    assert "optimizer" in diagnosis.primary.summary


def test_compute_bound_judges_what_was_measured_where_that_settles_it():
    diagnosis = judge(step_rows(STEPS, optimizer_ms=0.5, unmeasured=["optimizer"]), unmeasured=("optimizer",))
    assert diagnosis.primary.evidence["phase"] == "backward"


def test_a_slow_loader_is_input_bound():
    primary = judge(step_rows(STEPS, input_wait_ms=16.0)).primary
    assert (primary.kind, primary.severity) == ("INPUT_BOUND", "critical")
    assert primary.impact_share == pytest.approx(16 / 25.55, rel=0.02)


def test_bursty_waits_of_a_prefetching_loader_are_judged_by_their_mean():
    assert judge(step_rows(STEPS, input_wait_ms=every(8, 60.0))).primary.kind == "INPUT_BOUND"
    assert judge(step_rows(STEPS, input_wait_ms=every(8, 6.0))).primary.kind == "COMPUTE_BOUND"


def test_a_wait_from_the_first_step_on_is_not_swallowed_by_warmup():
    waits = np.full(STEPS, 8.0)
    waits[:10] = 200.0
    diagnosis = judge(step_rows(STEPS, input_wait_ms=waits))
    assert diagnosis.primary.kind == "INPUT_BOUND"


def test_one_hiccup_of_the_loader_is_no_habit():
    assert kinds(judge(step_rows(STEPS, input_wait_ms=once(2_000.0, 50)))) == ["COMPUTE_BOUND"]


def test_input_bound_abstains_where_waiting_was_not_measured():
    rows = step_rows(STEPS, forward_ms=0.1, backward_ms=0.1, optimizer_ms=0.1, unmeasured=["input_wait"])
    diagnosis = judge(rows, unmeasured=("input_wait",))
    assert diagnosis.primary.kind == "INCOMPLETE_DATA"
    assert "the wait for data" in diagnosis.primary.evidence["missing"]


@pytest.mark.parametrize(
    ("workers", "wait_ms", "cpus", "said"),
    [
        (0, 16.0, 8.0, "num_workers=2"),
        (0, 40.0, 8.0, "num_workers=5"),
        (1, 20.0, 8.0, "num_workers=4"),
        (0, 400.0, 4.0, "num_workers=4"),
        (4, 30.0, 4.0, "already has 4 workers"),
        (None, 16.0, 8.0, "num_workers"),
    ],
)
def test_the_advice_of_input_bound_fits_loader_and_cpus(workers, wait_ms, cpus, said):
    rows = step_rows(STEPS, input_wait_ms=wait_ms)
    primary = judge(rows, system=system_rows(cpus=cpus), loader=LoaderFacts(num_workers=workers)).primary
    assert said in primary.action


def test_the_ranks_of_a_host_have_its_cpus_between_them():
    slow = [step_rows(STEPS, rank=rank, input_wait_ms=400.0) for rank in range(8)]
    facts = {"loader": LoaderFacts(num_workers=0), "system": system_rows(cpus=16.0)}
    assert "num_workers=2" in judge(*slow, **facts).primary.action
    two_hosts = {rank: "ab"[rank // 4] for rank in range(8)}
    assert "num_workers=4" in judge(*slow, hosts=two_hosts, **facts).primary.action


def test_the_advice_names_the_settings_of_the_framework():
    loader, slow = LoaderFacts(num_workers=0), step_rows(STEPS, input_wait_ms=16.0)
    assert (
        "dataloader_num_workers=2 in TrainingArguments"
        in judge(slow, framework="hf_trainer", loader=loader).primary.action
    )
    assert (
        "num_workers=2 in the training DataLoader" in judge(slow, framework="lightning", loader=loader).primary.action
    )


def test_a_long_copy_is_h2d_bound_on_a_gpu_and_on_a_cpu():
    on_gpu = judge(step_rows(STEPS, h2d_ms=6.0), device="cuda").primary
    assert (on_gpu.kind, "pin_memory" in on_gpu.action) == ("H2D_BOUND", True)
    on_cpu = judge(step_rows(STEPS, h2d_ms=6.0)).primary
    assert (on_cpu.kind, "pin_memory" in on_cpu.action) == ("H2D_BOUND", False)


@pytest.mark.parametrize(
    ("framework", "pinned", "said", "unsaid"),
    [
        ("hf_trainer", False, "dataloader_pin_memory=True", "non_blocking"),
        ("hf_trainer", True, "'non_blocking': True", "pin_memory"),
        ("lightning", True, "uint8", "non_blocking"),
        ("manual", None, "check that pin_memory", "pin_memory=True"),
    ],
)
def test_the_advice_of_h2d_bound_fits_the_loader(framework, pinned, said, unsaid):
    facts = {"framework": framework, "loader": LoaderFacts(pin_memory=pinned), "device": "cuda"}
    action = judge(step_rows(STEPS, h2d_ms=6.0), **facts).primary.action
    assert said in action
    assert unsaid not in action


def test_h2d_bound_loses_to_a_longer_wait_for_data():
    assert kinds(judge(step_rows(STEPS, h2d_ms=6.0, input_wait_ms=8.0)))[:2] == ["INPUT_BOUND", "H2D_BOUND"]


def test_workers_that_start_at_every_epoch_are_a_loader_restart():
    starts = every(10, 60.0, offset=0)
    diagnosis = judge(step_rows(STEPS, loader_start_ms=starts), loader=LoaderFacts(num_workers=2))
    assert diagnosis.primary.kind == "LOADER_RESTART"
    assert diagnosis.primary.evidence["restarts"] == 9
    assert "persistent_workers=True" in diagnosis.primary.action


def test_the_first_start_of_the_loader_is_start_up():
    assert kinds(judge(step_rows(STEPS, loader_start_ms=once(3_000.0, 0)))) == ["COMPUTE_BOUND"]


def test_a_loader_restart_loses_to_a_worse_wait_for_data():
    rows = step_rows(STEPS, loader_start_ms=every(10, 60.0, offset=0), input_wait_ms=60.0)
    assert judge(rows).primary.kind == "INPUT_BOUND"


def test_a_slow_callback_is_named():
    owners = owner_rows(("callbacks", "SlowCallback", 2_000.0, 21.0, 100), ("callbacks", "ProgressBar", 30.0, 1.0, 100))
    primary = judge(step_rows(STEPS, callbacks_ms=20.3), owners=owners).primary
    assert (primary.kind, primary.severity) == ("CALLBACK_HEAVY", "critical")
    assert "SlowCallback takes" in primary.summary
    assert "ProgressBar" not in primary.summary


def test_a_callback_that_was_slow_once_is_not_heavy():
    owners = owner_rows(("callbacks", "Summary", 900.0, 899.0, 100))
    assert kinds(judge(step_rows(STEPS, callbacks_ms=once(900.0)), owners=owners)) == ["COMPUTE_BOUND"]


def test_a_start_up_callback_does_not_borrow_the_time_of_the_others():
    owners = owner_rows(("callbacks", "Setup", 3_000.0, 3_000.0, 1), ("callbacks", "Bar", 50.0, 1.0, 100))
    assert kinds(judge(step_rows(STEPS, callbacks_ms=0.5), owners=owners)) == ["COMPUTE_BOUND"]


def test_a_callback_that_was_slow_in_warmup_alone_is_not_named():
    spent_ms = np.full(STEPS, 4.0)
    spent_ms[:5] = 2_000.0
    forward_ms = np.where(np.arange(STEPS) < 5, 40.0, 4.0)
    owners = owner_rows(("callbacks", "Profiler", 9_980.0, 1_996.0, 5), ("callbacks", "Metrics", 400.0, 4.0, 100))
    owners["last_step"] = np.array([5.0, 100.0])
    primary = judge(step_rows(STEPS, callbacks_ms=spent_ms, forward_ms=forward_ms), owners=owners).primary
    assert primary.kind == "CALLBACK_HEAVY"
    assert primary.summary.startswith("Metrics takes")
    assert [owner["owner"] for owner in primary.evidence["owners"]] == ["Metrics"]


def test_many_light_callbacks_are_heavy_together():
    owners = owner_rows(*(("callbacks", f"Callback{number}", 100.0, 1.1, 100) for number in range(5)))
    primary = judge(step_rows(STEPS, callbacks_ms=5.0), owners=owners).primary
    assert primary.kind == "CALLBACK_HEAVY"
    assert primary.summary.startswith("Callbacks take")


@pytest.mark.parametrize(
    ("phase", "kind"),
    [("checkpoint", "CHECKPOINT_HEAVY"), ("validation", "VALIDATION_HEAVY"), ("logging", "LOGGING_HEAVY")],
)
def test_what_happens_often_around_steps_is_heavy_and_what_happens_once_is_not(phase, kind):
    often = judge(step_rows(STEPS, **{f"{phase}_ms": every(10, 60.0)})).primary
    assert often.kind == kind
    assert "10 times 60" in often.summary
    for seldom in (once(600.0), once(0.0), every(10, 2.0), once(600.0) + once(600.0, 40)):
        assert kinds(judge(step_rows(STEPS, **{f"{phase}_ms": seldom}))) == ["COMPUTE_BOUND"]


def test_one_long_save_does_not_hide_how_many_there_were():
    primary = judge(step_rows(STEPS, checkpoint_ms=every(10, 60.0) + once(2_000.0))).primary
    assert (primary.kind, primary.evidence["occasions"]) == ("CHECKPOINT_HEAVY", 10)
    assert "10 times 60" in primary.summary


@pytest.mark.parametrize("phase", ["checkpoint", "validation", "logging"])
def test_heavy_phases_lose_to_a_heavier_one(phase):
    rows = step_rows(STEPS, callbacks_ms=8.0, **{f"{phase}_ms": every(10, 60.0)})
    assert kinds(judge(rows))[0] == "CALLBACK_HEAVY"


def test_the_advice_speaks_the_framework_that_trains():
    rows = step_rows(STEPS, checkpoint_ms=every(5, 100.0))
    assert "every_n_train_steps" in judge(rows, framework="lightning").primary.action
    assert "save_steps" in judge(rows, framework="hf_trainer").primary.action


def test_time_that_no_phase_claims_is_reported():
    primary = judge(step_rows(STEPS, unattributed_ms=6.0)).primary
    assert (primary.kind, primary.severity) == ("UNATTRIBUTED_HEAVY", "warning")


def test_what_the_framework_takes_beside_a_tiny_model_is_no_finding():
    tiny = {"input_wait_ms": 0.1, "forward_ms": 0.3, "backward_ms": 0.2, "optimizer_ms": 0.1, "unattributed_ms": 0.3}
    assert kinds(judge(step_rows(STEPS, **tiny))) == ["COMPUTE_BOUND"]


def test_unattributed_time_is_not_judged_where_a_phase_could_not_be_measured():
    rows = step_rows(STEPS, optimizer_ms=6.0, unmeasured=["optimizer"])
    assert "UNATTRIBUTED_HEAVY" not in kinds(judge(rows, unmeasured=("optimizer",)))


def test_unattributed_time_loses_to_a_longer_wait():
    assert kinds(judge(step_rows(STEPS, unattributed_ms=6.0, input_wait_ms=9.0)))[0] == "INPUT_BOUND"


DEVICE_MS = {"input_wait": 0.5, "forward": 4.0, "backward": 4.1, "optimizer": 1.0, "unattributed": 0.4}


def on_gpu(count=STEPS, gpu=None, device=None, **phases_ms):
    """Judge a run that was timed on the device, with looks at a GPU every second of it."""
    steps = step_rows(count, device={**DEVICE_MS, **(device or {})}, **phases_ms)
    tables = {"step_time": steps, "gpu": gpu or {}}
    policy = SUMMARY_STEP_TIME_POLICY
    return diagnose(build_context(tables_of(tables), run_of(steps, device="cuda"), policy), policy)


def test_a_device_that_follows_the_host_and_idles_is_launch_bound_and_not_compute_bound():
    found = on_gpu(2_000, gpu=gpu_rows(utilization=35.0))
    assert kinds(found) == ["LAUNCH_BOUND"]
    assert (found.primary.severity, found.primary.impact_share) == ("critical", pytest.approx(0.6, abs=0.02))


def test_a_device_that_follows_the_host_is_a_hint_where_its_utilisation_is_not_known():
    found = on_gpu()
    assert [(issue.kind, issue.severity, issue.impact_share) for issue in found.issues] == [
        ("LAUNCH_BOUND", "info", None)
    ]


def test_a_busy_device_is_not_launch_bound():
    assert kinds(on_gpu(2_000, gpu=gpu_rows(utilization=97.0))) == ["COMPUTE_BOUND"]


def test_a_host_ahead_of_the_device_is_not_launch_bound():
    assert kinds(on_gpu(forward_ms=1.0, backward_ms=1.0)) == ["COMPUTE_BOUND"]


def test_a_host_that_waits_for_the_device_in_one_phase_is_not_launch_bound():
    assert kinds(on_gpu(forward_ms=7.5, backward_ms=0.7)) == ["COMPUTE_BOUND"]


def test_launch_bound_abstains_on_a_gpu_without_device_time():
    quiet = judge(step_rows(STEPS, forward_ms=1, backward_ms=1, optimizer_ms=1, grad_sync_ms=9), device="cuda")
    assert quiet.primary.kind == "INCOMPLETE_DATA"
    assert quiet.primary.evidence["missing"] == ["device time"]


def test_launch_bound_loses_to_a_longer_wait_for_data():
    found = on_gpu(2_000, gpu=gpu_rows(40, utilization=45.0), device={"input_wait": 6.0}, input_wait_ms=6.0)
    assert kinds(found) == ["INPUT_BOUND", "LAUNCH_BOUND"]


def test_a_few_steps_are_too_few_to_judge():
    diagnosis = judge(step_rows(5, input_wait_ms=50.0))
    assert kinds(diagnosis) == ["WARMUP"]
    assert "5 steps" in diagnosis.primary.summary


@pytest.mark.parametrize(
    ("steps", "slow", "said"),
    [(1, 0, "1 step is too few"), (7, 0, "7 steps are too few"), (7, 2, "7 steps, 2 of them warm-up, are too few")],
)
def test_how_few_steps_there_are_is_said_in_a_sentence(steps, slow, said):
    forward_ms = np.where(np.arange(steps) < slow, 60.0, 4.0)
    assert judge(step_rows(steps, forward_ms=forward_ms)).primary.summary.startswith(said)


def test_the_live_policy_waits_for_more_steps():
    rows = step_rows(15, input_wait_ms=50.0)
    assert kinds(judge(rows, policy=LIVE_STEP_TIME_POLICY)) == ["WARMUP"]
    assert judge(rows).primary.kind == "INPUT_BOUND"


def test_no_rows_are_no_data():
    policy = SUMMARY_STEP_TIME_POLICY
    assert diagnose(build_context({}, run_of(), policy), policy).primary.kind == "NO_DATA"


def test_a_run_that_is_neither_is_normal():
    rows = step_rows(STEPS, forward_ms=1.0, backward_ms=1.0, optimizer_ms=1.0, grad_sync_ms=5.0)
    assert judge(rows).primary.kind == "NORMAL"


def test_severity_comes_before_impact_and_impact_before_the_order_of_rules():
    rows = step_rows(STEPS, input_wait_ms=10.0, callbacks_ms=5.0, unattributed_ms=11.0, forward_ms=8.0)
    assert kinds(judge(rows)) == ["UNATTRIBUTED_HEAVY", "INPUT_BOUND", "CALLBACK_HEAVY"]
    critical = step_rows(STEPS, input_wait_ms=20.0, callbacks_ms=40.0)
    assert kinds(judge(critical)) == ["CALLBACK_HEAVY", "INPUT_BOUND"]


def test_start_up_and_warmup_are_no_part_of_a_short_runs_wall_time_but_of_a_long_ones():
    short = judge(step_rows(STEPS, startup_ms=30_000.0, input_wait_ms=8.0)).primary
    assert short.impact_share == pytest.approx(8 / 17.55, rel=0.03)
    long = judge(step_rows(STEPS, startup_ms=90_000.0, input_wait_ms=8.0)).primary
    assert long.impact_share == pytest.approx(0.8 / 91.8, rel=0.03)
    assert long.severity == short.severity


@pytest.mark.parametrize("rule", [*RULES, *TOO_FEW_STEPS], ids=lambda rule: rule.kind)
def test_a_rule_is_a_page(rule):
    assert rule.__doc__
    assert rule.kind.isupper()
    assert rule.kind not in rule.supersedes
