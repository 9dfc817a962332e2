"""The words of the three languages, one row a concept. Forms that follow from a rule are made by the grammars."""

from __future__ import annotations

from typing import NamedTuple


class Noun(NamedTuple):
    """kind groups nouns by what one can do with them. sex decides his/her and the agreement of names.

    hindi: (singular, gender); the class of its endings follows from both. spanish: (singular, plural, gender).
    """

    kind: str
    hindi: tuple[str, str]
    english: tuple[str, str]
    spanish: tuple[str, str, str]
    sex: str = ""
    honored: bool = False  # Hindi speaks of elders in the plural


NOUNS: dict[str, Noun] = {
    "boy": Noun("person", ("लड़का", "m"), ("boy", "boys"), ("muchacho", "muchachos", "m"), "m"),
    "girl": Noun("person", ("लड़की", "f"), ("girl", "girls"), ("muchacha", "muchachas", "f"), "f"),
    "child": Noun("person", ("बच्चा", "m"), ("child", "children"), ("niño", "niños", "m"), "m"),
    "man": Noun("person", ("आदमी", "m"), ("man", "men"), ("hombre", "hombres", "m"), "m"),
    "woman": Noun("person", ("औरत", "f"), ("woman", "women"), ("mujer", "mujeres", "f"), "f"),
    "teacher": Noun("person", ("शिक्षक", "m"), ("teacher", "teachers"), ("maestro", "maestros", "m"), "m"),
    "farmer": Noun("person", ("किसान", "m"), ("farmer", "farmers"), ("granjero", "granjeros", "m"), "m"),
    "friend": Noun("kin", ("दोस्त", "m"), ("friend", "friends"), ("amigo", "amigos", "m"), "m"),
    "brother": Noun("kin", ("भाई", "m"), ("brother", "brothers"), ("hermano", "hermanos", "m"), "m"),
    "sister": Noun("kin", ("बहन", "f"), ("sister", "sisters"), ("hermana", "hermanas", "f"), "f"),
    "mother": Noun("elder", ("माँ", "f"), ("mother", ""), ("madre", "", "f"), "f", True),
    "father": Noun("elder", ("पिता", "m"), ("father", ""), ("padre", "", "m"), "m", True),
    "grandmother": Noun("elder", ("दादी", "f"), ("grandmother", ""), ("abuela", "", "f"), "f", True),
    "Meera": Noun("name", ("मीरा", "f"), ("Meera", ""), ("Meera", "", "f"), "f"),
    "Riya": Noun("name", ("रिया", "f"), ("Riya", ""), ("Riya", "", "f"), "f"),
    "Rahul": Noun("name", ("राहुल", "m"), ("Rahul", ""), ("Rahul", "", "m"), "m"),
    "Arjun": Noun("name", ("अर्जुन", "m"), ("Arjun", ""), ("Arjun", "", "m"), "m"),
    "dog": Noun("animal", ("कुत्ता", "m"), ("dog", "dogs"), ("perro", "perros", "m"), "m"),
    "cat": Noun("animal", ("बिल्ली", "f"), ("cat", "cats"), ("gato", "gatos", "m"), "f"),
    "cow": Noun("animal", ("गाय", "f"), ("cow", "cows"), ("vaca", "vacas", "f"), "f"),
    "bird": Noun("animal", ("चिड़िया", "f"), ("bird", "birds"), ("pájaro", "pájaros", "m"), "f"),
    "horse": Noun("animal", ("घोड़ा", "m"), ("horse", "horses"), ("caballo", "caballos", "m"), "m"),
    "apple": Noun("fruit", ("सेब", "m"), ("apple", "apples"), ("manzana", "manzanas", "f")),
    "mango": Noun("fruit", ("आम", "m"), ("mango", "mangoes"), ("mango", "mangos", "m")),
    "banana": Noun("fruit", ("केला", "m"), ("banana", "bananas"), ("plátano", "plátanos", "m")),
    "orange": Noun("fruit", ("संतरा", "m"), ("orange", "oranges"), ("naranja", "naranjas", "f")),
    "egg": Noun("egg", ("अंडा", "m"), ("egg", "eggs"), ("huevo", "huevos", "m")),
    "rice": Noun("meal", ("चावल", "m"), ("rice", ""), ("arroz", "", "m")),
    "bread": Noun("meal", ("रोटी", "f"), ("bread", ""), ("pan", "", "m")),
    "fish": Noun("meal", ("मछली", "f"), ("fish", ""), ("pescado", "", "m")),
    "water": Noun("drink", ("पानी", "m"), ("water", ""), ("agua", "", "f")),
    "milk": Noun("drink", ("दूध", "m"), ("milk", ""), ("leche", "", "f")),
    "tea": Noun("drink", ("चाय", "f"), ("tea", ""), ("té", "", "m")),
    "coffee": Noun("drink", ("कॉफ़ी", "f"), ("coffee", ""), ("café", "", "m")),
    "book": Noun("book", ("किताब", "f"), ("book", "books"), ("libro", "libros", "m")),
    "letter": Noun("text", ("चिट्ठी", "f"), ("letter", "letters"), ("carta", "cartas", "f")),
    "story": Noun("text", ("कहानी", "f"), ("story", "stories"), ("cuento", "cuentos", "m")),
    "poem": Noun("text", ("कविता", "f"), ("poem", "poems"), ("poema", "poemas", "m")),
    "newspaper": Noun("paper", ("अख़बार", "m"), ("newspaper", "newspapers"), ("periódico", "periódicos", "m")),
    "film": Noun("film", ("फ़िल्म", "f"), ("film", "films"), ("película", "películas", "f")),
    "song": Noun("song", ("गाना", "m"), ("song", "songs"), ("canción", "canciones", "f")),
    "music": Noun("music", ("संगीत", "m"), ("music", ""), ("música", "", "f")),
    "cricket": Noun("game", ("क्रिकेट", "m"), ("cricket", ""), ("críquet", "", "m")),
    "football": Noun("game", ("फ़ुटबॉल", "m"), ("football", ""), ("fútbol", "", "m")),
    "chess": Noun("game", ("शतरंज", "f"), ("chess", ""), ("ajedrez", "", "m")),
    "door": Noun("opening", ("दरवाज़ा", "m"), ("door", "doors"), ("puerta", "puertas", "f")),
    "window": Noun("opening", ("खिड़की", "f"), ("window", "windows"), ("ventana", "ventanas", "f")),
    "room": Noun("room", ("कमरा", "m"), ("room", "rooms"), ("cuarto", "cuartos", "m")),
    "house": Noun("room", ("घर", "m"), ("house", "houses"), ("casa", "casas", "f")),
    "table": Noun("furniture", ("मेज़", "f"), ("table", "tables"), ("mesa", "mesas", "f")),
    "garden": Noun("place", ("बगीचा", "m"), ("garden", "gardens"), ("jardín", "jardines", "m")),
    "market": Noun("place", ("बाज़ार", "m"), ("market", "markets"), ("mercado", "mercados", "m")),
    "village": Noun("place", ("गाँव", "m"), ("village", "villages"), ("pueblo", "pueblos", "m")),
}


