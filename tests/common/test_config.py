import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from support import TINY_VIT, make_config, write_config

from common.config import Config, DataConfig
from common.config_files import describe_keys, differing_keys, differing_values, load_config

PROJECT = Path(__file__).parents[2]
CONFIGS = sorted((PROJECT / "configs").rglob("*.yaml"))


def failure(folder, values, *overrides):
    with pytest.raises(ValueError, match=r"tiny\.yaml") as caught:
        load_config(write_config(folder, values), overrides)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_defaults_then_file_then_overrides(tmp_path):
    path = write_config(tmp_path, TINY_VIT)
    config = load_config(path, ["train.epochs=7", "data.augment.hflip=0.25", "seed=3"])
    assert config.train.batch_size == 128  # default
    assert config.train.lr == 3e-3  # file
    assert (config.train.epochs, config.data.augment.hflip, config.seed) == (7, 0.25, 3)  # overrides
    assert config.name == "tiny"  # the file's stem


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_configs_of_the_project_are_valid(path):
    load_config(path)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_configs_open_with_their_command_and_what_it_gave(path):
    """The number with its hardware and time, or that nobody has run it."""
    command, outcome = path.read_text().splitlines()[:2]
    assert command == f"# python train.py {path.relative_to(PROJECT).as_posix()}"
    assert outcome.startswith("# Not run") or re.match(r"# Run: .*\d %.* (seconds|minutes|hours) on .*\.$", outcome)


def test_a_number_that_yaml_reads_as_text_becomes_a_number(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("data: {dataset: digits}\nmodel: {name: shallow_vit}\ntrain: {lr: 1e-3}\n")
    assert yaml.safe_load(path.read_text())["train"]["lr"] == "1e-3"
    assert load_config(path).train.lr == 1e-3
    assert load_config(path, ["train.lr=2e-4"]).train.lr == 2e-4


def test_the_resolved_config_loads_again(tmp_path):
    config = load_config(write_config(tmp_path, TINY_VIT), ["data.image_size=[16, 32]"])
    (tmp_path / "again.yaml").write_text(config.to_yaml())
    assert load_config(tmp_path / "again.yaml") == config


def test_the_learning_rate_depends_on_the_start(tmp_path):
    values = {"data": {"dataset": "digits"}, "model": {"name": "shallow_vit"}, "train": None}
    assert load_config(write_config(tmp_path, values)).learning_rate == 1e-3
    assert load_config(write_config(tmp_path, values), ["model.pretrained=true"]).learning_rate == 1e-4
    assert load_config(write_config(tmp_path, values), ["train.lr=0.5"]).learning_rate == 0.5


def test_reading_a_config_imports_no_torch():
    code = (
        "import sys; from common.config_files import load_config; load_config('configs/quickstart.yaml'); "
        "assert not {'torch', 'matplotlib', 'scipy', 'data', 'models'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=PROJECT, check=True)


def test_every_key_is_described():
    lines = describe_keys()
    assert len(lines) > 30
    assert all(line.split(": ", 1)[1] for line in lines)


@pytest.mark.parametrize(
    ("override", "hint"),
    [
        ("train.epoch=3", "train.epochs"),
        ("data.augment.hflp=0.1", "data.augment.hflip"),
        ("lr=0.1", "train.lr"),  # the right name in the wrong place
        ("train.batchsize=3", "train.batch_size"),
        ("train.learning_rate=0.1", "train.lr"),  # another name for it
        ("train.optimizer=sgd", "train.opt"),
        ("train.ema=true", "train.model_ema"),
    ],
)
def test_an_unknown_key_names_the_nearest(tmp_path, override, hint):
    message = failure(tmp_path, TINY_VIT, override)
    assert f"unknown key {override.split('=')[0]}; did you mean {hint}?" in message


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("train.epochs=many", ["train.epochs = 'many'", "integer"]),
        ("train.epochs=0", ["train.epochs = 0", "greater than 0"]),
        ("train.amp=bf8", ["train.amp = 'bf8'", "'bf16'", "'fp32'"]),
        ("model.tune=last-0", ["model.tune = 'last-0'", "full, head or last-N"]),
        ("data.image_size=-3", ["data.image_size = -3", "greater than 0"]),
        ("data.crop_pct=1e-300", ["data.crop_pct = '1e-300'", "0.1"]),
        ("data.val_fraction=1", ["data.val_fraction = 1", "less than 1"]),
        ("data.normalization=[1, 2]", ["data.normalization = [1, 2]", "'imagenet'"]),
        ("data.augment.scale=[0.9, 0.1]", ["scale: [0.9, 0.1] is in the wrong order"]),
        ("name=../elsewhere", ["name = '../elsewhere'", "letters"]),
        ("train=5", ["train = 5"]),
    ],
)
def test_a_wrong_value_names_field_value_and_what_is_allowed(tmp_path, override, parts):
    message = failure(tmp_path, TINY_VIT, override)
    for part in parts:
        assert part in message


