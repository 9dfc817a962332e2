"""The attention decoder's loop in the core: whole sentences forward and backward, and single steps for search."""

from __future__ import annotations

from dhyan import _core

decoder_forward = _core.decoder_forward
decoder_backward = _core.decoder_backward
CellArrays = _core.CellArrays
DecoderParameters = _core.DecoderParameters
DecoderGradients = _core.DecoderGradients
DecoderMasks = _core.DecoderMasks
Memory = _core.Memory
StepWeights = _core.StepWeights
Stepper = _core.Stepper