class Pronoun(NamedTuple):
    """person 1..3; plural and gender as the Hindi verb sees them. hindi: (direct, with ने, before के पास)."""

    person: int
    plural: bool
    gender: str
    hindi: tuple[str, str, str]
    english: str
    possessive: str
    spanish: str  # "" where the Spanish verb ending already says it


# "वह" is he or she: the agreement of the verb decides, so clauses whose verb does not show it are never generated.
# The feminine "मैं" differs in Hindi only. तुम and आप are both "you" (tú); हम, तुम, आप and वे agree in the masculine.
PRONOUNS: dict[str, Pronoun] = {
    "I": Pronoun(1, False, "m", ("मैं", "मैंने", "मेरे"), "I", "my", ""),
    "I (f)": Pronoun(1, False, "f", ("मैं", "मैंने", "मेरे"), "I", "my", ""),
    "you": Pronoun(2, True, "m", ("तुम", "तुमने", "तुम्हारे"), "you", "your", ""),
    "you (polite)": Pronoun(2, True, "m", ("आप", "आपने", "आपके"), "you", "your", ""),
    "he": Pronoun(3, False, "m", ("वह", "उसने", "उसके"), "he", "his", "él"),
    "she": Pronoun(3, False, "f", ("वह", "उसने", "उसके"), "she", "her", "ella"),
    "we": Pronoun(1, True, "m", ("हम", "हमने", "हमारे"), "we", "our", ""),
    "they": Pronoun(3, True, "m", ("वे", "उन्होंने", "उनके"), "they", "their", "ellos"),
    "who": Pronoun(3, False, "m", ("कौन", "किसने", ""), "who", "", "quién"),
}


class Verb(NamedTuple):
    """objects: kinds of noun it takes ("" means it can stand alone).

    hindi: (preverb, its gender or "", stem); mark: what follows the object ("" or को or की); ergative: ने in the past.
    english: (base, third person, -ing, past, preposition). spanish: infinitive and what stands before the object.
    """

    hindi: tuple[str, str, str]
    english: tuple[str, str, str, str, str]
    spanish: tuple[str, str]
    objects: tuple[str, ...]
    ergative: bool = True
    mark: str = ""
    manners: tuple[str, ...] = ()
    animals: bool = False


