"""The page of `dhyan serve` in a real browser: what it shows while it is being written and after, keys, small and dark
screens, what a screen reader meets, and sixty payloads that stay text there, in the report and in a translation's page.
"""

import json
import re

import numpy as np
import pytest
from dhyan.plot import card
from dhyan.plot.drawing import label
from dhyan.translate.translation import SOURCE_END, Translation
from helpers.browser import Browser
from helpers.payloads import PAYLOADS
from helpers.serving import SENTENCE, Slow, make_translator, serving

DONE = "document.getElementById('status').textContent.startsWith('Done.')"


@pytest.fixture(scope="module")
def translators():
    texts = [SENTENCE, "I am eating"]
    return {"model": make_translator(texts), "other": make_translator(texts, seed=2, attention="none")}


@pytest.fixture(scope="module")
def client(translators, browser):
    with serving(translators, examples=["मैं रहा हूँ", "खा"]) as found:
        yield found


def type_in(page, text, pace="0"):
    """A sentence by keyboard, at once or step by step."""
    page.run(f"document.getElementById('pace').value = '{pace}'")
    page.run("document.getElementById('text').value = ''")
    page.click("#text")
    page.type(text)
    page.press("Enter")


def test_a_sentence_word_by_word(client, translators, browser: Browser):
    page = browser.open(client.url)
    page.wait("document.activeElement.id === 'text'")  # by itself, a moment after the page is there
    assert page.run("[...document.querySelectorAll('#stop')].map((b) => getComputedStyle(b).display)") == ["none"]
    page.run("document.getElementById('beam').value = '1'")
    type_in(page, SENTENCE, pace="600")
    page.wait("document.querySelectorAll('#results section:first-child .live tbody tr').length >= 3")
    expected = translators["model"].translate(SENTENCE, beam=1)
    live = page.texts("#results section:first-child .live tbody th")
    assert live == expected.tokens[: len(live)] and page.text("#status") == "Translating …"
    assert page.texts("#results section:first-child .live thead th") == [*SENTENCE.split(), "</s>"]
    row = page.texts("#results section:first-child .live tbody tr:first-child td")
    assert row == [card.weight_text(weight) for weight in expected.weights[0]]
    assert page.text(".live .output").split() == expected.tokens[: len(page.text(".live .output").split())]
    page.run("document.getElementById('pace').value = '0'")
    page.wait(DONE)
    assert page.texts("section .output") == [t.translate(SENTENCE, beam=1).text for t in translators.values()]
    assert page.text("#status").endswith("Outputs differ.") and not page.texts(".live .scroll")
    assert page.texts("#results section:first-child tbody th") == expected.tokens
    page.click("section:first-child .outputs button:nth-child(2)")  # the card is alive
    assert page.run("document.querySelector('section:first-child .step input').value") == "2"
    assert page.problems == []
    assert {url.partition("/")[2].partition("/")[2].partition("/")[2] for url in page.requests} <= {
        "", "icon.svg", "api/translate",
    }  # fmt: skip


def test_options_reach_the_search(client, translators, browser: Browser):
    page = browser.open(client.url)
    for key, value in (("beam", 4), ("nbest", 2), ("max_length", 5)):
        page.run(f"document.getElementById('{key}').value = '{value}'")
    type_in(page, SENTENCE)
    page.wait(DONE)
    expected = translators["model"].translate(SENTENCE, beam=4, nbest=2, max_length=5)
    shown = page.texts("section:first-child .texts dd")
    assert shown == [SENTENCE, expected.text, expected.nbest[1].text]
    page.click("#search details:nth-of-type(2) summary")
    page.click("#sample")
    page.run("[document.getElementById('seed').value, document.getElementById('prefix').value] = [7, 'am']")
    type_in(page, SENTENCE)
    page.wait(DONE)
    drawn = translators["model"].translate(SENTENCE, 4, 5, 2, sample=True, seed=7, prefix="am")
    assert page.texts("section:first-child .texts dd") == [SENTENCE, drawn.text, drawn.nbest[1].text]
    page.click("#sample")
    page.run("[document.getElementById('seed').value, document.getElementById('nbest').value] = [0, 5]")
    type_in(page, SENTENCE)
    page.wait("!document.getElementById('problem').hidden")
    assert page.text("#problem") == "translate: nbest is 5, expected at most the beam of 4"
    page.click("#examples li:nth-child(2) button")
    page.run("document.getElementById('nbest').value = '1'")
    page.wait("document.getElementById('problem').hidden === false && document.getElementById('text').value === 'खा'")
    page.click("#examples li:nth-child(1) button")
    page.wait(f"{DONE} && document.getElementById('problem').hidden")
    assert page.texts("section:first-child .texts dd")[0] == "मैं रहा हूँ"


