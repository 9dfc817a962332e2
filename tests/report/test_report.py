"""The report and its cards: right words and weights in real tables, everything escaped, nothing fetched.

More than 400 lines because it is one page, from its cards to its command.
"""

import base64
import hashlib
import re
from pathlib import Path

import numpy as np
import pytest
from dhyan import corpus
from dhyan.cli import main
from dhyan.errors import DataError
from dhyan.metrics.failures import FAILURES, Output, failures_of
from dhyan.model.config import ModelConfig
from dhyan.model.ensemble import Ensemble
from dhyan.model.seq2seq import Seq2Seq
from dhyan.plot import card
from dhyan.plot import curves as chart
from dhyan.plot.drawing import label
from dhyan.report import choice, page
from dhyan.report.evaluation import evaluate
from dhyan.text.pairs import Pair, read_pairs
from dhyan.text.vocabulary import Vocabulary
from dhyan.training.config import TrainConfig
from dhyan.training.loop import train
from dhyan.translate.translation import SOURCE_END, Translation
from dhyan.translate.translator import Translator, load
from helpers.document import Document
from helpers.payloads import PAYLOADS

SOURCE = ["मैं", "खाना", "खा", "रहा", "हूँ", SOURCE_END]
TARGET = ["I", "am", "eating"]
WEIGHTS = np.array([[0.9, 0.1, 0, 0, 0, 0], [0, 0, 0, 0.25, 0.75, 0], [0.05, 0.45, 0.5, 0, 0, 0]])
TAGS = {
    "html", "head", "meta", "title", "style", "script", "body", "main", "h1", "h2", "h3", "p", "section", "article",
    "header", "ul", "li", "nav", "a", "dl", "dt", "dd", "div", "button", "label", "input", "ol", "span",
    "svg", "path", "line", "polyline", "circle", "text", "table", "caption", "thead", "tbody", "tfoot", "tr", "th",
    "td",
    "figure", "figcaption", "details", "summary",
}  # fmt: skip


def check_safe(text):
    """Only known tags and attributes, one script and one style, and a policy that allows these two by their digests."""
    document = Document(text)
    assert {tag for tag, _ in document.tags} <= TAGS
    for tag, attributes in document.tags:
        assert not [
            name for name in attributes if name.startswith("on") or name in ("style", "src", "srcdoc", "action")
        ]
        assert set(attributes) & {"href"} == set() or (tag == "a" and re.fullmatch(r"#s\d+", attributes["href"]))
    (policy,) = [a["content"] for a in document.all("meta") if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; ") and "unsafe" not in policy
    for tag in ("style", "script"):
        (content,) = document.words(tag)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}';" in policy
    assert not re.search(
        r"//\w|url\(|@import|\beval\b|innerHTML", document.words("style")[0] + document.words("script")[0]
    )
    return document


# ---------------------------------------------------------------- a card


def make_card(**changes):
    return card.Card(**{"title": "t", "tokens": TARGET, "source_tokens": SOURCE, "weights": WEIGHTS} | changes)


def test_the_heat_map_is_a_table_of_all_weights():
    document = Document(card.card_html(make_card()))
    assert [a.get("scope") for a in document.all("th")] == ["col"] * 6 + ["row"] * 4
    cells = [text for where, text in document.texts if where == "td"]
    assert cells[:18] == [card.weight_text(w) for w in WEIGHTS.ravel()]
    assert cells[18:] == [f"{total:.2f}" for total in WEIGHTS.sum(axis=0)]
    shades = [a["class"] for a in document.all("td") if a.get("class")]
    assert shades == [f"w{card.level(w)}" for w in WEIGHTS.ravel()]
    (article,) = document.all("article")
    assert article["data-weights"] == "0:900,1:100;3:250,4:750;0:50,1:450,2:500"


def test_weights_in_words():
    assert [card.weight_text(w) for w in (0, 0.004, 0.006, 0.5, 0.994, 0.996, 1)] == [
        "0", "0", ".01", ".50", ".99", "1.0", "1.0",
    ]  # fmt: skip
    assert [card.level(w) for w in (-1, 0, 0.04, 0.05, 0.45, 0.5, 1, 2)] == [0, 0, 0, 1, 5, 5, 10, 10]