PEOPLE = ("person", "kin", "name")
GOODS = ("fruit", "egg", "book", "paper")
VERBS: dict[str, Verb] = {
    "eat": Verb(
        ("", "", "खा"),
        ("eat", "eats", "eating", "ate", ""),
        ("comer", ""),
        ("", "fruit", "fruit", "egg", "meal"),
        manners=("quickly", "happily"),
    ),
    "drink": Verb(
        ("", "", "पी"), ("drink", "drinks", "drinking", "drank", ""), ("beber", ""), ("drink",), animals=True
    ),
    "read": Verb(
        ("", "", "पढ़"),
        ("read", "reads", "reading", "read", ""),
        ("leer", ""),
        ("book", "text", "paper"),
        manners=("carefully", "quickly"),
    ),
    "write": Verb(
        ("", "", "लिख"),
        ("write", "writes", "writing", "wrote", ""),
        ("escribir", ""),
        ("book", "text", "text", "song"),
        manners=("carefully", "quickly"),
    ),
    "watch": Verb(("", "", "देख"), ("watch", "watches", "watching", "watched", ""), ("mirar", ""), ("film", "game")),
    "listen": Verb(
        ("", "", "सुन"),
        ("listen", "listens", "listening", "listened", "to"),
        ("escuchar", ""),
        ("music", "song"),
        manners=("carefully",),
    ),
    "buy": Verb(("", "", "ख़रीद"), ("buy", "buys", "buying", "bought", ""), ("comprar", ""), GOODS),
    "cook": Verb(
        ("", "", "पका"),
        ("cook", "cooks", "cooking", "cooked", ""),
        ("cocinar", ""),
        ("", "meal", "egg"),
        manners=("carefully", "happily"),
    ),
    "play": Verb(("", "", "खेल"), ("play", "plays", "playing", "played", ""), ("jugar", "a"), ("game",)),
    "sing": Verb(
        ("", "", "गा"), ("sing", "sings", "singing", "sang", ""), ("cantar", ""), ("song",), manners=("happily",)
    ),
    "call": Verb(
        ("", "", "बुला"), ("call", "calls", "calling", "called", ""), ("llamar", "a"), (*PEOPLE, "animal"), mark="को"
    ),
    "give": Verb(("", "", "दे"), ("give", "gives", "giving", "gave", ""), ("dar", ""), GOODS),
    "help": Verb(
        ("मदद", "f", "कर"),
        ("help", "helps", "helping", "helped", ""),
        ("ayudar", "a"),
        (*PEOPLE, "elder"),
        mark="की",
        manners=("happily",),
    ),
    "clean": Verb(
        ("साफ़", "", "कर"),
        ("clean", "cleans", "cleaning", "cleaned", ""),
        ("limpiar", ""),
        ("room", "opening", "furniture"),
        manners=("carefully", "quickly"),
    ),
    "close": Verb(
        ("बंद", "", "कर"),
        ("close", "closes", "closing", "closed", ""),
        ("cerrar", ""),
        ("opening",),
        manners=("carefully", "quickly"),
    ),
    "work": Verb(
        ("काम", "m", "कर"),
        ("work", "works", "working", "worked", ""),
        ("trabajar", ""),
        ("",),
        manners=("carefully", "happily"),
    ),
    "go": Verb(("", "", "जा"), ("go", "goes", "going", "went", ""), ("ir", ""), ("",), False, manners=("quickly",)),
    "come": Verb(
        ("", "", "आ"),
        ("come", "comes", "coming", "came", ""),
        ("venir", ""),
        ("",),
        False,
        manners=("quickly",),
        animals=True,
    ),
    "sleep": Verb(
        ("", "", "सो"), ("sleep", "sleeps", "sleeping", "slept", ""), ("dormir", ""), ("",), False, animals=True
    ),
    "laugh": Verb(("", "", "हँस"), ("laugh", "laughs", "laughing", "laughed", ""), ("reír", ""), ("",), False),
    "swim": Verb(
        ("", "", "तैर"), ("swim", "swims", "swimming", "swam", ""), ("nadar", ""), ("",), False, manners=("quickly",)
    ),
    "live": Verb(("", "", "रह"), ("live", "lives", "living", "lived", ""), ("vivir", ""), ("",), False),
    "do": Verb(("", "", "कर"), ("do", "does", "doing", "did", ""), ("hacer", ""), ("",)),
}
# "खाना" with these verbs is the idiom "to eat", "to cook": no object in English.
IDIOM = "खाना"
IDIOM_VERBS = ("eat", "cook")


class Adjective(NamedTuple):
    """hindi and spanish in the masculine singular; estar: Spanish uses estar, not ser. of: kinds of noun it suits."""

    hindi: str
    english: str
    spanish: str
    estar: bool
    of: tuple[str, ...]


