"""The networks of the three tasks, in Flax linen: NHWC images in, float32 outputs out.

Every model is called as `model.apply(variables, x, train=bool)`; width, depth and stem are
attributes, so that the network of a two-minute demonstration and the published one are the same
module. Networks for whole pictures (FCN-32s, SRResNet) also take `size`: how much of each picture
is no padding.
"""

from clipjax.models.fcn import FCN32s, VGG16Features
from clipjax.models.mlp import MLP
from clipjax.models.resnet import ResNet18
from clipjax.models.srresnet import SRResNet

__all__ = ["MLP", "FCN32s", "ResNet18", "SRResNet", "VGG16Features"]