def test_devanagari_words_stay_whole_and_have_a_language():
    text = card.card_html(make_card(texts=[("source", " ".join(SOURCE[:-1])), ("output", "I am eating")]))
    assert all(f">{word}<" in text for word in SOURCE[:-1])
    assert '<dd lang="hi" dir="auto">मैं खाना खा रहा हूँ</dd>' in text and '<dd lang="" dir="auto">I am' in text
    assert [card.language(t) for t in ("привет", "שלום", "", "12 ?", "año", "東京")] == ["ru", "he", "", "", "", "zh"]


def test_a_card_without_output_has_no_table():
    text = card.card_html(make_card(tokens=[], weights=np.zeros((0, 6))))
    assert "The output is empty" in text and "<table" not in text and "slider" not in text
    with pytest.raises(ValueError, match=r"shape \(2, 6\), expected finite ones of shape \(T=3, S=6\)"):
        card.card_html(make_card(weights=WEIGHTS[:2]))
    with pytest.raises(ValueError, match="finite"):
        card.card_html(make_card(weights=WEIGHTS * np.nan))


def test_a_large_matrix_is_a_drawing_and_its_largest_weights():
    weights = np.random.default_rng(0).dirichlet(np.full(300, 0.02), size=200)
    text = card.card_html(make_card(tokens=["x"] * 200, source_tokens=[f"s{i}" for i in range(300)], weights=weights))
    document = Document(text)
    assert len(text) < 150_000 and len(document.all("tr")) == 200
    assert len(document.all("td")) <= 200 * card.LARGEST
    drawn = sum(a["d"].count("M") for a in document.all("path"))
    assert drawn == (weights.round(3) >= 0.05).sum()
    best = int(weights[0].argmax())
    assert document.words("td")[0] == f"s{best} {card.weight_text(weights[0, best].round(3))}"


def luminance(rgb):
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (v / 255 for v in rgb)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("mode", [0, 1], ids=["light", "dark"])
def test_every_shade_is_legible(mode):
    """WCAG 2 asks for a contrast of 4.5 between text and ground."""
    style = card.asset("card.css")
    block = re.findall(r"\.dhyan-card, \.dhyan-page \{(.*?)\}", style, re.DOTALL)[mode]
    values = dict(re.findall(r"--([\w-]+): ([^;]+);", block))

    def colour(name):
        return [int(values[name][i : i + 2], 16) for i in (1, 3, 5)]

    def contrast(a, b):
        low, high = sorted((luminance(a), luminance(b)))
        return (high + 0.05) / (low + 0.05)

    hot = [int(part) for part in values["hot"].split()]
    rules = re.findall(r"\.w(\d+) \{ background: rgb\(var\(--hot\)(?: / ([\d.]+))?\); color: var\(--([\w-]+)\)", style)
    assert [int(k) for k, _, _ in rules] == list(range(card.LEVELS + 1))
    for _, share, ink in rules:
        for paper in ("paper", "soft"):
            part = float(share or 1)
            ground = [part * h + (1 - part) * p for h, p in zip(hot, colour(paper), strict=True)]
            assert contrast(colour(ink), ground) >= 4.5, (share, ink, paper)
    for ink, paper in (("ink", "paper"), ("ink", "soft"), ("muted", "paper"), ("muted", "soft"), ("accent", "paper"),
                       ("warn", "warn-paper"), ("good", "good-paper")):  # fmt: skip
        assert contrast(colour(ink), colour(paper)) >= 4.5, (ink, paper)


# ---------------------------------------------------------------- Translation


def translation(**changes):
    return Translation(**{"text": "I am eating", "tokens": TARGET, "source_tokens": SOURCE, "score": -0.1,
                          "weights": WEIGHTS} | changes)  # fmt: skip


def test_a_translation_shows_itself():
    other = translation(text="I eat", tokens=["I", "eat"], weights=WEIGHTS[:2], score=-0.5)
    result = translation(others=(other,))
    document = check_safe(result.to_html())
    assert "2. hypothesis, score -0.500" in document.words("dt") and "I eat" in document.words("dd")
    fragment = result._repr_html_()
    assert "<html" not in fragment and fragment.count("<article") == fragment.count("<script>") == 1
    Document(fragment)
    empty = translation(text="", tokens=[], source_tokens=[SOURCE_END], weights=np.zeros((0, 1)))
    assert "The output is empty" in empty.to_html()


