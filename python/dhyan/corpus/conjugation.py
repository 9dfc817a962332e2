"""Spanish verb forms by rule, with the irregular ones listed. Index: 0 yo, 1 tú, 2 él, 3 nosotros, 4 ellos."""

from __future__ import annotations

PRESENT = {
    "ar": ("o", "as", "a", "amos", "an"),
    "er": ("o", "es", "e", "emos", "en"),
    "ir": ("o", "es", "e", "imos", "en"),
}
PRETERITE = {
    "ar": ("é", "aste", "ó", "amos", "aron"),
    "er": ("í", "iste", "ió", "imos", "ieron"),
    "ir": ("í", "iste", "ió", "imos", "ieron"),
}
IRREGULAR_PRESENT = {
    "ser": "soy eres es somos son",
    "estar": "estoy estás está estamos están",
    "ir": "voy vas va vamos van",
    "venir": "vengo vienes viene venimos vienen",
    "dar": "doy das da damos dan",
    "tener": "tengo tienes tiene tenemos tienen",
    "querer": "quiero quieres quiere queremos quieren",
    "poder": "puedo puedes puede podemos pueden",
    "jugar": "juego juegas juega jugamos juegan",
    "cerrar": "cierro cierras cierra cerramos cierran",
    "dormir": "duermo duermes duerme dormimos duermen",
    "reír": "río ríes ríe reímos ríen",
    "hacer": "hago haces hace hacemos hacen",
}
IRREGULAR_PRETERITE = {
    "ir": "fui fuiste fue fuimos fueron",
    "venir": "vine viniste vino vinimos vinieron",
    "dar": "di diste dio dimos dieron",
    "hacer": "hice hiciste hizo hicimos hicieron",
    "leer": "leí leíste leyó leímos leyeron",
    "dormir": "dormí dormiste durmió dormimos durmieron",
    "reír": "reí reíste rio reímos rieron",
    "jugar": "jugué jugaste jugó jugamos jugaron",
}
IRREGULAR_IMPERFECT = {"ser": "era eras era éramos eran", "ir": "iba ibas iba íbamos iban"}
IRREGULAR_GERUND = {"leer": "leyendo", "dormir": "durmiendo", "reír": "riendo"}


def present(infinitive: str, index: int) -> str:
    """como, comes, come, comemos, comen."""
    if infinitive in IRREGULAR_PRESENT:
        return IRREGULAR_PRESENT[infinitive].split()[index]
    return infinitive[:-2] + PRESENT[infinitive[-2:]][index]


def preterite(infinitive: str, index: int) -> str:
    """comí, comiste, comió, comimos, comieron."""
    if infinitive in IRREGULAR_PRETERITE:
        return IRREGULAR_PRETERITE[infinitive].split()[index]
    return infinitive[:-2] + PRETERITE[infinitive[-2:]][index]


def imperfect(infinitive: str, index: int) -> str:
    """estaba, venía."""
    if infinitive in IRREGULAR_IMPERFECT:
        return IRREGULAR_IMPERFECT[infinitive].split()[index]
    stem = infinitive[:-2]
    if infinitive.endswith("ar"):
        return stem + ("aba", "abas", "aba", "ábamos", "aban")[index]
    return stem + ("ía", "ías", "ía", "íamos", "ían")[index]


def gerund(infinitive: str) -> str:
    """comiendo."""
    if infinitive in IRREGULAR_GERUND:
        return IRREGULAR_GERUND[infinitive]
    return infinitive[:-2] + ("ando" if infinitive.endswith("ar") else "iendo")
