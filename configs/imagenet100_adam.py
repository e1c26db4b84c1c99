r"""ImageNet-100, ResNet-18, Adam, with the thesis's numbers (configs/thesis.py).

python -m experiments.train --config configs/imagenet100_adam.py \
    --workdir runs/imagenet100_adam

The thesis reports top-1 47.21 %. Not run at full size here.
--small: the same method for 100 steps on embedded data.
"""

from configs.thesis import full, reduced

config = full("imagenet100", "adam")
small = reduced("imagenet100", "adam")
