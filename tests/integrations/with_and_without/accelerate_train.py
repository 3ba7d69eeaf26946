"""Trains twice with Accelerate; the second time the model raises, in a `with` block."""

import contextlib
import sys

import patience
import torch
from accelerate import Accelerator

from traceml_hf.accelerate import TraceMLCallback


class Model(torch.nn.Module):
    def __init__(self, fail_at=None):
        super().__init__()
        self.layers = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Dropout(0.5), torch.nn.Linear(8, 2))
        self.fail_at, self.calls = fail_at, 0

    def forward(self, features):
        self.calls += 1
        if self.calls == self.fail_at:
            try:
                {}["label"]
            except KeyError as error:
                raise ValueError("no such label") from error
        return self.layers(features)


def recorded(accelerator):
    return TraceMLCallback().attach(accelerator) if sys.argv[1] == "on" else contextlib.nullcontext()


def train(model):
    accelerator = Accelerator(cpu=True)
    data = torch.utils.data.TensorDataset(torch.randn(16, 4), torch.arange(16) % 2)
    loader = torch.utils.data.DataLoader(data, batch_size=2, shuffle=True)
    model, optimizer, loader = accelerator.prepare(model, torch.optim.SGD(model.parameters(), lr=0.1), loader)
    with recorded(accelerator):
        for features, labels in loader:
            accelerator.backward(torch.nn.functional.cross_entropy(model(features), labels))
            optimizer.step()
            optimizer.zero_grad()
    print("weights", [parameter.tolist() for parameter in model.parameters()], torch.rand(1))


patience.wait_patiently()
torch.manual_seed(1)
train(Model())
train(Model(fail_at=5))
