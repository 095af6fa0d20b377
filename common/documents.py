"""Several runs -> one report: tables, sentences and figures, as Markdown and as one self-contained HTML page."""

import base64
import csv
import html
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

NO_VALUE = "–"
CSS = """
body { font: 16px/1.5 system-ui, sans-serif; color: #222; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; }
h1, h2 { line-height: 1.2; } h2 { margin-top: 2.2rem; border-bottom: 1px solid #ddd; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-size: 0.8rem; }
th, td { padding: 0.25rem 0.6rem; border-bottom: 1px solid #ddd; text-align: right; vertical-align: bottom; }
th:first-child, td:first-child { text-align: left; } th { border-bottom: 2px solid #888; }
figure { margin: 1.5rem 0; } img { max-width: 100%; height: auto; }
figcaption { font-size: 0.85rem; color: #555; }
@media print {
  @page { size: A4 landscape; margin: 12mm; } body { margin: 0; max-width: none; font-size: 11px; }
  table { font-size: 9px; } th, td { padding: 2px 5px; } .scroll { overflow: visible; }
  figure { break-inside: avoid; } img { max-height: 165mm; } h2 { break-after: avoid; }
}
"""


@dataclass(frozen=True)
class Section:
    title: str
    table: Sequence[Mapping[str, str]] = ()  # rows of readable cells, with the same keys
    findings: Sequence[str] = ()  # sentences
    figures: Mapping[str, str] = field(default_factory=dict)  # file name -> caption


def to_csv(rows: Sequence[Mapping[str, str]]) -> str:
    text = io.StringIO()
    table = csv.DictWriter(text, rows[0].keys(), lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    return text.getvalue()


def to_markdown(title: str, sections: Sequence[Section], *, lead: str = "") -> str:
    """The report, with figures by their path relative to it; ``lead`` is the line under the title."""
    lines = [f"# {title}"] + (["", lead] if lead else [])
    for section in sections:
        lines += ["", f"## {section.title}", ""]
        if section.table:
            lines += [_markdown_row(section.table[0].keys()), _markdown_row("---" for _ in section.table[0])]
            lines += [_markdown_row(row.values()) for row in section.table] + [""]
        lines += [f"- {finding}" for finding in section.findings]
        for name, caption in section.figures.items():
            lines += ["", f"![{caption}]({name})", "", f"*{caption}*"]
    return "\n".join(lines) + "\n"


def to_html(title: str, sections: Sequence[Section], images: Mapping[str, bytes], *, lead: str = "") -> str:
    """The report as one page that needs no other file; ``images`` holds the PNG of each figure."""
    parts = [f"<h1>{html.escape(title)}</h1>"] + ([f"<p>{html.escape(lead)}</p>"] if lead else [])
    for section in sections:
        parts.append(f"<h2>{html.escape(section.title)}</h2>")
        if section.table:
            parts.append(_html_table(section.table))
        if section.findings:
            parts.append("<ul>" + "".join(f"<li>{html.escape(text)}</li>" for text in section.findings) + "</ul>")
        for name, caption in section.figures.items():
            data, text = base64.b64encode(images[name]).decode(), html.escape(caption)
            source = f'<img src="data:image/png;base64,{data}" alt="{text}">'
            parts.append(f"<figure>{source}<figcaption>{text}</figcaption></figure>")
    head = f'<meta charset="utf-8"><title>{html.escape(title)}</title><style>{CSS}</style>'
    head += '<meta name="viewport" content="width=device-width">'
    return f'<!DOCTYPE html>\n<html lang="en"><head>{head}</head>\n<body>\n' + "\n".join(parts) + "\n</body></html>\n"


def format_interval(interval: Sequence[float], *, unit: str = " %") -> str:
    """Bounds that are fractions, in percent."""
    return f"{100 * interval[0]:.2f} to {100 * interval[1]:.2f}{unit}"


def _markdown_row(cells) -> str:
    return f"| {' | '.join(str(cell).replace('|', chr(92) + '|') for cell in cells)} |"


def _html_table(rows: Sequence[Mapping[str, str]]) -> str:
    head = "".join(f"<th>{html.escape(title)}</th>" for title in rows[0])
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(_keep_together(str(cell)))}</td>" for cell in row.values()) + "</tr>"
        for row in rows
    )
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _keep_together(cell: str) -> str:
    """The cell of a wide table may be wrapped, but not within an interval."""
    return re.sub(r"(?<=,) |(?<=\d) (?=to )|(?<=to) ", "\N{NO-BREAK SPACE}", cell)