def test_a_translation_plots_itself():
    pytest.importorskip("matplotlib", reason="needs the extra dhyan[plot]")
    figure = translation().plot(title="खा")
    assert [tick.get_text() for tick in figure.axes[0].get_yticklabels()] == TARGET
    with pytest.raises(ValueError, match="nothing to draw"):
        translation(text="", tokens=[], weights=np.zeros((0, 6))).plot()


@pytest.mark.parametrize("nasty", PAYLOADS)
def test_what_tokens_say_is_text(nasty):
    result = translation(text=nasty, tokens=[nasty, "b", nasty], source_tokens=[nasty] * 5 + [SOURCE_END])
    result = translation(text=nasty, tokens=result.tokens, source_tokens=result.source_tokens, others=(result,))
    document = check_safe(result.to_html())
    check_no_more_tags(result.to_html(), translation(others=(translation(),)).to_html())
    assert document.words("button").count(label(nasty)) == 2
    assert document.words("dd").count(nasty.replace("\x00", "\ufffd")) == 2
    Document(result._repr_html_())


def check_no_more_tags(text, plain):
    assert [tag for tag, _ in Document(text).tags] == [tag for tag, _ in Document(plain).tags]


# ---------------------------------------------------------------- charts


def test_a_chart_says_its_numbers_as_a_table_too():
    text = chart.chart_html("<BLEU>", ["1–4", "5+"], {"a&b": [50.0, 100], "c": [None, 25.0]}, axis="words", top=100)
    document = Document(text)
    assert document.words("td") == ["50", "–", "100", "25"]
    first, second = (a["points"].split() for a in document.all("polyline"))
    assert len(first) == 2 and len(second) == 1
    assert float(first[1].split(",")[1]) == chart.TOP and float(first[0].split(",")[0]) < float(first[1].split(",")[0])
    (drawing,) = [a for a in document.all("svg") if a.get("role") == "img"]
    assert drawing["aria-label"].startswith("<BLEU>: a&b from 50 to 100; c from 25 to 25")


def test_a_chart_leaves_out_what_is_not_a_number():
    strange = [None, float("nan"), float("inf"), "7", True, 10**400, -1.0]
    text = chart.chart_html("t", list("abcdefg"), {"x": strange}, axis="epoch")
    assert Document(text).words("td") == ["–"] * 6 + ["-1"]
    assert chart.chart_html("t", ["a"], {"x": [None]}, axis="epoch") == ""
    assert chart.chart_html("t", [], {"x": []}, axis="epoch") == ""
    many = chart.chart_html("t", [str(i) for i in range(5000)], {"x": [0.5] * 5000}, axis="epoch")
    assert len(many) < 40_000 and many.count(">4999<") == 2  # on the axis and in the table


# ---------------------------------------------------------------- evidence


@pytest.mark.parametrize(
    ("value", "top"), [(-1, 1), (0, 1), (0.4, 0.4), (0.41, 0.6), (1.05, 1.2), (1.3, 1.6), (9, 10), (10, 10), (61, 80)]
)
def test_an_axis_ends_at_a_round_number(value, top):
    assert chart._round_up(value) == pytest.approx(top, rel=1e-15)
    assert all(len(f"{top * k / 4:.3g}") <= 4 for k in range(5))


