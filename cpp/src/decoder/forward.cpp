// The attention decoder over whole target sequences: one parallel region, threads own sentences. backward.cpp mirrors
// it.
#include "decoder/cache.h"

namespace dhyan {
namespace {

// One call of decoder_forward, as its slices of sentences see it.
template <class T>
struct Forward {
  const DecoderInputs<T>& in;
  const DecoderWeights<T>& weights;
  const PreparedMemory<T>& memory;
  const T* token_part;  // (R,G*H) what the tokens put into the gates
  DecoderCache<T>& cache;
};

template <class T>
std::shared_ptr<DecoderCache<T>> empty_cache(const DecoderParameters<T>& p, const DecoderShape<T>& z,
                                             const Ragged& sources, const Ragged& targets) {
  const Index N = targets.total;
  auto cache = std::make_shared<DecoderCache<T>>(DecoderCache<T>{z,
                                                                 sources,
                                                                 targets,
                                                                 {},
                                                                 Buffer<T>(N * z.U),
                                                                 Buffer<T>(N * z.D),
                                                                 Buffer<T>(N * z.S),
                                                                 Buffer<T>(N * z.E),
                                                                 Buffer<T>(p.residual && z.L > 1 ? N * z.H : 0)});
  for (Index l = 0; l < z.L; ++l) cache->cells.emplace_back(p.cell, N, z.H, p.cells[l].normalized());
  return cache;
}

// Row i of a step to row r of the cache.
template <class T>
void keep_row(DecoderStep<T>& step, Index i, Index r, DecoderCache<T>& cache) {
  const auto& z = cache.z;
  for (Index l = 0; l < z.L; ++l)
    if (step.cells[l].norm) step.cells[l].norm.keep(i, cache.cells[l].norm, r);
  std::copy_n(step.query.get() + i * z.U, z.U, cache.query.get() + r * z.U);
  std::copy_n(step.context.get() + i * z.D, z.D, cache.context.get() + r * z.D);
  std::copy_n(step.attended_weights.get() + i * z.S, z.S, cache.weights.get() + r * z.S);
  if (step.residual()) std::copy_n(step.output.get() + i * z.H, z.H, cache.output.get() + r * z.H);
  if (step.p.feeds_readout()) std::copy_n(step.readout.get() + i * z.E, z.E, cache.readout.get() + r * z.E);
}

// All steps of the sentences of a slice, longest first.
template <class T>
void forward_slice(const Forward<T>& f, const std::vector<Index>& order) {
  const auto& in = f.in;
  auto& cache = f.cache;
  const auto& z = cache.z;
  const Index width = gates_of(in.parameters.cell) * z.H;
  Index active = order.size();
  DecoderStep<T> step(in.parameters, f.weights, f.memory, z, active);
  for (Index l = 0; l < z.L; ++l) step.cells[l].mask.take(in.masks.states(l), order, z.H);
  step.start(in.h0, in.c0, order);
  T* scratch = thread_scratch<T>();
  for (Index t = 0;; ++t) {
    while (active > 0 && cache.targets.length[order[active - 1]] <= t) --active;
    if (active == 0) break;
    check_interrupt();
    const auto row = [&](Index i) { return cache.row(order[i], t); };
    const auto token = [&](Index i) { return f.token_part + in.y.row(row(i)) * width; };
    const auto mask = [&](Index l, Index i) { return in.masks.between_row(l, row(i)); };
    const auto place = [&](Index l, Index i) { return cache.cells[l].row(step.cells[l], row(i)); };
    step.run(active, [&](Index i) { return order[i]; }, [&](Index) { return t; }, mask, token, place, scratch);
    if (in.parameters.feeds_readout()) step.read_out(active, scratch);
    for (Index i = 0; i < active; ++i) keep_row(step, i, row(i), cache);
  }
}

// The readouts of all steps as one product, where no step reads the one before.
template <class T>
void read_out(const Forward<T>& f) {
  const auto& p = f.in.parameters;
  const auto& y = f.in.y;
  const auto& z = f.cache.z;
  const Index N = f.cache.targets.total, R = y.x[0];
  T* r = f.cache.readout.get();
  const T* bias = p.readout_bias.data;
  if (p.bahdanau) {
    const Buffer<T> rows(y.index ? R * z.E : 0);
    product(R, y.x.data, z.E, f.weights.from_token, y.index ? rows.get() : r, z.E, bias);
    for (Index n = 0; n < N && y.index; ++n) std::copy_n(rows.get() + y.row(n) * z.E, z.E, r + n * z.E);
  }
  product<T>(N, f.cache.handed_on(), z.H, f.weights.from_state, r, z.E, bias, p.bahdanau);
  product<T>(N, f.cache.context.get(), z.D, f.weights.from_context, r, z.E, static_cast<const T*>(nullptr), true);
  parallel_for((N + 15) / 16, 16 * N * z.E, [&](Index c) {
    dense_kernels<T>().tanh_rows(std::min<Index>(16, N - c * 16), z.E, r + c * 16 * z.E, z.E);
  });
}

}  // namespace

template <class T>
std::shared_ptr<DecoderCache<T>> decoder_forward(const DecoderInputs<T>& in, View<const Index, 1> steps,
                                                 View<T, 2> readout, View<T, 2> weights) {
  const char* op = "decoder_forward";
  const auto& p = in.parameters;
  const auto& y = in.y;
  const Index B = steps[0];
  const Ragged targets(steps.data, B);
  const Ragged sources(in.memory.lengths.data, in.memory.lengths[0]);
  check_decoder(op, p, in.memory, B, in.h0, in.c0, sources.longest);
  if (p.scorer.rule == Rule::read && !p.scorer.reader) fail(std::string(op) + ": there is no reader");
  const DecoderShape<T> z(p, in.memory, sources.longest);
  const Index N = targets.total, R = y.x[0], width = gates_of(p.cell) * z.H;
  check_tokens(op, "y", y, N, {"E", z.E}, "one row a decoder step");
  check_masks(op, z, B, N, in.masks);

  const auto cache = empty_cache(p, z, sources, targets);
  const PreparedMemory<T> prepared(p.scorer, in.memory);
  const auto slices = targets.slices(step_slices(p.scorer, B, loop_work(z, p.cell, N)));
  // A slice a thread: thin products would only share the columns of a slice that is alone.
  const DecoderWeights<T> packed(p, z, slices.size() > 1 ? kThinRows + 1 : loop_rows(B), N);
  const Buffer<T> shared(y.index ? R * width : 0);  // of tokens that are read several times
  T* token_part = y.index ? shared.get() : cache->cells[0].gates.get();
  product(R, y.x.data, z.E, packed.token, token_part, width, static_cast<const T*>(packed.cells[0].input_bias.get()));

  const Forward<T> f{in, packed, prepared, token_part, *cache};
  for_slices(p.scorer, slices.size(), loop_work(z, p.cell, N), [&](Index s) { forward_slice(f, slices[s]); });
  if (!p.feeds_readout()) read_out(f);
  std::copy_n(cache->readout.get(), N * z.E, readout.data);
  std::copy_n(cache->weights.get(), N * z.S, weights.data);
  return cache;
}

#define DHYAN_INSTANTIATE(T)                                                                                  \
  template std::shared_ptr<DecoderCache<T>> decoder_forward<T>(const DecoderInputs<T>&, View<const Index, 1>, \
                                                               View<T, 2>, View<T, 2>);
DHYAN_INSTANTIATE(float)
DHYAN_INSTANTIATE(double)
#undef DHYAN_INSTANTIATE

}  // namespace dhyan
