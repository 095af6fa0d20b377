"""Reports: tables, sentences and figures, as Markdown, as one self-contained HTML page, as CSV and as LaTeX.

Names of runs and classes come from users. Each format escapes its special characters, so that a name is always shown as it
is written.
"""

import base64
import csv
import html
import io
import re
import struct
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

NO_VALUE = "–"
SMALL = 128  # in a photo with fewer pixels than this on its longer side, each pixel stays visible
FIGURE_DPI = 150  # of PNG files: a figure is shown at the size in inches that it was drawn for


@dataclass(frozen=True)
class Overlay:
    """A picture, and a second one that the page shows on top of it."""

    caption: str
    picture: bytes  # PNG
    over: bytes  # PNG with transparency, stretched over the picture


@dataclass(frozen=True)
class Section:
    """A part of a report. The one without a title comes first: its text is the main result."""

    title: str
    table: Sequence[Mapping[str, str]] = ()  # rows of readable cells, with the same keys
    findings: Sequence[str] | Mapping[str, Sequence[str]] = ()  # sentences, or heading -> sentences
    figures: Mapping[str, str] = field(default_factory=dict)  # file name -> caption
    text: str = ""  # a paragraph that comes first
    commands: Sequence[str] = ()
    folded: Mapping[str, Sequence[Mapping[str, str]]] = field(
        default_factory=dict
    )  # title -> table that opens on a click
    overlays: Sequence[Overlay] = ()  # only in the HTML page


def format_interval(interval: Sequence[float], *, unit: str = " %") -> str:
    """Text of two bounds: fractions in, percent out."""
    return f"{100 * interval[0]:.2f} to {100 * interval[1]:.2f}{unit}"


def _grouped(findings: Sequence[str] | Mapping[str, Sequence[str]]) -> Mapping[str, Sequence[str]]:
    """Heading -> sentences; the heading of a plain list is empty."""
    return findings if isinstance(findings, Mapping) else {"": findings} if findings else {}


# ---------------------------------------------------------------- CSV


def to_csv(rows: Sequence[Mapping]) -> str:
    """A table as CSV: numbers in full precision, None as an empty cell, text that looks like a formula marked as text."""
    text = io.StringIO()
    table = csv.DictWriter(text, rows[0].keys(), lineterminator="\n")
    table.writerow({key: _csv_cell(key) for key in rows[0]})
    table.writerows({key: _csv_cell(value) for key, value in row.items()} for row in rows)
    return text.getvalue()


def _csv_cell(value):
    """``=1+1`` -> ``'=1+1``: spreadsheets take text that begins like this for a formula, which may run programs."""
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r") else value


# ---------------------------------------------------------------- Markdown


def to_markdown(title: str, sections: Sequence[Section], *, lead: str = "", about: Sequence[str] = ()) -> str:
    """The report as Markdown; figures are linked by their path relative to it.

    ``lead`` is the line under the title; ``about`` says where the report comes from (date, commit, command).
    """
    lines = [f"# {_md(title)}"] + (["", _md(lead)] if lead else [])
    for section in sections:
        lines += ["", f"## {_md(section.title)}", ""] if section.title else [""]
        lines += [_md(section.text), ""] if section.text else []
        lines += [*_escaped_table(section.table), ""] if section.table else []
        for heading, findings in _grouped(section.findings).items():
            lines += [f"### {_md(heading)}", ""] if heading else []
            lines += [*(f"- {_md(finding)}" for finding in findings), *([""] if heading else [])]
        for name, caption in section.figures.items():
            lines += ["", f"![{_md(caption)}]({quote(name)})", "", f"*{_md(caption)}*"]
        lines += ["", "```sh", *section.commands, "```"] if section.commands else []
        for heading, rows in section.folded.items():
            lines += ["", f"### {_md(heading)}", "", *_escaped_table(rows)]
        lines += ["", *(f"- {_md(line)}" for line in about)] if about and not section.title else []
    return "\n".join(lines) + "\n"


