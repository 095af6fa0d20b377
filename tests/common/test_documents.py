"""Names of users are shown as they are written, whatever they mean in the format that shows them."""

import csv
import io
import re
import shutil
import struct
import subprocess
import zlib
from html.parser import HTMLParser

import numpy as np
import pytest

from common.documents import Overlay, Section, escape_latex, to_csv, to_html, to_latex, to_markdown
from comparison import figures as comparison_figures
from comparison.pareto import accuracy_against_cost
from evaluation import figures as evaluation_figures

HOSTILE = (
    "$x$",
    r"$\frac{$",
    "cost_$5",
    "_a_",
    "<script>alert(1)</script>",
    "<b>",
    "AT&T &amp;",
    'say "hi"',
    "a|b",
    "=1+1",
    "+cmd|'/c calc'!A0",
    "-2",
    "@SUM(A1)",
    "*bold*",
    "`code`",
    "[link](javascript:alert)",
    "~~gone~~",
    "# heading",
    r"back\slash {braces} 50% ^",
    "1. list",
    "café 猫",
)


def png(width: int, height: int) -> bytes:
    """A white image."""
    rows = zlib.compress((b"\0" + b"\xff" * width) * height)
    parts = [b"\x89PNG\r\n\x1a\n"]
    for kind, data in (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)),
        (b"IDAT", rows),
        (b"IEND", b""),
    ):
        parts.append(struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)))
    return b"".join(parts)


def report(name: str) -> tuple[str, list[Section], dict[str, bytes]]:
    """A report in which a name stands wherever a name can."""
    sections = [
        Section("", text=name, figures={"a.png": name}),
        Section(name, [{"run": name, name: "1"}], [name], {"b.png": name}, name, [name], {name: [{"run": name}]}),
        Section("Maps", overlays=[Overlay(name, png(2, 2), png(2, 2))]),
    ]
    return name, sections, {"a.png": png(150, 75), "b.png": png(10, 10)}


