"""docs/python.md: its code runs from top to bottom."""

import re
import sys

from support import PROJECT


def test_the_page_runs_from_top_to_bottom(vit_run, capsys, monkeypatch):
    monkeypatch.chdir(PROJECT)
    monkeypatch.setattr(sys, "path", list(sys.path))
    page = (PROJECT / "docs" / "python.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    names = {}
    for block in blocks:
        exec(block.replace("outputs/quickstart", str(vit_run)), names)
    said = capsys.readouterr().out
    assert "of 180 test images, fed as InputSpec" in said and names["maps"].shape == (4, 4, 4) and not names["faults"]
    assert "quickstart" in names["pair"]["sentence"] and names["config"].train.epochs == 1