ADJECTIVES: dict[str, Adjective] = {
    "red": Adjective("लाल", "red", "rojo", False, ("opening", "furniture")),
    "big": Adjective(
        "बड़ा", "big", "grande", False, ("fruit", "egg", "animal", "opening", "room", "furniture", "place")
    ),
    "small": Adjective(
        "छोटा", "small", "pequeño", False, ("fruit", "egg", "animal", "opening", "room", "furniture", "place")
    ),
    "new": Adjective("नया", "new", "nuevo", False, ("book", "film", "song", "opening", "room", "furniture")),
    "old": Adjective("पुराना", "old", "viejo", False, ("book", "film", "song", "opening", "room", "furniture", "paper")),
    "good": Adjective("अच्छा", "good", "bueno", False, ("person", "book", "film", "text")),
    "sweet": Adjective("मीठा", "sweet", "dulce", False, ("fruit",)),
    "tall": Adjective("लंबा", "tall", "alto", False, ("person", "pronoun")),
    "black": Adjective("काला", "black", "negro", False, ("animal",)),
    "beautiful": Adjective("सुंदर", "beautiful", "hermoso", False, ("text", "song", "film", "animal", "place")),
    "happy": Adjective("ख़ुश", "happy", "contento", True, ()),
    "sick": Adjective("बीमार", "sick", "enfermo", True, ()),
}
NUMERALS = {
    2: ("दो", "two", "dos"),
    3: ("तीन", "three", "tres"),
    4: ("चार", "four", "cuatro"),
    5: ("पाँच", "five", "cinco"),
}

# Adverbs: per language the words; "*" marks a word that is the head of the adverb, the rest only belong to it. Two
# heads stand in the same order in all languages ("every day" = हर दिन).
ADVERBS: dict[str, tuple[str, str, str]] = {
    "today": ("*आज", "*today", "*hoy"),
    "now": ("*अभी", "*now", "*ahora"),
    "yesterday": ("*कल", "*yesterday", "*ayer"),
    "tomorrow": ("*कल", "*tomorrow", "*mañana"),
    "every day": ("*हर *दिन", "*every *day", "*todos los *días"),
    "in the morning": ("*सुबह", "in the *morning", "por la *mañana"),
    "in the evening": ("*शाम को", "in the *evening", "por la *tarde"),
    "on Monday": ("*सोमवार को", "on *Monday", "el *lunes"),
    "on Sunday": ("*रविवार को", "on *Sunday", "el *domingo"),
    "quickly": ("*जल्दी", "*quickly", "*rápidamente"),
    "carefully": ("*ध्यान से", "*carefully", "con *cuidado"),
    "happily": ("*ख़ुशी से", "*happily", "*alegremente"),
    "always": ("*हमेशा", "*always", "*siempre"),
    "often": ("*अक्सर", "*often", "a *menudo"),
}


class Place(NamedTuple):
    """Where, in each language: "*" marks the place itself, "+" the adposition that carries meaning."""

    hindi: str
    english: str
    spanish: str


PLACES: dict[str, Place] = {
    "in the garden": Place("*बगीचे +में", "+in the *garden", "+en el *jardín"),
    "in the park": Place("*पार्क +में", "+in the *park", "+en el *parque"),
    "in the market": Place("*बाज़ार +में", "+in the *market", "+en el *mercado"),
    "in the village": Place("*गाँव +में", "+in the *village", "+en el *pueblo"),
    "in the room": Place("*कमरे +में", "+in the *room", "+en el *cuarto"),
    "in Delhi": Place("*दिल्ली +में", "+in *Delhi", "+en *Delhi"),
    "at school": Place("*स्कूल +में", "+at *school", "+en la *escuela"),
    "at home": Place("*घर +पर", "+at *home", "+en *casa"),
    "on the table": Place("*मेज़ +पर", "+on the *table", "+en la *mesa"),
    "under the tree": Place("*पेड़ के +नीचे", "+under the *tree", "+bajo el *árbol"),
}
GOALS: dict[str, Place] = {
    "school": Place("*स्कूल", "to *school", "a la *escuela"),
    "market": Place("*बाज़ार", "to the *market", "al *mercado"),
    "village": Place("*गाँव", "to the *village", "al *pueblo"),
    "park": Place("*पार्क", "to the *park", "al *parque"),
    "Delhi": Place("*दिल्ली", "to *Delhi", "a *Delhi"),
    "home": Place("*घर", "*home", "a *casa"),
}
WH = {
    "what": ("क्या", "what", "qué"),
    "where": ("कहाँ", "where", "dónde"),
    "when": ("कब", "when", "cuándo"),
    "why": ("क्यों", "why", "qué"),
}
JOINS = {
    "and": ("और", "and", "y"),
    "but": ("लेकिन", "but", "pero"),
    "because": ("क्योंकि", "because", "porque"),
    "when": ("जब", "when", "cuando"),
}
