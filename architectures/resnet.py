"""ResNet (He et al. 2016) for small images: timm's, with the paper's stem for CIFAR (section 4.2).

The ImageNet stem (7x7 with stride 2, then pooling) reduces 32 px to 8x8 before the first block; a 3x3 convolution with stride
1 keeps 32x32.
"""

from timm.models import generate_default_cfgs
from timm.models.resnet import BasicBlock, ResNet
from torch import Tensor, nn

from architectures.registry import register_variants

VARIANTS = {
    "resnet18_32px": dict(block=BasicBlock, layers=(2, 2, 2, 2)),
    "resnet34_32px": dict(block=BasicBlock, layers=(3, 4, 6, 3)),
}


class SmallImageResNet(ResNet):
    """timm's ResNet with a 3x3 stem of stride `stem_stride` and no pooling after it; other arguments are timm's.

    With stride 2 a network needs a quarter of the compute, so that it can be compared with a ViT or Swin of equal size.
    """

    def __init__(self, *, in_chans: int = 3, stem_stride: int = 1, **kwargs):
        super().__init__(in_chans=in_chans, **kwargs)
        width = self.conv1.out_channels
        self.conv1 = nn.Conv2d(in_chans, width, kernel_size=3, stride=stem_stride, padding=1, bias=False)
        nn.init.kaiming_normal_(self.conv1.weight, mode="fan_out", nonlinearity="relu")
        self.maxpool = nn.Identity()


def checkpoint_filter_fn(state_dict: dict[str, Tensor], model: SmallImageResNet) -> dict[str, Tensor]:
    """Nothing to convert: the names are timm's, and no tensor depends on the image size."""
    return state_dict


CFG = dict(input_size=(3, 32, 32), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), interpolation="bilinear")
CFG |= dict(first_conv="conv1", classifier="fc")
default_cfgs = generate_default_cfgs({f"{name}.untrained": CFG for name in VARIANTS})
register_variants(SmallImageResNet, VARIANTS)
