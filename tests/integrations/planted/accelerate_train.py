"""An Accelerate loop with one planted cause after the other; `python accelerate_train.py CAUSE [CAUSE ...]`."""

import sys
import time

import causes
import torch
from accelerate import Accelerator

from traceml_hf.accelerate import TraceMLCallback


def main(cause: str) -> None:
    accelerator = Accelerator(cpu=True)
    began = time.perf_counter()
    with TraceMLCallback().attach(accelerator):
        network = causes.Network(cause)
        loader = torch.utils.data.DataLoader(causes.Data(cause, causes.steps(cause)), **causes.loader_arguments(cause))
        network, optimizer, loader = accelerator.prepare(network, causes.optimizer(network, cause), loader)
        for batch in loader:
            optimizer.zero_grad()
            accelerator.backward(network(**batch)["loss"])
            optimizer.step()
    causes.tell_wall(began)


if __name__ == "__main__":
    causes.train_each(main, sys.argv[1:])