def test_escape_stops_the_work(browser: Browser):
    slow = make_translator([SENTENCE])
    slow.model = Slow(slow.model, 0.05)
    with serving({"m": slow}) as found:
        page = browser.open(found.url)
        page.run("document.getElementById('max_length').value = '2000'")
        type_in(page, SENTENCE)
        page.wait("document.querySelectorAll('.live tbody tr').length >= 2")
        page.press("Escape")
        page.wait("document.getElementById('status').textContent === 'Stopped.'")
        assert page.run("document.getElementById('stop').hidden && !document.querySelector('[aria-busy]')")
        page.run("document.getElementById('max_length').value = '3'")
        type_in(page, "खा")
        page.wait(DONE)
        assert slow.model.steps < 1000  # of 2000


def test_a_server_that_has_gone(translators, browser: Browser):
    with serving({"m": translators["model"]}) as found:
        page = browser.open(found.url)
    type_in(page, SENTENCE)
    page.wait("!document.getElementById('problem').hidden")
    assert page.text("#problem") == "The server does not answer."


def test_by_keyboard_and_screen_reader(client, browser: Browser):
    page = browser.open(client.url)
    page.wait("document.activeElement.id === 'text'")
    order = []
    for _ in range(12):
        page.press("Tab")
        order.append(page.run("document.activeElement.id || document.activeElement.textContent"))
    assert order == [
        "Translate", "मैं रहा हूँ", "खा", "Search", "beam", "nbest", "length_penalty", "coverage_penalty", "pace",
        "More options", "Sampling", "Demands",
    ]  # fmt: skip
    assert page.run("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.press("Enter")  # opens it
    page.press("Tab")
    assert page.run("document.activeElement.id") == "prefix"
    type_in(page, SENTENCE)
    page.wait(DONE)
    tree = set(page.tree())
    for role, name in (
        ("heading", "model"), ("region", "model"), ("textbox", "Sentence"), ("spinbutton", "Beam"),
        ("combobox", "Show words"), ("list", "Examples"), ("button", "Translate"), ("group", "output of other"),
        ("region", "attention weights"),
        ("table", "Weights: a row per output token, a column per source token"), ("columnheader", "खाना"),
    ):  # fmt: skip
        assert (role, name) in tree, (role, name)
    assert page.run("document.querySelector('.output').getAttribute('aria-live')") == "polite"
    nameless = [
        role for role, name in tree if role in ("button", "textbox", "spinbutton", "combobox", "link") and not name
    ]
    assert nameless == []


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_a_phone(client, browser: Browser, dark):
    page = browser.open(client.url, width=390, height=800, dark=dark)
    type_in(page, SENTENCE)
    page.wait(DONE)
    assert page.run("document.documentElement.scrollWidth") == 390
    assert page.run("document.getElementById('results').getBoundingClientRect().top < 0.7 * innerHeight")
    assert page.run("document.getElementById('search').open") is False
    page.click("#search summary")
    for k in (1, 2, 3):
        page.click(f"#search details:nth-of-type({k}) summary")
    assert page.run("document.documentElement.scrollWidth") == 390 and page.faint == []
    page.run("document.getElementById('nbest').value = '9'")
    type_in(page, SENTENCE)
    page.wait("!document.getElementById('problem').hidden")
    assert page.faint == []
    small = "[...document.querySelectorAll('form button, form input, form select, .player button')]"
    assert page.run(f"{small}.filter((e) => e.offsetParent && e.getBoundingClientRect().height < 24).length") == 0
    ground = page.run("getComputedStyle(document.querySelector('.dhyan-page')).backgroundColor")
    assert ground == ("rgb(20, 24, 31)" if dark else "rgb(255, 255, 255)")
    assert all("400" in problem for problem in page.problems)  # the browser's notes of the refusal


def test_without_script(client, translators, browser: Browser):
    page = browser.open(client.url, script=False)
    hidden = "['pace', 'stop', 'examples', 'keys'].map((id) => document.getElementById(id).offsetParent)"
    assert page.run(hidden) == [None] * 4
    page.click("#text")
    page.type(SENTENCE)
    page.click("button[type=submit]")
    page.wait("document.querySelectorAll('article').length === 2")
    assert page.texts("tbody th")[:3] == translators["model"].translate(SENTENCE).tokens[:3]


# ---------------------------------------------------------------- payloads

HITS = "window.alert = window.confirm = window.prompt = () => { document.hit = 1 }"
COUNT = "document.querySelectorAll('*').length"


def test_payloads_in_the_page(browser: Browser):
    """Typed, read back, written by the model word by word, and in the card: always the same elements."""
    words = [re.sub(r"\s+", "/", payload.replace("\x00", "")) for payload in PAYLOADS]
    hostile = make_translator(words)
    with serving({PAYLOADS[0]: hostile}, examples=[PAYLOADS[4]]) as found:
        page = browser.open(found.url)
        page.run(HITS)
        page.run("[window.typed, window.shown] = ['text', 'status'].map((id) => document.getElementById(id))")
        page.run("document.getElementById('max_length').value = '4'")
        page.run("document.getElementById('pace').value = '0'")
        counts, sources, outputs = [], [], set()
        for word in ["plain", *words]:
            page.run(f"[shown.textContent, typed.value] = ['', {json.dumps(word)}]")
            page.run("document.getElementById('ask').requestSubmit()")
            page.wait(DONE)
            unknown = page.run("document.querySelectorAll('.notes dt').length === 3")
            counts.append(page.run(f"{COUNT} - document.querySelectorAll('bdi').length") - 2 * unknown)
            sources.append(page.run("document.querySelector('.texts dd').textContent"))
            outputs |= set(page.run("[...document.querySelectorAll('.outputs button')].map((b) => b.textContent)"))
        assert set(counts) == {counts[0]} and sources == ["plain", *map(label, words)]
        assert len(outputs) >= 10 and outputs <= set(map(label, words))
        assert page.run("document.hit") is None and page.run("document.scripts.length") == 1
        assert page.problems == [] and {url[: len(found.url)] for url in page.requests} == {found.url}


def test_payloads_in_the_pages_of_translations_and_reports(browser: Browser, tmp_path):
    """One file of sixty cards, made by what makes the report and `Translation.to_html`, and a plain one beside it."""

    def opened(name, payloads):
        found = [Translation(p, [p, "b", p], [p] * 3 + [SOURCE_END], -1.0, np.full((3, 4), 0.25)) for p in payloads]
        (tmp_path / "one.html").write_text(found[0].to_html(), encoding="utf-8")
        cards = "".join(card.card_html(one.card()) for one in found)
        body = f'<main class="dhyan-page">{cards}</main>'
        (tmp_path / f"{name}.html").write_text(card.page_html(payloads[0], body), encoding="utf-8")
        pages = [browser.open((tmp_path / file).as_uri()) for file in (f"{name}.html", "one.html")]
        for page in pages:
            assert page.problems == [] and len(page.requests) == 1
        return pages

    nasty, plain = opened("nasty", PAYLOADS), opened("plain", ["a"] * len(PAYLOADS))
    for a, b in zip(nasty, plain, strict=True):
        assert a.run(COUNT) == b.run(COUNT) and a.run("document.scripts.length") == 1
        assert a.run("document.title") == PAYLOADS[0]
    shown = nasty[0].run("[...document.querySelectorAll('.outputs')].map((e) => e.firstChild.textContent)")
    assert shown == [label(payload) for payload in PAYLOADS]
