"""Train a small transformer on scikit-learn's digits with the Hugging Face Trainer: an image is 64 pixel tokens.

    python examples/hf_digits.py

Needs: pip install "traceml-callbacks[demo]"
"""

from __future__ import annotations

import argparse
import tempfile

import torch
from sklearn.datasets import load_digits
from torch.utils.data import Dataset
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments

from traceml_hf import TraceMLCallback


class PixelTokens(Dataset[dict[str, torch.Tensor]]):
    """Every 8 × 8 digit as a sequence of 64 tokens, one per grey level."""

    def __init__(self) -> None:
        digits = load_digits()
        self.tokens = torch.from_numpy(digits.data).long()
        self.labels = torch.from_numpy(digits.target).long()

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {"input_ids": self.tokens[index], "labels": self.labels[index]}


def main() -> None:
    """Train for some steps; the report follows by itself."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=150)
    arguments = parser.parse_args()
    config = BertConfig(
        vocab_size=17,
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=128,
        max_position_embeddings=64,
        num_labels=10,
    )
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            model=BertForSequenceClassification(config),
            args=TrainingArguments(
                output_dir=folder,
                max_steps=arguments.steps,
                per_device_train_batch_size=32,
                learning_rate=1e-3,
                logging_steps=50,
                save_strategy="no",
                report_to=[],
                use_cpu=True,
                seed=7,
            ),
            train_dataset=PixelTokens(),
            callbacks=[TraceMLCallback()],
        )
        trainer.train()


if __name__ == "__main__":
    main()
