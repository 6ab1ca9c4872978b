"""Networks for pictures: torchvision's and timm's, with the weights they start from."""

import importlib
from collections.abc import Callable

from torch import nn

from benchmarks.networks.brought import Brought

NUM_CLASSES = 10
_SMALL, _VIT = (3, 64, 64), (3, 224, 224)


def _torchvision(name: str, **options: object) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        models = importlib.import_module("torchvision.models")
        module: nn.Module = models.get_model(name, weights=None, **options)
        return module

    return build


def _timm(name: str, **options: object) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        module: nn.Module = importlib.import_module("timm").create_model(name, **options)
        return module

    return build


def _classifier(name: str, shape: tuple[int, ...] = _SMALL, **options: object) -> Brought:
    build = _torchvision(name, num_classes=NUM_CLASSES, **options)
    return Brought(name, "torchvision", build, shape)


def _segmentation(name: str) -> Brought:
    build = _torchvision(name, weights_backbone=None, num_classes=NUM_CLASSES)
    return Brought(name, "torchvision", build, _SMALL)


def _of_timm(name: str, shape: tuple[int, ...] = _VIT, **options: object) -> Brought:
    return Brought(name, "timm", _timm(name, num_classes=NUM_CLASSES, **options), shape)


VISION = (
    _classifier("resnet18"),
    _classifier("resnet50"),
    _classifier("mobilenet_v2"),
    _classifier("mobilenet_v3_small"),
    _classifier("vgg11"),
    _classifier("efficientnet_b0"),
    _classifier("densenet121"),
    _classifier("shufflenet_v2_x1_0"),
    _classifier("squeezenet1_1"),
    _classifier("googlenet", init_weights=False),
    _classifier("inception_v3", (3, 299, 299), init_weights=False),
    _classifier("regnet_y_400mf"),
    _classifier("mnasnet0_5"),
    _classifier("resnext50_32x4d"),
    _classifier("convnext_tiny"),
    _classifier("vit_b_16", _VIT),
    _classifier("swin_t"),
    _segmentation("deeplabv3_mobilenet_v3_large"),
    _segmentation("fcn_resnet50"),
    _segmentation("lraspp_mobilenet_v3_large"),
    _segmentation("ssdlite320_mobilenet_v3_large"),
    _of_timm("vit_tiny_patch16_224"),
    _of_timm("deit_tiny_distilled_patch16_224"),
    _of_timm("mixer_s32_224"),
    _of_timm("convnextv2_atto", _SMALL),
    _of_timm("efficientformer_l1"),
    _of_timm("mobilevit_xxs", _SMALL),
    _of_timm("levit_128s"),
    _of_timm("fastvit_t8", _SMALL),
)
