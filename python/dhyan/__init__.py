"""dhyan (ध्यान, Hindi for attention): encode-attend-decode models on a C++ core, and pictures of what they attend to."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import ops as ops
    from .attending import attend as attend
    from .attention import Attention as Attention
    from .averaging import average as average
    from .batch import Batch as Batch
    from .config import DataConfig as DataConfig
    from .config import ModelConfig as ModelConfig
    from .config import TrainConfig as TrainConfig
    from .ensemble import Ensemble as Ensemble
    from .errors import CheckpointError as CheckpointError
    from .errors import DataError as DataError
    from .errors import NumericError as NumericError
    from .model import Seq2Seq as Seq2Seq
    from .model_ops import get_num_threads as get_num_threads
    from .model_ops import set_num_threads as set_num_threads
    from .model_ops import show_config as show_config
    from .optim import SGD as SGD
    from .optim import Adam as Adam
    from .optim import AdamW as AdamW
    from .scoring import scorings as scorings
    from .search_options import SearchOptions as SearchOptions
    from .subword import SubwordVocabulary as SubwordVocabulary
    from .training import train as train
    from .translation import Translation as Translation
    from .translator import Translator as Translator
    from .translator import load as load
    from .vocab import Vocabulary as Vocabulary
    from .windows import PredictiveWindow as PredictiveWindow
    from .windows import Window as Window

# Name -> module, imported when first asked for: `dhyan --version` should not pay for what it does not use.
_HOMES = {
    "Adam": "optim",
    "AdamW": "optim",
    "Attention": "attention",
    "Batch": "batch",
    "CheckpointError": "errors",
    "DataConfig": "config",
    "DataError": "errors",
    "Ensemble": "ensemble",
    "ModelConfig": "config",
    "NumericError": "errors",
    "PredictiveWindow": "windows",
    "SGD": "optim",
    "SearchOptions": "search_options",
    "Seq2Seq": "model",
    "SubwordVocabulary": "subword",
    "TrainConfig": "config",
    "Translation": "translation",
    "Translator": "translator",
    "Vocabulary": "vocab",
    "Window": "windows",
    "attend": "attending",
    "average": "averaging",
    "get_num_threads": "model_ops",
    "load": "translator",
    "scorings": "scoring",
    "set_num_threads": "model_ops",
    "show_config": "model_ops",
    "train": "training",
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
