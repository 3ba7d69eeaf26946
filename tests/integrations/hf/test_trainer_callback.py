"""What the Trainer's callback does with every way of training, and leaves behind."""

from __future__ import annotations

import copy
import json
import pickle
import subprocess
import sys

import pytest
import torch
from trainer_models import Samples, Tiny, trainer
from transformers import BertConfig, BertForSequenceClassification, DefaultFlowCallback, TrainerCallback

from traceml_hf import TraceMLCallback
from traceml_hf.attached_callback import AttachedCallback


def test_attach_names_the_trainer(tmp_path, recorded):
    plain = trainer(tmp_path, settings=False)
    TraceMLCallback(runs_dir=str(tmp_path / "runs"), report="off").attach(plain)
    plain.train()
    assert recorded().summary.run.steps == 6


def test_add_callback_is_enough(tmp_path, recorded):
    plain = trainer(tmp_path, settings=False)
    plain.add_callback(TraceMLCallback(runs_dir=str(tmp_path / "runs"), report="off"))
    plain.train()
    assert recorded().typical_ms("forward") > 0


def test_everything_is_put_back(tmp_path):
    used = trainer(tmp_path)
    used.train()
    assert type(used.callback_handler.callbacks) is list
    assert "backward" not in vars(used.accelerator)
    assert not used.model._forward_pre_hooks
    assert not used.model._forward_hooks
    assert type(vars(used.callback_handler.train_dataloader)["base_dataloader"]).__module__.startswith("torch")


def test_two_trainings_are_two_runs(tmp_path, recorded):
    twice = trainer(tmp_path)
    twice.train()
    twice.train()
    assert [run.summary.run.steps for run in recorded(every=True)] == [6, 6]


def test_a_training_that_was_left_by_a_caught_error_does_not_take_the_next_one_in(tmp_path, recorded):
    with pytest.raises(IndexError):
        trainer(tmp_path, data=_Breaks(12)).train()
    trainer(tmp_path).train()
    left, next_one = recorded(every=True)
    assert left.summary.run.status == "failed"
    assert (next_one.summary.run.status, next_one.summary.run.steps) == ("completed", 6)


def test_resume_goes_on_counting(tmp_path, recorded, monkeypatch):
    # transformers 4.46 loads its own random state in a way that newer torch refuses without this.
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    trainer(tmp_path, settings=False, save_strategy="steps", save_steps=3).train()
    trainer(tmp_path).train(resume_from_checkpoint=str(tmp_path / "output" / "checkpoint-3"))
    run = recorded()
    assert list(run.steps["step"]) == [4, 5, 6]
    assert run.summary.time_budget.coverage_share >= 0.99


def test_every_trial_of_a_search_has_a_folder(tmp_path, recorded):
    pytest.importorskip("optuna")
    search = trainer(tmp_path, parts={"model_init": lambda trial=None: Tiny(), "eval_dataset": Samples(2)})
    search.hyperparameter_search(
        hp_space=lambda trial: {"learning_rate": trial.suggest_float("learning_rate", 1e-4, 1e-2)},
        compute_objective=lambda metrics: metrics["eval_loss"],
        n_trials=2,
        backend="optuna",
    )
    assert [run.summary.run.status for run in recorded(every=True)] == ["completed", "completed"]


def test_evaluate_and_predict_open_no_run(tmp_path):
    used = trainer(tmp_path, parts={"eval_dataset": Samples(2)})
    used.evaluate()
    used.predict(Samples(2))
    assert not (tmp_path / "runs").exists()


def test_a_compiled_model_is_followed(tmp_path, recorded):
    trainer(tmp_path, torch_compile=True, torch_compile_backend="eager").train()
    assert recorded().typical_ms("forward") > 0


def test_a_transformer_shows_tokens(tmp_path, recorded):
    config = BertConfig(
        vocab_size=16,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        intermediate_size=8,
        max_position_embeddings=8,
    )
    trainer(tmp_path, model=BertForSequenceClassification(config), data=_Tokens(8)).train()
    run = recorded()
    assert list(run.steps["tokens"]) == [16.0] * 4
    assert run.summary.run.tokens_per_s > 0


def test_a_peft_model_is_followed(tmp_path, recorded):
    peft = pytest.importorskip("peft")
    adapted = peft.get_peft_model(Tiny(), peft.LoraConfig(target_modules=["layer"], r=2))
    trainer(tmp_path, model=adapted, parts={}, remove_unused_columns=False).train()
    assert recorded().typical_ms("backward") > 0


def test_an_sft_trainer_is_followed(tmp_path, recorded):
    trl = pytest.importorskip("trl")
    datasets = pytest.importorskip("datasets")
    model, tokenizer = _tiny_language_model()
    arguments = trl.SFTConfig(
        output_dir=str(tmp_path / "output"),
        max_steps=3,
        per_device_train_batch_size=2,
        report_to=[],
        save_strategy="no",
        disable_tqdm=True,
        use_cpu=True,
        bf16=False,
        max_length=8,
    )
    trl.SFTTrainer(
        model=model,
        args=arguments,
        train_dataset=datasets.Dataset.from_dict({"text": ["a b c d e"] * 8}),
        processing_class=tokenizer,
        callbacks=[TraceMLCallback(runs_dir=str(tmp_path / "runs"), report="off")],
    ).train()
    run = recorded()
    assert run.summary.run.steps == 3
    assert run.typical_ms("forward") > 0


