"""PyTorch's side of benchmarks/train_step.py: the same networks, trained by clipped momentum SGD.

Runs under a Python that has torch and nothing of ours: reads the cases as JSON from standard input,
answers each with its parameter count and seconds a step. On a GPU where PyTorch sees one.
"""

import json
import sys
import time

import torch
from torch import nn
from torch.nn import functional as F


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut."""

    def __init__(self, inputs, features, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, features, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(features)
        self.conv2 = nn.Conv2d(features, features, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(features)
        self.shortcut = nn.Identity()
        if stride != 1 or inputs != features:
            conv = nn.Conv2d(inputs, features, 1, stride, bias=False)
            self.shortcut = nn.Sequential(conv, nn.BatchNorm2d(features))

    def forward(self, x):
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(y + self.shortcut(x))


def resnet18(channels, classes, width, stem):
    """Return ResNet-18 with the ImageNet or the small-image stem."""
    big = stem == "imagenet"
    size, stride, padding = (7, 2, 3) if big else (3, 1, 1)
    layers = [nn.Conv2d(channels, width, size, stride, padding, bias=False), nn.BatchNorm2d(width)]
    layers += [nn.ReLU()] + ([nn.MaxPool2d(3, 2, 1)] if big else [])
    inputs = width
    for stage in range(4):
        for block in range(2):
            features = width * 2**stage
            layers.append(BasicBlock(inputs, features, 2 if stage and not block else 1))
            inputs = features
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, classes))


def fcn(channels, classes, width, fc_width, fc_kernel, block_sizes, batch_norm, dropout):
    """Return an FCN on a VGG trunk with one pooling for each block."""
    layers, inputs = [], channels

    def conv(features, size):
        nonlocal inputs
        layers.append(nn.Conv2d(inputs, features, size, padding=size // 2))
        layers.extend([nn.BatchNorm2d(features)] if batch_norm else [])
        layers.append(nn.ReLU())
        inputs = features

    for block, convs in enumerate(block_sizes):
        for _ in range(convs):
            conv(width * 2 ** min(block, 3), 3)
        layers.append(nn.MaxPool2d(2))
    for size in (fc_kernel, 1):
        conv(fc_width, size)
        layers.extend([nn.Dropout(dropout)] if dropout else [])
    stride = 2 ** len(block_sizes)
    score = nn.Conv2d(inputs, classes, 1)
    up = nn.ConvTranspose2d(classes, classes, 2 * stride, stride, stride // 2, bias=False)
    return nn.Sequential(*layers, score, up)


class SRResNet(nn.Module):
    """SRResNet with an optional bicubic skip."""

    def __init__(self, channels, num_blocks, kernel_size, skip):
        super().__init__()
        self.skip = skip
        half = kernel_size // 2
        self.head = nn.Sequential(nn.Conv2d(3, channels, kernel_size, padding=half), nn.PReLU())
        self.blocks = nn.ModuleList(self.block(channels) for _ in range(num_blocks))
        self.mid = nn.Sequential(
            nn.Conv2d(channels, channels, 3, 1, 1, bias=False), nn.BatchNorm2d(channels)
        )
        ups = [
            nn.Sequential(
                nn.Conv2d(channels, 4 * channels, 3, 1, 1), nn.PixelShuffle(2), nn.PReLU()
            )
            for _ in range(2)
        ]
        self.tail = nn.Sequential(*ups, nn.Conv2d(channels, 3, kernel_size, padding=half))

    @staticmethod
    def block(channels):
        return nn.Sequential(
            nn.Conv2d(channels, channels, 3, 1, 1, bias=False),
            nn.BatchNorm2d(channels),
            nn.PReLU(),
            nn.Conv2d(channels, channels, 3, 1, 1, bias=False),
            nn.BatchNorm2d(channels),
        )

    def forward(self, x):
        trunk = y = self.head(x)
        for block in self.blocks:
            y = y + block(y)
        y = self.tail(self.mid(y) + trunk)
        return y + F.interpolate(x, scale_factor=4, mode="bicubic") if self.skip else y


def seconds_per_step(case, device, dtype, mode):
    """Return (parameters, seconds a step): the fastest of the repeats, after a few to warm up.

    A step begins with uint8 pictures on the host, as ours. The mode "compiled" is
    torch.compile, with channels last.
    """
    layout = torch.channels_last if mode == "compiled" else torch.contiguous_format
    model = {"resnet18": resnet18, "fcn": fcn, "srresnet": SRResNet}[case["net"]](**case["model"])
    model.to(device, memory_format=layout)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9)
    classes = case["target_classes"]
    pixels = torch.randint(256, case["image"], dtype=torch.uint8).contiguous(memory_format=layout)
    if classes:
        target = torch.randint(classes, case["target"])
    else:
        target = torch.randint(256, case["target"], dtype=torch.uint8)
    if device == "cuda":
        pixels, target = pixels.pin_memory(), target.pin_memory()

    def loss_fn(pixels, target):
        with torch.autocast(device, torch.bfloat16, enabled=dtype == "bfloat16"):
            outputs = model((pixels.float() / 255 - 0.45) / 0.225).float()
        if classes:
            return F.cross_entropy(outputs, target)
        return F.mse_loss(outputs, target.float() / 255)

    if mode == "compiled":
        loss_fn = torch.compile(loss_fn)

    def step():
        optimizer.zero_grad(set_to_none=True)
        loss_fn(*(t.to(device, non_blocking=True) for t in (pixels, target))).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if device == "cuda":
            torch.cuda.synchronize()

    times = []
    for _ in range(case["warm"] + case["repeats"]):
        began = time.perf_counter()
        step()
        times.append(time.perf_counter() - began)
    return sum(p.numel() for p in model.parameters()), min(times[case["warm"] :])


def main():
    """Answer standard input on standard output."""
    request = json.load(sys.stdin)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    mode = request["mode"]
    if mode == "auto":
        mode = "compiled" if device == "cuda" else "eager"
    torch.set_float32_matmul_precision("high")  # TF32 on a GPU, as JAX's default
    torch.backends.cudnn.benchmark = True
    answer = {
        "torch": torch.__version__,
        "device": device,
        "mode": mode,
        "answers": [
            seconds_per_step(case, device, request["dtype"], mode) for case in request["cases"]
        ],
    }
    json.dump(answer, sys.stdout)


if __name__ == "__main__":
    main()
