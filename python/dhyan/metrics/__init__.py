"""Outputs and references in, numbers out: scores, alignment error, failures, significance."""

from __future__ import annotations

from .alignment import aer as aer
from .alignment import links_from_weights as links_from_weights
from .alignment import pharaoh as pharaoh
from .failures import DIFFUSE as DIFFUSE
from .failures import FAILURES as FAILURES
from .failures import LONGEST_REPEAT as LONGEST_REPEAT
from .failures import UNREAD as UNREAD
from .failures import Output as Output
from .failures import failures as failures
from .failures import failures_of as failures_of
from .failures import repeats as repeats
from .failures import surplus as surplus
from .measures import MEASURES as MEASURES
from .measures import Measure as Measure
from .scores import TEXT_EXTRA_MISSING as TEXT_EXTRA_MISSING
from .scores import TOKENIZERS as TOKENIZERS
from .scores import Score as Score
from .scores import Tokens as Tokens
from .scores import bleu as bleu
from .scores import bleu_metric as bleu_metric
from .scores import by_length as by_length
from .scores import check_counts as check_counts
from .scores import chrf as chrf
from .scores import edit_distance as edit_distance
from .scores import exact_match as exact_match
from .scores import length_edges as length_edges
from .scores import nfc as nfc
from .scores import perplexity as perplexity
from .scores import sacrebleu_metric as sacrebleu_metric
from .scores import split_words as split_words
from .scores import ter as ter
from .scores import token_error_rate as token_error_rate
