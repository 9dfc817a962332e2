"""How a model's outputs are searched for: every option of decoding in one table, checked when it is made."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

from dhyan.errors import check_integer, check_number, unknown_name

LENGTH_FORMS = ("power", "gnmt")
MOST = 1 << 31  # every number of tokens or outputs is smaller
MOST_LENGTH_PENALTY = 32  # length ** 32 is finite for every length below MOST


@dataclass(frozen=True, kw_only=True)
class SearchOptions:
    """Options of `beam_search`, `Translator.translate`, and of the commands that decode. The defaults are plain beam
    search; beam=1 is greedy.

        score = (sum of log p over the tokens and the end symbol) / lp(n) + coverage_penalty * sum_s log min(c_s, 1)
        lp(n) = n ** length_penalty                  "power"; n = number of symbols summed
        lp(n) = ((5 + n) / 6) ** length_penalty      "gnmt" (Wu et al. 2016)

    beam: hypotheses kept at every step; nbest: how many of them are returned.
    max_length: most decoder steps, of which the end symbol takes one, None: chosen from the source; min_length: fewest
    tokens before the end symbol.
    coverage_penalty (Wu et al. 2016): c_s is all the weight that source position s got, the step of the end symbol
    counted, and at least 1e-6. It ranks what is finished, not the hypotheses under way.
    no_repeat_ngram: no n tokens in a row stand in an output twice, 0: they may; no_unknown: the unknown symbol is not
    written. Both hold for what is searched, not for what a prefix says.
    sample: draw from the model instead of looking for the likeliest: `nbest` independent outputs, each token from the
    top_k likeliest (0: all), of which only so many as together have probability top_p (nucleus, Holtzman et al. 2020),
    with probabilities in proportion to p ** (1 / temperature). The beam is not used. What is drawn is a function of
    (model, seed, sentence).

    Errors: ValueError for values out of range and options that do not go together; TypeError for wrong types.
    """

    beam: int = 5
    nbest: int = 1
    max_length: int | None = None
    min_length: int = 0
    length_penalty: float = 1.0
    length_form: str = "power"
    coverage_penalty: float = 0.0
    no_repeat_ngram: int = 0
    no_unknown: bool = False
    sample: bool = False
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        where = "search"
        for name in ("beam", "nbest"):
            check_integer(where, name, getattr(self, name))
        for name in ("min_length", "no_repeat_ngram", "top_k", "seed"):
            check_integer(where, name, getattr(self, name), 0)
        for name in ("no_unknown", "sample"):
            if not isinstance(getattr(self, name), bool):
                raise TypeError(f"{where}: {name} is {getattr(self, name)!r}, expected true or false")
        if self.nbest > self.beam and not self.sample:
            raise ValueError(f"{where}: nbest is {self.nbest}, expected at most the beam of {self.beam}")
        if self.max_length is not None:
            check_integer(where, "max_length", self.max_length)
            if self.min_length >= self.max_length:
                raise ValueError(
                    f"{where}: min_length is {self.min_length}, expected less than max_length = {self.max_length}, "
                    "which counts the end symbol"
                )
        for name in ("beam", "nbest", "min_length", "max_length", "no_repeat_ngram", "top_k"):
            if (getattr(self, name) or 0) >= MOST:
                raise ValueError(f"{where}: {name} is {getattr(self, name)}, expected less than 2**31")
        check_number(where, "length_penalty", self.length_penalty, 0, MOST_LENGTH_PENALTY)
        check_number(where, "coverage_penalty", self.coverage_penalty, 0, math.inf)
        if self.length_form not in LENGTH_FORMS:
            raise unknown_name(f"{where}: length_form", self.length_form, LENGTH_FORMS)
        check_number(where, "temperature", self.temperature, 0, math.inf, open_low=True)
        check_number(where, "top_p", self.top_p, 0, 1 + 1e-12, open_low=True)
        if self.seed >= 1 << 63:
            raise ValueError(f"{where}: seed is {self.seed}, expected less than 2**63")
        if not self.sample:
            for name in ("temperature", "top_k", "top_p", "seed"):
                if getattr(self, name) != getattr(SearchOptions, name):
                    raise ValueError(f"{where}: {name} is {getattr(self, name)}, which only sampling reads (sample)")

    @classmethod
    def of(cls, options: SearchOptions | None = None, **changes: Any) -> SearchOptions:
        """`options` (None: the defaults) with those changes that are not None.

        Errors: ValueError for an unknown name; TypeError for options of another type.
        """
        if options is not None and not isinstance(options, cls):
            kind = type(options).__name__
            raise TypeError(f"search: options is a {kind}, expected SearchOptions, or its fields as keywords")
        names = [field.name for field in dataclasses.fields(cls)]
        for name in changes:
            if name not in names:
                raise unknown_name("search: the option", name, names)
        given = {name: value for name, value in changes.items() if value is not None}
        return dataclasses.replace(options or cls(), **given)

    @property
    def restricted(self) -> bool:
        """True where some token may be refused at some step, whatever the sentence."""
        return bool(self.min_length or self.no_repeat_ngram or self.no_unknown)

    @property
    def plain(self) -> bool:
        """True for beam search that nothing but lengths decides about."""
        return not (self.restricted or self.sample or self.coverage_penalty)

    def length_norm(self, n: Any) -> Any:
        """lp(n) of a number of symbols, or of an array of them."""
        return (n if self.length_form == "power" else (5 + n) / 6) ** self.length_penalty
