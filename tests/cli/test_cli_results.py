from dataclasses import replace

import numpy as np

from keystep.cli.results import MAX_GROUPS, collect_notes, name_item, save_video, write_results
from keystep.metrics.outcome import Outcome

TRACE = {"key_steps": [1], "num_evaluations": 2, "peak_cache_bytes": 1, "hidden_state_bytes": 1, "rows": []}
PLAIN = Outcome("a prompt", 0, "plain", None, 1.0, 1.0, (), (), None)
VIDEO = np.zeros((2, 16, 16, 3))


def test_names_are_readable_and_differ():
    assert name_item("A cat, running!", 3, "adacache+moreg").startswith("a-cat-running-s3-adacache+moreg-")
    assert name_item("a b", 0, "m") != name_item("a-b", 0, "m")
    assert name_item("a", 0, "m/n") != name_item("a", 0, "m_n")
    assert "/" not in name_item("a/b", 0, "../m")
    assert len(name_item("long " * 100, 0, "m")) < 80


def test_notes_say_what_methods_said_and_what_was_not_counted():
    outcome = replace(
        PLAIN, method="m", trace={**TRACE, "notes": ["stood aside"]}, uncounted=("odd_attention",)
    )
    notes = collect_notes([outcome, outcome])
    assert notes[0] == "m: stood aside"
    assert "odd_attention" in notes[1]
    assert len(notes) == 2


def test_a_long_comparison_shows_some_prompts_and_says_so(tmp_path):
    outcomes = [
        save_video(tmp_path, replace(PLAIN, prompt=f"prompt {number}"), VIDEO, 8.0)
        for number in range(MAX_GROUPS + 2)
    ]
    write_results(tmp_path, outcomes, title="t", lead="l", settings={}, fps=8.0)
    page = (tmp_path / "report.html").read_text()
    assert page.count("<option value=") == MAX_GROUPS + 3  # and three speeds
    assert f"shows {MAX_GROUPS} of {MAX_GROUPS + 2} prompts" in page
    assert (tmp_path / "results.json").read_text().count('"prompt"') == MAX_GROUPS + 2