def test_nothing_of_ours_is_in_states_logs_or_checkpoints(tmp_path):
    kept = []
    for settings in (False, None):
        used = trainer(
            tmp_path, settings=settings, save_strategy="steps", save_steps=3, logging_strategy="steps", logging_steps=2
        )
        used.train()
        state = json.loads((tmp_path / "output" / "checkpoint-6" / "trainer_state.json").read_text())
        kept.append(
            (sorted(state), sorted(state["stateful_callbacks"]), [sorted(entry) for entry in used.state.log_history])
        )
    assert kept[0] == kept[1]


def test_the_second_callback_does_nothing_and_says_so(tmp_path, recorded, capsys):
    trainer(tmp_path, TraceMLCallback(runs_dir=str(tmp_path / "runs"), report="off")).train()
    assert capsys.readouterr().err.count("second TraceMLCallback") == 1
    assert recorded().summary.run.steps == 6


def test_an_attached_callback_leaves_the_trainer_to_one_of_its_own_without_a_word(tmp_path, recorded, capsys):
    trainer(tmp_path, AttachedCallback(runs_dir=str(tmp_path / "runs"), report="off", name="attached")).train()
    assert "second" not in capsys.readouterr().err
    assert recorded().summary.run.name != "attached"


def test_a_disabled_callback_touches_nothing(tmp_path):
    trainer(tmp_path, _SeesPlainList(), settings={"enabled": False}).train()
    assert not (tmp_path / "runs").exists()


def test_callbacks_may_come_and_go_during_training(tmp_path):
    used = trainer(tmp_path)
    used.add_callback(_Leaves(used))
    used.train()
    kinds = [type(callback) for callback in used.callback_handler.callbacks]
    assert _Leaves not in kinds
    assert DefaultFlowCallback in kinds


def test_callbacks_that_come_and_go_are_called_as_without(tmp_path):
    def called(**settings):
        heard = []
        used = trainer(tmp_path, **settings)
        used.add_callback(_Changes(used, heard))
        used.add_callback(_Hears("gone before its turn", heard))
        used.add_callback(TrainerCallback())
        used.add_callback(_Hears("last", heard))
        used.train()
        return heard

    assert called() == called(settings=False)


def test_copies_of_a_callback_record_runs_of_their_own(tmp_path, recorded):
    ours = TraceMLCallback(runs_dir=str(tmp_path / "runs"), report="off")
    for one in (pickle.loads(pickle.dumps(ours)), copy.deepcopy(ours)):
        trainer(tmp_path, one, settings=False).train()
    assert len(recorded(every=True)) == 2


def test_a_bad_argument_raises_at_construction():
    with pytest.raises(ValueError, match=r"report='loud'.*'full'"):
        TraceMLCallback(report="loud")


def test_importing_the_package_loads_no_framework():
    heavy = ("torch", "transformers", "accelerate")
    code = f"import sys, traceml_hf; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


class _Breaks(Samples):
    def __getitem__(self, index):
        if index == 7:
            raise IndexError("no such sample")
        return super().__getitem__(index)


class _Tokens(torch.utils.data.Dataset):
    def __init__(self, length: int) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {"input_ids": torch.full((8,), index % 16), "labels": torch.tensor(index % 2)}


class _SeesPlainList(TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        assert type(kwargs["train_dataloader"].base_dataloader).__module__.startswith("torch")


class _Leaves(TrainerCallback):
    def __init__(self, trainer):
        self.trainer = trainer

    def on_step_end(self, *_, **__):
        self.trainer.remove_callback(_Leaves)


class _Hears(TrainerCallback):
    """Notes what it is told."""

    def __init__(self, name, heard):
        self.name, self.heard = name, heard

    def on_train_begin(self, args, state, control, **kwargs):
        self.heard.append((self.name, "begin"))

    def on_step_end(self, args, state, control, **kwargs):
        self.heard.append((self.name, state.global_step))


class _Changes(_Hears):
    """Adds callbacks and removes some, while they are being called."""

    def __init__(self, used, heard):
        super().__init__("changes", heard)
        self.used = used

    def on_train_begin(self, args, state, control, **kwargs):
        callbacks = self.used.callback_handler.callbacks
        callbacks.remove(next(one for one in callbacks if vars(one).get("name") == "gone before its turn"))
        self.used.add_callback(_Hears("added at the begin", self.heard))

    def on_step_end(self, args, state, control, **kwargs):
        super().on_step_end(args, state, control, **kwargs)
        if state.global_step == 2:
            self.used.add_callback(_Hears("added at step 2", self.heard))
        if state.global_step == 4:  # its place goes to the next one, which this pass then leaves out
            self.used.remove_callback(self)


def _tiny_language_model():
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    words = {word: index for index, word in enumerate(["<pad>", "<eos>", "<unk>", *"abcdefgh"])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>"
    )
    model = GPT2LMHeadModel(GPT2Config(vocab_size=len(words), n_positions=16, n_embd=8, n_layer=1, n_head=1))
    return model, wrapped
