"""The server of `dhyan serve`: what it answers, what it refuses, and that it goes on after every refusal."""

import base64
import hashlib
import json
import re
import urllib.parse
from pathlib import Path

import numpy as np
import pytest
from helpers.document import Document
from helpers.payloads import PAYLOADS
from helpers.serving import JSON, SENTENCE, make_translator, serving

pytest.importorskip("starlette", reason="needs the extra dhyan[serve]")
pytest.importorskip("uvicorn", reason="needs the extra dhyan[serve]")

FORM = {"content-type": "application/x-www-form-urlencoded"}


@pytest.fixture(scope="module")
def translator():
    return make_translator([SENTENCE, "I am eating"])


@pytest.fixture(scope="module")
def client(translator):
    other = make_translator([SENTENCE, "I am eating"], seed=2, attention="none")
    with serving({"model": translator, "other": other}, examples=["मैं खाना", "<b>"]) as found:
        yield found


# ---------------------------------------------------------------- answers


@pytest.mark.parametrize(
    "given",
    [
        {}, {"beam": 1}, {"beam": 4, "nbest": 3}, {"max_length": 3, "nbest": 2},
        {"length_penalty": 0.5, "length_form": "gnmt", "coverage_penalty": 0.2, "nbest": 5},
        {"min_length": 4, "max_length": 6, "no_repeat_ngram": 2, "no_unknown": True},
        {"sample": True, "seed": 7, "temperature": 0.7, "top_k": 3, "top_p": 0.9, "nbest": 3},
        {"prefix": "am I", "constraints": ["eating", "I am"]}, {"replace_unknown": True},
    ],
)  # fmt: skip
def test_the_end_point_gives_what_the_library_gives(client, translator, given):
    expected = translator.translate(SENTENCE, **given)
    found = client.ask(text=SENTENCE, **given)
    assert (found["text"], found["tokens"], found["score"]) == (expected.text, expected.tokens, expected.score)
    assert found["source_tokens"] == expected.source_tokens and found["model"] == "model" and found["unknown"] == []
    np.testing.assert_allclose(found["weights"], expected.weights, rtol=0, atol=0.51e-6)  # six decimals
    assert found["nbest"] == [other.to_dict() for other in expected.nbest]
    assert found["seconds"] > 0 and "card" not in found


def test_steps_of_every_kind_of_search(client, translator):
    """What is shown on the way need not be what wins, but it is words of the vocabulary, and what was read for each."""
    for given in (
        {"sample": True, "nbest": 3, "seed": 1},
        {"replace_unknown": True},
        {"prefix": "am I", "constraints": ["eating"]},
        {"beam": 5},
    ):
        _, *steps, last = client.stream(text=SENTENCE, max_length=8, **given)
        assert last["result"]["nbest"] == client.ask(text=SENTENCE, max_length=8, **given)["nbest"]
        tokens, weights = replayed(steps)
        assert set(tokens) <= set(translator.target_vocab.tokens) and len(tokens) == 7
        np.testing.assert_allclose(np.sum(weights, axis=1), 1, rtol=0, atol=1e-5)  # six decimals each
    for stream in (True, False):
        body = json.dumps({"text": "a", "prefix": "zzz", "stream": stream})
        status, message = client.refused("POST", "/api/translate", body, JSON)
        assert status == 400 and "zzz" in message


def test_pieces_of_words():
    pytest.importorskip("sentencepiece", reason="needs the extra dhyan[text]")
    from dhyan.text.subword import SubwordVocabulary

    pieces = SubwordVocabulary.train([SENTENCE, "I am eating"] * 20)
    with serving({"m": make_translator([], vocabulary=pieces)}) as found:
        first, *steps, last = found.stream(text=SENTENCE, beam=1, max_length=9, card=True)
        assert first["source_tokens"][:-1] == pieces.tokenize(SENTENCE) and len(steps) == 8
        assert steps[-1]["text"] == pieces.join(replayed(steps)[0]) and last["result"]["card"]
        assert "at most 500 tokens" in found.send("GET", "/")[2].decode().lower()


