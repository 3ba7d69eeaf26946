"""The Accelerate callback as an object: attaching, copying, undoing, staying out of the way."""

from __future__ import annotations

import copy
import gc
import pickle
import subprocess
import sys
import threading
import weakref

import pytest
import torch
from accelerate import Accelerator
from accelerate.data_loader import DataLoaderShard
from accelerate_loops import Model, make_loader, train_epoch

from traceml_hf.accelerate import TraceMLCallback


def prepared(accelerator):
    model = Model()
    return accelerator.prepare(model, torch.optim.SGD(model.parameters(), lr=0.01), make_loader())


def test_a_copied_or_pickled_callback_keeps_its_settings_and_leaves_the_run_with_the_original(accelerator, sessions):
    callback = TraceMLCallback(name="digits").attach(accelerator)
    for clone in (copy.deepcopy(callback), pickle.loads(pickle.dumps(callback))):
        clone.close()
        assert sessions[0].ended is None
        with clone.attach(Accelerator(cpu=True)):
            pass
    callback.close()
    assert sessions[0].ended == ("completed", None)
    assert len(sessions) == 3


def test_a_second_callback_on_one_accelerator_does_nothing_and_says_so_once(accelerator, sessions, capsys):
    with TraceMLCallback().attach(accelerator):
        with TraceMLCallback().attach(accelerator):
            pass
        assert sessions[0].ended is None
    assert len(sessions) == 1
    assert capsys.readouterr().err.count("TraceML:") == 1


def test_one_accelerator_can_be_recorded_again_after_its_run_has_closed(accelerator, sessions):
    for _ in range(2):
        with TraceMLCallback().attach(accelerator):
            train_epoch(accelerator, *prepared(accelerator))
    assert [len(session.numbered) for session in sessions] == [6, 6]


def test_the_next_run_ends_one_that_has_trained_and_was_left_open_outside_a_block(sessions):
    left, block = Accelerator(cpu=True), Accelerator(cpu=True)
    TraceMLCallback().attach(left)
    train_epoch(left, *prepared(left))
    with TraceMLCallback().attach(block):
        assert [session.ended for session in sessions] == [("completed", None), None]
        train_epoch(block, *prepared(block))
        TraceMLCallback().attach(Accelerator(cpu=True))
        assert sessions[1].ended is None


def test_one_callback_may_be_attached_to_one_accelerator_after_another(sessions):
    callback = TraceMLCallback()
    for _ in range(2):
        accelerator = Accelerator(cpu=True)
        callback.attach(accelerator)
        train_epoch(accelerator, *prepared(accelerator))
    callback.close()
    assert [len(session.numbered) for session in sessions] == [6, 6]
    assert [session.ended for session in sessions] == [("completed", None)] * 2


def test_accelerators_that_are_attached_one_by_one_before_training_end_no_run(sessions):
    callbacks = [TraceMLCallback().attach(Accelerator(cpu=True)) for _ in range(2)]
    assert [session.ended for session in sessions] == [None, None]
    for callback in callbacks:
        callback.close()


def test_everything_is_taken_off_when_the_run_closes(accelerator, sessions):
    model, optimizer, loader = prepared(accelerator)
    before = {id(thing): dict(vars(thing)) for thing in (accelerator, loader, optimizer.optimizer)}
    hooks = [len(model._forward_hooks), len(model._forward_pre_hooks)]
    with TraceMLCallback().attach(accelerator):
        train_epoch(accelerator, model, optimizer, loader)
        assert "backward" in vars(accelerator)
    for thing in (accelerator, loader, optimizer.optimizer):
        assert set(vars(thing)) - set(before[id(thing)]) <= {"end_of_dataloader", "remainder"}
        assert set(before[id(thing)]) <= set(vars(thing))
    assert vars(loader)["base_dataloader"] is before[id(loader)]["base_dataloader"]
    assert [len(model._forward_hooks), len(model._forward_pre_hooks)] == hooks
    assert not optimizer.optimizer._optimizer_step_post_hooks
    assert "backward" not in vars(accelerator)


def test_a_method_that_the_user_replaced_meanwhile_stays_theirs(accelerator, sessions):
    with TraceMLCallback().attach(accelerator):
        ours = accelerator.backward
        accelerator.backward = lambda loss, **options: ours(loss, **options)
        theirs = accelerator.backward
        train_epoch(accelerator, *prepared(accelerator))
    assert accelerator.backward is theirs
    train_epoch(accelerator, *prepared(accelerator))
    assert len(sessions[0].numbered) == 6


