"""The built-in corpus: hand-checked sentences, agreement rules written without looking at the generator, gold links.

Longer than other test files because the hand-checked sentences are meant to be read beside the rules.
"""

from __future__ import annotations

import itertools
import os
import re
import subprocess
import sys
import unicodedata
from collections import Counter

import pytest
from dhyan import corpus
from dhyan.corpus.meaning import Clause, NounPhrase
from dhyan.text.pairs import Pair

SIZE = 20_000


def words_of(text: str) -> set[str]:
    return set(unicodedata.normalize("NFC", text).split())


BOTH = ("hi-en", "en-es")
EN_FUNCTION = words_of("a an the am are is was were will do does did to there it ?")
EN_MAYBE = words_of("in on at to do")  # "in the garden" but in the morning, "to the boy" but to school, do support
ES_FUNCTION = words_of("el la los las un una le les por ¿ ? hay había con")
ES_MAYBE = words_of("a al con voy vas va vamos van")  # "a" of the recipient, "con" a friend, "voy" as the main verb
ES_BE = words_of(
    "soy eres es somos son era eras éramos eran estoy estás está estamos están estaba estabas estábamos estaban"
)


@pytest.fixture(scope="module")
def generated() -> dict[str, list[Pair]]:
    """Single sentences and sentences of up to three clauses, for both language pairs."""
    return {
        languages: corpus.generate(SIZE, languages=languages)
        + corpus.generate(4_000, languages=languages, clauses=(2, 3))
        for languages in BOTH
    }


def np(noun: str, determiner: str = "", *, plural: bool = False, count: int = 0, adjective: str = "") -> NounPhrase:
    return NounPhrase(noun, plural or count > 1, determiner, count, adjective)


def do(verb: str, tense: str, subject: NounPhrase, thing: NounPhrase | None = None, **more: object) -> Clause:
    return Clause("action", tense, subject, verb, thing, **more)  # type: ignore[arg-type]


