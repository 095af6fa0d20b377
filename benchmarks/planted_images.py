"""Small models, and images whose class is decided by a patch at a known place: used by benchmarks.planted_pattern.

Legend: B images, K classes.
"""

import math
from functools import partial
from pathlib import Path

import torch
from timm.layers import GatedMlp
from timm.models.mlp_mixer import Affine, MlpMixer, ResBlock, SpatialGatingBlock
from torch import Tensor, nn
from torch.nn import functional as F

from architectures.registry import register_variants
from common.config import Config
from models import create_model

SIDE, NUM_CLASSES, BATCH = 32, 10, 32
TASKS = {"picture": (16, 4), "colour": (8, 4), "texture": (12, 1)}
"""Side of the patch, and the step of the grid that it lies on, both in pixels."""
STEPS = {"picture": 150, "colour": 150, "texture": 200}


class TokenMLP(MlpMixer):
    """timm's model of tokens without attention, for any size: its own names fix patch and width."""


_SMALL = dict(patch_size=4, embed_dim=64, num_blocks=4)
register_variants(
    TokenMLP,
    {
        "planted_mixer": _SMALL,
        "planted_resmlp": _SMALL | dict(mlp_ratio=4, block_layer=partial(ResBlock, init_values=0.1), norm_layer=Affine),
        "planted_gmlp": _SMALL | dict(mlp_ratio=4, block_layer=SpatialGatingBlock, mlp_layer=GatedMlp),
    },
)


def _vit(**changes) -> dict:
    return {"name": "vit_tiny_patch16_224", "kwargs": dict(patch_size=4, embed_dim=64, depth=4, num_heads=4) | changes}


def _vit_32px(**changes) -> dict:
    return {"name": "vit_32px", "kwargs": dict(embed_dim=64, depth=4, num_heads=4) | changes}


def _swin(name: str = "swin_tiny_patch4_window7_224", **changes) -> dict:
    small = dict(patch_size=2, window_size=4, embed_dim=24, depths=[2, 2], num_heads=[2, 4], drop_path_rate=0.0)
    return {"name": name, "kwargs": small | changes}


FAMILIES = {
    "ViT": {
        "ViT": _vit(),
        "ViT, 4 registers": _vit(reg_tokens=4),
        "ViT, mean of tokens": _vit(class_token=False, global_pool="avg", fc_norm=False),
        "shallow_vit": {"name": "shallow_vit", "kwargs": dict(embed_dim=64, num_heads=4)},
        "vit_32px": _vit_32px(),
        "vit_32px, shifted patches, locality": _vit_32px(tokenizer="shifted", locality=True),
    },
    "Swin": {
        "Swin (timm)": _swin(),
        "Swin (timm), patch 4": _swin(patch_size=4),
        "Swin (timm), window 8": _swin(window_size=8),
        "SwinV2 (timm)": _swin("swinv2_tiny_window8_256"),
        "Swin (ours), 3 stages": _swin("swin_t", depths=[2, 2, 2], num_heads=[2, 4, 4]),
        "Swin (ours), no shift": _swin("swin_t", shift=False),
    },
    "Tokens without attention": {
        "shallow_vit, FFN only": {"name": "shallow_vit", "kwargs": dict(embed_dim=64, num_heads=4, attention=False)},
        "shallow_vit, FFN only, depth 4": {
            "name": "shallow_vit",
            "kwargs": dict(embed_dim=64, num_heads=4, attention=False, depth=4),
        },
        "MLP-Mixer": {"name": "planted_mixer"},
        "ResMLP": {"name": "planted_resmlp"},
        "gMLP": {"name": "planted_gmlp"},
    },
    "ResNet": {"ResNet": {"name": "resnet18_32px", "kwargs": dict(layers=[1, 1, 1, 1], channels=[16, 32, 64, 64])}},
}
MODELS = {name: model for family in FAMILIES.values() for name, model in family.items()}


def planted_images(task: str, count: int, generator: torch.Generator, patches: int = 1) -> tuple[Tensor, ...]:
    """Weak noise in which ``patches`` of different classes lie apart from each other.

    Returns float32 B 3 SIDE SIDE around 0, labels int64 patches B, and where each lies, bool patches B SIDE SIDE.
    """
    side, step = TASKS[task]
    images = 0.5 * torch.randn(count, 3, SIDE, SIDE, generator=generator)
    labels = torch.randint(NUM_CLASSES, (patches, count), generator=generator)
    for i in range(1, patches):
        labels[i] = (labels[0] + torch.randint(1, NUM_CLASSES, (count,), generator=generator)) % NUM_CLASSES
    masks = torch.zeros(patches, count, SIDE, SIDE, dtype=torch.bool)
    for i in range(count):
        places = _places(side, step, patches, generator)
        for label, mask, (top, left) in zip(labels[:, i], masks[:, i], places):
            images[i, :, top : top + side, left : left + side] = _patch(task, int(label), generator)
            mask[top : top + side, left : left + side] = True
    return images + 0.3 * torch.randn(images.shape, generator=generator), labels, masks


def _places(side: int, step: int, patches: int, generator: torch.Generator) -> list[list[int]]:
    while True:
        places = step * torch.randint((SIDE - side) // step + 1, (patches, 2), generator=generator)
        if patches == 1 or (places[0] - places[1]).abs().max() >= side:
            return places.tolist()


def _patch(task: str, label: int, generator: torch.Generator) -> Tensor:
    """The class's picture, its colour, or waves of its direction and length at a random phase; broadcasts to 3 side side."""
    fixed = torch.Generator().manual_seed(0)
    if task == "picture":
        return torch.randn(NUM_CLASSES, 3, 16, 16, generator=fixed)[label]
    if task == "colour":
        colours = torch.randn(NUM_CLASSES, 3, 1, 1, generator=fixed)
        return 2 * math.sqrt(3) * F.normalize(colours, dim=1)[label]
    angle, length = math.pi * (label % 5) / 5, 6 if label < 5 else 3
    rows, columns = torch.meshgrid(torch.arange(12.0), torch.arange(12.0), indexing="ij")
    phase = torch.rand((), generator=generator)
    return 2 * torch.sin(2 * math.pi * ((math.cos(angle) * columns + math.sin(angle) * rows) / length + phase))


def trained_model(name: str, task: str, seed: int, folder: Path, steps: int | None = None) -> nn.Module:
    """The model in evaluation mode, frozen; trained, or with the weights that ``folder`` has of an earlier training.

    At first the rest of each image is faint, and grows to full strength in the first half of the steps: a small Swin, which
    averages all places, else stays long where it began.
    """
    torch.manual_seed(seed)
    values = {"name": "planted", "data": {"dataset": "digits", "image_size": SIDE}, "model": MODELS[name]}
    model = create_model(Config.model_validate(values), num_classes=NUM_CLASSES)
    steps = steps or STEPS[task] * (3 if "patch 4" in name else 1)  # its 64 patches cost a quarter
    path = folder / f"{name}-{task}-{seed}-{steps}.pt"
    if path.exists():
        model.load_state_dict(torch.load(path, weights_only=True))
        return model.eval().requires_grad_(False)
    generator, slow = torch.Generator().manual_seed(seed), not name.startswith("Swin")
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3 if slow else 4e-3, total_steps=steps)
    model.train()
    for step in range(steps):
        images, labels, masks = planted_images(task, BATCH, generator)
        images = torch.where(masks[0][:, None], images, images * min(1, 0.1 + 2 * step / steps))
        loss = F.cross_entropy(model(images), labels[0])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(model.state_dict(), path)
    return model.eval().requires_grad_(False)
