"""The report in a real browser, without network: pointer, slider, keyboard, narrow screens, dark mode, no script."""

import itertools
import json
import re
from dataclasses import replace

import numpy as np
import pytest
from dhyan import corpus
from dhyan.cli import main
from dhyan.model.config import ModelConfig
from dhyan.plot import card
from dhyan.training.config import TrainConfig
from dhyan.training.loop import train
from dhyan.translate.translation import SOURCE_END, Translation
from helpers.browser import Browser, Page

SOURCE = ["मैं", "खाना", "खा", "रहा", "हूँ", SOURCE_END]
TARGET = ["I", "am", "eating"]
WEIGHTS = np.array([[0.9, 0.1, 0, 0, 0, 0], [0, 0, 0, 0.25, 0.75, 0], [0.05, 0.45, 0.5, 0, 0, 0]])


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """card.html, a translation's own page; report.html, of two models."""
    path = tmp_path_factory.mktemp("pages")
    translation = Translation("I am eating", TARGET, SOURCE, -0.1, WEIGHTS)
    (path / "card.html").write_text(translation.to_html(), encoding="utf-8")
    # As wide as pages get: a long word that cannot be broken, and long sentences.
    wide = replace(
        translation, tokens=["w" * 60, *map(str, range(59))], source_tokens=["मैं" * 30, *SOURCE * 4],
        weights=np.random.default_rng(0).dirichlet(np.full(25, 0.1), 60),
    )  # fmt: skip
    (path / "wide.html").write_text(wide.to_html(), encoding="utf-8")
    pairs = corpus.generate(180)
    (path / "test.tsv").write_text(corpus.to_tsv(pairs[:60]), encoding="utf-8")
    for name, attention in (("model", "additive"), ("other", "none")):
        config = ModelConfig(source_size=4, target_size=4, hidden=16, embedding=16, attention=attention)
        train(config, pairs[60:], pairs[:60], path / name, options=TrainConfig(epochs=2, batch=16, seed=3))
    arguments = [str(path / "model"), str(path / "test.tsv"), "--against", str(path / "other"), "--beam", "1"]
    assert main(["report", *arguments, "--out", str(path / "report.html"), "--cards", "2"]) == 0
    return path


def opened(browser: Browser, pages, name: str, **options) -> Page:
    return browser.open((pages / name).as_uri(), **options)


def state(page: Page) -> dict:
    """What the first card shows."""
    return json.loads(page.run("""(() => {
      const card = document.querySelector(".dhyan-card"), all = (s) => [...card.querySelectorAll(s)];
      return JSON.stringify({
        step: card.querySelector(".at").textContent,
        current: all(".outputs .current").map((e) => e.textContent),
        later: all(".outputs .later").map((e) => e.textContent),
        weights: all(".sources .now").map((e) => e.textContent),
        lit: all(".sources li").map((e) => Number(e.className.match(/w(\\d+)/)[1])),
        outputs: all(".outputs button").map((e) => Number((e.className.match(/w(\\d+)/) || [0, -1])[1])),
        row: all("tbody tr.current th").map((e) => e.textContent),
        focus: card.querySelector(".focus").textContent, path: card.querySelector(".path").textContent,
        told: card.querySelector("input").getAttribute("aria-valuetext"),
      });
    })()"""))  # fmt: skip


FIRST = {
    "step": "1", "current": ["I"], "later": ["am", "eating"], "weights": [".90", ".10", "0", "0", "0", "0"],
    "lit": [9, 1, 0, 0, 0, 0], "outputs": [-1, -1, -1], "row": ["I"], "focus": "I reads मैं 90\u00a0%, खाना 10\u00a0%",
    "path": "Most focus so far: मैं", "told": "step 1 of 3: I reads मैं 90\u00a0%, खाना 10\u00a0%",
}  # fmt: skip


