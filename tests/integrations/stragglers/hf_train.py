"""A Hugging Face Trainer run of several ranks, started by torchrun."""

import plant
from transformers import Trainer, TrainingArguments

from traceml_hf import TraceMLCallback

if __name__ == "__main__":
    arguments = TrainingArguments(
        output_dir="output",
        num_train_epochs=1,
        per_device_train_batch_size=plant.BATCH,
        save_strategy="no",
        logging_strategy="no",
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
    )
    for cause in plant.causes():
        Trainer(
            plant.Network(),
            arguments,
            train_dataset=plant.Samples(),
            data_collator=plant.collate,
            callbacks=[TraceMLCallback(run_dir=cause)],
        ).train()
