"""Every setting of the project: its type, default and meaning, each defined once.

A config is a YAML file that states only what differs from the defaults below. Precedence: defaults < YAML <
``section.key=value`` overrides from the command line. Reading a config imports neither torch nor any project file.
"""

import os
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator

PositiveInt = Annotated[int, Field(gt=0)]
Probability = Annotated[float, Field(ge=0, le=1)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Jitter = Annotated[float, Field(ge=0)]
Hue = Annotated[float, Field(ge=0, le=0.5)]
Rgb = tuple[float, float, float]
Reported = Literal[
    *("accuracy", "top5_accuracy", "loss", "params", "gmacs", "ms_per_image", "peak_memory_mb"),  # of metrics.json
    *("val_accuracy", "epochs_to_target"),  # of train.json
    *("map_mean", "map_std", "map_high_region", "map_centre_to_edge"),  # of Grad-CAM's maps, see gradcam.py --analyze
    "scorecam_seconds",  # that a map of Score-CAM at the patch embedding takes
]


class Section(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, protected_namespaces=(), allow_inf_nan=False
    )


class AugmentConfig(Section):
    crop_padding: Annotated[int, Field(ge=0)] = 4
    """Zero padding in pixels before a random crop of the original size (torchvision's RandomCrop); 0: off."""
    hflip: Probability = 0.5
    """Probability of a horizontal flip."""
    vflip: Probability = 0.0
    """Probability of a vertical flip, for images without an up and down."""
    degrees: Annotated[float, Field(ge=0, le=180)] = 0.0
    """Random rotation by up to this many degrees, clockwise or counterclockwise."""
    translate: Fraction = 0.0
    """Random shift, horizontal and vertical, by up to this fraction of the image side."""
    scale: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(le=1)]] | None = None
    """Area range of a random resized crop (timm's `scale`), such as [0.35, 1.0]; null: off."""
    ratio: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]] = (3 / 4, 4 / 3)
    """Aspect-ratio range (width / height) of the random resized crop (timm's `ratio`)."""
    aa: Annotated[str, Field(pattern=r"^rand-m(\d+(\.\d+)?)(-n\d+)?(-mstd\d+(\.\d+)?)?(-inc1)?$")] | None = None
    """RandAugment (Cubuk et al. 2020) as timm writes it: rand-m9-n2-mstd0.5 (magnitude of 10, operations, spread)."""
    color_jitter: Jitter | tuple[Jitter, Jitter, Jitter] | tuple[Jitter, Jitter, Jitter, Hue] | None = None
    """Random brightness, contrast and saturation, more or less by up to this share, such as 0.4, or one number for each, and
    a fourth for the hue (at most 0.5); torchvision's ColorJitter, timm's `color_jitter`; also together with `aa`; null: off."""
    grayscale_prob: Probability = 0.0
    """Probability that an image becomes grey."""
    gaussian_blur_prob: Probability = 0.0
    """Probability of a Gaussian blur with a sigma of 0.1 to 2 pixels."""
    reprob: Probability = 0.0
    """Probability of random erasing (Zhong et al. 2020) of a box of the preprocessed image (timm's `reprob`)."""
    aug_repeats: PositiveInt = 1
    """How many differently augmented versions of each image a batch holds (repeated augmentation, Hoffer et al. 2020; timm's
    `aug_repeats`)."""

    @model_validator(mode="after")
    def _ordered(self):
        for key in ("scale", "ratio"):
            bounds = getattr(self, key)
            if bounds and bounds[0] > bounds[1]:
                raise ValueError(f"{key}: {list(bounds)} is in the wrong order; write the lower bound first")
        return self


