"""Trains twice with the Trainer, with a progress bar and then without; the second time the model raises."""

import sys

import patience
import torch
from transformers import Trainer, TrainingArguments

from traceml_hf import TraceMLCallback


class Model(torch.nn.Module):
    def __init__(self, fail_at=None):
        super().__init__()
        self.layers = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Dropout(0.5), torch.nn.Linear(8, 2))
        self.fail_at, self.calls = fail_at, 0

    def forward(self, features, labels):
        self.calls += 1
        if self.calls == 2:
            print("call", self.calls)
        if self.calls == self.fail_at:
            try:
                {}["label"]
            except KeyError as error:
                raise ValueError("no such label") from error
        return {"loss": torch.nn.functional.cross_entropy(self.layers(features), labels)}


def train(model, bar):
    arguments = TrainingArguments(
        "output", per_device_train_batch_size=2, num_train_epochs=1, logging_steps=3, use_cpu=True, report_to=[],
        save_strategy="no", disable_tqdm=not bar,
    )  # fmt: skip
    data = [{"features": torch.full((4,), float(number)), "labels": number % 2} for number in range(16)]
    callbacks = [TraceMLCallback()] if sys.argv[1] == "on" else []
    trainer = Trainer(model, arguments, train_dataset=data, callbacks=callbacks)
    trainer.train()
    print("weights", [parameter.tolist() for parameter in model.parameters()], torch.rand(1))


patience.wait_patiently()
torch.manual_seed(1)
train(Model(), bar=True)
train(Model(fail_at=5), bar=False)
