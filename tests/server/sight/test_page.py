"""The page as a browser shows it; skipped where there is none."""

import re
import shutil

import httpx
import pytest
from running import complete, running

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

needs_browser = pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=BROWSER, args=["--no-sandbox", "--disable-gpu"])
        yield opened
        opened.close()


@pytest.fixture
def open_page(browser):
    """Opens pages, and sees to it that none has complained."""
    complaints, pages = [], []

    def opened(url, *, width=1400, scheme="light", **options):
        page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme, **options)
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(url)
        pages.append(page)
        return page

    yield opened
    for page in pages:
        page.close()
    assert complaints == []


def luminance(colour):
    channels = [int(each) / 255 for each in re.findall(r"\d+", colour)[:3]]
    linear = [each / 12.92 if each <= 0.04045 else ((each + 0.055) / 1.055) ** 2.4 for each in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(first, second):
    light, dark = sorted((luminance(first), luminance(second)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_contrast_is_that_of_the_standard():
    assert contrast("rgb(0, 0, 0)", "rgb(255, 255, 255)") == pytest.approx(21)
    assert contrast("rgb(119, 119, 119)", "rgb(255, 255, 255)") == pytest.approx(4.48, abs=0.01)


# Each text with the ground that it stands on.
TEXTS = """() => [...document.querySelectorAll("body *")].filter((each) =>
  [...each.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim())
  && each.getClientRects().length
).map((each) => {
  let ground = each;
  const none = "rgba(0, 0, 0, 0)";
  while (ground && getComputedStyle(ground).backgroundColor === none) ground = ground.parentElement;
  return [each.textContent.trim().slice(0, 40), getComputedStyle(each).color,
          getComputedStyle(ground ?? document.documentElement).backgroundColor];
})"""
OVERFLOWING = """() => [...document.querySelectorAll("body *")].filter((each) => {
  const inScroll = each.closest(".scroll") && !each.classList.contains("scroll");
  const box = each.getBoundingClientRect();
  const isOut = box.width && (box.right > innerWidth + 1 || box.left < -1);
  return isOut && !inScroll && !each.classList.contains("skip");
}).map((each) => each.outerHTML.slice(0, 80))"""


@needs_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1400, 400])
def test_it_fits_its_window_and_can_be_read(busy, open_page, width, scheme):
    page = open_page(busy.url, width=width, scheme=scheme)
    page.wait_for_selector("#recent tbody tr")
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert page.evaluate(OVERFLOWING) == []
    texts = page.evaluate(TEXTS)
    assert len(texts) > 40
    for text, colour, ground in texts:
        assert contrast(colour, ground) >= 4.5, (text, colour, ground)
    ground = page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
    assert (luminance(ground) < 0.1) == (scheme == "dark")
    # Behind each figure there is a table, and each says what it shows.
    for name in ("tree", "memory", "rate", "overlap"):
        assert page.locator(f"#{name}-table tbody tr").count() > 0
    for figure in page.locator("[role=img]").all():
        assert figure.get_attribute("aria-label")


@needs_browser
def test_it_is_told_of_a_new_request(busy, open_page):
    page = open_page(busy.url)
    page.wait_for_selector("#recent tbody tr")
    rows = page.locator("#recent tbody tr").count()
    before = page.locator("#tiles").inner_text()
    complete(busy, "Something else, that nobody has asked before. " * 20)
    page.locator("#recent tbody tr").nth(rows).wait_for(timeout=30_000)
    assert page.locator("#tiles").inner_text() != before
    assert page.locator("#tree").inner_text().count("Something else") == 1


@needs_browser
def test_its_numbers_are_those_of_the_status(busy, open_page):
    page = open_page(busy.url)
    page.wait_for_selector("#recent tbody tr")
    told = httpx.get(f"{busy.url}/status.json").json()
    cache, (tier,) = told["prefix_cache"], told["tiers"]
    assert (
        page.locator("#tiles dd").first.inner_text() == f"{round(100 * cache['hits'] / cache['queries'])} %"
    )
    row = (
        page.locator("#memory-table tbody tr").first.inner_text(timeout=1000)
        or page.locator("#memory-table tbody tr").first.text_content()
    )
    assert f"{tier['checkpoints']:,}" in row
    assert page.locator("#recent tbody tr").count() == len(told["recent"])


@needs_browser
def test_before_the_first_request_it_says_what_to_do(open_page):
    with running(api_keys=("first-key-of-all",), operator_key="the-operators-key") as server:
        typed = {"username": "anyone", "password": "the-operators-key"}
        page = open_page(server.url, width=400, http_credentials=typed)
        page.wait_for_selector("#curl:not(:empty)")
        assert f"curl {server.url}/v1/chat/completions" in page.locator("#curl").inner_text()
        assert page.evaluate("document.documentElement.scrollWidth") == 400
        assert not page.locator("#figures").is_visible()
        assert page.locator("#state").inner_text() == "serving"
        # A server that is told to end waits for those who are told of changes.
        page.close()


@needs_browser
def test_what_a_prompt_says_is_text_and_no_markup(busy, open_page):
    complete(busy, "<img src=x onerror=alert(1)><b>bold</b> " * 10)
    page = open_page(busy.url)
    page.wait_for_selector("#recent tbody tr")
    assert "<img src=x" in page.locator("#tree").inner_text()
    assert page.locator("#tree img").count() == 0
