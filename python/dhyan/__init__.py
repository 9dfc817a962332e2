"""dhyan (ध्यान, Hindi for attention): encode-attend-decode models on a C++ core, and pictures of what they attend to."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import ops as ops
    from .attention.attend import attend as attend
    from .attention.layer import Attention as Attention
    from .attention.scoring import register_scoring as register_scoring
    from .attention.scorings import scorings as scorings
    from .attention.windows import PredictiveWindow as PredictiveWindow
    from .attention.windows import Window as Window
    from .errors import CheckpointError as CheckpointError
    from .errors import DataError as DataError
    from .errors import NumericError as NumericError
    from .model.config import ModelConfig as ModelConfig
    from .model.ensemble import Ensemble as Ensemble
    from .model.seq2seq import Seq2Seq as Seq2Seq
    from .ops.machine import get_num_threads as get_num_threads
    from .ops.machine import set_num_threads as set_num_threads
    from .ops.machine import show_config as show_config
    from .report.evaluation import evaluate as evaluate
    from .search.options import SearchOptions as SearchOptions
    from .text.batch import Batch as Batch
    from .text.config import DataConfig as DataConfig
    from .text.pairs import Pair as Pair
    from .text.subword import SubwordVocabulary as SubwordVocabulary
    from .text.vocabulary import Vocabulary as Vocabulary
    from .training.averaging import average as average
    from .training.config import TrainConfig as TrainConfig
    from .training.loop import train as train
    from .training.optimizer import SGD as SGD
    from .training.optimizer import Adam as Adam
    from .training.optimizer import AdamW as AdamW
    from .translate.translation import Translation as Translation
    from .translate.translator import Translator as Translator
    from .translate.translator import load as load

# Name -> module, imported when first asked for: `dhyan --version` should not pay for what it does not use.
_HOMES = {
    "Adam": "training.optimizer",
    "AdamW": "training.optimizer",
    "Attention": "attention.layer",
    "Batch": "text.batch",
    "CheckpointError": "errors",
    "DataConfig": "text.config",
    "DataError": "errors",
    "Ensemble": "model.ensemble",
    "ModelConfig": "model.config",
    "NumericError": "errors",
    "Pair": "text.pairs",
    "PredictiveWindow": "attention.windows",
    "SGD": "training.optimizer",
    "SearchOptions": "search.options",
    "Seq2Seq": "model.seq2seq",
    "SubwordVocabulary": "text.subword",
    "TrainConfig": "training.config",
    "Translation": "translate.translation",
    "Translator": "translate.translator",
    "Vocabulary": "text.vocabulary",
    "Window": "attention.windows",
    "attend": "attention.attend",
    "average": "training.averaging",
    "evaluate": "report.evaluation",
    "get_num_threads": "ops.machine",
    "load": "translate.translator",
    "register_scoring": "attention.scoring",
    "scorings": "attention.scorings",
    "set_num_threads": "ops.machine",
    "show_config": "ops.machine",
    "train": "training.loop",
}

__all__ = ["ops", *sorted(_HOMES)]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("dhyan")
    if name == "ops":
        return importlib.import_module(".ops", __name__)
    if name not in _HOMES:
        raise AttributeError(f"module 'dhyan' has no attribute {name!r}")
    value = getattr(importlib.import_module("." + _HOMES[name], __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