def test_every_step_comes_as_a_line(client, translator):
    first, *steps, last = client.stream(text=SENTENCE, beam=1, max_length=12)
    expected = translator.translate(SENTENCE, beam=1, max_length=12)
    assert first["source_tokens"] == expected.source_tokens and first["lang"] == "hi"
    assert [step["step"] for step in steps] == list(range(1, len(steps) + 1)) and len(steps) >= 5
    tokens, weights = replayed(steps)
    count = len(steps)
    assert tokens == expected.tokens[:count] and len(expected.tokens) - count in (
        0,
        1,
    )  # the last comes with the result
    np.testing.assert_allclose(weights, expected.weights[:count], rtol=0, atol=0.51e-6)
    assert steps[-1]["text"] == " ".join(tokens) and all(step["keep"] == step["step"] - 1 for step in steps)
    assert last["result"]["text"] == expected.text and "card" not in last["result"]


def replayed(steps):
    tokens, weights = [], []
    for step in steps:
        tokens[step["keep"] :], weights[step["keep"] :] = step["tokens"], step["weights"]
        assert len(tokens) == len(weights) == step["step"]
    return tokens, weights


def test_the_other_model_and_an_empty_sentence(client):
    assert client.ask(text=SENTENCE, model="other")["model"] == "other"
    assert client.ask(text=SENTENCE, model="other")["tokens"] != client.ask(text=SENTENCE)["tokens"]
    for lines in (client.stream(text=" \n "), [{"result": client.ask(text="")}]):
        found = lines[-1]["result"]
        assert (found["text"], found["tokens"], found["source_tokens"]) == ("", [], ["</s>"])
    assert client.ask(text="foo खाना\nbar")["unknown"] == ["foo", "bar"]
    assert client.ask(text=SENTENCE, beam=2.0, card=True)["card"].startswith('<article class="dhyan-card"')


def test_the_page_names_what_is_sent(client):
    text = (Path(__file__).parents[2] / "docs" / "serve.md").read_text(encoding="utf-8")
    table = text[text.index("| `POST /api/translate`") :].split("\n\n")[0]
    for key in (*client.ask(text=SENTENCE), "keep", "step", "result", "error", "prefix", "constraints", "stream"):
        assert re.search(rf"\b{key}\b", table), key


def test_what_can_be_asked_for(client):
    status, headers, body = client.send("GET", "/api/models")
    found = json.loads(body)
    assert status == 200 and headers["content-type"] == "application/json"
    assert [model["name"] for model in found["models"]] == ["model", "other"]
    assert found["models"][1]["attention"] == "none" and found["models"][0]["max_source"] == 500
    (beam,) = [option for option in found["options"] if option["key"] == "beam"]
    assert (beam["default"], beam["expected"]) == (5, "an integer from 1 to 32") and beam["what"].startswith("Beam: ")


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("", "translate: the body is not JSON: Expecting value"),
        ("{", "translate: the body is not JSON"),
        (b"\xff", "translate: byte 0 of the body is not UTF-8"),
        ("[" * 100_000, "translate: the body is nested too deeply"),
        ('{"text": "a", "beam": ' + "9" * 5000 + "}", "translate: the body holds a number of too many digits"),
        ("[1]", "translate: the body is [1], expected a JSON object with the key 'text'"),
        ("null", "translate: the body is null, expected a JSON object"),
        ("{}", "translate: the key 'text' is missing, expected a string"),
        ('{"text": 3}', "translate: text is 3, expected a string"),
        ('{"text": null}', "translate: text is null, expected a string"),
        ('{"text": ["a"]}', 'translate: text is ["a"], expected a string'),
        ('{"text": "a\\u0000b"}', "translate: text holds NUL at character 1"),
        ('{"text": "a\\ud800"}', "translate: text holds a lone surrogate at character 1"),
        ('{"text": "a", "text": "b"}', 'translate: the key "text" stands twice'),
        ('{"text": "a", "beem": 3}', 'translate: unknown key "beem", did you mean: beam'),
        ('{"text": "a", "<script>": 3}', 'translate: unknown key "<script>", did you mean'),
        ('{"text": "a", "beam": 0}', "translate: beam is 0, expected an integer from 1 to 32"),
        ('{"text": "a", "beam": 33}', "translate: beam is 33, expected an integer from 1 to 32"),
        ('{"text": "a", "beam": 1e300}', "translate: beam is 1000"),
        ('{"text": "a", "beam": 2.5}', "translate: beam is 2.5, expected an integer from 1 to 32"),
        ('{"text": "a", "beam": true}', "translate: beam is true, expected an integer"),
        ('{"text": "a", "beam": "5"}', 'translate: beam is "5", expected an integer'),
        ('{"text": "a", "beam": NaN}', "translate: the body holds NaN, which is not JSON"),
        ('{"text": "a", "beam": 1e999}', "translate: beam is Infinity, expected an integer"),
        ('{"text": "a", "nbest": 6}', "translate: nbest is 6, expected at most the beam of 5"),
        ('{"text": "a", "max_length": 10000}', "translate: max_length is 10000, expected an integer from 1 to 2000"),
        ('{"text": "a", "stream": 1}', "translate: stream is 1, expected true or false"),
        ('{"text": "a", "model": "modle"}', 'translate: model is "modle", expected one of: model, other'),
        ('{"text": "a", "model": 1}', "translate: model is 1, expected one of: model, other"),
    ],
)  # fmt: skip
def test_bad_requests(client, body, message):
    status, got = client.refused("POST", "/api/translate", body, JSON)
    assert status == 400 and got.startswith(message) and len(got) < 300
    assert client.ask(text=SENTENCE)["tokens"]


