"""The places of measured tables in the documents."""

from pathlib import Path


def write_between_markers(path: Path, name: str, text: str) -> None:
    """Replace what stands between the two marks of ``name`` in a Markdown file. Raises ValueError if they are not there."""
    marks = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    before, begin, rest = path.read_text(encoding="utf-8").partition(marks[0])
    _, end, after = rest.partition(marks[1])
    if not (begin and end):
        raise ValueError(f"{path} lacks the lines {marks[0]} and {marks[1]}; add them where the tables should be")
    path.write_text(f"{before}{begin}\n{text}\n{end}{after}", encoding="utf-8")
