"""The page in a real browser: that videos play in step, that everything is there, that nothing is fetched."""

import re
import time
from dataclasses import replace

import pytest
from playwright.sync_api import ConsoleMessage, Page, sync_playwright

from keystep.report import render_report, write_report
from tests.report.conftest import FPS, NUM_FRAMES, NUM_STEPS

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
FRAME_S = 1 / FPS
PATIENCE_S = 15.0
TIMES = "() => player.videos.map((video) => video.currentTime)"


def wait_until(page: Page, condition: str) -> None:
    """Poll a JavaScript condition; the page's policy forbids the evaluation that `wait_for_function` uses."""
    end = time.monotonic() + PATIENCE_S
    while not page.evaluate(condition):
        assert time.monotonic() < end, f"never became true: {condition}"
        page.wait_for_timeout(20)


class Visit:
    """An open page and everything it complained about or asked for."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.complaints: list[str] = []
        self.requests: list[str] = []
        page.on("console", self._hear)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", lambda request: self.requests.append(request.url))

    def _hear(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(message.text)


@pytest.fixture(scope="module")
def visit(chromium_path, sample_report, tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    write_report(folder / "report.html", sample_report)
    with sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            str(folder / "profile"), executable_path=chromium_path, headless=True, args=FLAGS, offline=True
        )
        visit = Visit(context.new_page())
        visit.page.goto((folder / "report.html").as_uri())
        wait_until(visit.page, "player !== null && player.videos.every((video) => video.readyState >= 3)")
        yield visit
        context.close()


@pytest.fixture
def page(visit) -> Page:
    return visit.page


def spread(times):
    return max(times) - min(times)


def test_videos_are_decoded_and_play_by_themselves(page):
    wait_until(page, "player.videos.every((video) => video.getVideoPlaybackQuality().totalVideoFrames > 2)")
    before = page.evaluate(TIMES)
    wait_until(page, f"player.videos.every((video, n) => video.currentTime !== {before}[n])")
    sizes = page.evaluate("player.videos.map((video) => [video.videoWidth, video.videoHeight])")
    assert sizes == [[256, 256]] * 4
    assert page.locator("#play").inner_text() == "Pause"


def test_videos_stay_in_step_also_across_a_loop(page):
    worst, has_looped, last = 0.0, False, 0.0
    for _ in range(60):
        times = page.evaluate(TIMES)
        is_rewinding = page.evaluate("player.isRewinding")
        has_looped = has_looped or times[0] < last
        last = times[0]
        if not is_rewinding:
            worst = max(worst, spread(times))
        page.wait_for_timeout(50)
    assert has_looped  # three seconds of a clip of two
    assert worst <= 1.5 * FRAME_S


def test_a_video_that_got_ahead_is_brought_back(page):
    page.evaluate("() => { player.setRate(0.25); player.show(2); player.play(); }")
    wait_until(page, "player.videos.every((video) => !video.seeking)")
    page.evaluate("player.videos[2].currentTime = 1.7")
    wait_until(page, f"Math.abs(player.videos[2].currentTime - player.leader.currentTime) < {FRAME_S}")
    assert page.evaluate("player.leader.currentTime") < 1.5  # not by waiting for the next loop
    page.evaluate("player.setRate(1)")


def test_pausing_stops_all_on_one_frame(page):
    page.locator("#play").click()
    wait_until(page, "player.videos.every((video) => video.paused && !video.seeking)")
    assert spread(page.evaluate(TIMES)) < 1e-3
    assert page.locator("#play").inner_text() == "Play"


def test_scrubbing_shows_the_same_frame_everywhere(page):
    page.locator("#scrub").fill("7")
    wait_until(page, "player.videos.every((video) => !video.seeking)")
    assert page.evaluate(TIMES) == pytest.approx([7.5 * FRAME_S] * 4)
    wait_until(page, "document.getElementById('frame').textContent === 'frame 8 of 16'")


def test_the_keyboard_steps_and_plays(page):
    page.locator("h1").click()  # focus on nothing
    page.keyboard.press("ArrowRight")
    wait_until(page, "document.getElementById('frame').textContent === 'frame 9 of 16'")
    page.keyboard.press("ArrowLeft")
    wait_until(page, "document.getElementById('frame').textContent === 'frame 8 of 16'")
    page.keyboard.press("Space")
    wait_until(page, "player.videos.every((video) => !video.paused)")
    page.keyboard.press("Space")
    wait_until(page, "player.videos.every((video) => video.paused)")


def test_the_speed_is_that_of_all(page):
    page.locator("#rate").select_option("0.5")
    assert page.evaluate("player.videos.map((video) => video.playbackRate)") == [0.5] * 4
    page.locator("#rate").select_option("1")


def test_the_table_has_a_row_a_method(page):
    rows = page.locator("tbody tr")
    assert [row.locator("th").inner_text() for row in rows.all()] == [
        "plain", "fastercache", "adacache", "adacache+moreg",
    ]  # fmt: skip
    assert "1.82x" in rows.nth(1).inner_text()
    assert "identical" in rows.nth(2).inner_text()
    assert page.locator(".notes li").inner_text() == "A note with <angle brackets>."


def test_timelines_show_what_the_traces_say(page):
    cards = page.locator("#timelines .chart")
    assert cards.count() == 3
    adacache = cards.nth(1)
    labels = adacache.locator("svg text").all_text_contents()
    assert "span" in labels
    assert "distance" in labels
    assert adacache.locator("rect.full").count() == NUM_STEPS / 3
    assert adacache.locator("rect.hollow").count() == NUM_STEPS * 2 / 3
    assert adacache.locator("rect.bar-mark").count() == NUM_STEPS / 3
    # attention and the branch that a rule rebuilds, but no third line that repeats the second
    assert cards.nth(0).locator("rect.full, rect.hollow").count() == 2 * NUM_STEPS


def test_a_timeline_is_a_slider_that_explains_each_evaluation(page):
    slider = page.locator("#timelines [role=slider]").nth(1)
    slider.focus()
    page.keyboard.press("Home")
    assert "evaluation 1 of 30" in slider.get_attribute("aria-valuetext")
    assert "span: computed (distance) · distance" in slider.get_attribute("aria-valuetext")
    page.keyboard.press("ArrowRight")
    assert slider.get_attribute("aria-valuenow") == "2"
    assert "span: reused (held)" in page.locator("#timelines .detail").nth(1).inner_text()
    page.keyboard.press("End")
    page.keyboard.press("ArrowRight")
    assert slider.get_attribute("aria-valuenow") == str(NUM_STEPS)


def test_pointing_at_a_column_explains_it(page):
    slider = page.locator("#timelines [role=slider]").nth(0)
    slider.scroll_into_view_if_needed()
    box = slider.bounding_box()
    column = page.evaluate("(box) => LABEL_WIDTH + (box.width - LABEL_WIDTH - RIGHT) * 9.5 / 30", box)
    page.mouse.move(box["x"] + column, box["y"] + 10)
    assert slider.get_attribute("aria-valuenow") == "10"


def test_psnr_has_a_curve_a_method_and_follows_the_frame(page):
    chart = page.locator("#psnr .chart")
    assert chart.locator("polyline").count() == 3
    points = chart.locator("polyline").first.get_attribute("points").split()
    assert len(points) == NUM_FRAMES
    page.locator("#scrub").fill("0")
    wait_until(page, "document.getElementById('frame').textContent === 'frame 1 of 16'")
    first = chart.locator(".legend b").all_inner_texts()
    cursor = chart.locator(".cursor").get_attribute("x1")
    page.locator("#scrub").fill("15")
    wait_until(page, "document.getElementById('frame').textContent === 'frame 16 of 16'")
    last = chart.locator(".legend b").all_inner_texts()
    assert first[1] == last[1] == "identical"
    assert float(first[0].split()[0]) > float(last[0].split()[0])
    assert chart.locator(".cursor").get_attribute("x1") != cursor


def test_clicking_the_curves_goes_to_that_frame(page):
    picture = page.locator("#psnr svg[role=img]")
    picture.scroll_into_view_if_needed()
    box = picture.bounding_box()
    picture.click(position={"x": 46, "y": box["height"] / 2})
    wait_until(page, "document.getElementById('frame').textContent === 'frame 1 of 16'")


def test_another_prompt_shows_its_own_videos(page):
    old = page.evaluate("player.videos[0].src")
    page.locator("#group").select_option("1")
    wait_until(page, "player.videos.every((video) => video.readyState >= 2)")
    assert page.evaluate("player.videos[0].src") != old
    assert page.locator("#videos video").count() == 4
    # markup in a prompt stays text
    assert (
        page.locator("#group option").nth(1).inner_text() == "</script><b>a prompt & its markup</b> (seed 0)"
    )
    assert page.locator("main b:text('a prompt')").count() == 0


@pytest.mark.parametrize("width", [1280, 400])
def test_nothing_sticks_out_sideways(page, width):
    page.set_viewport_size({"width": width, "height": 800})
    page.wait_for_timeout(100)
    assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read_in_both_schemes(page, scheme):
    page.emulate_media(color_scheme=scheme)
    colours = page.evaluate(
        "() => [getComputedStyle(document.body).color, getComputedStyle(document.body).backgroundColor]"
    )
    ink, ground = ([int(part) for part in re.findall(r"\d+", colour)] for colour in colours)
    assert contrast(ink, ground) > 7
    assert (sum(ground) > 384) == (scheme == "light")


def contrast(one, other):
    def luminance(colour):
        linear = [(c / 255 + 0.055) ** 2.4 / 1.055**2.4 if c > 10 else c / 255 / 12.92 for c in colour]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_it_asks_for_nothing_and_complains_of_nothing(visit):
    assert visit.complaints == []
    schemes = {url.split(":")[0] for url in visit.requests}
    assert schemes <= {"file", "blob"}
    assert sum(url.startswith("file:") for url in visit.requests) == 1


def test_the_page_names_no_address(sample_report):
    page = render_report(sample_report)
    without_namespace = page.replace("http://www.w3.org/2000/svg", "")
    assert not re.search(r"(https?:)?//[a-z]+\.[a-z]", without_namespace)
    assert "default-src 'none'" in page


def test_a_page_without_videos_is_its_table(sample_report):
    page = render_report(replace(sample_report, groups=[]))
    assert page.count('<th scope="row">') == 4
    assert "<video" not in page
    assert 'id="videos"' not in page
