"""A Hugging Face Trainer run with one planted cause after the other; `python hf_train.py CAUSE [CAUSE ...]`."""

import sys
import time

import causes
from transformers import Trainer, TrainerCallback, TrainingArguments

from traceml_hf import TraceMLCallback


class SlowCallback(TrainerCallback):
    def on_step_end(self, *_, **__):
        time.sleep(0.02)


class Network(causes.Network):
    def forward(self, features, labels):
        if not self.training and self.cause == "frequent_validation":
            causes.busy(5)
        return super().forward(features, labels)

    def state_dict(self, *arguments, **options):
        if self.cause == "slow_checkpoints":
            time.sleep(0.1)
        return super().state_dict(*arguments, **options)


def main(cause: str) -> None:
    loader = causes.loader_arguments(cause)
    saves, evaluates = cause == "slow_checkpoints", cause == "frequent_validation"
    arguments = TrainingArguments(
        output_dir="output",
        num_train_epochs=causes.epochs(cause),
        per_device_train_batch_size=causes.BATCH,
        dataloader_num_workers=loader["num_workers"],
        logging_steps=50,
        save_strategy="steps" if saves else "no",
        save_steps=5,
        eval_strategy="steps" if evaluates else ("epoch" if cause == "healthy" else "no"),
        eval_steps=10,
        report_to=[],
        use_cpu=True,
    )
    network = Network(cause)
    trainer = Trainer(
        network,
        arguments,
        train_dataset=causes.Data(cause, causes.steps(cause) // causes.epochs(cause)),
        eval_dataset=causes.Data("", 16),
        data_collator=loader.get("collate_fn"),
        optimizers=(causes.optimizer(network, cause), None),
        callbacks=[TraceMLCallback()] + ([SlowCallback()] if cause == "slow_callback" else []),
    )
    began = time.perf_counter()
    trainer.train()
    causes.tell_wall(began)


if __name__ == "__main__":
    causes.train_each(main, sys.argv[1:])
