"""One replica in PyTorch with torch-clip's optimizers; prints seconds as JSON. For replicas.py."""

import json
import sys
import time

import torch
from torch_clip.optimizers import ClippedSGD, ClippedSSTM

METHODS = {
    "clipped-SGD": lambda params: ClippedSGD(
        params, lr=0.01, clipping_type="norm", clipping_level=10.0
    ),
    "clipped-SSTM": lambda params: ClippedSSTM(
        params, lr=1e-3, L=1.0, clipping_type="norm", clipping_level=0.1
    ),
}


def run(method, dimension, steps):
    torch.manual_seed(0)
    noise = torch.distributions.StudentT(1.5).sample((steps, dimension))
    x = torch.nn.Parameter(torch.ones(dimension))
    optimizer = METHODS[method]([x])
    began = time.perf_counter()
    for k in range(steps):
        optimizer.zero_grad()
        loss = 0.5 * (x**2).sum() + (noise[k] * x).sum()
        loss.backward()
        optimizer.step()
    return time.perf_counter() - began


if __name__ == "__main__":
    torch.set_num_threads(1)  # twenty numbers do not gain from more
    method, dimension, steps, repeats = sys.argv[1], *map(int, sys.argv[2:])
    print(
        json.dumps(
            {
                "version": torch.__version__,
                "seconds": [run(method, dimension, steps) for _ in range(repeats)],
            }
        )
    )
