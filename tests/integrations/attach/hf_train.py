"""A Hugging Face script that knows nothing of TraceML, unless it is told to add the callback itself."""

import sys
import time

import torch
from transformers import Trainer, TrainingArguments


class Regression(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(8, 1)

    def forward(self, inputs, labels=None):
        time.sleep(0.01)  # so long a run that its CPU time is told
        output = self.layer(inputs)
        return {"loss": output.square().mean(), "logits": output}


data = [{"inputs": torch.randn(8), "labels": torch.tensor(0.0)} for _ in range(320)]
arguments = TrainingArguments(
    sys.argv[1],
    max_steps=20,
    per_device_train_batch_size=16,
    logging_strategy="no",
    save_strategy="no",
    report_to=[],
    use_cpu=True,
    disable_tqdm=False,
)
trainer = Trainer(Regression(), arguments, train_dataset=data)
if "--explicit" in sys.argv:
    from traceml_hf import TraceMLCallback

    trainer.add_callback(TraceMLCallback())
trainer.train()
print("trained", trainer.state.global_step, len(sys.stdin.read()))
sys.exit(3)