class Page(HTMLParser):
    """Tags, and texts as a reader sees them."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.texts, self.values = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.values += [value for key, value in attributes if key in ("alt", "title")]

    def handle_data(self, data):
        self.texts.append(data)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_page_shows_a_name_as_it_is_and_runs_none_of_it(name):
    pages = []
    for text in (name, "plain"):
        title, sections, images = report(text)
        pages.append(Page(to_html(title, sections, images, lead=text, about=[text])))
    page, plain = pages
    assert page.tags == plain.tags
    assert page.texts.count(name) == plain.texts.count("plain") > 12
    assert set(page.values) == {name, ""}


@pytest.mark.parametrize("name", HOSTILE)
def test_markdown_shows_a_name_as_it_is(name):
    title, sections, _ = report(name)
    text = to_markdown(title, sections, lead=name, about=[name])
    escaped = text.splitlines()[0].removeprefix("# ")
    special = r"[$*`~|]|(?<!\w)_|_(?!\w)|<(?=[\w/!?])|&(?=#?\w+;)|\](?=[(\[:])|^#|^\d+[.)] "
    assert not [match for match in re.finditer(special, escaped) if not escaped[: match.start()].endswith("\\")]
    columns = [len(re.findall(r"(?<!\\)\|", line)) for line in text.splitlines() if line.startswith("|")]
    assert columns == [3, 3, 3, 2, 2, 2]
    shown = [re.sub(r"\\([^\w\s]|_)", r"\1", line) for line in text.splitlines()]
    kinds = (f"# {name}", name, f"## {name}", f"- {name}", f"### {name}", f"| run | {name} |", f"*{name}*")
    assert [shown.count(kind) for kind in kinds] == [1, 4, 1, 2, 1, 1, 2]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_cell_of_a_csv_is_never_a_formula_and_numbers_stay_numbers(name):
    text = to_csv([{"run": name, "accuracy": 0.1 + 0.2, "difference": -0.5, "top-5": None}])
    row = next(csv.DictReader(io.StringIO(text)))
    assert row["run"].removeprefix("'") == name and row["run"][0] not in "=+-@"
    assert (float(row["accuracy"]), row["difference"], row["top-5"]) == (0.1 + 0.2, "-0.5", "")


def test_latex_escapes_what_means_something_in_it():
    assert escape_latex("a_b & 50% $x$ #1 {y}") == r"a\_b \& 50\% \$x\$ \#1 \{y\}"
    assert escape_latex("\\ ~ ^") == r"\textbackslash{} \textasciitilde{} \textasciicircum{}"
    assert escape_latex("café 猫 93.1 ± 0.2") == r"café U+732B 93.1 $\pm$ 0.2"


def test_a_latex_table_stresses_the_cells_that_it_is_told():
    rows = [{"model": "vit_b", "accuracy (%)": "93.10 ± 0.20"}, {"model": "swin", "accuracy (%)": "90.00"}]
    text = to_latex(rows, caption="Test accuracy.", label="tab:x", bold=[(0, "accuracy (%)")])
    assert r"    vit\_b & \textbf{93.10 $\pm$ 0.20} \\" in text and r"    swin & 90.00 \\" in text
    assert r"model & accuracy (\%) \\" in text and r"\begin{tabular}{lr}" in text


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="needs pdflatex")
def test_latex_compiles(tmp_path):
    rows = [{"model": name, "accuracy (%)": "93.10 ± 0.20"} for name in HOSTILE]
    table = to_latex(rows, caption=" ".join(HOSTILE), label="tab:x", bold=[(0, "accuracy (%)")])
    text = "\\documentclass{article}\\usepackage{booktabs}\\begin{document}\n" + table + "\\end{document}\n"
    (tmp_path / "paper.tex").write_text(text, encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "paper.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, errors="replace", check=False)
    assert done.returncode == 0, done.stdout[-2000:]
    assert (tmp_path / "paper.pdf").stat().st_size > 5000


def test_figures_draw_a_name_as_it_is():
    names, count = HOSTILE[:4], 4
    shares = np.linspace(0.2, 0.9, count)
    drawn = [
        evaluation_figures.confusion_matrix(np.eye(count, dtype=int), names, title=names[1]),
        evaluation_figures.per_class_accuracy(shares, np.stack([shares, shares], 1), names, title=names[1]),
        accuracy_against_cost(names, shares, None, {"$cost$": shares}, title=names[1]),
        comparison_figures.comparison_bars(names, shares, ylabel=r"$\bad{$"),
    ]
    for figure in drawn:
        figure.draw_without_rendering()  # mathtext that does not parse raises an error here
        texts = [text for text in figure.findobj(match=lambda artist: hasattr(artist, "get_parse_math"))]
        assert not any(text.get_parse_math() for text in texts)


CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.mark.skipif(CHROMIUM is None, reason="needs a browser")
def test_tables_are_sorted_and_sliders_move_in_a_browser(tmp_path):
    rows = [{"run": "b", "points": "-2.5"}, {"run": "none", "points": "–"}, {"run": "a", "points": "1,000.5"}]
    rows.append({"run": "c", "points": "+7 to 9"})
    text = to_html("t", [Section("s", rows), Section("Maps", overlays=[Overlay("map", png(2, 2), png(2, 2))])], {})
    done = """<script>
    const names = () => Array.from(document.querySelectorAll("tbody td:first-child")).map((cell) => cell.textContent).join();
    const buttons = document.querySelectorAll("th button"), told = [names()];
    for (const i of [1, 1, 0]) { buttons[i].click(); told.push(names()); }
    const opacity = document.querySelector("input[name=opacity]");
    opacity.value = 30; opacity.dispatchEvent(new Event("input"));
    told.push(getComputedStyle(document.querySelector(".stack img + img")).opacity);
    document.body.dataset.told = told.join(" ");
    </script></body>"""
    (tmp_path / "page.html").write_text(text.replace("</body>", done), encoding="utf-8")
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}", "--dump-dom"]
    page = subprocess.run(
        [*command, f"file://{tmp_path}/page.html"], capture_output=True, text=True, timeout=120, check=True
    )
    told = re.search(r'data-told="([^"]*)"', page.stdout)[1].split()
    assert told == ["b,none,a,c", "a,c,b,none", "b,c,a,none", "none,c,b,a", "0.3"]


def test_the_contents_lead_to_every_section():
    text = to_html("title", [Section("", text="x"), Section("One & two"), Section("Cost"), Section("Cost")], {})
    targets = re.findall(r'<a href="#([^"]+)">', text)
    assert len(targets) == 3 == len(set(targets)) and all(f'id="{target}"' in text for target in targets)


def test_a_figure_is_shown_at_the_size_that_it_was_drawn_for():
    text = to_html("title", [Section("section", figures={"a.png": "caption"})], {"a.png": png(150, 75)})
    assert 'width="96" height="48"' in text  # an inch of 150 dots, in the 96 pixels of CSS


def test_cells_of_a_wide_table_are_wrapped_around_their_intervals():
    text = to_html("title", [Section("section", [{"run": "a b", "x": "0.61 [0.59, 0.63]", "y": "52.3 to 63.4"}])], {})
    assert '<td class="words">a b</td><td>0.61 [0.59,\N{NO-BREAK SPACE}0.63]</td>' in text and "nowrap" not in text
    assert "<td>52.3\N{NO-BREAK SPACE}to\N{NO-BREAK SPACE}63.4</td>" in text
