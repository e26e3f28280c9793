"""Tables say what went wrong, plots and page hold what was measured."""

import pytest

from keystep.lab.book import Book
from keystep.lab.page import publish
from keystep.lab.quality import measure_quality
from keystep.lab.robustness import measure_robustness
from keystep.lab.rows import SpeedRow
from keystep.lab.tables import make_tables, to_markdown
from keystep.metrics.outcome import TimedPair
from tests.lab.rivals import BROKEN, IDLE, SKIPPING, Silent, make_bench


@pytest.fixture(scope="module")
def book(tmp_path_factory):
    book = Book(tmp_path_factory.mktemp("bench"), {"steps": 8}, {"date": "now"})
    contestants = [SKIPPING, IDLE, BROKEN]
    measure_quality(make_bench(), contestants, [("a", 0), ("of", 0)], book, Silent(), num_shown=1)
    measure_robustness(make_bench(), contestants, book, Silent())
    who = {"part": "speed", "source": "s", "setting": "", "is_default": True}
    pairs = tuple(TimedPair(2.0, loop_s, 3.0, 2.0) for loop_s in (0.5, 1.0, 2.0))
    common = {"pairs": pairs, "cpu_pairs": ((2.0, 2.016),) * 3, "num_steps": 8, "num_plain_steps": 8}
    half = {"flops": 1, "plain_flops": 2, "held_bytes": 300, "hidden_state_bytes": 200}
    book.add(SpeedRow(**who, model="x-wide", method="half", **common, **half))
    book.add(SpeedRow(**who, model="x-narrow", method="none", **common, flops=2, plain_flops=2))
    return book


def find(book, title):
    return {row[0]: row for table in make_tables(book.rows) if table.title == title for row in table.rows}


def test_quality(book):
    table = find(book, "Quality, fake")
    assert table["rival: skipping"][2] == "0.500"
    assert table["rival: skipping"][-1] == "2"
    assert "**idle**" in table["rival: idle"][2]
    assert table["rival: broken"][2] == "**fails**: IndexError: tuple index out of range"
    assert table["plain"][4] == "–"


def test_speed_is_the_median_pair_and_realised_its_product_with_compute(book):
    row = find(book, "Speed and memory, x-wide")["s: half"]
    assert row[2:7] == ("250", "0.500", "2.00x (1.00 to 4.00, 3 pairs)", "1.00", "1.50x")
    assert row[7] == "300 B, 1.50"


def test_overhead_is_processor_time_of_an_evaluation(book):
    assert find(book, "Overhead, x-narrow")["s: none"][1:4] == ("250.00", "+2.00", "+1.00%")


def test_robustness(book):
    table = find(book, "Robustness, fake")
    assert table["rival: skipping"][4].startswith("differs by")
    assert "**nothing skipped**" in table["rival: idle"][2]
    assert "IndexError" in table["rival: broken"][2]


def test_every_line_of_markdown_has_as_many_cells(book):
    for part in to_markdown(make_tables(book.rows)).split("## ")[1:]:
        lines = [line for line in part.splitlines() if line.startswith("|")]
        assert len({line.count("|") for line in lines}) == 1


def test_the_page_holds_tables_plots_and_videos(book):
    publish(book, 8.0, ["a remark"])
    text = (book.folder / "results.md").read_text()
    page = (book.folder / "report.html").read_text()
    pngs = sorted((book.folder / "plots").glob("*.png"))
    assert len(pngs) == 3
    assert all(png.read_bytes().startswith(b"\x89PNG") for png in pngs)
    assert all(f"plots/{png.name}" in text for png in pngs)
    assert page.count("data:image/png;base64,") == 3
    for words in ("a remark", "Robustness, fake", "tuple index out of range"):
        assert words in text
        assert words in page
    assert "**" not in page.split("<script")[0]
    assert '"label": "rival: skipping (default)"' in page
