"""YAML that no config holds is refused in one sentence, at once."""

import time

import pytest

from common.config_files import load_config
from common.yaml_files import parse_yaml

LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "\n".join(
    f"{c}: &{c} [{', '.join([f'*{p}'] * 9)}]" for p, c in zip("abcdefgh", "bcdefghi")
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "train:\n  lr: 1\n  epochs: 2\n  lr: 3",
            r"the key lr appears twice in one section; keep one of them \(line 4\)",
        ),
        ("a: 2024-13-45", "month must be in 1..12"),
        ("a: !!int abc", "invalid literal for int"),
        ("a: !!timestamp x", "groupdict"),
        ("[" * 5000, "nested more than 30 levels deep"),
        ("{a: " * 40 + "1" + "}" * 40, "nested more than 30 levels deep"),
        (LAUGHS, "expands to more than 10,000 values"),
        ("a: &a [*a]", "contains itself"),
        ("on: 3", "the key on is not text"),
        ("a: !!python/object/apply:os.system [ls]", "could not determine a constructor"),
        ("a: " + "9" * 6000, "4300 digits"),
    ],
)
def test_hostile_documents(tmp_path, text, message):
    start = time.process_time()
    with pytest.raises(ValueError, match=message):
        parse_yaml(text)
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(ValueError, match=r"c\.yaml: not valid YAML"):
        load_config(tmp_path / "c.yaml")
    assert time.process_time() - start < 3


def test_what_configs_hold_is_read_as_ever():
    assert parse_yaml("base: &b {x: 1, y: 2}\nc: {<<: *b, x: 3}\nd: [*b, null, 1e-3, no]") == {
        "base": {"x": 1, "y": 2},
        "c": {"x": 3, "y": 2},
        "d": [{"x": 1, "y": 2}, None, "1e-3", False],
    }
    assert parse_yaml("") is None
