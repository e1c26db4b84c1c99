"""The smallest real run of segmentation: digits in photographs with clipped-SGD.

python -m experiments.train --config configs/smoke_segmentation.py --workdir runs/smoke_segmentation

43 s on two busy CPU cores, most of it compilation; sixty steps learn the background only (mean IoU
0.077): it is there to show and to test the path.
"""

from experiments.config import ClippedSGD, Duration, FCN32s, Run

config = Run(
    task="segmentation",
    dataset="digit_scenes",
    model=FCN32s(
        width=4,
        fc_width=16,
        fc_kernel=3,
        pool_stages=4,
        block_sizes=(1, 1, 1, 1),
        dropout=0.1,
        batch_norm=True,
    ),
    optimizer=ClippedSGD(learning_rate=0.3, clip_level=1.0, momentum=0.9),
    duration=Duration(steps=60),
    batch_size=4,
    log_every=5,
    evaluate_every=Duration(steps=60),
    checkpoint_every=Duration(steps=10),
    evaluation_batch_size=20,
    calibration_batches=5,
)
