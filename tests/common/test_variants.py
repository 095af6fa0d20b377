"""Several runs of one config: their names, and that each is the run that would be started alone."""

import pytest
from support import TINY_VIT, write_config

from common.config_files import load_config
from common.variants import load_variants


@pytest.fixture
def path(tmp_path):
    return str(write_config(tmp_path, TINY_VIT))


def test_each_is_the_config_that_would_be_started_alone(path):
    found = load_variants(path, ["train.epochs=1"], [0, 2], ["train.lr=1e-4,5e-4", "model.kwargs.depth=2,4"])
    assert len(found) == 8
    assert [config.name for config in found[:3]] == [
        "tiny-lr1e-4-depth2-seed0",
        "tiny-lr1e-4-depth2-seed2",
        "tiny-lr1e-4-depth4-seed0",
    ]
    alone = ["train.epochs=1", "train.lr=5e-4", "model.kwargs.depth=4", "seed=2", "name=tiny-lr5e-4-depth4-seed2"]
    assert found[-1] == load_config(path, alone)
    assert load_variants(path, ["seed=3"], [], []) == [load_config(path, ["seed=3"])]


def test_names_are_derived_from_the_name_that_was_given(path):
    found = load_variants(path, ["name=mine"], [7], ["data.fold=1/2,2/2", "model.kwargs={depth: 1, heads: [1, 2]},{}"])
    assert [config.name for config in found][:2] == [
        "mine-fold1_2-kwargs_depth_1_heads_1_2-seed7",
        "mine-fold1_2-kwargs_-seed7",
    ]
    assert found[0].model.kwargs == {"depth": 1, "heads": [1, 2]} and found[0].seed == 7


def test_a_single_value_behind_the_grid_is_for_all(path):
    found = load_variants(path, [], [], ["train.lr=1e-4,2e-4", "output_root=elsewhere"])
    assert [(config.name, config.output_root) for config in found] == [
        ("tiny-lr1e-4", "elsewhere"),
        ("tiny-lr2e-4", "elsewhere"),
    ]


@pytest.mark.parametrize(
    ("overrides", "seeds", "grid", "message"),
    [
        ([], [1, 1], [], "--seeds 1 is given twice"),
        ([], [], ["train.lr"], "write it as section.key=value,value"),
        ([], [], ["train.lr=1e-3,"], "write it as section.key=value,value"),
        (["train.lr=1"], [], ["train.lr=1e-3,1e-4"], "train.lr is given more than once"),
        (["seed=1"], [0], [], "seed is given more than once"),
        ([], [], ["name=a,b"], "name is given more than once, or cannot be an axis of a grid"),
        ([], [], ["train.leraning_rate=1,2"], "unknown key train.leraning_rate"),
    ],
)
def test_what_cannot_be_varied_is_said(path, overrides, seeds, grid, message):
    with pytest.raises(ValueError, match=message):
        load_variants(path, overrides, seeds, grid)