def test_hovering_a_word_lights_up_its_sources(browser, pages):
    page = opened(browser, pages, "card.html")
    assert state(page) == FIRST
    page.hover(".outputs button:nth-child(3)")
    seen = state(page)
    assert seen["lit"] == [1, 5, 5, 0, 0, 0] and seen["current"] == ["eating"] and seen["row"] == ["eating"]
    assert seen["focus"] == "eating reads खा 50\u00a0%, खाना 45\u00a0%, मैं 5\u00a0%"
    page.hover(".sources li:nth-child(1)")  # and a source word the outputs that read it
    assert state(page)["outputs"] == [9, 0, 1]
    page.hover("h3")
    assert state(page) == FIRST
    assert page.problems == [] and page.requests == [(pages / "card.html").as_uri()]


def test_the_slider_steps_through_the_decoding(browser, pages):
    page = opened(browser, pages, "card.html")
    page.run("document.querySelector('.player input').focus()")
    page.press("ArrowRight")
    assert state(page) == {
        "step": "2", "current": ["am"], "later": ["eating"], "weights": ["0", "0", "0", ".25", ".75", "0"],
        "lit": [0, 0, 0, 3, 8, 0], "outputs": [-1, -1, -1], "row": ["am"], "path": "Most focus so far: मैं → हूँ",
        "focus": "am reads हूँ 75\u00a0%, रहा 25\u00a0%",
        "told": "step 2 of 3: am reads हूँ 75\u00a0%, रहा 25\u00a0%",
    }  # fmt: skip
    page.press("End")
    assert state(page)["step"] == "3" and state(page)["path"].endswith("मैं → हूँ → खा")
    page.click(".back")
    page.click(".back")
    page.click(".back")  # there is nothing before the first
    assert state(page)["step"] == "1"
    page.click(".forth")
    assert state(page)["step"] == "2"


def test_by_keyboard_alone(browser, pages):
    """Tab goes back, slider, forth, one output word, the scrolling table; arrows go from word to word."""
    page = opened(browser, pages, "card.html")
    where = "(document.activeElement.className || document.activeElement.type) + document.activeElement.ariaLabel"
    seen = []
    for _ in range(5):
        page.press("Tab")
        seen.append(page.run(where))
    assert [re.split(r"[ n]", one)[0] for one in seen] == ["backo", "ra", "fortho", "curre", "scrollatte"]
    page.press("Tab", shift=True)
    page.press("ArrowRight")
    assert page.run("document.activeElement.textContent") == "am" and state(page)["current"] == ["am"]
    page.press("End")
    page.press("ArrowRight")  # stays at the last
    assert state(page)["current"] == ["eating"]
    outline = "getComputedStyle(document.activeElement).outlineStyle"
    assert page.run(outline) == "solid"  # where the focus is can be seen
    page.press("Tab")
    page.press("Tab", shift=True)
    assert page.run("document.activeElement.textContent") == "eating"  # and it comes back to the same word


def test_what_a_screen_reader_meets(browser, pages):
    page = opened(browser, pages, "report.html")
    tree = page.tree()
    names = {role: [name for r, name in tree if r == role] for role, _ in tree}
    assert names["main"] == [""] and names["navigation"] == ["sentences"]
    headings = names["heading"]
    assert headings[1:4] == ["Model and data", "Figures", "Curves"] and headings[0] == "model on test.tsv"
    levels = page.run("[...document.querySelectorAll('h1,h2,h3,h4')].map((h) => Number(h.tagName[1]))")
    assert levels[0] == 1 and all(b <= a + 1 for a, b in itertools.pairwise(levels))
    assert len(names["article"]) == len(names["slider"]) == len([h for h in headings if h.startswith("Sentence ")])
    assert [role for role in ("slider", "button", "image", "link", "table") if not all(names[role])] == []
    assert all(re.fullmatch(r"Step 1 of \d+", name) for name in names["slider"])
    assert any(name.startswith("BLEU by source length: model from ") for name in names["image"])
    assert "weak evaluation: 60 pairs, fewer than 100" in page.texts("p.warning")
    values = page.run("[...document.querySelectorAll('input')].map((e) => e.getAttribute('aria-valuetext'))")
    assert all(re.match(r"step 1 of \d+: .* reads ", value) for value in values)
    assert page.run("document.documentElement.lang") == "en"
    assert set(page.run("[...document.querySelectorAll('.sources')].map((e) => e.lang)")) == {"hi"}
    assert page.problems == [] and page.requests == [(pages / "report.html").as_uri()]