def test_a_run_that_closes_in_the_middle_of_an_epoch_lets_the_loop_go_on(accelerator, sessions):
    model, optimizer, loader = prepared(accelerator)
    callback = TraceMLCallback().attach(accelerator)
    train_epoch(accelerator, model, optimizer, loader, after_step=lambda number: callback.close() if number == 2 else 0)
    assert [record.samples for record in sessions[0].numbered] == [4, 4, 4]


def test_a_disabled_callback_touches_nothing(accelerator, sessions):
    model, optimizer, loader = prepared(accelerator)
    attributes = set(vars(accelerator))
    with TraceMLCallback(enabled=False).attach(accelerator):
        assert set(vars(accelerator)) == attributes
        train_epoch(accelerator, model, optimizer, loader)
    assert sessions[0].records == [] or not sessions[0].numbered


@pytest.fixture
def held():
    """References to what `trained` made: whether somebody still holds it."""
    references = []

    def alive():
        gc.collect()
        return [type(reference()).__name__ for reference in references if reference() is not None]

    alive.references = references
    return alive


def trained(accelerator, held):
    things = prepared(accelerator)
    train_epoch(accelerator, *things)
    held.references.extend(weakref.ref(thing) for thing in things)


@pytest.mark.parametrize("free", [Accelerator.free_memory, Accelerator.clear])
def test_what_an_accelerator_frees_during_a_run_is_freed(accelerator, sessions, held, free):
    with TraceMLCallback().attach(accelerator):
        for _ in range(2):
            trained(accelerator, held)
            free(accelerator)
            assert held() == []
    assert len(sessions[0].numbered) == 12


@pytest.mark.parametrize("enabled", [True, False])
def test_a_run_that_is_over_holds_nothing_of_its_loop(sessions, held, enabled):
    accelerator = Accelerator(cpu=True)
    callback = TraceMLCallback(enabled=enabled).attach(accelerator)
    trained(accelerator, held)
    accelerator.end_training()
    held.references.append(weakref.ref(accelerator))
    del accelerator
    assert held() == [] and callback is not None


def test_a_bad_setting_raises_at_construction_and_names_what_is_accepted():
    with pytest.raises(ValueError, match=r"mode='loud'.*'summary'"):
        TraceMLCallback(mode="loud")


def test_attach_names_what_it_takes():
    with pytest.raises(TypeError, match="takes an accelerate.Accelerator, not Linear"):
        TraceMLCallback().attach(torch.nn.Linear(1, 1))


@pytest.mark.parametrize(
    ("error", "status"), [(RuntimeError("bad batch"), "failed"), (KeyboardInterrupt(), "interrupted")]
)
def test_an_exception_in_the_block_ends_the_run_and_goes_on_unchanged(accelerator, sessions, error, status):
    model, optimizer, loader = prepared(accelerator)

    def fail(number):
        if number == 3:
            raise error

    with pytest.raises(type(error)) as caught, TraceMLCallback().attach(accelerator):
        train_epoch(accelerator, model, optimizer, loader, after_step=fail)
    assert caught.value is error
    assert caught.value.__context__ is None
    assert sessions[0].ended == (status, error)
    assert "backward" not in vars(accelerator)


@pytest.mark.parametrize(("code", "status"), [(None, "completed"), (0, "completed"), (3, "interrupted")])
def test_sys_exit_in_the_block_ends_the_run_as_its_code_says(accelerator, sessions, code, status):
    with pytest.raises(SystemExit), TraceMLCallback().attach(accelerator):
        sys.exit(code)
    assert sessions[0].ended[0] == status


def test_end_training_closes_the_run_and_the_block_after_it_nothing(accelerator, sessions):
    with TraceMLCallback().attach(accelerator):
        train_epoch(accelerator, *prepared(accelerator))
        accelerator.end_training()
        assert sessions[0].ended == ("completed", None)
    assert len(sessions) == 1