def _md(text: str) -> str:
    """A line of plain text with Markdown's special characters escaped."""
    text = re.sub(r"\s+", " ", text)
    text = re.sub(r"[\\`*$~|]", r"\\\g<0>", text)
    text = re.sub(r"(?<!\w)_|_(?!\w)", r"\\_", text)  # within a word an underscore stands for itself
    text = re.sub(r"<(?=[\w/!?])|&(?=#?\w+;)|\](?=[(\[:])", r"\\\g<0>", text)  # HTML, entities, links
    return re.sub(r"^(\d*)([#>]|[-+.)](?= ))", r"\1\\\2", text)  # headings, quotes, lists


def _escaped_table(rows: Sequence[Mapping[str, str]]) -> list[str]:
    header, *cells = ([_md(str(text)) for text in row] for row in (rows[0].keys(), *(row.values() for row in rows)))
    return markdown_table(header, cells)


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """The lines of a table whose cells are Markdown themselves."""
    return [f"| {' | '.join(cells)} |" for cells in (header, ["---"] * len(header), *rows)]


# ---------------------------------------------------------------- HTML


def to_html(
    title: str, sections: Sequence[Section], images: Mapping[str, bytes], *, lead: str = "", about: Sequence[str] = ()
) -> str:
    """The report as one page that needs no other file; ``images`` holds the PNG of each figure.

    Its script sorts tables and moves sliders, and reaches no network.
    """
    anchors = _anchors([section.title for section in sections])
    parts = [f"<h1>{html.escape(title)}</h1>"]
    parts += [f'<p class="lead">{html.escape(lead)}</p>'] if lead else []
    contents = [
        f'<li><a href="#{anchor}">{html.escape(section.title)}</a></li>'
        for section, anchor in zip(sections, anchors)
        if section.title
    ]
    for section, anchor in zip(sections, anchors):
        body = _html_section(section, images)
        if section.title:
            parts.append(f'<section id="{anchor}"><h2>{html.escape(section.title)}</h2>\n{body}\n</section>')
            continue
        parts.append(f'<div class="opening">{body}</div>')
        parts += [f'<p class="about">{html.escape(line)}</p>' for line in about]
        parts.append(f'<nav aria-label="Contents"><ul>{"".join(contents)}</ul></nav>')
    style, script = (Path(__file__).with_name(name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    head = f'<meta charset="utf-8"><title>{html.escape(title)}</title><style>{style}</style>'
    head += '<meta name="viewport" content="width=device-width, initial-scale=1">'
    body = "\n".join(parts) + f"\n<script>{script}</script>"
    return f'<!DOCTYPE html>\n<html lang="en"><head>{head}</head>\n<body>\n{body}\n</body></html>\n'


def _anchors(titles: Sequence[str]) -> list[str]:
    slugs = [re.sub(r"\W+", "-", title.lower()).strip("-") for title in titles]
    return [slug if slugs.count(slug) == 1 else f"{slug}-{i}" for i, slug in enumerate(slugs)]


def _html_section(section: Section, images: Mapping[str, bytes]) -> str:
    parts = [f"<p>{html.escape(section.text)}</p>"] if section.text else []
    parts += [_html_table(section.table)] if section.table else []
    for heading, findings in _grouped(section.findings).items():
        parts += [f"<h3>{html.escape(heading)}</h3>"] if heading else []
        parts.append("<ul>" + "".join(f"<li>{html.escape(text)}</li>" for text in findings) + "</ul>")
    parts += [_html_figure(images[name], caption) for name, caption in section.figures.items()]
    parts += [_html_overlays(section.overlays)] if section.overlays else []
    parts += [f"<pre>{html.escape(chr(10).join(section.commands))}</pre>"] if section.commands else []
    for heading, rows in section.folded.items():
        parts.append(f"<details><summary>{html.escape(heading)}</summary>{_html_table(rows)}</details>")
    return "\n".join(parts)


def _html_figure(image: bytes, caption: str) -> str:
    width, height = (round(side * 96 / FIGURE_DPI) for side in _size(image))
    text = html.escape(caption)
    picture = f'<img src="{_data_url(image)}" alt="{text}" width="{width}" height="{height}">'
    return f'<figure><div class="scroll">{picture}</div><figcaption>{text}</figcaption></figure>'


def _html_overlays(overlays: Sequence[Overlay]) -> str:
    figures = []
    for overlay in overlays:
        text = html.escape(overlay.caption)
        small = ' class="pixels"' if max(_size(overlay.picture)) < SMALL else ""
        layers = (
            f'<img src="{_data_url(overlay.picture)}" alt=""{small}><img src="{_data_url(overlay.over)}" alt="{text}">'
        )
        figures.append(f'<figure><span class="stack">{layers}</span><figcaption>{text}</figcaption></figure>')
    sliders = '<label>uncover the photo <input type="range" name="from" min="0" max="100" value="0"></label>'
    sliders += '<label>opacity of the maps <input type="range" name="opacity" min="0" max="100" value="100"></label>'
    return f'<div><div class="controls" hidden>{sliders}</div><div class="overlays">{"".join(figures)}</div></div>'


def _size(image: bytes) -> tuple[int, int]:
    """Width and height of a PNG, from its header."""
    return struct.unpack(">II", image[16:24])


def _data_url(image: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(image).decode()}"


def _html_table(rows: Sequence[Mapping[str, str]]) -> str:
    """A table: columns of numbers are aligned right, columns of words left."""
    cells = {title: [str(row[title]) for row in rows] for title in rows[0]}
    words = {title for title, column in cells.items() if not any(re.match(r"[-+−<]? ?[\d.]", cell) for cell in column)}
    words |= {title for title, column in cells.items() if max(map(len, column)) > 40}
    kinds = {title: ' class="words"' if title in words else "" for title in cells}
    head = "".join(f'<th scope="col"{kind}>{html.escape(title)}</th>' for title, kind in kinds.items())
    body = "".join(
        f"<tr>{''.join(f'<td{kinds[title]}>{html.escape(_keep_together(str(row[title])))}</td>' for title in cells)}</tr>"
        for row in rows
    )
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _keep_together(cell: str) -> str:
    """Non-breaking spaces within an interval, so that a cell of a wide table is not wrapped there."""
    return re.sub(r"(?<=,) |(?<=\d) (?=to )|(?<=to) |(?<=<) ", "\N{NO-BREAK SPACE}", cell)


# ---------------------------------------------------------------- LaTeX

_TEX = {character: f"\\{character}" for character in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': "''",
    "[": "{[}",  # after the \\ of the row before, these two would be read as its options
    "*": "{*}",
    "±": r"$\pm$",
    "–": "--",
    "−": "$-$",
    "×": r"$\times$",
}


def to_latex(
    rows: Sequence[Mapping[str, str]], *, caption: str, label: str, bold: Sequence[tuple[int, str]] = ()
) -> str:
    """A table for ``\\input`` in a paper; it needs the package booktabs.

    ``bold``: the cells in bold face, by the row's number and the column's title.
    """
    titles = list(rows[0])
    head = " & ".join(map(escape_latex, titles))
    body = []
    for i, row in enumerate(rows):
        cells = [escape_latex(str(row[title])) for title in titles]
        cells = [rf"\textbf{{{cell}}}" if (i, title) in bold else cell for title, cell in zip(titles, cells)]
        body.append(f"    {' & '.join(cells)} \\\\")
    return (
        "\n".join(
            [
                r"% \usepackage{booktabs}",
                r"\begin{table}",
                r"  \centering",
                rf"  \caption{{{escape_latex(caption)}}}",
                rf"  \label{{{label}}}",
                rf"  \begin{{tabular}}{{l{'r' * (len(titles) - 1)}}}",
                r"    \toprule",
                f"    {head} \\\\",
                r"    \midrule",
                *body,
                r"    \bottomrule",
                r"  \end{tabular}",
                r"\end{table}",
            ]
        )
        + "\n"
    )


def escape_latex(text: str) -> str:
    """Plain text as LaTeX source; a character that LaTeX's usual fonts lack becomes its code point (U+4E2D)."""
    return "".join(_TEX.get(character) or _latin(character) for character in re.sub(r"\s+", " ", text))


def _latin(character: str) -> str:
    if character.isascii():
        return character if character.isprintable() else ""
    name = unicodedata.name(character, "")
    return character if name.startswith("LATIN ") and ord(character) < 0x180 else f"U+{ord(character):04X}"
