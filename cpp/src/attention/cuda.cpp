// The front of the device side: the checks of attention.cpp, then the backend. Built with DHYAN_CUDA only.
#include <vector>

#include "attention/inputs.h"
#include "cuda/backend.h"
#include "dhyan/cuda.h"

namespace dhyan::cuda {
namespace {

// Values of ranges are looked at on the device; only ranges that are wrong come back, to be named.
void check_restriction(const Place& place, const char* op, const Restriction& may, Index B, Index T, Index S) {
  check_range_shapes(op, may, B, T);
  if (may.checked || ranges_hold(place, may, B, T, S)) return;
  Restriction copy;
  std::vector<Index> begin(static_cast<std::size_t>(may.begin.count())), end(static_cast<std::size_t>(may.end.count()));
  const auto fetch = [&](const View<const Index, 2>& from, std::vector<Index>& to, View<const Index, 2>& view) {
    if (!from) return;
    download(place, from.data, to.size() * sizeof(Index), to.data());
    view = {to.data(), from.size};
  };
  fetch(may.begin, begin, copy.begin);
  fetch(may.end, end, copy.end);
  dhyan::check_restriction(op, copy, B, T, S);
}

}  // namespace

template <class T>
void score_forward(const Place& place, const Scoring<T>& in, View<Weight<T>, 3> scores) {
  check_scoring("score_forward", in);
  backend::score_forward<T>(place, in, scores);
}

template <class T>
void score_backward(const Place& place, View<const Weight<T>, 3> dscores, const Scoring<T>& in, View<T, 3> dq,
                    View<T, 3> dk, View<T, 1> dw) {
  check_score_backward(dscores, in);
  backend::score_backward<T>(place, dscores, in, dq, dk, dw);
}

template <class T>
void softmax_forward(const Place& place, View<const T, 3> scores, const Restriction& may, View<T, 3> weights) {
  check_restriction(place, "softmax_forward", may, scores[0], scores[1], scores[2]);
  backend::softmax_forward<T>(place, scores, may, weights);
}

template <class T>
void softmax_backward(const Place& place, View<const T, 3> dweights, View<const T, 3> weights, View<T, 3> dscores) {
  check_softmax_backward(dweights, weights);
  backend::softmax_backward<T>(place, dweights, weights, dscores);
}

template <class T>
void context_forward(const Place& place, View<const Weight<T>, 3> weights, View<const T, 3> v, View<T, 3> context) {
  check_context("context_forward", weights, v);
  backend::context_forward<T>(place, weights, v, context);
}

template <class T>
void context_backward(const Place& place, View<const T, 3> dcontext, View<const Weight<T>, 3> weights,
                      View<const T, 3> v, View<Weight<T>, 3> dweights, View<T, 3> dv) {
  check_context_backward(dcontext, weights, v);
  backend::context_backward<T>(place, dcontext, weights, v, dweights, dv);
}

template <class T>
void attention_forward(const Place& place, const Scoring<T>& in, View<const T, 3> v, const Restriction& may,
                       View<T, 3> context, View<Weight<T>, 3> weights) {
  check_attention("attention_forward", in, v);
  check_restriction(place, "attention_forward", may, in.q[0], in.q[1], in.k[1]);
  backend::attention_forward<T>(place, in, v, may, context, weights);
}

// The values of the ranges were looked at by the forward call, and looking waits: here they are only cut to [0, S).
template <class T>
void attention_backward(const Place& place, View<const T, 3> dcontext, View<const Weight<T>, 3> dweights,
                        const Scoring<T>& in, View<const T, 3> v, const Restriction& may,
                        View<const Weight<T>, 3> weights, View<T, 3> dq, View<T, 3> dk, View<T, 3> dv, View<T, 1> dw) {
  check_attention_backward(dcontext, dweights, in, v, weights);
  check_range_shapes("attention_backward", may, in.q[0], in.q[1]);
  backend::attention_backward<T>(place, dcontext, dweights, in, v, may, weights, dq, dk, dv, dw);
}

DHYAN_CUDA_ATTENTION(DHYAN_CUDA_INSTANTIATE, float)
DHYAN_CUDA_ATTENTION(DHYAN_CUDA_INSTANTIATE, double)
DHYAN_CUDA_ATTENTION(DHYAN_CUDA_INSTANTIATE, Half)
DHYAN_CUDA_ATTENTION(DHYAN_CUDA_INSTANTIATE, Bfloat16)
DHYAN_CUDA_SOFTMAX(DHYAN_CUDA_INSTANTIATE, float)
DHYAN_CUDA_SOFTMAX(DHYAN_CUDA_INSTANTIATE, double)

}  // namespace dhyan::cuda
