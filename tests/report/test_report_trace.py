"""The page of one trace: in words, and in a real browser."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from playwright.sync_api import sync_playwright

from keystep.engine.trace import Decision, Row, Trace
from tests.report.test_report_page import FLAGS, Visit, wait_until

MIB = 2**20


def make_trace() -> Trace:
    rows = [
        Row(
            evaluation=k + 1,
            timestep=900.0 - 100 * k,
            model="transformer",
            branches=("cond",),
            decisions={
                "span": Decision("skip" if k == 2 else "compute", "measured"),
                "attention": Decision("skip" if k % 2 else "compute", "</script><b>why</b>"),
            },
            signals={"distance": 0.1 * k} if k else {"distance": float("nan")},
            cache_bytes=k * MIB,
            seconds=0.5,
        )
        for k in range(4)
    ]
    notes = ["a <note>"]
    return Trace("mine <i>", "toy", 4, True, rows, notes, peak_cache_bytes=3 * MIB, is_complete=True)


def test_the_page_holds_the_trace_and_what_it_held(tmp_path: Path) -> None:
    trace = make_trace()
    trace.to_html(tmp_path / "trace.html")
    text = (tmp_path / "trace.html").read_text()
    (data,) = re.findall(r'id="data">(.*?)</script>', text, re.S)
    found = json.loads(data)
    assert [row["signals"]["held in MiB"] for row in found["trace"]["rows"]] == [0.0, 1.0, 2.0, 3.0]
    assert found["trace"]["rows"][0]["signals"]["distance"] is None
    assert "mine &lt;i&gt;" in text and "<b>why</b>" not in text
    assert not re.search(r'(src|href)="(?!data:)', text), "it loads nothing"
    assert "held in MiB" not in trace.rows[0].signals, "the trace stays as it was"


@pytest.fixture
def visit(chromium_path, tmp_path):
    make_trace().to_html(tmp_path / "trace.html")
    with sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            str(tmp_path / "profile"), executable_path=chromium_path, headless=True, args=FLAGS, offline=True
        )
        visit = Visit(context.new_page())
        visit.page.goto((tmp_path / "trace.html").as_uri())
        wait_until(visit.page, "document.querySelector('#timeline svg') !== null")
        yield visit
        context.close()


def test_it_draws_a_strip_for_each_rule_and_two_plots(visit: Visit) -> None:
    page = visit.page
    names = page.eval_on_selector_all("#timeline svg text", "all => all.map((each) => each.textContent)")
    assert {"span", "attention", "distance", "held in MiB", "max 3"} <= set(names)
    assert page.locator("#timeline rect.hollow").count() == 3
    assert page.locator("#timeline rect.full").count() == 5
    assert page.locator("#timeline rect.bar-mark").count() == 3 + 4
    page.locator("#timeline [role=slider]").press("End")
    detail = page.locator("#timeline .detail").inner_text()
    assert "evaluation 4 of 4" in detail and "attention: reused (</script><b>why</b>)" in detail
    assert visit.complaints == [] and [url[:5] for url in visit.requests] == ["file:"]
