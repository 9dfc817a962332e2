"""How a model's outputs are searched for: every option of decoding in one table, checked when it is made."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from dhyan.errors import unknown_name
from dhyan.options import Form, Options, option

LENGTH_FORMS = ("power", "gnmt")
BITS = 31  # of every number of tokens or outputs
MOST_LENGTH_PENALTY = 32  # length ** 32 is finite for every length of so many bits
MORE, SAMPLING = "More options", "Sampling"  # groups of the page's form


@dataclass(frozen=True, kw_only=True)
class SearchOptions(Options):
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

    beam: int = option(
        5,
        "hypotheses kept; 1 is greedy",
        low=1,
        bits=BITS,
        form=Form("Beam", "hypotheses kept; 1 is greedy search", 1, 32),
    )
    nbest: int = option(
        1, "write N outputs a line", low=1, bits=BITS, form=Form("Hypotheses shown", "at most the beam", 1, 32)
    )
    min_length: int = option(
        0, "fewest tokens of an output", bits=BITS, form=Form("Shortest output", "in tokens", 0, 2000, group=MORE)
    )
    max_length: int | None = option(
        None, "most tokens of an output, the end symbol counted; without it by the source", kind=int, low=1, bits=BITS,
        form=Form("Longest output", "in tokens; empty: by the source", 1, 2000, group=MORE),
    )  # fmt: skip
    length_penalty: float = option(
        1.0, "A: log-probability / length^A; 0 favours short outputs", high=MOST_LENGTH_PENALTY,
        form=Form("Length penalty", "0 favours short outputs", 0, 10, 0.05),
    )  # fmt: skip
    length_form: str = option(
        "power", "power, or gnmt: / ((5 + length) / 6)^A", choices=LENGTH_FORMS,
        form=Form("Form of the length penalty", group=MORE),
    )  # fmt: skip
    coverage_penalty: float = option(
        0.0, "B: prefer outputs that read all of the source, 0.2 say",
        form=Form("Coverage penalty", "favours outputs that read all of the source", 0, 10, 0.05),
    )  # fmt: skip
    no_repeat_ngram: int = option(
        0, "no N tokens in a row stand in an output twice; 0: they may", bits=BITS,
        form=Form("No repeated n-gram", "of so many tokens; 0: any", 0, 20, group=MORE),
    )  # fmt: skip
    no_unknown: bool = option(
        False, "never write the unknown symbol", form=Form("Never write the unknown symbol", group=MORE)
    )
    sample: bool = option(
        False, "draw outputs at random instead of searching for the likeliest",
        form=Form("Draw at random", "instead of searching", group=SAMPLING),
    )  # fmt: skip
    temperature: float = option(
        1.0, "with --sample: below 1 likelier tokens, above 1 more variety", open_low=True,
        form=Form("Temperature", "above 1: more variety", 0.05, 20, 0.05, SAMPLING),
    )  # fmt: skip
    top_k: int = option(
        0, "with --sample: draw from the K likeliest tokens; 0: all", bits=BITS,
        form=Form("Top k", "draw from the k likeliest; 0: all", 0, 1_000_000, group=SAMPLING),
    )  # fmt: skip
    top_p: float = option(
        1.0, "with --sample: draw from the likeliest tokens of total probability P", high=1 + 1e-12, open_low=True,
        form=Form("Top p", "from the likeliest of probability p", 0.05, 1, 0.05, SAMPLING),
    )  # fmt: skip
    seed: int = option(
        0, "with --sample: the same seed and sentence, the same output", bits=63,
        form=Form("Seed", "the same one, the same output", 0, 2**53 - 1, group=SAMPLING),
    )  # fmt: skip

    def __post_init__(self) -> None:
        where = "search"
        self.check(where)
        if self.nbest > self.beam and not self.sample:
            raise ValueError(f"{where}: nbest is {self.nbest}, expected at most the beam of {self.beam}")
        if self.max_length is not None and self.min_length >= self.max_length:
            raise ValueError(
                f"{where}: min_length is {self.min_length}, expected less than max_length = {self.max_length}, "
                "which counts the end symbol"
            )
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
