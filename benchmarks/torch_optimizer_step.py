"""PyTorch's side of benchmarks/optimizer_step.py: torch-clip and torch's own, stepped on request.

Runs under a Python that has torch and torch-clip and nothing of ours. Answers each line of standard
input, a request {"case", "shapes", "seconds", "device"}, with a line: the seconds of each step, the
bytes the optimizer keeps, and the bytes that one step allocates, clones apart.
"""

import json
import sys
import time
from importlib import metadata

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch_clip import optimizers

CLIP = {"clipping_type": "norm", "clipping_level": 1.0}
CASES = {
    "torch-clip ClippedSGD, momentum": lambda p: optimizers.ClippedSGD(
        p, lr=1e-3, momentum=0.9, **CLIP
    ),
    "torch-clip ClippedSSTM": lambda p: optimizers.ClippedSSTM(p, lr=1e-3, L=1.0, **CLIP),
    "torch clip_grad_norm_, SGD momentum": lambda p: torch.optim.SGD(p, lr=1e-3, momentum=0.9),
    "torch clip_grad_norm_, Adam": lambda p: torch.optim.Adam(p, lr=1e-3),
}


class CountAllocations(TorchDispatchMode):
    """Adds up the bytes of the tensors that operations make, those of clones apart."""

    def __init__(self):
        super().__init__()
        self.clones = self.others = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        inputs = torch.utils._pytree.tree_leaves((args, kwargs))
        known = {x.untyped_storage().data_ptr() for x in inputs if isinstance(x, torch.Tensor)}
        for x in torch.utils._pytree.tree_leaves(out):
            if isinstance(x, torch.Tensor) and x.untyped_storage().data_ptr() not in known:
                if func is torch.ops.aten.clone.default:
                    self.clones += x.nbytes
                else:
                    self.others += x.nbytes
        return out


def kept(node):
    """Return the tensors in a tree of dicts and lists, by address."""
    if isinstance(node, torch.Tensor):
        return {node.data_ptr(): node.nbytes}
    children = node.values() if isinstance(node, dict) else node
    found = {}
    for child in children if isinstance(node, dict | list | tuple) else ():
        found |= kept(child)
    return found


def measure(request):
    """Step a new optimizer: twice to warm up, then as long as asked, then once to count."""
    generator = torch.Generator().manual_seed(0)
    params = []
    for shape in request["shapes"]:
        p = torch.full(shape, 0.1, device=request["device"], requires_grad=True)
        p.grad = 1e-2 * torch.randn(shape, generator=generator).to(p.device)
        params.append(p)
    optimizer = CASES[request["case"]](params)

    def step():
        if "clip_grad_norm_" in request["case"]:
            torch.nn.utils.clip_grad_norm_(params, 1.0)
        optimizer.step()
        if request["device"] == "cuda":
            torch.cuda.synchronize()

    step()
    step()
    times, end = [], time.perf_counter() + request["seconds"]
    while (began := time.perf_counter()) < end:
        step()
        times.append(time.perf_counter() - began)
    # The parameters are listed in the groups too, and are no state.
    groups = [{k: v for k, v in g.items() if k != "params"} for g in optimizer.param_groups]
    state = kept([dict(optimizer.state), groups])
    with CountAllocations() as count:
        step()
    return {
        "seconds": times,
        "state": sum(state.values()),
        "clones": count.clones,
        "others": count.others,
    }


if __name__ == "__main__":
    hello = {"cases": list(CASES), "torch": torch.__version__}
    print(json.dumps(hello | {"torch-clip": metadata.version("torch-clip")}), flush=True)
    for line in sys.stdin:
        print(json.dumps(measure(json.loads(line))), flush=True)
