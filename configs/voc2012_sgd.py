r"""PASCAL VOC 2012, FCN-32s on VGG-16, SGD, with the thesis's numbers (configs/thesis.py).

python -m experiments.train --config configs/voc2012_sgd.py \
    --workdir runs/voc2012_sgd

The thesis reports mIoU 0.578 (validation). Not run at full size here.
--small: the same method for 100 steps on embedded data.
"""

from configs.thesis import full, reduced

config = full("voc2012", "sgd")
small = reduced("voc2012", "sgd")
