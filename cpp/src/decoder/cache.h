// What decoder_forward leaves for decoder_backward: a row a step of a sentence, sentence after sentence.
#pragma once

#include "decoder/step.h"

namespace dhyan {

template <class T>
struct DecoderCache {
  DecoderShape<T> z;
  Ragged sources, targets;
  std::vector<CellTrace<T>> cells;
  Buffer<T> query, context, weights, readout;  // (N,U) (N,D) (N,S) (N,E)
  Buffer<T> output;                            // (N,H) what the layers hand on, where they are residual
  const T* handed_on() const { return output.size() ? output.get() : cells.back().h.get(); }
  Index row(Index b, Index t) const { return targets.start[b] + t; }
};

}  // namespace dhyan