@pytest.mark.parametrize(("pairs", "ranges"), [(20, 2), (39, 3), (40, 4), (120, 4), (399, 4), (400, 4), (2000, 8)])
def test_ranges_of_length_fit_the_test(pairs, ranges):
    test = choice.Sentences("t", [Pair("a " * (1 + i * 64 // pairs), "x") for i in range(pairs)])
    assert len(test.edges) == ranges


def test_lengths_are_counted_in_what_the_model_reads(folder):
    pairs = [Pair("खा गया", "x"), Pair("ab\tpos=V,per=1", "x", source_tokens=("a", "b", "pos=V", "per=1"))]
    assert choice.Sentences("t", pairs).lengths == [2, 2]
    assert choice.Sentences("t", pairs, unit="characters").lengths == [6, 4]
    translator = load(folder / "model")
    assert choice.unit_of(translator) == "words"
    vocab = Vocabulary.build(["a"], "char")
    model = Seq2Seq(ModelConfig(source_size=len(vocab), target_size=len(vocab), embedding=8, hidden=8))
    assert choice.unit_of(Translator(model, vocab, vocab)) == "characters"
    assert choice.unit_of(Translator(model, vocab, vocab, two_columns=True)) == "tokens"


def test_what_is_said_of_an_output():
    result = translation(
        source_tokens=["मैं", "eating", "खा", "रहा", "हूँ", SOURCE_END], weights=WEIGHTS[:, [0, 2, 1, 3, 4, 5]]
    )
    assert choice.copied(result) == ["eating"] and choice.copied(translation()) == []
    assert choice.alignment_note(translation()) == (
        "3 of 3 output tokens point to 3 of 5 source tokens, 1 of 3 pairs of links cross. "
        "Most weight in total: मैं 0.95, हूँ 0.75, खाना 0.55."
    )
    assert choice.alignment_note(translation(), "none").startswith("No alignment")
    only_end = translation(weights=np.tile([0, 0, 0, 0, 0, 1.0], (3, 1)))
    assert choice.alignment_note(only_end).startswith("No output token")
    gold = Output(TARGET, TARGET, WEIGHTS, 5, [(0, 0), (4, 1), (2, 2)], ((0, 0, True), (2, 2, True), (3, 1, False)))
    assert choice.gold_note(gold) == "2 of 3 links of the reference are gold ones, AER 0.2000"


@pytest.mark.parametrize(
    ("name", "output", "words"),
    [
        ("omission", Output(["I"], ["I", "eat"], WEIGHTS[:1], 5), "lacks “eat”; hardly read: “खाना”, “खा”, “रहा”, “हूँ”"),
        ("repetition", Output(["a", "b", "a", "b"], ["a", "b"]), "twice in a row: “a b”"),
        ("hallucination", Output(["x"], ["y"], WEIGHTS[:1] / 5, 5), "“x (largest weight 0.18)”"),
        ("wrong_alignment", Output(["I", "x"], ["I", "y"], WEIGHTS[[0, 0]], 5), "“x (largest weight 0.90)”"),
        ("wrong_alignment", Output(["I"], ["I"], WEIGHTS[:1], 5, [(0, 0)], ((1, 0, True),)), "gold links: “I ← मैं”"),
        ("omission", Output(["I"], ["I", "eat"]), "lacks “eat”"),
        ("hallucination", Output(["x"], ["y"]), "“x”"),
    ],
)
def test_a_failure_says_where(name, output, words):
    assert name in failures_of(output)
    notes = dict(choice.failure_notes(output, SOURCE))
    assert list(notes) == [one.replace("_", " ") for one in FAILURES]
    assert notes[name.replace("_", " ")].startswith("yes: ") and words in notes[name.replace("_", " ")]
    assert {one for one, text in notes.items() if text != "no"} == {
        one.replace("_", " ") for one in failures_of(output)
    }


def test_task_types():
    found = [choice.task_type(*one) for one in
             (("word", "word", False), ("char", "char", False), ("char", "word", False), ("word", "char", False),
              ("char", "char", True))]  # fmt: skip
    assert [words.split()[0].strip(":,") for words in found] == [
        "translation", "transliteration", "transcription", "words", "inflection",
    ]  # fmt: skip


# ---------------------------------------------------------------- the page

SMALL = {"source_size": 4, "target_size": 4, "hidden": 16, "embedding": 16}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """model, other (without attention) and test.tsv with links."""
    path = tmp_path_factory.mktemp("report")
    pairs = corpus.generate(120)
    (path / "test.tsv").write_text(corpus.to_tsv(pairs[:20]), encoding="utf-8")
    for name, attention in (("model", "additive"), ("other", "none")):
        config = ModelConfig(**SMALL, attention=attention)
        train(config, pairs[20:], pairs[:20], path / name, options=TrainConfig(epochs=2, batch=16, seed=3))
    return path


def report(folder, out, *options):
    return main(["report", str(folder / "model"), str(folder / "test.tsv"), "--out", str(out), "--beam", "2", *options])


def test_the_page(folder, tmp_path, capsys):
    out = tmp_path / "page.html"
    assert report(folder, out, "--against", str(folder / "other")) == 0
    captured = capsys.readouterr()
    text = out.read_text(encoding="utf-8")
    document = check_safe(text)
    cards = document.all("article")
    assert captured.out == f"{out}: 20 sentences, {len(cards)} cards\n" and captured.err == ""
    assert 4 <= len(cards) <= 16 and [f"#{a['id']}" for a in cards] == [a["href"] for a in document.all("a")]
    assert "weak evaluation: 20 pairs, fewer than 100" in document.words("p")
    assert len([w for w in document.words("li") if w.startswith("weak evaluation")]) == len(cards)
    assert document.words("figcaption") == ["BLEU by source length", "Loss while training", "Validation while training"]
    assert all(definition in document.words("dd") for definition in FAILURES.values())
    assert "20 sentences of 4 to 12 words" in " ".join(document.words("dd"))
    assert re.search(r"source words, \d+( to \d+)? pairs each<", text)
    assert "output of other" in document.words("dt") and "evidence: attention, additive" in document.words("li")
    result = evaluate(load(folder / "model"), read_pairs(folder / "test.tsv"), beam=2)
    rows = re.findall(r'<tr><th scope="row">(.*?)</th><td>(.*?)</td>', text)
    assert ("chrF", f"{result['chrf']:.2f}") in rows and (
        "hallucination",
        str(result["failures"]["hallucination"]),
    ) in rows
    assert ("AER", f"{result['aer']:.4f}") in rows and result["signature"] in text
    assert report(folder, tmp_path / "again.html", "--against", str(folder / "other")) == 0
    assert (tmp_path / "again.html").read_bytes() == out.read_bytes()
    assert [p.name for p in tmp_path.iterdir() if p.suffix == ".part"] == []


def test_an_ensemble(folder, tmp_path, capsys):
    """Its outputs and figures are those of evaluate --ensemble; every model is named."""
    out, more = tmp_path / "page.html", ["--ensemble", str(folder / "other"), "--against", str(folder / "other")]
    assert report(folder, out, *more) == 0
    assert capsys.readouterr().err == ""
    text = out.read_text(encoding="utf-8")
    document = check_safe(text)
    both = load([folder / "model", folder / "other"])
    result = evaluate(both, read_pairs(folder / "test.tsv"), beam=2)
    rows = re.findall(r'<tr><th scope="row">(.*?)</th><td>(.*?)</td>', text)
    assert ("chrF", f"{result['chrf']:.2f}") in rows and ("AER", f"{result['aer']:.4f}") in rows
    words = document.words("dd")
    assert both.translate(read_pairs(folder / "test.tsv")[0].source, beam=2).text in words
    for name, attention in (("model", "additive"), ("other", "none")):
        assert any(w.startswith(f"{folder / name}: attention {attention}, ") for w in words)
    assert "the mean of 2 models: attention, additive; none, the model attends to nothing" in words
    assert document.words("h1") == ["model + 1 on test.tsv"] and {"model + 1", "other"} <= set(document.words("th"))
    assert "Loss while training model" in document.words("figcaption")
    sources = tmp_path / "sources.txt"
    sources.write_text("मैं खाना खा रहा हूँ\n", encoding="utf-8")
    given = ["report", str(folder / "model"), str(sources), "--out", str(out), *more[:2]]
    assert main(given) == 0
    assert both.translate("मैं खाना खा रहा हूँ").text in Document(out.read_text(encoding="utf-8")).words("dd")


@pytest.mark.parametrize(
    "attentions, kind, attention",
    [
        (["additive"], "attention, additive", "additive"),
        (
            ["none", "uniform"],
            "the mean of 2 models: none, the model attends to nothing; none, the weights are",
            "none",
        ),
        (["none", "dot", "dot"], "the mean of 3 models: none, the model attends to nothing; attention, dot", "dot"),
    ],
)
def test_what_the_weights_of_an_ensemble_come_of(attentions, kind, attention):
    vocab = Vocabulary.build([["a"]], "word")
    sizes = dict(source_size=len(vocab), target_size=len(vocab), hidden=4, embedding=4)
    models = [Seq2Seq(ModelConfig(**sizes, attention=name)) for name in attentions]
    translator = Translator(models[0] if len(models) == 1 else Ensemble(models), vocab, vocab)
    run = choice.Run(["m"] * len(models), translator, [], training=[TrainConfig()] * len(models))
    assert choice.evidence_kind(run).startswith(kind) and run.attention == attention


def test_chosen_sentences(folder, tmp_path):
    assert report(folder, tmp_path / "a.html", "--sentences", "3", "20", "3") == 0
    ids = [a["id"] for a in Document((tmp_path / "a.html").read_text(encoding="utf-8")).all("article")]
    assert ids == ["s3", "s20"]
    assert report(folder, tmp_path / "b.html", "--choose", "first, longest", "--cards", "2") == 0
    ids = [a["id"] for a in Document((tmp_path / "b.html").read_text(encoding="utf-8")).all("article")]
    assert ids[:2] == ["s1", "s2"] and 2 <= len(ids) <= 4


def test_choices_are_what_they_say():
    pairs = [Pair("a " * n, "x y") for n in (1, 3, 2)]
    hypotheses = [["x", "y"], ["x", "x"], ["z", "z"]]
    found = [translation(source_tokens=["a"] * n + [SOURCE_END], score=-float(n)) for n in (1, 3, 2)]
    outputs = [Output(h, ["x", "y"]) for h in hypotheses]
    run, test = choice.Run(["m"], None, found, outputs), choice.Sentences("t", pairs)

    def chosen(name):
        return list(choice.choose(run, test, [name], 3))

    assert chosen("worst") == [2, 1, 0] and chosen("best") == [0, 1, 2]
    assert chosen("longest") == [1, 2, 0] and chosen("first") == [0, 1, 2]
    assert chosen("failures") == [2, 1]  # a repetition each; the first one is right
    with pytest.raises(ValueError, match="choose is 'wrost', expected one of: worst, "):
        choice.choose(run, test, ["wrost"], 1)
    with pytest.raises(DataError, match="t: got sentence 4, expected one of 1 to 3"):
        choice.choose(run, test, [], 1, [4])


def test_without_references(folder, tmp_path, capsys):
    sources = tmp_path / "sources.txt"
    sources.write_text("मैं खाना खा रहा हूँ\nलड़की\n", encoding="utf-8")
    out = tmp_path / "page.html"
    for given in ([str(sources)], ["--source", str(sources)]):
        assert main(["report", str(folder / "model"), *given, "--out", str(out)]) == 0
        assert capsys.readouterr().err == f"dhyan: {sources}: no references, so nothing is measured\n"
        document = check_safe(out.read_text(encoding="utf-8"))
        assert len(document.all("article")) == 2 and "weak evaluation: no reference" in document.words("li")
        assert "not checked: there is no reference" in document.words("dd")
        assert "target (reference)" not in document.words("dt")


def test_a_page_of_payloads(tmp_path):
    """Sources, references, names and log lines that are all hostile, through a model that can write them."""
    path = tmp_path / "<img src=x onerror=alert(1)>"
    path.mkdir()
    texts = [re.sub(r"\s+", "\u00a0", p.replace("\x00", "")) for p in PAYLOADS]
    vocab = Vocabulary.build([[t for p in texts for t in p.split()]], "word")
    model = Seq2Seq(ModelConfig(source_size=len(vocab), target_size=len(vocab), embedding=8, hidden=8), seed=1)
    pairs = [Pair(p, texts[k - 1]) for k, p in enumerate(texts)]
    translator = Translator(model, vocab, vocab)
    test = choice.Sentences("<script>alert(1)</script>.tsv", pairs)
    found = translator.translate([p.source for p in pairs], beam=1, max_length=4)
    outputs = [
        Output(f.tokens, p.target.split(), f.weights, len(f.source_tokens) - 1)
        for f, p in zip(found, pairs, strict=True)
    ]
    failures = dict.fromkeys(FAILURES, 1)
    result = {"pairs": 60, "bleu": 1.0, "chrf": 1.0, "ter": 1.0, "signature": "<b>", "exact_match": 0.0,
              "token_error_rate": 1.0, "perplexity": 1.0, "aer": None, "failures": failures,
              "by_length": [{"from": 1, "to": 9, "pairs": 60, "bleu": 1.0}]}  # fmt: skip
    log = [{"epoch": "</script><script>alert(1)", "train_loss": "<i>", "valid_loss": 1.0}]
    run = choice.Run([str(path)], translator, found, outputs, result, log)
    text, cards = page.report_html([run, run], test, beam=1, numbers=range(1, 61))
    assert cards == 60
    document = check_safe(text)
    assert len(document.all("article")) == 60 and len(document.all("script")) == 1
    shown = document.words("dd")
    assert all(p in shown for p in texts)
    assert label(texts[0].split()[0]) in document.words("span")


def test_bad_input(folder, tmp_path, capsys):
    test, out, model = folder / "test.tsv", tmp_path / "page.html", folder / "model"
    (tmp_path / "empty.tsv").write_bytes(b"")
    (tmp_path / "mixed.tsv").write_text("a b\nc\td\n", encoding="utf-8")
    (tmp_path / "bad.txt").write_bytes(b"a\n\xff\n")
    (tmp_path / "long.txt").write_text("x " * 1_000_000, encoding="utf-8")
    for code, message, arguments in (
        (1, "gone: no such model folder", ["gone", test, "--out", out]),
        (1, "gone: no such model folder", [model, test, "--against", "gone", "--out", out]),
        (1, "gone: no such model folder", [model, test, "--ensemble", "gone", "--out", out]),
        (1, "gone.tsv: no such file", [model, "gone.tsv", "--out", out]),
        (1, "empty.tsv: the file is empty", [model, tmp_path / "empty.tsv", "--out", out]),
        (1, "mixed.tsv:1: the line has 1 columns", [model, tmp_path / "mixed.tsv", "--out", out]),
        (1, "bad.txt:2:1: byte 0xff is not valid UTF-8", [model, "--source", tmp_path / "bad.txt", "--out", out]),
        (1, "longer than the limit of 1048576 bytes", [model, tmp_path / "long.txt", "--out", out]),
        (1, "the folder", [model, test, "--out", tmp_path / "none" / "page.html"]),
        (1, "is a folder", [model, test, "--out", tmp_path]),
        (1, "is the test file", [model, tmp_path / "mixed.tsv", "--out", tmp_path / "mixed.tsv"]),
        (1, "sentence 21, expected one of 1 to 20", [model, test, "--out", out, "--sentences", "21"]),
        (2, "--choose is 'wrost', expected one of: worst", [model, test, "--out", out, "--choose", "wrost"]),
        (2, "--tokenize is '13b'", [model, test, "--out", out, "--tokenize", "13b"]),
        (2, "--bad-lines is 'no'", [model, test, "--out", out, "--bad-lines", "no"]),
    ):
        assert main(["report", *map(str, arguments)]) == code
        captured = capsys.readouterr()
        assert captured.out == "" and captured.err.count("\n") == 1 and message in captured.err
        assert not out.exists()
    (tmp_path / "words.txt").write_text("x " * 501, encoding="utf-8")
    assert main(["report", str(model), str(tmp_path / "words.txt"), "--out", str(out)]) == 1
    assert "501 tokens, expected at most 500" in capsys.readouterr().err


def test_a_full_disk_is_named(tmp_path):
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full on this system")
    with pytest.raises(OSError, match="No space left") as caught:
        page.write("/dev/full", "x")
    assert caught.value.filename == "/dev/full" and Path("/dev/full").exists()


def test_bad_lines_can_be_skipped(folder, tmp_path, capsys):
    (tmp_path / "bad.txt").write_bytes("मैं\n \n".encode() + b"\xff\n")
    given = [str(folder / "model"), str(tmp_path / "bad.txt"), "--bad-lines", "skip", "--out", str(tmp_path / "p.html")]
    assert main(["report", *given]) == 0
    captured = capsys.readouterr()
    assert "2 bad lines skipped, the first" in captured.err and "1 sentences" in captured.out


def test_the_choices_of_the_command_are_those_of_the_report():
    from dhyan.cli.parser import CHOICES

    assert CHOICES == choice.CHOICES
