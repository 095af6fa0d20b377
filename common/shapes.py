"""What the files of a run must hold, so that whatever reads them later finds it.

Each shape names the keys of one kind of file, with their types. A file may hold more; keys with a default may be missing, since
older versions lack them. A text is no number, even if it reads as one.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, RootModel, Strict, model_validator

Count = Annotated[int, Strict(), Field(ge=0)]
Real = Annotated[float, Strict()]
Number = Real | None
Interval = tuple[Real, Real]


class Shape(BaseModel):
    model_config = ConfigDict(extra="allow", protected_namespaces=())


class NumImages(Shape):
    train: Count
    val: Count
    test: Count


class Training(Shape):
    best_epoch: Count | None
    selected_by: str
    val_accuracy: Number
    train_accuracy: Number
    epochs_run: Count
    stopped_because: str
    diverged: bool
    seconds: Real
    images_per_second: Number
    params: Count
    trainable_params: Count
    num_images: NumImages
    precision: str | None
    target: Number = None


class ClassScores(Shape):
    precision: Real
    recall: Real
    f1: Real
    support: Count
    accuracy: Number
    accuracy_ci95: Interval | None


class Confusion(Shape):
    true: str
    predicted: str
    count: Count
    share: Real


class Temperature(Shape):
    temperature: Number


class Conformal(Shape):
    mean_set_size: Number = None
    coverage: Number = None


class Latency(Shape):
    median: Real
    p90: Real


class Latencies(RootModel[dict[Annotated[str, Field(pattern="^[0-9]{1,9}$")], Latency]]):
    """Of batches by their size, of which one image must be one."""

    @model_validator(mode="after")
    def _holds_one(self):
        if "1" not in self.root:
            raise ValueError("lacks 1")
        return self


class Metrics(Shape):
    split: Literal["train", "val", "test"]
    checkpoint: Literal["best", "last"]
    tta: Literal["flip"] | None = None
    num_images: Count
    accuracy: Real
    accuracy_ci95: Interval
    top1_error: Number = None
    top5_accuracy: Number = None
    loss: Real
    ece: Real
    ece_equal_mass: Number = None
    brier: Number = None
    balanced_accuracy: Number = None
    mcc: Number = None
    macro_roc_auc: Number = None
    macro_pr_auc: Number = None
    aurc: Number = None
    aurc_excess: Number = None
    risk_at_coverage: dict[str, Number] | None = None
    macro_precision: Real
    macro_recall: Real
    macro_f1: Real
    weighted_precision: Real
    weighted_recall: Real
    weighted_f1: Real
    per_class: dict[str, ClassScores]
    num_copies: Count | None = None
    accuracy_without_copies: Number = None
    accuracy_without_copies_ci95: Interval | None = None
    temperature_scaling: Temperature | None = None
    conformal: Conformal | None = None
    most_confused: list[Confusion]
    params: Count
    trainable_params: Count
    gmacs: Real
    gmacs_attention_skipped: Number = None
    gmacs_torch: Number = None
    uncounted_ops: list[str] = []
    latency_ms: Latencies
    latency_timed_with: list[str] = []
    images_per_second: Number = None
    peak_memory_mb: Number = None
    peak_memory_kind: str | None = None
    device: str
    threads: Count
    precision: str
    attention_kernel: str | None
    image_size: tuple[Count, Count]
    mean: tuple[Real, Real, Real] = (0, 0, 0)
    std: tuple[Real, Real, Real] = (1, 1, 1)
    interpolation: str | None = None
    corpus: str = ""
    fingerprint: str
    train_fingerprint: str = ""
    val_fingerprint: str = ""
    checkpoint_sha256: str | None = None
    images_since_training: str | None = None


class Pretrained(Shape):
    file: str
    corpus: str
    sha256: str
    license: str | None = None


class Environment(Shape):
    command: list[str] = []
    python: str = ""
    packages: dict[str, str | None] = {}
    git_commit: str | None = None
    device: str = ""
    cpu: str = ""
    threads: Count = 1
    pretrained: Pretrained | None = None


class Corrupted(Shape):
    accuracy: Real
    accuracy_ci95: Interval


class Corruptions(Shape):
    checkpoint: str
    benchmark: str | None = None
    corruptions: dict[str, list[Corrupted]]
    mean_corruption_accuracy: Number = None
    mean_corruption_accuracy_ci95: Interval | None = None
    relative_corruption_accuracy: Number = None
    relative_corruption_accuracy_ci95: Interval | None = None

    @model_validator(mode="after")
    def _is_whole(self) -> Corruptions:
        severities = 5 if self.benchmark else 3  # of files of earlier versions, which are then left aside
        if not self.corruptions or any(len(found) != severities for found in self.corruptions.values()):
            raise ValueError("severities are missing")
        return self


class Mean(Shape):
    mean: Number
    ci95: Interval | None
    ci95_together: Interval | None = None


class Form(Shape):
    mean: Mean
    std: Mean
    half_max_area: Mean
    centre_to_edge: Mean


class Maps(Shape):
    blank: Count
    common: Form


class Faithfulness(Shape):
    insertion_blur: Mean
    deletion_blur: Mean
    drop: Mean
    road: Mean


class Difference(Shape):
    first: str
    second: str
    insertion_blur: Mean
    deletion_blur: Mean


class Randomization(Shape):
    """Besides its keys, the steps of each method."""

    __pydantic_extra__: dict[str, Annotated[list[Mean], Field(min_length=1)]]
    num_images: Count
    groups: list[str]


class Statistics(Shape):
    run: str
    split: str
    num_images: Count
    seed: int
    methods: Annotated[list[str], Field(min_length=1)]
    faithfulness: dict[str, Faithfulness]
    maps: dict[str, Maps]
    randomization: Randomization
    paired: list[Difference]

    @model_validator(mode="after")
    def _is_whole(self) -> Statistics:
        pairs = {(pair.first, pair.second) for pair in self.paired}
        for method in self.methods:
            parts = (self.faithfulness, self.maps, self.randomization.__pydantic_extra__)
            others = {(method, other) for other in ("random", "centre")}
            if any(method not in part for part in parts) or not others <= pairs:
                raise ValueError(f"numbers of {method} are missing")
        if not {"random", "centre"} <= self.faithfulness.keys():
            raise ValueError("numbers of the random map or the centred Gaussian are missing")
        return self


class HeatMap(Shape):
    """The values beside a heat map of one image."""

    image: str
    method: str
    layer: str | None
    target: str
    prediction: str
    probability: Real
    label: str | None
    seconds: Real = 0
    checkpoint_sha256: str | None = None


class Column(Shape):
    run: str
    method: str
    layer: str | None
    target: str | None
    seconds_per_map: Number = None


class Grid(Shape):
    """What a grid of heat maps shows."""

    maps: list[Column]
    pages: list[str]
    checkpoint_sha256: dict[str, str] | None = None


def _is_tensor(value: Any) -> Any:
    import torch

    if not isinstance(value, torch.Tensor):
        raise ValueError("should be a tensor")
    return value


Weights = dict[str, Annotated[Any, AfterValidator(_is_tensor)]]


class StoredInput(BaseModel):
    model_config = ConfigDict(extra="forbid")
    size: tuple[Annotated[int, Strict(), Field(gt=0)], Annotated[int, Strict(), Field(gt=0)]]
    mean: tuple[Real, Real, Real]
    std: tuple[Real, Real, Real]
    interpolation: str
    corpus: str


class Checkpoint(Shape):
    model: Weights
    class_names: Annotated[list[str], Field(min_length=1)]
    input_spec: StoredInput
    images: dict[str, str] = {}
    synsets: list[str] = []


class Row(Shape):
    epoch: Count
    lr: Real
    train_loss: Real
    train_accuracy: Real
    val_loss: Number
    val_accuracy: Number
    seconds: Real
    images_per_second: Real


class Progress(Shape):
    step: Count
    seconds: Real
    sums: Annotated[list[Annotated[Any, AfterValidator(_is_tensor)]], Field(min_length=1)]
    states: Annotated[list[dict[str, Any]], Field(min_length=1)]


class LastCheckpoint(Checkpoint):
    optimizer: dict[str, Any]
    scaler: dict[str, Any]
    ema: Weights | None
    log: list[Row]
    learning_rates: list[Real]
    best: Row | None
    target: Number = None
    progress: Progress | None