def pickled(one):
    return pickle.loads(pickle.dumps(one))


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, pickled, torch.nn.Module._replicate_for_data_parallel])
def test_a_copy_of_a_model_runs_itself(accelerator, sessions, duplicate):
    model = Model()
    with TraceMLCallback().attach(accelerator):
        prepared_model = accelerator.prepare(model)
        if duplicate is torch.nn.Module._replicate_for_data_parallel:
            copied = prepared_model._replicate_for_data_parallel()  # as torch's DataParallel does
        else:
            copied = duplicate(prepared_model)
        calls = []
        copied.forward = calls.append
        copied("its own")
    assert calls == ["its own"]
    for one in (copied, model):
        assert not [value for value in vars(one).values() if type(value).__module__.startswith("traceml")]


@pytest.mark.parametrize("duplicate", [copy.copy, pickled])
def test_a_copy_of_an_accelerator_is_one_without_a_run(accelerator, sessions, duplicate):
    stock = set(vars(duplicate(accelerator)))
    with TraceMLCallback().attach(accelerator):
        assert set(vars(duplicate(accelerator))) == stock
        assert "backward" in vars(accelerator)
    assert set(vars(accelerator)) == stock


def test_a_loader_copied_or_pickled_during_a_run_still_works(accelerator, sessions):
    with TraceMLCallback().attach(accelerator):
        _, _, loader = prepared(accelerator)
        copies = [copy.copy(loader), copy.deepcopy(loader)]
        if "__reduce__" in vars(DataLoaderShard):  # older ones cannot be pickled at all
            copies.append(pickle.loads(pickle.dumps(loader)))
        for clone in copies:
            assert clone.device == accelerator.device
            assert len(list(clone)) == 6


def test_a_prepared_loader_still_is_what_it_was(accelerator, sessions):
    plain = make_loader()
    with TraceMLCallback().attach(accelerator):
        loader = accelerator.prepare(plain)
        assert isinstance(loader, torch.utils.data.DataLoader)
        assert isinstance(loader.base_dataloader, torch.utils.data.DataLoader)
        assert (len(loader), loader.dataset, loader.total_batch_size) == (6, plain.dataset, 4)
        assert loader.device == accelerator.device


def test_another_threads_loop_is_left_alone(accelerator, sessions):
    model, optimizer, loader = prepared(accelerator)
    with TraceMLCallback().attach(accelerator):
        thread = threading.Thread(target=train_epoch, args=(accelerator, model, optimizer, loader))
        thread.start()
        thread.join()
    assert sessions[0].numbered == []


def test_a_compiled_model_is_followed_without_graph_breaks(sessions):
    accelerator = Accelerator(cpu=True)
    model = torch.compile(Model(), backend="eager", fullgraph=True)
    with TraceMLCallback().attach(accelerator):
        model, optimizer, loader = accelerator.prepare(model, torch.optim.SGD(model.parameters()), make_loader())
        train_epoch(accelerator, model, optimizer, loader)
    from traceml_core.core.phases import Phase

    assert sessions[0].seconds(Phase.FORWARD) > 0


def test_the_adapter_never_imports_transformers():
    code = (
        "import sys, torch; from accelerate import Accelerator; from traceml_hf.accelerate import TraceMLCallback\n"
        "with TraceMLCallback(enabled=False).attach(Accelerator(cpu=True)): pass\n"
        "import traceml_hf.accelerate_attachment; print([m for m in sys.modules if m.split('.')[0] == 'transformers'])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("kind", "unmeasured"),
    [
        ("NO", ()),
        ("DEEPSPEED", ("backward", "grad_sync", "optimizer")),
        ("FSDP", ("grad_sync",)),
        ("MEGATRON_LM", ("forward", "backward", "grad_sync", "optimizer")),
    ],
)
def test_what_a_strategy_cannot_separate_is_listed_as_unmeasured(accelerator, sessions, monkeypatch, kind, unmeasured):
    from accelerate.utils import DistributedType

    monkeypatch.setattr(type(accelerator), "distributed_type", DistributedType[kind])
    with TraceMLCallback().attach(accelerator):
        pass
    assert sessions[0].facts.unmeasured == unmeasured


def test_the_run_says_what_it_is(accelerator, sessions):
    with TraceMLCallback().attach(accelerator):
        train_epoch(accelerator, *prepared(accelerator))
    (session,) = sessions
    assert (session.facts.framework, session.facts.device, session.facts.precision) == ("accelerate", "cpu", "no")
    assert set(session.facts.versions) == {"torch", "accelerate"}
    assert session.described["loader"].num_workers == 0
    assert (session.identity.rank, session.identity.world_size, session.identity.nodes) == (0, 1, 1)
