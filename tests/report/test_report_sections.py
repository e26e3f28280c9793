"""Tables and pictures beside a page's own table."""

from keystep.report import Report, Section, render_report

PNG = b"\x89PNG\r\n"
SECTIONS = [
    Section("Held", "What <stays>.", ("method", "bytes"), (("a", "1 & 2"), ("b", "3"))),
    Section("A curve", png=PNG),
]


def test_sections_are_on_the_page_and_an_empty_table_is_not():
    page = render_report(Report("title", "lead", {}, [], [], 8.0, ["a remark"], SECTIONS))
    assert "What &lt;stays&gt;." in page
    assert "<td>1 &amp; 2</td>" in page
    assert page.count('src="data:image/png;base64,iVBORw0K"') == 1
    assert "a remark" in page
    assert "What the columns mean" not in page


def test_a_page_without_traces_hides_the_timelines(sample_report):
    assert 'aria-labelledby="steps-title" hidden' not in render_report(sample_report)
    assert not Report("title", "lead", {}, [], [], 8.0).has_traces
    assert sample_report.has_traces
