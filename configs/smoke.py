"""The smallest real run: digits with clipped-SSTM, for newcomers and tests.

python -m experiments.train --config configs/smoke.py --workdir runs/smoke

25 s on two busy CPU cores, compilation included; top-1 96.4 %.
"""

from experiments.config import ClippedSSTM, Duration, ResNet18, Run

config = Run(
    task="classification",
    dataset="digits",
    model=ResNet18(width=8, stem="small"),
    optimizer=ClippedSSTM(learning_rate=0.1, smoothness=10.0, clip_level=1.0),
    duration=Duration(steps=400),
    batch_size=64,
    evaluate_every=Duration(steps=100),
    checkpoint_every=Duration(steps=20),
)
