"""Data and training loops as users write them, with torchvision's transforms or timm's, to measure this project against."""

import numpy as np
import torch
import torchvision.transforms as T
from PIL import Image
from timm.data import create_loader
from timm.optim import create_optimizer_v2
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from common.devices import autocast

NUM_CLASSES = 10


class Images(Dataset):
    """32-pixel images as torchvision's CIFAR10 keeps them: a numpy array, a PIL image or a tensor per access."""

    def __init__(self, pixels: np.ndarray, transform=None, *, tensors: bool = False):
        self.pixels, self.transform, self.tensors = pixels, transform, tensors

    def __len__(self):
        return len(self.pixels)

    def __getitem__(self, i):
        image = torch.from_numpy(self.pixels[i]).permute(2, 0, 1) if self.tensors else Image.fromarray(self.pixels[i])
        return self.transform(image), i % NUM_CLASSES


def usual_loader(kind: str, pixels: np.ndarray, size: int, batch_size: int, spec, device: torch.device, training: bool):
    """What a user would feed a model from: ``habit``, ``tensors`` or ``timm``."""
    options = dict(batch_size=batch_size, num_workers=2, pin_memory=device.type == "cuda")
    if kind == "timm":
        more = dict(mean=spec.mean, std=spec.std, color_jitter=None, persistent_workers=False, device=device)
        prefetch = device.type == "cuda"
        return create_loader(Images(pixels), size, is_training=training, use_prefetcher=prefetch, **options, **more)
    random = [T.RandomCrop(32, 4), T.Resize(size), T.RandomHorizontalFlip()] if training else [T.Resize(size)]
    tail = [T.ToTensor(), T.Normalize(spec.mean, spec.std)]
    if kind == "tensors":
        random = [v2.RandomCrop(32, 4), v2.Resize(size), v2.RandomHorizontalFlip()] if training else [v2.Resize(size)]
        tail = [v2.ToDtype(torch.float32, scale=True), v2.Normalize(spec.mean, spec.std)]
    images = Images(pixels, T.Compose([*random, *tail]), tensors=kind == "tensors")
    return DataLoader(images, shuffle=training, drop_last=training, **options)


class Usual:
    """A training and an evaluation loop as users write them."""

    def __init__(
        self, kind: str, model: nn.Module, loaders: dict[bool, DataLoader], device: torch.device, precision: str
    ):
        self.kind, self.model, self.loaders, self.device, self.precision = kind, model, loaders, device, precision
        weights = dict(lr=1e-4, weight_decay=0.05)
        timms = kind == "timm"
        self.optimizer = (
            create_optimizer_v2(model, opt="adamw", **weights)
            if timms
            else torch.optim.AdamW(model.parameters(), **weights)
        )
        self.loss = nn.CrossEntropyLoss()
        self.scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")

    def load(self, training: bool):
        for images, labels in self.loaders[training]:
            yield images.to(self.device), labels.to(self.device)

    def data(self):
        for images, _ in self.load(True):
            yield len(images)

    def train(self):
        self.model.train()
        for images, labels in self.load(True):
            self.optimizer.zero_grad()
            with autocast(self.device, self.precision):
                loss = self.loss(self.model(images), labels)
            self.scaler.scale(loss).backward()
            self.scaler.step(self.optimizer)
            self.scaler.update()
            if self.kind != "timm":  # which looks at it every 50 steps
                loss.item()  # for the progress bar
            yield len(images)

    def evaluate(self):
        self.model.eval()
        with torch.no_grad():
            for images, _ in self.load(False):
                with autocast(self.device, self.precision):
                    self.model(images).argmax(1).cpu()
                yield len(images)
