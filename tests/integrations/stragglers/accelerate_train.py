"""An Accelerate loop of several ranks, started by torchrun."""

import plant
import torch
from accelerate import Accelerator

from traceml_hf.accelerate import TraceMLCallback

if __name__ == "__main__":
    accelerator = Accelerator(cpu=True)
    for cause in plant.causes():
        with TraceMLCallback(run_dir=cause).attach(accelerator):
            loader = torch.utils.data.DataLoader(plant.Samples(), batch_size=plant.BATCH, collate_fn=plant.collate)
            network = plant.Network()
            optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
            network, optimizer, loader = accelerator.prepare(network, optimizer, loader)
            for batch in loader:
                optimizer.zero_grad()
                accelerator.backward(network(**batch)["loss"])
                optimizer.step()
        accelerator.free_memory()