class DataConfig(Section):
    dataset: str
    """digits | cifar10 | cifar100 | imagefolder."""
    root: str = "data"
    """Where the data lies, or is downloaded to; for `imagefolder` the folder that holds train/ val/ test/ or classes."""
    image_size: PositiveInt | tuple[PositiveInt, PositiveInt] | None = None
    """Side, or [height, width], of the model's input in pixels; null: the size that the model was designed for."""
    val_fraction: Fraction = 0.1
    """Share of the training images held out for validation where the data has no validation split; 0: no validation, the
    last epoch is kept."""
    test_fraction: Fraction = 0.1
    """Share of the images held out for testing where the data has no test split."""
    fold: Annotated[str, Field(pattern=r"^[1-9]\d*/[1-9]\d*$")] | None = None
    """k/n: test on the k-th of n folds and train on the others, instead of `test_fraction`; null: off."""
    train_fraction: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of each class's training images that is used; the test images stay the same, and the images of 0.1 are among
    those of 0.2."""
    split_seed: Annotated[int, Field(ge=0)] = 0
    """Seed of the random splits. It is separate from `seed`, so that runs of different seeds share their test images."""
    normalization: Literal["auto", "model", "dataset", "cifar10", "imagenet"] | tuple[Rgb, Rgb] = "auto"
    """Mean and std of the input: of the training images (dataset), as timm states them for the model (model), by name, or
    [[mean x 3], [std x 3]] in [0, 1]; auto: model with pretrained weights, dataset without, so that all models from scratch
    get the same input."""
    interpolation: Literal["auto", "model", "bilinear", "bicubic"] = "auto"
    """Filter for the resize to `image_size`: as timm states it for the model, or by name; auto: bicubic from scratch."""
    crop_pct: Annotated[float, Field(ge=0.1, le=1)] | None = None
    """Share of a photo's shorter side that a centre crop keeps, as timm's weights state it; null: all of it."""
    crop_mode: Literal["center", "squash", "border"] = "center"
    """With `crop_pct`: keep the centre, squash the photo to a square, or add a border (timm's `crop_mode`)."""
    augment: AugmentConfig = AugmentConfig()
    """Random changes to training images, applied in batches on the device."""
    residency: Literal["auto", "device", "stream"] = "auto"
    """Keep all pixels on the device, or read photos from their files in worker processes (stream); auto: on the device
    within `resident_budget_mb`, else mapped from disk within `cache_mb`, else streamed."""
    resident_budget_mb: PositiveInt = 4096
    """How much `residency: auto` may keep on the device, in MB, over all splits."""
    cache_mb: Annotated[int, Field(ge=0)] = 20_000
    """How much disk space, in MB, resized photos may take, so that later starts need not decode them again; 0: none."""
    num_workers: Annotated[int, Field(ge=0)] | None = None
    """Processes that decode photos when streaming; null: one per CPU core that this process may use, at most 8."""

    @model_validator(mode="after")
    def _possible_fold(self):
        if self.fold:
            number, count = map(int, self.fold.split("/"))
            if not 1 <= number <= count or count < 2:
                raise ValueError(f"fold: {self.fold} should be k/n with 1 <= k <= n and n of at least 2, such as 2/5")
        return self

    @property
    def size(self) -> tuple[int, int]:
        """``image_size`` as (height, width)."""
        return (self.image_size, self.image_size) if isinstance(self.image_size, int) else self.image_size

    @property
    def num_readers(self) -> int:
        """``num_workers``, by default one per CPU core that this process may use, at most 8."""
        if self.num_workers is not None:
            return self.num_workers
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return min(8, cores)

    @property
    def photo_filter(self) -> str:
        """The filter with which an image file is resized when it is read."""
        return "bilinear" if self.interpolation == "bilinear" else "bicubic"


class ModelConfig(Section):
    name: str
    """Any timm model name, one of the project's own (shallow_vit, swin_t, swin_32px, ...: see architectures/), or as timm takes
    them hf-hub:OWNER/MODEL and local-dir:FOLDER."""
    pretrained: bool | str = False
    """false, true (timm's weights for this name), a .pth or .safetensors file, or a folder (timm's local-dir:FOLDER)."""
    tune: Annotated[str, Field(pattern=r"^(full|head|last-[1-9]\d*)$")] = "full"
    """What is trained: full | head | last-N (the last N blocks and everything after them)."""
    kwargs: dict[str, Any] = {}
    """Passed to timm.create_model: patch_size, window_size, depth, drop_path_rate (stochastic depth), ..."""


class FractionOf(Section):
    run: str
    """Directory of a finished run."""
    fraction: Annotated[float, Field(gt=0)]
    """Of its best validation accuracy."""


class TrainConfig(Section):
    epochs: PositiveInt = 30
    """Passes over the training images."""
    batch_size: PositiveInt = 128
    """Images per optimizer step."""
    opt: str = "adamw"
    """Optimizer, by timm's name."""
    opt_kwargs: dict[str, Any] = {}
    """Passed to timm.optim.create_optimizer_v2: betas, eps, momentum, ..."""
    lr: Annotated[float, Field(gt=0)] | None = None
    """Peak learning rate; null: 1e-3 from scratch, 1e-4 from pretrained weights."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.05
    """Decoupled weight decay; biases, norms and positional embeddings have none."""
    sched: Literal["cosine", "constant"] = "cosine"
    """Learning rate after the warmup, updated every step."""
    warmup_epochs: Annotated[float, Field(ge=0)] = 1.0
    """Epochs of linear warmup, counted within `epochs`; at most half of them."""
    warmup_lr: Annotated[float, Field(ge=0)] = 1e-6
    """Learning rate of the first warmup step."""
    min_lr: Annotated[float, Field(ge=0)] = 0.0
    """Learning rate at the end of the cosine."""
    class_weights: Literal["balanced"] | dict[str, Annotated[float, Field(gt=0)]] | None = None
    """Weight of each class's images in the loss: balanced (scikit-learn's: inverse to their number), or by class name."""
    sampler: Literal["shuffle", "balanced"] = "shuffle"
    """Images of an epoch: each once, or drawn with replacement so that all classes are equally frequent (balanced)."""
    smoothing: Fraction = 0.1
    """Label smoothing (Szegedy et al. 2016)."""
    clip_grad: Annotated[float, Field(gt=0)] | None = 1.0
    """Largest norm of the whole gradient; null: no clipping."""
    amp: Literal["auto", "bf16", "fp16", "fp32"] = "auto"
    """Precision of matrix products; auto: bf16 where the hardware has it, else fp16 on CUDA and fp32 on CPU."""
    sched_on_updates: bool = True
    """Whether the learning rate changes every step; false: every epoch."""
    layer_decay: Annotated[float, Field(gt=0, le=1)] | None = None
    """Factor on the learning rate from each layer to the one below it (Clark et al. 2020); null: the same for all."""
    grad_accum_steps: PositiveInt = 1
    """Parts into which a batch is split to save memory; one optimizer step follows all of them."""
    grad_checkpointing: bool = False
    """Compute activations a second time in the backward pass instead of keeping them: less memory, about a third more
    time."""
    mixup: Annotated[float, Field(ge=0)] = 0.0
    """Alpha of mixup (Zhang et al. 2018), by timm; 0: off."""
    cutmix: Annotated[float, Field(ge=0)] = 0.0
    """Alpha of CutMix (Yun et al. 2019), by timm; 0: off."""
    mixup_prob: Probability = 1.0
    """Probability that a batch is mixed at all."""
    mixup_switch_prob: Probability = 0.5
    """Probability of CutMix rather than mixup where both are on."""
    model_ema: bool = False
    """Average the weights over steps (timm's ModelEmaV3); validation, evaluation and best.pt then use the average."""
    model_ema_decay: Fraction = 0.9998
    """Weight of the old average at each step; lower in the first steps, so that the average is also useful in short runs."""
    patience: PositiveInt | None = None
    """Stop after this many epochs without a better validation accuracy; null: never."""
    stop_at: Probability | None = None
    """Stop as soon as the validation accuracy reaches this; null: never."""
    stop_at_fraction_of: FractionOf | None = None
    """Stop at a fraction of another run's best validation accuracy; null: never."""
    checkpoint_every_steps: PositiveInt | None = None
    """Also write last.pt within an epoch, every so many steps; null: only at the end of epochs."""
    deterministic: bool = False
    """On CUDA use only algorithms that give the same bits each time, even where they are slower."""
    compile: Literal["auto"] | bool = "auto"
    """torch.compile; auto: on CUDA for runs of at least 1.5 million images, where it saves more than the minute it takes."""
    log_test: bool = False
    """Log the test accuracy of every epoch, only to plot it: no epoch is chosen and no run is stopped by it."""
    log_top5: bool = False
    """Also log the top-5 accuracy of every epoch, for a curve; its column stays empty where there are five classes or fewer."""
    tensorboard: bool = False
    """Also write TensorBoard scalars into the run (package tensorboard)."""

    @model_validator(mode="after")
    def _possible(self):
        if (self.mixup or self.cutmix) and self.batch_size < 2:
            raise ValueError("mixup and cutmix mix the images of a batch; batch_size must be at least 2")
        if self.batch_size % self.grad_accum_steps:
            raise ValueError(
                f"grad_accum_steps = {self.grad_accum_steps} does not divide batch_size = {self.batch_size}"
            )
        if self.stop_at is not None and self.stop_at_fraction_of is not None:
            raise ValueError("stop_at and stop_at_fraction_of are two targets; keep one of them")
        return self


class EvaluateConfig(Section):
    batch_size: PositiveInt = 256
    """Images per batch in validation and evaluation."""
    latency_seconds: Annotated[float, Field(gt=0)] = 2.0
    """How long forward passes are timed at each batch size; at least five are timed."""


class Config(Section):
    name: Annotated[str, Field(pattern=r"^[\w+-][\w.+-]*(/[\w+-][\w.+-]*)*$")] | None = None
    """The run's directory below `output_root`; null: the config file's stem."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of the weights, the order of the images, augmentation and dropout."""
    output_root: str = "outputs"
    """Where run directories are made."""
    data: DataConfig
    model: ModelConfig
    train: TrainConfig = TrainConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    reported: dict[Reported, float | None] = {}
    """Numbers that others reported for this setup; they are only shown beside the measured ones. Shares are fractions; null
    for an `epochs_to_target` that was never reached."""

    @model_validator(mode="before")
    @classmethod
    def _empty_sections(cls, values):
        """A section that is named but left empty (`train:`) has its defaults."""
        return {k: v for k, v in values.items() if not (v is None and k in ("train", "evaluate"))}

    @model_validator(mode="after")
    def _fit_together(self):
        if self.train.layer_decay and self.model.tune != "full":
            raise ValueError(
                f"train.layer_decay needs model.tune: full; with {self.model.tune} the lower layers are frozen"
            )
        if self.train.sched == "constant" and self.train.min_lr:
            raise ValueError("train.min_lr has no effect with train.sched: constant; remove it")
        return self

    @property
    def run_directory(self) -> Path:
        return Path(self.output_root) / self.name

    @property
    def learning_rate(self) -> float:
        """Peak learning rate; the default for pretrained weights is smaller than the one from scratch."""
        return self.train.lr or (1e-4 if self.model.pretrained else 1e-3)

    def to_yaml(self) -> str:
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)