@pytest.mark.parametrize("name", ["card.html", "report.html", "wide.html"])
@pytest.mark.parametrize("width", [320, 390, 1100])
def test_nothing_sticks_out_of_the_screen(browser, pages, name, width):
    """The page never scrolls sideways; wider tables do so in a box of their own, which the keyboard reaches."""
    page = opened(browser, pages, name, width=width)
    assert page.run("document.documentElement.scrollWidth") == width
    inside = """[...document.querySelectorAll("body *")].filter((e) => {
      if (e.closest(".scroll, svg, [hidden], details")) return false;
      const r = e.getBoundingClientRect();
      return r.width > 0 && (r.right > innerWidth + 0.5 || r.left < -0.5);
    }).map((e) => e.outerHTML.slice(0, 80))"""
    assert page.run(inside) == []
    boxes = (
        "[...document.querySelectorAll('.scroll')].filter((e) => e.scrollWidth > e.clientWidth).map((e) => e.tabIndex)"
    )
    assert set(page.run(boxes)) <= {0}
    small = """[...document.querySelectorAll("button, input, a")].filter((e) => e.getBoundingClientRect().height < 24)
      .map((e) => e.outerHTML)"""
    assert page.run(small) == []  # a finger's target: 24 pixels at least (WCAG 2.5.8)


@pytest.mark.parametrize("dark", [False, True])
def test_every_text_is_legible(browser, pages, dark):
    """Contrast of at least 4.5 (WCAG 1.4.3), measured on what the browser paints."""
    for name in ("card.html", "report.html"):
        page = opened(browser, pages, name, dark=dark)
        light = page.run("getComputedStyle(document.documentElement).backgroundColor")
        assert light == ("rgb(20, 24, 31)" if dark else "rgb(255, 255, 255)")
        assert page.faint == []


def test_devanagari_is_shaped(browser, pages):
    """Vowel signs and conjuncts join: a word is narrower than its letters side by side."""
    page = opened(browser, pages, "card.html")
    measured = """(words) => {
      const pen = document.createElement("canvas").getContext("2d");
      pen.font = getComputedStyle(document.querySelector(".sources .token")).font;
      return words.map((word) => pen.measureText(word).width);
    }"""
    missing, *letters = page.run(f"({measured})(['\u0378', 'क', 'ण', 'र'])")  # the first is no character at all
    if letters == [missing] * 3:
        pytest.skip("no font here has Devanagari")
    for word in ("हूँ", "मित्र", "दिल्ली", "अच्छी"):
        whole, *parts = page.run(f"({measured})({json.dumps([word, *word])})")
        assert 0 < whole < 0.9 * sum(parts)


def test_without_its_script_a_card_is_a_table(browser, pages):
    page = opened(browser, pages, "card.html", script=False)
    page.send("Emulation.setScriptExecutionDisabled", value=False)  # to ask
    assert page.run("document.querySelector('.player').checkVisibility()") is False
    cells = page.texts("tbody td")
    assert cells == [card.weight_text(weight) if weight else "" for weight in WEIGHTS.ravel()]


def test_a_report_shows_two_models(browser, pages):
    page = opened(browser, pages, "report.html")
    head = page.texts("thead th")
    assert head[:5] == ["measure", "model", "other", "p", "better"]
    assert page.texts("figcaption")[0].split() == ["BLEU", "by", "source", "length", "model", "other"]
    assert page.run("document.querySelectorAll('figure:first-child circle.second').length") >= 3
    assert "output of other" in page.texts("dt")
    page.click(".jump a")  # a link goes to its card
    assert page.run("document.querySelector(location.hash).getBoundingClientRect().top") < 200
