r"""PASCAL VOC 2012, FCN-32s on VGG-16, Adam, with the thesis's numbers (configs/thesis.py).

python -m experiments.train --config configs/voc2012_adam.py \
    --workdir runs/voc2012_adam

The thesis reports mIoU 0.466 (validation). Not run at full size here.
--small: the same method for 100 steps on embedded data.
"""

from configs.thesis import full, reduced

config = full("voc2012", "adam")
small = reduced("voc2012", "adam")
