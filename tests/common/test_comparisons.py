"""No two comparisons of other runs or options share a folder."""

import itertools
from pathlib import Path

from support import make_config

from common.comparisons import folder_name
from common.runs import Run


def runs(*names: str, root: str = "outputs", moved: str | None = None) -> list[Run]:
    return [Run(Path(moved or root) / name, make_config(name=name, output_root=root)) for name in names]


def test_names_alone_where_they_tell_what_is_meant():
    assert folder_name(runs("x", "y")) == "x-vs-y"
    assert folder_name(runs("x", "y"), "-flip") == "x-vs-y-flip"


def test_folders_of_different_comparisons_differ():
    long = [f"vit_base_patch16_224_augreg_in21k_lr{i}e-5_seed0" for i in range(4)]
    members = [
        ("x", "y"),
        ("y", "x"),
        ("x", "y-flip"),
        ("x", "y-last"),
        ("x-vs-y", "z"),
        ("x", "y-vs-z"),
        ("x", "y", "z"),
        ("a-vs", "b"),
        ("a", "vs-b"),
        ("a/b", "c"),
        ("a-b", "c"),
        ("a", "b-c"),
        tuple(long[:2]),
        tuple(long[:3]),
        (long[0], long[2]),
        (long[0], long[3]),
        (long[0], *long[2:]),
    ]
    names = [folder_name(runs(*some), suffix) for some in members for suffix in ("", "-flip", "-last", "-flip-last")]
    assert len(set(names)) == len(names)
    assert all("/" not in name and len(name) < 130 for name in names)


def test_runs_of_the_same_names_elsewhere_are_others_and_a_moved_folder_is_the_same():
    here, there = runs("x", "y"), [*runs("x"), *runs("y", moved="elsewhere")]
    assert folder_name(here) != folder_name(there)
    before = folder_name(runs("a/x", "a/y", root="outputs"))
    assert before == folder_name(runs("a/x", "a/y", root="archive/outputs")) and before.startswith("a-x-vs-a-y~")
    assert len({folder_name(list(order)) for order in itertools.permutations(runs("x", "y", "z"))}) == 6
