"""Tables and pages that show what was measured."""

from keystep.report.html import Clip, Group, Report, Section, render_report, write_report
from keystep.report.table import HEADINGS, Cell, format_row, to_markdown

__all__ = [
    "HEADINGS",
    "Cell",
    "Clip",
    "Group",
    "Report",
    "Section",
    "format_row",
    "render_report",
    "to_markdown",
    "write_report",
]
