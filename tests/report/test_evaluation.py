"""Measuring a translator: the figures come from its own outputs and forced references; two systems on one test."""

import math

import dhyan
import numpy as np
import pytest
from dhyan.metrics.failures import FAILURES
from dhyan.model.config import ModelConfig
from dhyan.model.seq2seq import Seq2Seq
from dhyan.report.evaluation import compare, evaluate, measure, measure_texts
from dhyan.text.batch import Batch
from dhyan.text.pairs import Pair
from dhyan.text.vocabulary import Vocabulary
from dhyan.translate.translator import Translator

PAIRS = [Pair("a b c", "x y z", ((0, 0, True), (1, 1, True))), Pair("c a", "z x"), Pair("b", "y unheard")]


@pytest.fixture(scope="module")
def translator():
    source = Vocabulary.build([pair.source for pair in PAIRS], "word")
    target = Vocabulary.build([pair.target for pair in PAIRS[:2]], "word")
    sizes = {"source_size": len(source), "target_size": len(target), "embedding": 8, "hidden": 8}
    return Translator(Seq2Seq(ModelConfig(**sizes), seed=4, dtype="float64"), source, target)


def test_perplexity_is_the_models_loss(translator):
    """exp of the loss that training minimises, on all references at once: every token and every end symbol once."""
    source, target = translator.source_vocab, translator.target_vocab
    batch = Batch.from_ids([source.encode(p.source) for p in PAIRS], [target.encode(p.target) for p in PAIRS])
    loss, _ = translator.model.forward(batch)
    # Both in float64; the sentences are added in another order.
    assert evaluate(translator, PAIRS)["perplexity"] == pytest.approx(math.exp(loss), rel=1e-12)
    # A model that knows nothing: each token has about one chance in V.
    assert evaluate(translator, PAIRS)["perplexity"] == pytest.approx(len(target), rel=0.3)


def test_measured(translator):
    measured = measure(translator, PAIRS, beam=2)
    assert measured.result == evaluate(translator, PAIRS, beam=2)
    assert measured.texts == [found.text for found in measured.found]
    for found, output, pair in zip(measured.found, measured.outputs, PAIRS, strict=True):
        assert list(output.hypothesis) == found.tokens and list(output.reference) == pair.target.split()
        np.testing.assert_array_equal(output.weights, found.weights)
        assert output.gold == pair.links and output.source_size == len(found.source_tokens) - 1


def test_evaluate_takes_a_folder_and_a_file(tmp_path):
    """The same figures by whatever way model and pairs come."""
    test, folder = tmp_path / "test.tsv", tmp_path / "model"
    test.write_text("".join(f"{pair.source}\t{pair.target}\n" for pair in PAIRS), encoding="utf-8")
    pairs = [dhyan.Pair(pair.source, pair.target) for pair in PAIRS]
    sizes = {"source_size": 4, "target_size": 4, "embedding": 4, "hidden": 4}
    dhyan.train(ModelConfig(**sizes), pairs, pairs, folder, options=dhyan.TrainConfig(epochs=1))
    expected = evaluate(dhyan.load(folder), pairs, beam=1)
    assert expected["pairs"] == 3
    for model in (folder, str(folder), dhyan.load(folder)):
        assert dhyan.evaluate(model, test, beam=1) == dhyan.evaluate(model, pairs, beam=1) == expected
    swapped = dhyan.evaluate(folder, test, beam=1, columns="2:1")
    assert swapped == evaluate(dhyan.load(folder), [dhyan.Pair(p.target, p.source) for p in pairs], beam=1)
    with pytest.raises(TypeError, match=r"pair 0 is a tuple, expected dhyan\.Pair"):
        dhyan.evaluate(folder, [("a", "x")])
    with pytest.raises(dhyan.CheckpointError):
        dhyan.evaluate(tmp_path / "none", test)


def test_texts_from_elsewhere():
    measured = measure_texts(["x y z", "z", ""], PAIRS)
    result = measured.result
    assert result["perplexity"] is None and result["aer"] is None and measured.found == []
    assert result["exact_match"] == pytest.approx(1 / 3) and result["token_error_rate"] == pytest.approx(3 / 7)
    assert result["failures"] == dict.fromkeys(FAILURES, 0) | {"omission": 2}
    spelled = measure_texts(["x y z", "z", ""], PAIRS, vocab=Vocabulary.build(["xyz "], "char"))
    assert spelled.result["token_error_rate"] == pytest.approx((2 + 9) / (5 + 3 + 9))
    with pytest.raises(ValueError, match=r"shorter|longer"):
        measure_texts(["x"], PAIRS)


def test_two_systems(translator):
    one, two = measure(translator, PAIRS, beam=1), measure_texts([pair.target for pair in PAIRS], PAIRS)
    measures = compare(one, two, PAIRS)["measures"]
    assert measures["exact_match"]["score"] == one.result["exact_match"] and measures["exact_match"]["against"] == 1
    assert measures["token_error_rate"]["score"] == pytest.approx(one.result["token_error_rate"])
    assert compare(two, two, PAIRS)["measures"]["exact_match"]["p_value"] == 1


def test_references_have_the_form_of_the_first_system():
    """A model of NFKC text is compared in it: ﬁ is fi."""
    vocab = Vocabulary.build(["fi x"], "word", normalization="nfkc")
    pairs = [Pair("a", "ﬁ x")]
    one = measure_texts(["fi x"], pairs, vocab=vocab)
    assert one.result["exact_match"] == 1 and compare(one, one, pairs)["measures"]["exact_match"]["score"] == 1
    assert compare(measure_texts(["fi x"], pairs), one, pairs)["measures"]["exact_match"]["score"] == 0