def test_missing_keys_and_several_mistakes_are_all_named(tmp_path):
    message = failure(tmp_path, {"data": {}, "model": {"name": "shallow_vit"}, "train": {"lr": "fast"}})
    assert "data.dataset is missing" in message
    assert "train.lr = 'fast'" in message


@pytest.mark.parametrize("override", ["epochs", "=3", "train.lr.x=3", "train.lr=[1"])
def test_a_malformed_override_is_named(tmp_path, override):
    with pytest.raises(ValueError, match="override"):
        load_config(write_config(tmp_path, TINY_VIT), [override])


def test_files_that_are_no_configs(tmp_path):
    write_config(tmp_path, TINY_VIT)
    with pytest.raises(ValueError, match=r"did you mean .*tiny\.yaml"):
        load_config(tmp_path / "tinny.yaml")
    for text in ("data: [1", "- 1", "just text"):
        (tmp_path / "bad.yaml").write_text(text)
        with pytest.raises(ValueError, match=r"bad\.yaml: (not valid YAML|a config is a mapping)"):
            load_config(tmp_path / "bad.yaml")


def test_an_empty_mapping_asks_for_the_required_sections(tmp_path):
    (tmp_path / "tiny.yaml").write_text("")
    with pytest.raises(ValueError, match=r"data is missing.*model is missing"):
        load_config(tmp_path / "tiny.yaml")
    assert set(Config.model_fields) == {"name", "seed", "output_root", "data", "model", "train", "evaluate", "reported"}


def test_where_photos_are_kept_counts_where_crops_are_cut_from_them():
    def changed(data, **keys):
        one = make_config(data=data)
        return [key.partition(":")[0] for key in differing_keys(one, make_config(data=data | keys))]

    photos, crops = {"dataset": "imagefolder"}, {"augment": {"scale": [0.5, 1.0]}}
    assert changed(photos | crops, residency="stream") == ["data.residency"]
    assert changed(photos | crops, resident_budget_mb=1) == ["data.resident_budget_mb"]
    assert changed(photos, residency="stream", resident_budget_mb=1) == []
    assert changed({"dataset": "digits"} | crops, residency="stream") == []


def test_another_folder_may_be_resumed_on_and_is_named_in_comparisons():
    one, other = make_config(data={"root": "a"}), make_config(data={"root": "b"})
    assert differing_keys(one, other) == []  # its pixels decide
    assert differing_values([one, other]) == {"data.root": ["a", "b"]}


def test_as_many_readers_as_cores_that_the_process_may_use(monkeypatch):
    """On a cluster a job is often bound to a few of a machine's cores; more workers than those slow each other down."""
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    for cores, readers in ((1, 1), (4, 4), (64, 8)):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _, cores=cores: set(range(cores)), raising=False)
        assert DataConfig(dataset="digits").num_readers == readers
    assert DataConfig(dataset="digits", num_workers=3).num_readers == 3
