"""From text to text with a trained model, keeping for every output token the weights it was read with.

One file, as translating and aligning share how texts become ids, are checked and batched, and come back as words.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, overload

import numpy as np

from dhyan.errors import DataError, located, unknown_name
from dhyan.model.config import ModelConfig
from dhyan.model.ensemble import Ensemble
from dhyan.model.seq2seq import ROUNDED_WEIGHTS, Seq2Seq
from dhyan.search.beam import Hypothesis, beam_search, step_limits
from dhyan.search.constraints import Constraints
from dhyan.search.options import SearchOptions
from dhyan.text.batch import Batch, alignment_of, pad
from dhyan.text.copies import copies_of, extended_ids, token_of
from dhyan.text.encoded import Encoded
from dhyan.text.lexicon import KEPT, Lexicon
from dhyan.text.pairs import Links, two_column_tokens
from dhyan.text.subword import AnyVocabulary
from dhyan.text.vocabulary import BEGIN, END, PAD, UNKNOWN
from dhyan.text.words import Words, expand_links
from dhyan.training.folder import check_same_text, folder_names, load_folder, load_lexicon

from .translation import SOURCE_END, Translation
from .unknown import UNATTENTIVE, replaced

BATCH_SENTENCES, BATCH_POSITIONS = 64, 4096
GoldLinks = Sequence[Links | None] | None  # of each text; links count tokens from 0, words where tokens are subwords


class Translator:
    """A model with its two vocabularies.

    two_columns: a source is `first TAB second`, as in training with `--columns 1,2:3`, its tags split as `tags` says
    (`two_column_tokens`). max_source: most tokens a source may have; longer ones are refused, since time and memory
    grow with source times target length, and the scoring "location" knows no further position. So are targets to align
    beyond what would be written for the longest source. Texts get the Unicode form of the vocabularies. The scoring
    "oracle" reads by the links that translate and align get. lexicon, shortlist: see load.
    """

    def __init__(
        self,
        model: Any,
        source_vocab: AnyVocabulary,
        target_vocab: AnyVocabulary,
        *,
        two_columns: bool = False,
        tags: str = "features",
        max_source: int = 500,
        lexicon: Lexicon | None = None,
        shortlist: int = 0,
    ) -> None:
        config = model.config
        if config.source != "tokens":
            raise ValueError(f"Translator: the model's source is {config.source!r}, expected 'tokens': it has no text")
        for name, vocab, size in (
            ("source", source_vocab, config.source_size),
            ("target", target_vocab, config.target_size),
        ):
            if len(vocab) != size:
                raise ValueError(
                    f"Translator: {name}_vocab has {len(vocab)} ids, expected the model's {name}_size {size}"
                )
        self.model, self.source_vocab, self.target_vocab = model, source_vocab, target_vocab
        self.lexicon, self.shortlist = lexicon, shortlist
        known = [c.max_source - 1 for c in self.configs if c.attention == "location"]
        self.two_columns, self.tags, self.max_source = two_columns, tags, min([max_source, *known])
        self.max_target = int(self._usual_steps(np.array(max_source)))

    @property
    def needs_links(self) -> bool:
        """True where the model reads by gold links and cannot do without."""
        return any(config.attention == "oracle" for config in self.configs)

    @property
    def models(self) -> Sequence[Seq2Seq]:
        """The model, or all models of an ensemble."""
        models: Sequence[Seq2Seq] = getattr(self.model, "models", [self.model])
        return models

    @property
    def configs(self) -> list[ModelConfig]:
        """Those of models."""
        return [model.config for model in self.models]

    @property
    def copies(self) -> bool:
        """True where the model may copy words of the source."""
        return bool(self.model.config.copy)

    @overload
    def translate(
        self,
        text: str,
        beam: int | None = None,
        max_length: int | None = None,
        nbest: int | None = None,
        *,
        links: GoldLinks = None,
        prefix: str | Sequence[str] | None = None,
        constraints: Sequence[str] | Sequence[Sequence[str]] | None = None,
        replace_unknown: bool | Mapping[str, str] = False,
        options: SearchOptions | None = None,
        **changes: Any,
    ) -> Translation: ...

    @overload
    def translate(
        self,
        text: list[str] | tuple[str, ...],
        beam: int | None = None,
        max_length: int | None = None,
        nbest: int | None = None,
        *,
        links: GoldLinks = None,
        prefix: str | Sequence[str] | None = None,
        constraints: Sequence[str] | Sequence[Sequence[str]] | None = None,
        replace_unknown: bool | Mapping[str, str] = False,
        options: SearchOptions | None = None,
        **changes: Any,
    ) -> list[Translation]: ...

    def translate(
        self,
        text: str | list[str] | tuple[str, ...],
        beam: int | None = None,
        max_length: int | None = None,
        nbest: int | None = None,
        *,
        links: GoldLinks = None,
        prefix: str | Sequence[str] | None = None,
        constraints: Sequence[str] | Sequence[Sequence[str]] | None = None,
        replace_unknown: bool | Mapping[str, str] = False,
        options: SearchOptions | None = None,
        **changes: Any,
    ) -> Translation | list[Translation]:
        """Translate one text, or a list of texts into a list in the same order.

        options, and beam (5), max_length, nbest (1) or any other field of `SearchOptions` where it differs:
        `translate(text, beam=8, no_repeat_ngram=3)`.
        max_length: most decoder steps, of which the end symbol takes one; None = twice the source tokens and 10 (four
        times from words to subwords, eight times to characters), and what prefix and constraints need.
        prefix: what the output begins with, one text for all or one for each. constraints: phrases that stand somewhere
        in the output, whole tokens of it; one list for all or one list for each text.
        A text of white space alone translates to the empty text with score 0; unknown words enter as one unknown
        symbol each and keep their own form in source_tokens. A result does not depend on the other texts.
        replace_unknown: copy the source word that an unknown output token looks at into its place (Luong et al. 2015);
        a dictionary, source word -> target word: or that word's entry. The score stays that of the unknown symbol.
        links: for a model that reads by gold links, and only read by it: those of each text (`Pair.links`), a list also
        for one text. Output tokens beyond the last linked one read nothing.

        Errors: TypeError for what is not text; ValueError for what `SearchOptions` refuses, for constraints while
        sampling, and for replace_unknown with a scoring that looks at no word; DataError, a ValueError too, for a text
        of more than max_source tokens or without the two columns the model wants, for links that are missing or outside
        the source, and for a prefix or phrase with a token that the model cannot write.
        """
        texts = [text] if isinstance(text, str) else _listed("translate: text", text, "a string or a list of strings")
        sources = _tokenized("translate", texts, self.tokenize)
        chosen = SearchOptions.of(options, beam=beam, max_length=max_length, nbest=nbest, **changes)
        encoded = Encoded.of_tokens(
            sources, [()] * len(sources), self.source_vocab, self.target_vocab, copy=self.copies
        )
        limited = self._constraints(len(texts), prefix, constraints, encoded.own)
        gold = self._gold("translate", links, sources)
        dictionary = self._dictionary(replace_unknown)
        results = [self._nothing() for _ in texts]
        for indices in _batches([len(tokens) for tokens in sources]):
            ids, lengths, copies = encoded.sources(indices)
            own = None if limited is None else limited.take(indices)
            limits = step_limits(self._usual_steps(lengths), chosen, own)
            links_of = None if gold is None else [gold[i] for i in indices]
            alignment = None if links_of is None else _alignment(links_of, int(np.max(limits)), ids.shape[1])
            listed = None
            if self.lexicon is not None and limited is None:
                listed = self.lexicon.choices(ids, lengths, self.model.config.target_size, self.shortlist)
            hypotheses = beam_search(
                self.model, ids, lengths, chosen, limits=limits, constraints=own, alignment=alignment,
                shortlist=listed, copies=copies,
            )  # fmt: skip
            shares = None
            if copies is not None:
                written = [[h.ids for h in own_hypotheses] for own_hypotheses in hypotheses]
                shares = copied_shares(self.model, (ids, lengths, copies), written, links_of)
            for k, i in enumerate(indices):
                results[i] = self._translation(
                    sources[i], hypotheses[k], dictionary, None if shares is None else shares[k]
                )
        return results[0] if isinstance(text, str) else results

    def align(self, sources: Sequence[str], targets: Sequence[str], *, links: GoldLinks = None) -> list[Translation]:
        """How the model reads the sources when it is made to write the targets (teacher forcing).

        The result's weights and links() are the alignment, its score the mean log-probability of the target's tokens.
        links: as translate. Errors: ValueError for unequal counts, and as translate.
        """
        sources = _listed("align: sources", sources, "a list of strings")
        targets = _listed("align: targets", targets, "a list of strings")
        if len(sources) != len(targets):
            raise ValueError(f"align: {len(sources)} sources and {len(targets)} targets, expected equal counts")
        source_tokens = _tokenized("align", sources, self.tokenize)
        target_tokens = _tokenized("align", targets, self.tokenize_target)
        gold = self._gold("align", links, source_tokens, target_tokens)
        encoded = Encoded.of_tokens(
            source_tokens, target_tokens, self.source_vocab, self.target_vocab, links=gold, copy=self.copies
        )
        results: list[Translation | None] = [None] * len(sources)
        lengths = [max(len(s), len(t)) + 1 for s, t in zip(source_tokens, target_tokens, strict=True)]
        for indices in _batches(lengths, empty=True):
            batch = encoded.batch(indices)
            log_probabilities, weights, *shares = (
                self.model.force_copying(batch) if self.copies else self.model.force(batch)
            )
            for row, i in enumerate(indices):
                tokens, read = target_tokens[i], [*source_tokens[i], SOURCE_END]
                score = float(log_probabilities[row, : len(tokens) + 1].mean(dtype=np.float64))
                p_gen, copied = (tuple(a[row, : len(tokens)].tolist()) for a in shares) if shares else (None, None)
                results[i] = Translation(
                    targets[i], tokens, read, score, weights[row, : len(tokens), : len(read)].copy(), (),
                    self.source_vocab.words_of(source_tokens[i]), self.target_vocab.words_of(tokens), copied, p_gen,
                )  # fmt: skip
        return [result for result in results if result is not None]

    def _nothing(self) -> Translation:
        shares = () if self.copies else None
        return Translation("", [], [SOURCE_END], 0.0, np.zeros((0, 1), self.model.dtype), copied=shares, p_gen=shares)

    def tokenize(self, text: str) -> list[str]:
        """The tokens the encoder reads for a text, without the end symbol; [] for white space alone.

        Errors: DataError for a text without the two columns the model wants or of more than max_source tokens.
        """
        if not text.strip():
            return []
        tokens = self.source_vocab.tokenize(self._columns(text))
        if len(tokens) > self.max_source:
            raise DataError(f"the source has {len(tokens)} tokens, expected at most {self.max_source}")
        return tokens

    def tokenize_target(self, text: str) -> list[str]:
        """The tokens of a target to align, without the end symbol. DataError for more than max_target."""
        tokens = self.target_vocab.tokenize(text.strip())
        if len(tokens) > self.max_target:
            raise DataError(f"the target has {len(tokens)} tokens, expected at most {self.max_target}")
        return tokens

    def _columns(self, text: str) -> str | tuple[str, ...]:
        if self.two_columns:
            return two_column_tokens(text, self.source_vocab.normalization, self.tags)
        return text.strip()  # as the fields of a file that a model learns from

    def _dictionary(self, replace_unknown: bool | Mapping[str, str]) -> Mapping[str, str] | None:
        if isinstance(replace_unknown, bool) and not replace_unknown:
            return None
        if all(config.attention in UNATTENTIVE for config in self.configs):
            attention = self.model.config.attention
            raise ValueError(f"translate: replace_unknown with attention {attention!r}, which looks at no word")
        if isinstance(replace_unknown, bool):
            return {}
        if not isinstance(replace_unknown, Mapping):
            kind = type(replace_unknown).__name__
            raise TypeError(f"translate: replace_unknown is a {kind}, expected true, false or a dictionary")
        return replace_unknown

    def _gold(
        self, where: str, links: GoldLinks, sources: Sequence[list[str]], targets: Sequence[list[str]] | None = None
    ) -> list[Links] | None:
        """The links of every text, checked, where the model reads by them; else None."""
        if not self.needs_links:
            return None
        if links is None or len(links) != len(sources):
            got = "none" if links is None else f"those of {len(links)}"
            raise DataError(
                f"{where}: a model with attention 'oracle' reads by gold links, got {got}, expected links of "
                f"{len(sources)} texts"
            )
        gold = []
        for i, (row, source) in enumerate(zip(links, sources, strict=True)):
            if row is None:
                raise DataError(f"{where}: text {i} has no gold links, which a model with attention 'oracle' reads by")
            with located(f"{where}: text {i}"):
                gold.append(self._token_links(row, source, None if targets is None else targets[i]))
        return gold

    def _token_links(self, links: Links, source: list[str], target: list[str] | None) -> Links:
        """Links of these tokens, where they count words. target None: what will be written is not known yet."""
        words = self.source_vocab.words_of(source)
        size = len(source) if words is None else len(words.texts)
        written = None if target is None else self.target_vocab.words_of(target)
        most = math.inf if target is None else len(target) if written is None else len(written.texts)
        for link in links:
            if not (0 <= link[0] < size and 0 <= link[1] < most):
                end = "" if target is None else f" and {most} target"
                raise DataError(f"link {link[0]}-{link[1]} is outside {size} source{end} tokens")
        return expand_links(links, words, written)

    def _constraints(
        self,
        count: int,
        prefix: str | Sequence[str] | None,
        constraints: Sequence[str] | Sequence[Sequence[str]] | None,
        own: Sequence[Sequence[str]] | None,
    ) -> Constraints | None:
        """Prefix and phrases of each of `count` outputs, in ids; own: words that only its source has."""
        prefixes, phrases = None, None

        def writable(what: str, i: int, text: str) -> list[int]:
            text = _text(f"translate: {what}", i, text)
            with located(f"translate: {what} of text {i}"):
                return self.writable(text, own[i] if own is not None and i < count else ())

        if prefix is not None:
            what = "a string, or one for each text"
            texts = [prefix] * count if isinstance(prefix, str) else _listed("translate: prefix", prefix, what)
            prefixes = [writable("prefix", i, text) for i, text in enumerate(texts)]
        if constraints is not None:
            each = _for_each(constraints, count)
            lists = [_listed(f"translate: constraints of text {i}", asked, "a list") for i, asked in enumerate(each)]
            phrases = [[writable("constraint", i, text) for text in asked] for i, asked in enumerate(lists)]
        for name, ids in (("prefix", prefixes), ("constraints", phrases)):
            if ids is not None and len(ids) != count:
                raise ValueError(f"translate: {name} of {len(ids)} texts, expected {count}")
        return Constraints.of(prefixes, phrases)

    def writable(self, text: str, own: Sequence[str] = ()) -> list[int]:
        """The ids of a text that an output may be asked to hold. DataError for a token the model cannot write.

        own: words that only the source has, which a model that copies can write.
        """
        tokens = self.target_vocab.tokenize(text)
        ids = extended_ids(tokens, self.target_vocab, own)
        if UNKNOWN in ids:
            token = tokens[ids.index(UNKNOWN)]
            raise DataError(f"got {token!r}, expected tokens of the model's target vocabulary")
        return ids

    def _usual_steps(self, lengths: np.ndarray) -> np.ndarray:
        levels = self.source_vocab.level, self.target_vocab.level
        factor = 8 if levels[1] == "char" != levels[0] else 4 if levels == ("word", "subword") else 2
        return factor * lengths + 10

    def written(
        self, source: list[str], hypotheses: list[Hypothesis], replace_unknown: bool | Mapping[str, str] = False
    ) -> Translation:
        """What hypotheses of a search say in words, the first with the others. source: `tokenize` of their text."""
        return self._translation(source, hypotheses, self._dictionary(replace_unknown))

    def _translation(
        self,
        source: list[str],
        hypotheses: list[Hypothesis],
        dictionary: Mapping[str, str] | None,
        shares: list[Shares] | None = None,
    ) -> Translation:
        words = self.source_vocab.words_of(source)
        own = copies_of(source, self.target_vocab)[1] if self.copies else ()
        outputs = [self._output(source, words, h, dictionary, own) for h in hypotheses]
        if shares is not None:
            outputs = [replace(one, copied=c, p_gen=p) for one, (c, p) in zip(outputs, shares, strict=True)]
        return replace(outputs[0], others=tuple(outputs[1:]))

    def _output(
        self,
        source: list[str],
        words: Words | None,
        h: Hypothesis,
        dictionary: Mapping[str, str] | None,
        own: Sequence[str],
    ) -> Translation:
        tokens = [token_of(i, self.target_vocab, own) for i in h.ids]
        if dictionary is not None:
            whole = words if self.target_vocab.level == "word" else None
            tokens = replaced(h.ids, tokens, h.weights, source, dictionary, whole)
        text = self.target_vocab.join(t for i, t in zip(h.ids, tokens, strict=True) if i not in (PAD, BEGIN))
        written = self.target_vocab.words_of(tokens)
        return Translation(text, tokens, [*source, SOURCE_END], h.score, h.weights, (), words, written)


def load(
    folder: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    weights: str | None = None,
    shortlist: int = 0,
) -> Translator:
    """The trained model of a folder that `dhyan train` wrote; of several folders their ensemble, see `Ensemble`.

    weights: "bfloat16" or "int8" rounds them for faster decoding of few sentences, see Seq2Seq.freeze.
    shortlist: from 1 to 100, choose from so many target tokens for each source token, and as many frequent ones;
    0: from all. It needs what `dhyan shortlist` made of the first folder (DataError), and is left aside where a prefix
    or constraints say what to write.
    Errors: CheckpointError naming file and part, or the vocabulary in which two folders differ; ValueError for none,
    and for weights and shortlist out of range; TypeError for what is neither a path nor a list of them.
    """
    folders = folder_names(
        "load: folder", [folder] if isinstance(folder, str | os.PathLike) else folder, "a path or a list of paths"
    )
    if weights is not None and weights not in ROUNDED_WEIGHTS:
        raise unknown_name("load: weights", weights, ROUNDED_WEIGHTS)
    if isinstance(shortlist, bool) or not isinstance(shortlist, int):
        raise TypeError(f"load: shortlist is {shortlist!r}, expected an integer")
    if not 0 <= shortlist <= KEPT:
        raise ValueError(f"load: shortlist is {shortlist}, expected 0 to {KEPT}")
    parts = [load_folder(one) for one in folders]
    first = parts[0]
    for name, part in zip(folders[1:], parts[1:], strict=True):
        check_same_text("load", first, part, folders[0], name)
    lexicon = load_lexicon(Path(folders[0]), first.model.config) if shortlist else None
    for part in parts:
        part.model.freeze(weights)
    return Translator(
        first.model if len(parts) == 1 else Ensemble([part.model for part in parts]),
        first.source_vocabulary,
        first.target_vocabulary,
        two_columns="," in first.data.columns,
        tags=first.data.tags,
        max_source=min(part.data.max_length for part in parts),
        lexicon=lexicon,
        shortlist=shortlist,
    )


def _alignment(links: Sequence[Links], limit: int, S: int) -> np.ndarray:
    """(B, T, S) of links that are inside their sources; the last row, which stands for all further steps, is 0."""
    kept = [[link for link in row if link[1] < limit] for row in links]
    T = max((link[1] + 1 for row in kept for link in row), default=0) + 1
    return alignment_of(kept, [(S, T)] * len(kept), (T, S), "translate")


def _for_each(constraints: Sequence[str] | Sequence[Sequence[str]], count: int) -> Sequence[Sequence[str]]:
    """The phrases of each text; one list may stand for all."""
    listed = _listed("translate: constraints", constraints, "a list of phrases, or one for each text")
    texts = [isinstance(phrase, str) for phrase in listed]
    if any(texts) and not all(texts):
        raise TypeError("translate: constraints is of mixed types, expected a list of phrases, or one for each text")
    return [listed] * count if all(texts) else listed


def _listed(what: str, given: object, expected: str) -> list[Any]:
    """The items of a list; one text is none, though it has characters. Errors: TypeError."""
    if isinstance(given, str | bytes | Mapping) or not isinstance(given, Iterable):
        kind = "None" if given is None else f"a {type(given).__name__}"
        raise TypeError(f"{what} is {kind}, expected {expected}")
    return list(given)


def _tokenized(where: str, texts: Sequence[object], tokenize: Callable[[str], list[str]]) -> list[list[str]]:
    """The tokens of every text. Errors name its number."""
    tokens = []
    for i, text in enumerate(texts):
        with located(f"{where}: text {i}"):
            tokens.append(tokenize(_text(where, i, text)))
    return tokens


def _text(where: str, index: int, text: object) -> str:
    if not isinstance(text, str):
        raise TypeError(f"{where}: text {index} is a {type(text).__name__}, expected str")
    return text


def _batches(lengths: Sequence[int], empty: bool = False) -> Iterator[list[int]]:
    """Indices of the texts, shortest first, in batches of bounded size; texts without tokens are left out."""
    batch: list[int] = []
    for i in sorted(range(len(lengths)), key=lambda i: lengths[i]):
        if not lengths[i] and not empty:
            continue
        if batch and (len(batch) == BATCH_SENTENCES or (len(batch) + 1) * lengths[i] > BATCH_POSITIONS):
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch


# ---------------------------------------------------------------- search


Shares = tuple[tuple[float, ...], tuple[float, ...]]  # of each token: how far it was copied, and p_gen


def copied_shares(
    model: Any,
    batch: tuple[np.ndarray, np.ndarray, np.ndarray],
    outputs: Sequence[Sequence[Sequence[int]]],
    links: Sequence[Links] | None = None,
) -> list[list[Shares]]:
    """What was copied in outputs of a search, from forcing the model to write them once more.

    batch: source (B, S), lengths (B,), copies (B, S); outputs: of each sentence some lists of ids without the end
    symbol; links: of each sentence, where the model reads by them.
    """
    source, lengths, copies = batch
    rows = [(b, ids) for b, own in enumerate(outputs) for ids in own]
    which = np.array([b for b, _ in rows], np.int64)
    target, target_lengths = pad([[BEGIN, *ids, END] for _, ids in rows])
    alignment = None
    if links is not None:
        kept = [[link for link in links[b] if link[1] <= len(ids)] for b, ids in rows]
        T, S = target.shape[1] - 1, source.shape[1]
        alignment = alignment_of(kept, [(S, T)] * len(kept), (T, S), "copied_shares")
    forced = Batch(source[which], lengths[which], target, target_lengths, alignment, copies[which])
    _, _, p_gen, copied = model.force_copying(forced)
    shares: list[list[Shares]] = [[] for _ in outputs]
    for row, (b, ids) in enumerate(rows):
        shares[b].append((tuple(copied[row, : len(ids)].tolist()), tuple(p_gen[row, : len(ids)].tolist())))
    return shares