def test_a_million_tokens_are_refused_with_the_limit(client):
    for stream in (False, True):
        for count, status, message in (
            (1_000_000, 413, "longer than the limit of 1048576 bytes (a sentence has at most 500 tokens)"),
            (100_000, 400, "translate: the source has 100000 tokens, expected at most 500"),
            (501, 400, "translate: the source has 501 tokens, expected at most 500"),
        ):
            body = json.dumps({"text": "x " * count, "stream": stream})
            got = client.refused("POST", "/api/translate", body, JSON)
            assert got[0] == status and message in got[1]
    assert client.refused("POST", "/api/translate", iter([b"x" * 65536] * 40), JSON)[0] == 413  # of unknown length
    assert client.ask(text="x " * 500)["unknown"] == ["x"] * 500


@pytest.mark.parametrize(
    ("method", "path", "status", "message"),
    [
        ("GET", "/nope", 404, "nothing at '/nope', expected one of: /, "),
        ("GET", "/../../etc/passwd", 404, "nothing at"),
        ("GET", "/%00%0a<script>", 404, "nothing at"),
        ("GET", "/api/translate/", 404, "nothing at"),
        ("GET", "/api/translate", 405, "/api/translate: got GET, expected POST"),
        ("PUT", "/", 405, "/: got PUT, expected GET or HEAD or POST"),
        ("OPTIONS", "/api/translate", 405, "/api/translate: got OPTIONS, expected POST"),
    ],
)
def test_other_addresses_and_methods(client, method, path, status, message):
    got = client.refused(method, path, b"x" * 300_000 if method == "PUT" else None)
    assert got[0] == status and got[1].startswith(message)
    assert client.send("HEAD", "/")[0] == 200


@pytest.mark.parametrize("kind", [None, "text/plain", "application/x-www-form-urlencoded", "multipart/form-data"])
def test_only_json_is_json(client, kind):
    """A page of another site may send forms and plain text without asking first; JSON it may not."""
    body, headers = json.dumps({"text": SENTENCE}), {} if kind is None else {"content-type": kind}
    status, message = client.refused("POST", "/api/translate", body, headers)
    assert status == 415 and "expected application/json" in message


# ---------------------------------------------------------------- the page


def posted(client, **fields):
    status, headers, body = client.send("POST", "/", urllib.parse.urlencode(fields), FORM)
    assert headers["content-type"] == "text/html; charset=utf-8"
    return status, Document(body.decode())


