r"""ImageNet-100, ResNet-18, SGD, with the thesis's numbers (configs/thesis.py).

python -m experiments.train --config configs/imagenet100_sgd.py \
    --workdir runs/imagenet100_sgd

The thesis reports top-1 45.8 %. Not run at full size here.
--small: the same method for 100 steps on embedded data.
"""

from configs.thesis import full, reduced

config = full("imagenet100", "sgd")
small = reduced("imagenet100", "sgd")
