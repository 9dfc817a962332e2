// The books of beam search over the sentences of one slice: which hypotheses are open, what each has written and read,
// and which are closed. The model's steps are the caller's. It decides, to the bit, as `_Search` of search.py does,
// which takes over wherever an option is set that this loop does not know.
#pragma once

#include <algorithm>
#include <functional>
#include <limits>
#include <tuple>
#include <utility>
#include <vector>

#include "dhyan/decoder.h"

namespace dhyan {

template <class T>
class Beam {
 public:
  std::vector<Index> sentence, token;  // of every open hypothesis (row); those of a sentence stand together

  // sentences: those of this slice, with room for at least one step each. S: positions of a row of weights.
  Beam(const BeamOptions& options, const BeamOutput<T>& output, std::vector<Index> sentences, Index S)
      : sentence(std::move(sentences)),
        token(sentence.size(), options.begin),
        options_(options),
        out_(output),
        S_(S),
        sum_(sentence.size(), 0.0),
        books_(output.steps[0]) {}

  // lp, ids (rows,K): the largest log-probabilities of each row and their tokens; weights (rows,S): what each read.
  // Afterwards row i extends row parents()[i] of before.
  void step(const T* lp, const Index* ids, Index K, const T* weights) {
    Step next;
    std::vector<double> sums;
    std::vector<Index> sentences;
    const Index rows = sentence.size(), n = history_.size() + 1;
    for (Index first = 0, last; first < rows; first = last) {
      const Index b = sentence[first];
      for (last = first; last < rows && sentence[last] == b;) ++last;
      best(first, last, lp, ids, K);
      Books& books = books_[b];
      double open = -std::numeric_limits<double>::infinity();
      for (const Candidate& c : found_)
        if (c.token != options_.end)
          open = std::max(open, c.sum);
        else
          close(b, c, weights, true);
      // Sums only fall; divided by the largest length they can reach they bound the final score from above.
      const double bound = open / options_.norm[options_.limit.data[b]];
      const auto& scores = books.scores;
      if (Index(scores.size()) >= options_.nbest && scores[options_.nbest - 1] >= bound) continue;
      for (const Candidate& c : found_) {
        if (c.token == options_.end) continue;
        if (n >= options_.limit.data[b]) {
          close(b, c, weights, false);
          continue;
        }
        next.token.push_back(c.token);
        next.parent.push_back(c.row);
        next.weights.insert(next.weights.end(), weights + c.row * S_, weights + (c.row + 1) * S_);
        sums.push_back(c.sum);
        sentences.push_back(b);
      }
    }
    sentence = std::move(sentences);
    token = next.token;
    sum_ = std::move(sums);
    history_.push_back(std::move(next));
  }
  const std::vector<Index>& parents() const { return history_.back().parent; }

 private:
  struct Candidate {
    double sum;
    Index token, row;
  };
  struct Step {  // the open hypotheses after it
    std::vector<Index> token, parent;
    std::vector<T> weights;
  };
  struct Books {  // of a sentence
    Index closed = 0, finished = 0;
    std::vector<double> scores;  // of what is finished, best first
  };

  // The best continuations of rows [first, last), as many as there is room for. What has probability 0 is none: where a
  // sentence may choose from fewer tokens than the beam has places, the rest are only other sentences' tokens.
  void best(Index first, Index last, const T* lp, const Index* ids, Index K) {
    found_.clear();
    for (Index i = first * K; i < last * K; ++i)
      if (lp[i] > -std::numeric_limits<T>::infinity()) found_.push_back({sum_[i / K] + double(lp[i]), ids[i], i / K});
    const Index room = std::min<Index>(found_.size(), options_.beam - books_[sentence[first]].finished);
    std::partial_sort(found_.begin(), found_.begin() + room, found_.end(), [](const Candidate& a, const Candidate& b) {
      return std::tie(b.sum, a.token, a.row) < std::tie(a.sum, b.token, b.row);
    });
    found_.resize(room);
  }

  // Writes a hypothesis that ends with candidate c: its tokens and what they read, from the last step to the first.
  void close(Index b, const Candidate& c, const T* weights, bool finished) {
    Books& books = books_[b];
    const Index at = b * options_.beam + books.closed++, n = history_.size() + 1, limit = out_.ids[2];
    out_.total.data[at] = c.sum;
    out_.steps.data[at] = n;
    out_.finished.data[at] = finished;
    const auto put = [&](Index t, Index written, const T* read) {
      out_.ids.data[at * limit + t] = written;
      std::copy_n(read, S_, out_.weights.data + (at * limit + t) * S_);
    };
    put(n - 1, c.token, weights + c.row * S_);
    Index row = c.row;  // of those open after step t
    for (Index t = n - 2; t >= 0; --t) {
      const Step& step = history_[t];
      put(t, step.token[row], step.weights.data() + row * S_);
      row = step.parent[row];
    }
    if (!finished) return;
    ++books.finished;
    const double score = c.sum / options_.norm[n];
    books.scores.insert(std::upper_bound(books.scores.begin(), books.scores.end(), score, std::greater<double>()),
                        score);
  }

  const BeamOptions& options_;
  const BeamOutput<T>& out_;
  Index S_;
  std::vector<double> sum_;
  std::vector<Books> books_;
  std::vector<Step> history_;
  std::vector<Candidate> found_;
};

}  // namespace dhyan
