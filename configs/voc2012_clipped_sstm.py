r"""PASCAL VOC 2012, FCN-32s on VGG-16, clipped-SSTM, with the thesis's numbers (configs/thesis.py).

python -m experiments.train --config configs/voc2012_clipped_sstm.py \
    --workdir runs/voc2012_clipped_sstm

The thesis reports mIoU 0.549 (validation). Not run at full size here.
--small: the same method for 100 steps on embedded data.
"""

from configs.thesis import full, reduced

config = full("voc2012", "clipped_sstm")
small = reduced("voc2012", "clipped_sstm")