ME, YOU, HE, SHE, WE, THEY = (np(word) for word in ("I", "you", "he", "she", "we", "they"))
GOLDEN = [
    (do("eat", "progressive", ME), "मैं खाना खा रहा हूँ", "I am eating", "estoy comiendo"),
    (do("eat", "progressive", np("I (f)")), "मैं खाना खा रही हूँ", "I am eating", "estoy comiendo"),
    (
        do("eat", "progressive", ME, np("apple", "a")),
        "मैं सेब खा रहा हूँ",
        "I am eating an apple",
        "estoy comiendo una manzana",
    ),
    (
        do("eat", "progressive", ME, np("apple", "a"), negated=True),
        "मैं सेब नहीं खा रहा हूँ",
        "I am not eating an apple",
        "no estoy comiendo una manzana",
    ),
    (do("eat", "want", ME), "मैं खाना खाना चाहता हूँ", "I want to eat", "quiero comer"),
    (do("eat", "past", ME), "मैंने खाना खाया", "I ate", "comí"),
    (
        do("eat", "past", np("girl", "the"), np("mango", count=2, adjective="sweet"), place="in the garden"),
        "लड़की ने बगीचे में दो मीठे आम खाए",
        "the girl ate two sweet mangoes in the garden",
        "la muchacha comió dos mangos dulces en el jardín",
    ),
    (
        do("eat", "past", np("girl", "the"), np("banana", count=2, adjective="sweet"), place="in the garden"),
        "लड़की ने बगीचे में दो मीठे केले खाए",
        "the girl ate two sweet bananas in the garden",
        "la muchacha comió dos plátanos dulces en el jardín",
    ),
    (
        do("play", "future", YOU, np("cricket"), companion=np("friend", "own"), time="tomorrow", question="yes/no"),
        "क्या तुम कल अपने दोस्त के साथ क्रिकेट खेलोगे ?",
        "will you play cricket with your friend tomorrow ?",
        "¿ vas a jugar al críquet con tu amigo mañana ?",
    ),
    (
        do("read", "past", np("boy", "the"), np("book", "a")),
        "लड़के ने किताब पढ़ी",
        "the boy read a book",
        "el muchacho leyó un libro",
    ),
    (
        do("read", "past", np("boy", "the", plural=True), np("book", plural=True, adjective="new")),
        "लड़कों ने नई किताबें पढ़ीं",
        "the boys read new books",
        "los muchachos leyeron libros nuevos",
    ),
    (
        do("read", "progressive", SHE, np("book", "own", adjective="old"), manner="carefully"),
        "वह ध्यान से अपनी पुरानी किताब पढ़ रही है",
        "she is reading her old book carefully",
        "ella está leyendo su libro viejo con cuidado",
    ),
    (
        do("help", "progressive", HE, np("child", "the")),
        "वह बच्चे की मदद कर रहा है",
        "he is helping the child",
        "él está ayudando al niño",
    ),
    (
        do("help", "past", np("Meera"), np("mother", "own"), negated=True),
        "मीरा ने अपनी माँ की मदद नहीं की",
        "Meera did not help her mother",
        "Meera no ayudó a su madre",
    ),
    (
        do("call", "past", np("woman", "the", plural=True), np("brother", "my", plural=True)),
        "औरतों ने मेरे भाइयों को बुलाया",
        "the women called my brothers",
        "las mujeres llamaron a mis hermanos",
    ),
    (
        do("give", "future", ME, np("book", "this"), recipient=np("teacher", "the")),
        "मैं शिक्षक को यह किताब दूँगा",
        "I will give this book to the teacher",
        "le voy a dar este libro al maestro",
    ),
    (
        do("go", "habitual", np("child", "the", plural=True), goal="school", time="every day"),
        "बच्चे हर दिन स्कूल जाते हैं",
        "the children go to school every day",
        "los niños van a la escuela todos los días",
    ),
    (
        do("go", "past", np("sister", "my"), goal="home"),
        "मेरी बहन घर गई",
        "my sister went home",
        "mi hermana fue a casa",
    ),
    (
        do("drink", "habitual", np("grandmother", "my"), np("tea"), frequency="always"),
        "मेरी दादी हमेशा चाय पीती हैं",
        "my grandmother always drinks tea",
        "mi abuela siempre bebe té",
    ),
    (
        do("drink", "habitual", np("you (polite)"), np("coffee"), question="yes/no"),
        "क्या आप कॉफ़ी पीते हैं ?",
        "do you drink coffee ?",
        "¿ bebes café ?",
    ),
    (
        do("drink", "habitual", np("father", "my"), np("milk"), negated=True),
        "मेरे पिता दूध नहीं पीते हैं",
        "my father does not drink milk",
        "mi padre no bebe leche",
    ),
    (
        do("do", "progressive", YOU, question="what"),
        "तुम क्या कर रहे हो ?",
        "what are you doing ?",
        "¿ qué estás haciendo ?",
    ),
    (
        do("read", "future", np("girl", "the"), question="what"),
        "लड़की क्या पढ़ेगी ?",
        "what will the girl read ?",
        "¿ qué va a leer la muchacha ?",
    ),
    (do("go", "progressive", YOU, question="where"), "तुम कहाँ जा रहे हो ?", "where are you going ?", "¿ dónde vas ?"),
    (
        do("come", "future", np("farmer", "the"), question="when"),
        "किसान कब आएगा ?",
        "when will the farmer come ?",
        "¿ cuándo va a venir el granjero ?",
    ),
    (
        do("laugh", "progressive", THEY, question="why"),
        "वे क्यों हँस रहे हैं ?",
        "why are they laughing ?",
        "¿ por qué están riendo ellos ?",
    ),
    (
        do("clean", "past", np("Rahul"), np("window", "the"), question="when"),
        "राहुल ने खिड़की कब साफ़ की ?",
        "when did Rahul clean the window ?",
        "¿ cuándo limpió Rahul la ventana ?",
    ),
    (
        do("sing", "progressive", np("who"), np("song", "a")),
        "गाना कौन गा रहा है ?",
        "who is singing a song ?",
        "¿ quién está cantando una canción ?",
    ),
    (
        do("swim", "can", np("dog", "the"), negated=True),
        "कुत्ता तैर नहीं सकता है",
        "the dog cannot swim",
        "el perro no puede nadar",
    ),
    (
        do("close", "past progressive", WE, np("door", "this", plural=True)),
        "हम ये दरवाज़े बंद कर रहे थे",
        "we were closing these doors",
        "estábamos cerrando estas puertas",
    ),
    (
        do("listen", "habitual", np("boy", "that"), np("music"), place="at home"),
        "वह लड़का घर पर संगीत सुनता है",
        "that boy listens to music at home",
        "ese muchacho escucha música en casa",
    ),
    (
        Clause("be", "present", np("garden", "this"), adjective="beautiful"),
        "यह बगीचा सुंदर है",
        "this garden is beautiful",
        "este jardín es hermoso",
    ),
    (
        Clause("be", "past", np("cow", "the", plural=True), adjective="black"),
        "गायें काली थीं",
        "the cows were black",
        "las vacas eran negras",
    ),
    (
        Clause("be", "present", np("mother", "my"), adjective="happy", time="today"),
        "मेरी माँ आज ख़ुश हैं",
        "my mother is happy today",
        "mi madre está contenta hoy",
    ),
    (
        Clause("be", "present", np("newspaper", "the"), question="where"),
        "अख़बार कहाँ है ?",
        "where is the newspaper ?",
        "¿ dónde está el periódico ?",
    ),
    (
        Clause("there", "present", np("dog", "one", adjective="big"), place="under the tree"),
        "पेड़ के नीचे एक बड़ा कुत्ता है",
        "there is a big dog under the tree",
        "hay un perro grande bajo el árbol",
    ),
    (
        Clause("have", "present", np("child", "the"), object=np("orange", count=3)),
        "बच्चे के पास तीन संतरे हैं",
        "the child has three oranges",
        "el niño tiene tres naranjas",
    ),
    (
        Clause("rain", "progressive", time="now", place="in Delhi"),
        "अभी दिल्ली में बारिश हो रही है",
        "it is raining in Delhi now",
        "está lloviendo en Delhi ahora",
    ),
]


