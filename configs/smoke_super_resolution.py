"""The smallest real run of super-resolution: photographs x4 with Adam, accumulating gradients.

python -m experiments.train --config configs/smoke_super_resolution.py --workdir runs/smoke_sr

14 s on two busy CPU cores; PSNR 28.97 dB, bicubic 28.96 dB.
"""

from experiments.config import Adam, Duration, Run, SRResNet

config = Run(
    task="super_resolution",
    dataset="photos_x4",
    model=SRResNet(num_blocks=1, channels=8, kernel_size=3, global_skip="bicubic"),
    optimizer=Adam(learning_rate=0.001),
    duration=Duration(steps=60),
    batch_size=4,
    accumulation=2,
    log_every=5,
    evaluate_every=Duration(steps=60),
    checkpoint_every=Duration(steps=10),
    evaluation_batch_size=17,
    calibration_batches=5,
)
