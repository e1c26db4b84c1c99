"""PyTorch's side of benchmarks/train_step.py: the same networks, trained by clipped momentum SGD.

Runs under a Python that has torch and nothing of ours: reads the cases as JSON from standard input,
answers each with its parameter count and seconds a step.
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


def fcn(channels, classes, width, fc_width, fc_kernel, block_sizes, batch_norm):
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
    conv(fc_width, fc_kernel)
    conv(fc_width, 1)
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


def seconds_per_step(case):
    """Return (parameters, seconds a step): the fastest of the repeats, after two to warm up."""
    model = {"resnet18": resnet18, "fcn": fcn, "srresnet": SRResNet}[case["net"]](**case["model"])
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9)
    x = torch.rand(case["image"])
    integers = case["target_classes"]
    target = torch.randint(integers, case["target"]) if integers else torch.rand(case["target"])
    loss_fn = F.cross_entropy if integers else F.mse_loss

    def step():
        optimizer.zero_grad(set_to_none=True)
        loss_fn(model(x), target).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    times = []
    for _ in range(case["repeats"] + 2):
        began = time.perf_counter()
        step()
        times.append(time.perf_counter() - began)
    return sum(p.numel() for p in model.parameters()), min(times[2:])


if __name__ == "__main__":
    answers = [seconds_per_step(case) for case in json.load(sys.stdin)]
    json.dump({"torch": torch.__version__, "answers": answers}, sys.stdout)
