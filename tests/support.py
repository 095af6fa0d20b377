"""Configs, models and images that are small enough for tests; what is drawn in a figure, and whether it can be read."""

import itertools
import zlib
from pathlib import Path

import matplotlib
import numpy as np
import torch
import yaml
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from common.config import Config
from models import create_model

PROJECT = Path(__file__).parents[1]

TINY_VIT = {
    "data": {"dataset": "digits", "image_size": 16, "augment": {"crop_padding": 0, "hflip": 0, "degrees": 8}},
    "model": {"name": "shallow_vit", "kwargs": {"embed_dim": 32, "num_heads": 2}},
    "train": {"epochs": 2, "lr": 3e-3, "amp": "fp32"},
    "evaluate": {"latency_seconds": 0.01},
}

SWIN = {"patch_size": 2, "window_size": 4, "embed_dim": 24, "depths": [2, 2], "num_heads": [2, 4]}
FAMILIES = {
    "shallow_vit": {"name": "shallow_vit"},
    "vit": {"name": "vit_tiny_patch16_224", "kwargs": {"patch_size": 4, "depth": 2}},
    "swin": {"name": "swin_tiny_patch4_window7_224", "kwargs": SWIN},
    "resnet": {"name": "resnet18"},
}


def whole_statistics(method: str, **form: float) -> dict:
    """What gradcam/statistics.json holds of one method, as far as a later stage reads it; ``form``: means of its maps."""
    number = {"mean": 0.5, "ci95": [0.4, 0.6]}
    scores = dict.fromkeys(("insertion_blur", "deletion_blur", "drop", "road"), number)
    means = dict.fromkeys(("mean", "std", "half_max_area", "centre_to_edge"), 0.5) | form
    return {
        **{"run": "run", "split": "test", "num_images": 9, "seed": 0, "methods": [method]},
        "faithfulness": {name: scores for name in (method, "random", "centre")},
        "maps": {method: {"blank": 0, "common": {name: number | {"mean": value} for name, value in means.items()}}},
        "randomization": {"num_images": 9, "groups": ["head"], method: [number]},
        "paired": [{"first": method, "second": name} | scores for name in ("random", "centre")],
    }


def make_config(**sections) -> Config:
    """A valid config without a file; a section replaces keys of a digits/shallow_vit default."""
    values = {"name": "test", "data": {"dataset": "digits", "image_size": 16}, "model": {"name": "shallow_vit"}}
    for key, value in sections.items():
        values[key] = {**values.get(key, {}), **value} if isinstance(value, dict) else value
    return Config.model_validate(values)


def make_randomized(model: dict, image_size, *, num_classes=5, std=0.1):
    """A model in evaluation mode whose weights are random and large enough for attention and maps to have structure."""
    torch.manual_seed(0)
    built = create_model(make_config(data={"image_size": image_size}, model=model), num_classes=num_classes).eval()
    with torch.no_grad():
        for parameter in built.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=std)
    return built


def write_config(folder, values, name="tiny"):
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def make_folder(root, *, splits=("train",), classes=("cat", "dog", "frog"), count=12, size=(24, 24), seed=0):
    """Class folders of noise around one colour per class; ``splits`` of ("",) makes a single folder."""
    random = np.random.default_rng(seed)
    for split in splits:
        for number, name in enumerate(classes):
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = random.integers(0, 120, (*size, 3))
                pixels[..., number % 3] += 120
                Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{i:03}.png")
    return root


def class_names(num_classes: int) -> list[str]:
    """The flowers' names, or as many names as long as those of ImageNet's folders."""
    if num_classes == 5:
        return ["daisy", "dandelion", "roses", "sunflowers", "tulips"]
    return [f"n{1532829 + i:08}_house_finch" for i in range(num_classes)]


def random_image(height: int = 32, width: int = 32) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def random_cam(height: int = 7, width: int = 7, *, scale: float = 1.0) -> np.ndarray:
    return scale * np.random.default_rng(1).random((height, width))


SAVE_FIGURE = Figure.savefig


def save_pixel(figure: Figure, path, **options) -> None:
    """Instead of drawing: a picture of one pixel, whose colour depends on the name."""
    Image.new("RGB", (1, 1), zlib.crc32(Path(path).name.encode()) % 2**24).save(path, format="png")


def drawn_texts(figure: Figure) -> list[Text]:
    """Every text on the page; a tick outside its axis has a label that is never drawn."""
    figure.draw_without_rendering()
    unseen = set()
    for axes, axis in ((axes, axis) for axes in figure.findobj(matplotlib.axes.Axes) for axis in (0, 1)):
        low, high = sorted(axes.get_ylim() if axis else axes.get_xlim())
        slack = 1e-6 * (high - low)
        for tick in (axes.yaxis if axis else axes.xaxis).get_major_ticks():
            if not low - slack <= tick.get_loc() <= high + slack:
                unseen |= {tick.label1, tick.label2}
    texts = figure.findobj(lambda artist: isinstance(artist, Text) and artist.get_text().strip())
    return [text for text in texts if text.get_visible() and text not in unseen]


def layout_faults(figure: Figure) -> list[str]:
    """Pairs of texts whose boxes overlap, and texts that leave the page."""
    boxes = [(text.get_text(), text.get_window_extent()) for text in drawn_texts(figure)]
    page = figure.bbox.padded(0.5)
    faults = [
        f"{text!r} leaves the page"
        for text, box in boxes
        if not (page.contains(box.x0, box.y0) and page.contains(box.x1, box.y1))
    ]
    for (one, a), (other, b) in itertools.combinations(boxes, 2):
        if min(a.x1, b.x1) - max(a.x0, b.x0) > 0.5 and min(a.y1, b.y1) - max(a.y0, b.y0) > 0.5:
            faults.append(f"{one!r} overlaps {other!r}")
    return faults


def training_log(num_epochs: int, *, validated: bool = True) -> dict[str, np.ndarray]:
    epochs = np.arange(1, num_epochs + 1)
    accuracy = 1 - 0.8 * np.exp(-epochs / 8)
    return {
        "epoch": epochs,
        "train_loss": 2 * np.exp(-epochs / 8),
        "train_accuracy": accuracy,
        "val_loss": 2 * np.exp(-epochs / 9) if validated else np.full(num_epochs, np.nan),
        "val_accuracy": accuracy - 0.01 * epochs if validated else np.full(num_epochs, np.nan),
    }


def build(family, *, image_size=32, num_classes=5, **model):
    """A model of one of the families, or of any name, with what differs in ``model``."""
    values = FAMILIES.get(family, {"name": family})
    values = {**values, **model, "kwargs": {**values.get("kwargs", {}), **model.get("kwargs", {})}}
    return create_model(make_config(data={"image_size": image_size}, model=values), num_classes=num_classes)


def random_images(generator, count=6, height=32, width=32):
    return torch.randint(0, 256, (count, 3, height, width), dtype=torch.uint8, generator=generator)


def smooth_images(generator, count=6, height=32, width=32):
    """Images without pixel noise, on which two bilinear kernels must agree to a grey level."""
    coarse = torch.rand(count, 3, 5, 5, generator=generator)
    return (255 * torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear")).to(torch.uint8)


def to_pil(image):
    return Image.fromarray(image.permute(1, 2, 0).numpy())


def from_pil(image):
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def folder_config(root, **keys):
    return make_config(data={"dataset": "imagefolder", "root": str(root), "image_size": 16, **keys}).data