@pytest.mark.parametrize(("meaning", "hindi", "english", "spanish"), GOLDEN, ids=[row[2] for row in GOLDEN])
def test_hand_checked_sentences(meaning: Clause, hindi: str, english: str, spanish: str) -> None:
    if meaning.subject is not None and meaning.subject.noun == "who":
        meaning = Clause(**{**vars(meaning), "question": "who"})
    pair = corpus.write([meaning])
    assert (pair.source, pair.target) == (unicodedata.normalize("NFC", hindi), english)
    pair = corpus.write([meaning], languages="en-es")
    assert (pair.source, pair.target) == (english, spanish)


def test_clauses_are_joined() -> None:
    clauses = [
        do("sleep", "past progressive", HE),
        Clause("rain", "past progressive"),
        do("go", "past progressive", ME, goal="home"),
    ]
    pair = corpus.write(clauses, ["when", "and"])
    assert pair.source == "वह सो रहा था जब बारिश हो रही थी और मैं घर जा रहा था"
    assert pair.target == "he was sleeping when it was raining and I was going home"
    pair = corpus.write(clauses, ["when", "and"], languages="en-es")
    assert pair.target == "él estaba durmiendo cuando estaba lloviendo e iba a casa"  # y is e before i


def test_links_of_the_article() -> None:
    pair = corpus.write([GOLDEN[0][0]])
    assert corpus.to_tsv([pair]) == "मैं खाना खा रहा हूँ\tI am eating\t0-0 3?0 4?0 0?1 1?1 2?1 3?1 4?1 1?2 2-2 3?2\n"
    sure = {(i, j) for i, j, is_sure in pair.links or () if is_sure}
    assert sure == {(0, 0), (2, 2)}


def test_links_follow_the_moved_words() -> None:
    pair = corpus.write([GOLDEN[6][0]])
    source, target = pair.source.split(), pair.target.split()
    sure = {(source[i], target[j]) for i, j, is_sure in pair.links or () if is_sure}
    assert sure == {
        ("लड़की", "girl"),
        ("खाए", "ate"),
        ("दो", "two"),
        ("मीठे", "sweet"),
        ("आम", "mangoes"),
        ("में", "in"),
        ("बगीचे", "garden"),
    }


def test_demo_sentences_are_of_the_grammar() -> None:
    written = {(hindi, english) for _, hindi, english, _ in GOLDEN}
    assert set(corpus.DEMO) <= written
    assert corpus.DEMO[0] == corpus.ARTICLE == ("मैं खाना खा रहा हूँ", "I am eating")