def test_the_page_allows_itself_and_nothing_else(client):
    status, headers, body = client.send("GET", "/")
    document, policy = Document(body.decode()), headers["content-security-policy"]
    assert status == 200
    for tag in ("style", "script"):
        (content,) = document.words(tag)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}';" in policy
        assert not re.search(r"https?:|url\(|@import|\beval\b|innerHTML|document\.write", content)
    assert re.sub(r"'sha256-[^']*'", "#", policy) == (
        "default-src 'none'; style-src #; script-src #; connect-src 'self'; img-src 'self'; form-action 'self'; "
        "base-uri 'none'; frame-ancestors 'none'"
    )
    addresses = [a[name] for _, a in document.tags for name in ("href", "src", "action") if name in a]
    assert addresses == ["/icon.svg", "/"]
    assert client.send("GET", "/icon.svg")[1]["content-type"].startswith("image/svg+xml")
    labelled = {a["for"] for a in document.all("label")}
    assert labelled == {a["id"] for tag in ("textarea", "input", "select") for a in document.all(tag)}
    assert document.words("button") == ["Translate", "Stop", "मैं खाना", "<b>"]


def test_the_form_works_without_script(client):
    status, document = posted(client, text=SENTENCE, beam="3", nbest="2", max_length="")
    assert status == 200 and len(document.all("article")) == 2
    assert document.words("textarea")[0] == SENTENCE
    assert client.ask(text=SENTENCE, beam=3)["text"] in document.words("dd")
    assert [a["value"] for a in document.all("input") if a.get("name") in ("beam", "nbest")] == ["3", "2"]
    for fields, message in (
        ({"text": "a", "beam": "many"}, 'translate: beam is "many", expected an integer from 1 to 32'),
        ({"text": "a", "<b>": "1"}, 'translate: unknown key "<b>"'),
        ({"text": "x " * 501}, "translate: the source has 501 tokens"),
    ):
        status, document = posted(client, **fields)
        assert status == 400 and not document.all("article")
        assert any(message in text for text in document.words("p"))
    status, _, body = client.send("POST", "/", b"text=%ff", FORM)
    assert status == 400 and "expected UTF-8" in body.decode()
    assert client.send("POST", "/", "text=a", {"content-type": "text/plain"})[0] == 415


def test_two_columns(client):
    two = make_translator(["a b c", "[pos=V]"])
    two.two_columns = True
    with serving({"m": two}) as found:
        assert found.ask(text="ab\tpos=V")["source_tokens"] == ["a", "b", "[pos=V]", "</s>"]
        status, document = posted(found, text="ab", second="pos=V")
        assert status == 200 and len(document.all("article")) == 1
        assert [a["value"] for a in document.all("input") if a.get("id") == "second"] == ["pos=V"]
        status, message = found.refused("POST", "/api/translate", json.dumps({"text": "ab"}), JSON)
        assert status == 400 and "expected two filled ones and one TAB" in message


def test_payloads_are_text():
    """As sentences, words, unknown words, examples and names, on the page and in every answer."""
    words = [re.sub(r"\s+", "/", payload.replace("\x00", "")) for payload in PAYLOADS]
    hostile = make_translator(words)
    names = {"<script>alert(1)</script>": hostile, '"><img src=x onerror=alert(1)>': hostile}
    with serving(names, examples=PAYLOADS[:8]) as found:
        _, plain = posted(found, text="a b", max_length="4")
        tags = sorted({tag for tag, _ in plain.tags})
        for payload, word in zip(PAYLOADS, words, strict=True):
            status, document = posted(found, text=f"{payload} {word}".replace("\x00", ""), max_length="4")
            assert status == 200 and sorted({tag for tag, _ in document.tags}) == tags
            for _, attributes in document.tags:
                assert not [name for name in attributes if name.startswith("on") or name in ("style", "src", "srcdoc")]
            assert f"{payload} {word}".replace("\x00", "").strip() in document.words("textarea")[0]
            assert len(document.all("script")) == 1 and document.words("h2") == list(names)
            line = found.stream(text=word, card=True, max_length=4)[-1]["result"]
            assert word in line["source_tokens"] and Document(line["card"]).all("article")
        assert found.refused("POST", "/api/translate", json.dumps({"text": "a\0"}), JSON)[0] == 400