def test_article_sentences_are_generated(generated: dict[str, list[Pair]]) -> None:
    pairs = {pair.source: pair.target for pair in generated["hi-en"]}
    assert pairs["मैं खाना खा रहा हूँ"] == "I am eating"
    assert pairs["मैं सेब खा रहा हूँ"] == "I am eating an apple"


@pytest.mark.parametrize("languages", BOTH)
def test_same_arguments_give_the_same_pairs(languages: str) -> None:
    first = corpus.generate(300, languages=languages, seed=5, clauses=(1, 3))
    assert first == corpus.generate(300, languages=languages, seed=5, clauses=(1, 3))
    assert first[:100] == corpus.generate(100, languages=languages, seed=5, clauses=(1, 3))
    assert first != corpus.generate(300, languages=languages, seed=6, clauses=(1, 3))


def test_pairs_do_not_depend_on_the_hash_seed() -> None:
    """Sets of strings iterate differently in every process."""
    code = "from dhyan import corpus; import hashlib; t = corpus.to_tsv(corpus.generate(300, clauses=(1, 3)));"
    code += "print(hashlib.sha256(t.encode()).hexdigest())"
    digests = set()
    for seed in ("0", "1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
        digests.add(run.stdout)
    assert len(digests) == 1


@pytest.mark.parametrize("languages", BOTH)
def test_the_source_determines_the_target(languages: str, generated: dict[str, list[Pair]]) -> None:
    pairs = generated[languages]
    assert len({pair.source for pair in pairs[:SIZE]}) == SIZE
    targets: dict[str, str] = {}
    for pair in pairs + corpus.generate(SIZE // 4, languages=languages, seed=1):
        assert targets.setdefault(pair.source, pair.target) == pair.target


@pytest.mark.parametrize("languages", BOTH)
def test_links(languages: str, generated: dict[str, list[Pair]]) -> None:
    function, maybe = (EN_FUNCTION, EN_MAYBE) if languages == "hi-en" else (ES_FUNCTION | ES_BE, ES_MAYBE)
    for pair in generated[languages]:
        source, target, links = pair.source.split(), pair.target.split(), pair.links or ()
        assert len({(i, j) for i, j, _ in links}) == len(links)
        assert all(0 <= i < len(source) and 0 <= j < len(target) for i, j, _ in links)
        assert {j for _, j, _ in links} == set(range(len(target))), pair
        sure = Counter(j for _, j, is_sure in links if is_sure)
        for j, word in enumerate(target):
            expected = {0, 1} if word in maybe else {0} if word in function else {1}
            assert sure[j] in expected, (word, pair)


@pytest.mark.parametrize("languages", BOTH)
def test_text_is_plain(languages: str, generated: dict[str, list[Pair]]) -> None:
    for pair in generated[languages]:
        for text in (pair.source, pair.target):
            assert unicodedata.is_normalized("NFC", text)
            assert text == " ".join(text.split())
            for word in text.split():
                assert word in ("?", "¿") or all(unicodedata.category(c)[0] in "LM" for c in word), text


FEMININE = words_of("लड़की लड़कियाँ औरत औरतें बहन बहनें माँ दादी मीरा रिया बिल्ली बिल्लियाँ गाय गायें चिड़िया चिड़ियाँ")
MASCULINE = words_of("लड़का लड़के बच्चा बच्चे आदमी शिक्षक किसान दोस्त भाई पिता राहुल अर्जुन कुत्ता कुत्ते घोड़ा घोड़े")


def clauses_of(text: str, joins: str) -> list[list[str]]:
    return [part.split() for part in re.split(rf" (?:{joins}) ", text)]


def hindi_clauses(pairs: list[Pair]) -> list[list[str]]:
    return [clause for pair in pairs for clause in clauses_of(pair.source, "और|लेकिन|क्योंकि|जब")]


def subject_gender(words: list[str]) -> str:
    """Gender of the noun the clause starts with, "" if there is none or a postposition follows it."""
    before = r"क्या|यह|ये|एक|दो|तीन|चार|पाँच|सुंदर|(?:मेर|तुम्हार|बड़|छोट|अच्छ|लंब|काल)[ाेी]"
    for word, following in itertools.pairwise(words):
        if word in FEMININE | MASCULINE and following not in {"की", "को", "के", "ने"}:
            return "f" if word in FEMININE else "m"
        if not re.fullmatch(before, word):
            return ""
    return ""


def test_hindi_auxiliaries(generated: dict[str, list[Pair]]) -> None:
    """हूँ goes with मैं, हो with तुम, and the other way round; हम and आप never take the singular."""
    seen: Counter[str] = Counter()
    for words in hindi_clauses(generated["hi-en"]):
        have = set(words)
        assert "हूँ" not in have or "मैं" in have, words
        assert "हो" not in have or "तुम" in have or "बारिश" in have, words
        if "मैं" in have:
            assert not have & {"है", "हैं", "हो", "थे", "थीं"}, words
            assert not any(word.endswith(("एगा", "एगी", "एँगे", "ओगे")) for word in words), words
        if have & {"हम", "आप"}:
            assert not have & {"है", "था", "थी", "हूँ", "रहा", "रही", "हो"}, words
        if "तुम" in have:
            assert not have & {"है", "हैं", "था", "हूँ", "रहा"}, words
        seen.update(words)
    assert min(seen[word] for word in ("हूँ", "हो", "हैं", "है", "था", "थे", "थी", "थीं")) > 100


def test_a_sentence_has_one_speaker(generated: dict[str, list[Pair]]) -> None:
    spoken: Counter[bool] = Counter()
    for pair in generated["hi-en"]:
        heard = {verb for verb in re.findall(r"(?:रह|त)([ाी]) हूँ", pair.source)}
        assert len(heard) < 2, pair
        spoken["ी" in heard] += 1
    assert min(spoken.values()) > 100


def test_hindi_verbs_agree_with_their_subjects(generated: dict[str, list[Pair]]) -> None:
    """Participles and futures show the gender of a subject that stands first, without ने."""
    ending = re.compile(r"(?:रह|था?|.+(?:त|ेग|एग|ेंग|एँग))([ाेी]|ीं)")
    checked: Counter[str] = Counter()
    for words in hindi_clauses(generated["hi-en"]):
        gender = subject_gender(words)
        verb = words[-1] if words[-1] != "?" else words[-2]
        if verb in ("है", "हैं", "था", "थे", "थी", "थीं"):
            verb = words[words.index(verb) - 1]
        form = ending.fullmatch(verb)
        if not gender or not form or "कौन" in words:
            continue
        assert form[1].startswith("ी") == (gender == "f"), words
        checked[gender] += 1
    assert min(checked["f"], checked["m"]) > 1_000


def test_hindi_cases(generated: dict[str, list[Pair]]) -> None:
    """Before a postposition -ा nouns take -े and plurals -ों; with ने the verb is never first person."""
    direct = words_of("लड़का बच्चा कुत्ता घोड़ा लड़कियाँ औरतें बहनें बगीचा कमरा")
    seen: Counter[str] = Counter()
    for words in hindi_clauses(generated["hi-en"]):
        for word, following in itertools.pairwise(words):
            if following in ("ने", "को", "के", "में", "पर") or (following == "की" and "मदद" in words):
                assert word not in direct, words
                seen[word] += 1
        if "ने" in words:
            assert not {"हूँ", "हो", "है", "हैं"} & set(words), words
            at = words.index("ने")
            numerals = {"दो", "तीन", "चार", "पाँच"} & set(words[:at])
            assert not numerals or words[at - 1].endswith("ों"), words
    assert seen["लड़के"] > 50 and seen["लड़कों"] > 50 and seen["बगीचे"] > 50


def test_he_and_she_follow_the_hindi_verb(generated: dict[str, list[Pair]]) -> None:
    seen: Counter[str] = Counter()
    for pair in generated["hi-en"][:SIZE]:
        words, target = pair.source.split(), pair.target.split()
        if not {"he", "she"} & set(target):
            continue
        assert "वह" in words
        verb = [word for word in words if not word.endswith(("है", "नहीं", "?"))][-1]
        feminine = verb.endswith(("ी", "ई"))
        assert ("she" in target) == feminine, pair
        seen["she" if "she" in target else "he"] += 1
    assert min(seen.values()) > 300


def english_sentences(pairs: dict[str, list[Pair]]) -> list[list[str]]:
    texts = [pair.target for pair in pairs["hi-en"]] + [pair.source for pair in pairs["en-es"]]
    return [
        words for text in texts for words in clauses_of(text, "and|but|because|when(?! (?:will|did|do|does|is|are) )")
    ]


def test_english_articles_and_numerals(generated: dict[str, list[Pair]]) -> None:
    singular = words_of("boy girl child man woman teacher farmer dog cat cow bird horse apple mango banana egg book")
    for words in english_sentences(generated):
        for word, following in itertools.pairwise(words):
            if word in ("a", "an"):
                assert (word == "an") == (following[0] in "aeiou"), words
                assert following not in ("rice", "bread", "water", "milk", "tea", "music"), words
            if word in ("two", "three", "four", "five", "these", "those"):
                nouns = [w for w in words[words.index(word) :] if w not in ADJECTIVES_EN][1]
                assert nouns.endswith("s") or nouns in ("men", "women", "children"), words
                assert nouns not in singular
            if word in ("this", "that"):
                assert not (following.endswith("s") or following in ("men", "women", "children")), words


ADJECTIVES_EN = words_of("red big small new old good sweet tall black beautiful happy sick")
AUXILIARIES = {"am", "are", "is", "was", "were", "do", "does"}


def test_english_agreement(generated: dict[str, list[Pair]]) -> None:
    """The auxiliary agrees with the subject beside it: after it in statements, before it in questions."""
    plural = {"we", "they", "you", "these", "those", "two", "three", "four", "five"}
    seen: Counter[str] = Counter()
    for words in english_sentences(generated):
        for at, word in enumerate(words):
            if word not in AUXILIARIES or "there" in words or "who" in words:
                continue
            subject = words[at + 1 :] if words[-1] == "?" else words[:at]
            first = subject[0]
            if word == "am":
                assert first == "I", words
            if first == "I":
                assert word in ("am", "was", "do"), words
            if first in plural:
                assert word in ("are", "were", "do"), words
            if first in ("he", "she", "it", "this", "that", "Meera", "Riya", "Rahul", "Arjun"):
                assert word in ("is", "was", "does"), words
            seen[word] += 1
        if words[0] in ("he", "she") and words[1] not in {*AUXILIARIES, "will", "can", "cannot", "did"}:
            at = 2 if words[1] in ("always", "often") else 1
            assert words[at] in PAST or words[at].endswith("s"), words
        if words[0] in ("I", "you", "we", "they"):
            assert not re.fullmatch(r"(eat|drink|read|want|go|ha|play|sing)(e?s)", words[1]), words
    assert set(seen) == AUXILIARIES and min(seen.values()) > 100


PAST = words_of(
    "ate drank read wrote watched listened bought cooked played sang called gave helped cleaned closed "
    "worked went came slept laughed swam lived did"
)
GENDER_ES = {
    "m": "muchacho niño hombre maestro granjero amigo hermano padre perro gato pájaro caballo mango plátano huevo pan "
    "té café libro cuento poema periódico críquet fútbol ajedrez cuarto jardín parque mercado pueblo árbol lunes "
    "domingo",
    "f": "muchacha mujer hermana madre abuela vaca manzana naranja leche carta película canción música puerta ventana "
    "casa mesa escuela mañana tarde",
}


def test_spanish_noun_phrases_agree(generated: dict[str, list[Pair]]) -> None:
    gender = {noun: g for g, nouns in GENDER_ES.items() for noun in nouns.split()}
    plurals = {noun + ("es" if noun[-1] not in "aeioué" else "s"): noun for noun in gender}
    plurals |= {"canciones": "canción", "jardines": "jardín"}
    masculine = {"el", "un", "los", "este", "estos", "ese", "esos", "al", "nuestro", "nuestros"}
    feminine = {"la", "una", "las", "esta", "estas", "esa", "esas", "nuestra", "nuestras"}
    many = {"los", "las", "estos", "estas", "esos", "esas", "mis", "tus", "dos", "tres", "cuatro", "cinco"}
    one = {"el", "un", "la", "una", "este", "esta", "ese", "esa", "al", "mi", "tu"}
    adjective = re.compile(r"(roj|pequeñ|nuev|viej|buen|alt|negr|hermos)(o|a|os|as)")
    seen: Counter[str] = Counter()
    for pair in generated["en-es"]:
        words = pair.target.split()
        for word, following in itertools.pairwise(words):
            noun = plurals.get(following, following)
            if noun not in gender:
                continue
            is_plural = following in plurals and following not in ("lunes",)
            if word in masculine | feminine:
                assert (word in masculine) == (gender[noun] == "m"), pair
            if word in many | one:
                assert (word in many) == is_plural, pair
            seen[noun] += 1
        for word, following in itertools.pairwise(words):
            noun, form = plurals.get(word, word), adjective.fullmatch(following)
            if noun in gender and form:
                assert form[2][0] == ("o" if gender[noun] == "m" else "a"), pair
                assert form[2].endswith("s") == (word in plurals), pair
                seen["adjective"] += 1
        assert not re.search(r"\ba el\b|\bde el\b|\byo\b|\bnosotros\b|\btú\b|\by i", pair.target), pair
        assert ("?" in words) == (words[0] == "¿"), pair
    assert min(seen[noun] for noun in ("muchacho", "mujer", "canción", "poema")) > 50 and seen["adjective"] > 500


def test_spanish_negation_and_person(generated: dict[str, list[Pair]]) -> None:
    for pair in generated["en-es"]:
        source, target = pair.source.split(), pair.target.split()
        negations = source.count("not") + source.count("cannot")
        assert target.count("no") == negations, pair
        if len(source) < 10 and source[0] == "I" and source[1] == "am":
            assert {"estoy", "soy", "voy", "vengo"} & set(target), pair


def test_lengths_follow_the_number_of_clauses() -> None:
    single = [len(pair.source.split()) for pair in corpus.generate(500)]
    triple = [len(pair.source.split()) for pair in corpus.generate(500, clauses=(4, 4))]
    assert min(single) <= 4 and max(single) < 20
    assert sum(triple) > 3.5 * sum(single) and max(triple) >= 30
    mixed = corpus.generate(300, clauses=(1, 3))
    counts = Counter(len(clauses_of(pair.source, "और|लेकिन|क्योंकि|जब")) for pair in mixed)
    assert set(counts) == {1, 2, 3} and min(counts.values()) > 60


@pytest.mark.parametrize("languages", BOTH)
def test_buckets_hold_unseen_pairs_of_their_lengths(languages: str) -> None:
    train = corpus.generate(2_000, languages=languages, clauses=(1, 3))
    buckets = corpus.bucketed(30, languages=languages, exclude=train)
    assert [len(bucket) for bucket in buckets] == [30] * len(corpus.BUCKETS)
    seen = {pair.source for pair in train}
    for (least, most), bucket in zip(corpus.BUCKETS, buckets, strict=True):
        assert all(least <= len(pair.source.split()) <= most for pair in bucket)
        assert len({pair.source for pair in bucket} - seen) == 30


def test_split_parts_share_no_source() -> None:
    pairs = corpus.generate(500)
    train, valid, test = corpus.split([*pairs, *pairs[:50]], test=100, valid=50, seed=3, unseen=[pairs[7].source])
    sources = [pair.source for pair in (*train, *valid, *test)]
    assert (len(train), len(valid), len(test)) == (349, 50, 100)
    assert len(set(sources)) == 499 and pairs[7].source not in sources
    assert (train, valid, test) == corpus.split(pairs, test=100, valid=50, seed=3, unseen=[pairs[7].source])


def test_skipped_sources_are_not_generated() -> None:
    first = corpus.generate(50)
    assert corpus.generate(40, skip=[pair.source for pair in first[:10]]) == first[10:]


def test_bad_arguments_are_named() -> None:
    with pytest.raises(ValueError, match=r"languages is 'hi-es', expected one of hi-en, en-es"):
        corpus.generate(1, languages="hi-es")
    with pytest.raises(ValueError, match=r"clauses is \(3, 2\)"):
        corpus.generate(1, clauses=(3, 2))
    with pytest.raises(ValueError, match="count is -1"):
        corpus.generate(-1)
    with pytest.raises(ValueError, match="leave nothing to train on"):
        corpus.split(corpus.generate(10), test=5, valid=5)
    with pytest.raises(ValueError, match="count is 0"):
        corpus.bucketed(0)
    assert corpus.generate(0) == []
