// Sums over rows of logits in one pass, for XLA's CPU backend, which does not fuse several reductions over one array.
//
// A thread takes a row of the output and some of its lens rows. The output's exponentials stay in a buffer, which the
// divergences of the lens rows read.

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <limits>
#include <memory>
#include <thread>
#include <vector>

#include "xla/ffi/api/ffi.h"

namespace {

namespace ffi = xla::ffi;

constexpr int kLanes = 16;
constexpr int kBlock = 256;  // entries summed in float32 before their sums are added in float64
constexpr float kMasked = -1e30f;
constexpr float kFloor = -1e4f;
constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
constexpr float kLargest = std::numeric_limits<float>::max();

typedef float Floats __attribute__((vector_size(4 * kLanes)));
typedef double Doubles __attribute__((vector_size(8 * kLanes)));
typedef int32_t Ints __attribute__((vector_size(4 * kLanes)));

Floats Load(const float* from) {
  Floats x;
  std::memcpy(&x, from, sizeof x);
  return x;
}

Floats Larger(Floats x, Floats y) { return x > y ? x : y; }

// e^x for x of at most 0, within 2 units in the last place; 0 below -87.
Floats Exponential(Floats x) {
  constexpr float kRound = 12582912.f;  // 1.5 * 2^23: its sum with a small number is rounded to an integer
  const Floats shifted = x * 1.44269504088896341f + kRound;
  const Floats n = shifted - kRound;
  const Floats r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  Floats p = r * 1.9875691500e-4f + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.f;
  const Floats y = (Floats)((Ints)p + ((Ints)shifted << 23));
  return x > -87.f ? y : Floats{};
}

// A sum of vectors, in float32 within a block and in float64 over blocks.
class Sum {
 public:
  void Add(Floats x) { block_ += x; }
  void EndBlock() {
    total_ += __builtin_convertvector(block_, Doubles);
    block_ = Floats{};
  }
  double total() const {
    double sum = 0;
    for (int lane = 0; lane < kLanes; ++lane) sum += total_[lane];
    return sum;
  }

 private:
  Floats block_{};
  Doubles total_{};
};

// A row of logits, cut into blocks; the last one is filled with absent entries.
class Row {
 public:
  Row(const float* row, int64_t size) : row_(row), size_(size) {
    full_ = size / kBlock;
    const int64_t rest = size - full_ * kBlock;
    blocks_ = full_ + (rest > 0);
    width_ = (rest + kLanes - 1) / kLanes * kLanes;
    if (rest > 0) {
      std::fill(tail_ + rest, tail_ + width_, -kInfinity);
      std::memcpy(tail_, row + full_ * kBlock, rest * sizeof(float));
    }
  }
  int64_t blocks() const { return blocks_; }
  const float* block(int64_t i) const { return i < full_ ? row_ + i * kBlock : tail_; }
  int width(int64_t i) const { return i < full_ ? kBlock : width_; }
  int64_t size() const { return size_; }

 private:
  const float* row_;
  int64_t size_, full_, blocks_;
  int width_;
  float tail_[kBlock];
};

struct Largest {
  float value, second;  // the largest logit, and the largest of the others
  int64_t index;        // the first one of the largest
  bool finite;          // no logit is NaN or +inf
};

Largest FindLargest(const Row& row) {
  float best = -kInfinity, others = -kInfinity;
  int64_t place = 0;
  Ints good = ~Ints{}, numbers = ~Ints{};
  for (int64_t i = 0; i < row.blocks(); ++i) {
    const float* block = row.block(i);
    Floats most = Floats{} - kInfinity;
    for (int j = 0; j < row.width(i); j += kLanes) {
      const Floats x = Load(block + j);
      most = Larger(most, x);
      good &= x <= kLargest;
      numbers &= x == x;
    }
    float largest = -kInfinity;
    for (int lane = 0; lane < kLanes; ++lane) largest = std::max(largest, most[lane]);
    if (largest > best) {
      others = best;
      best = largest;
      place = i;
    } else {
      others = std::max(others, largest);
    }
  }
  bool finite = true, number = true;
  for (int lane = 0; lane < kLanes; ++lane) finite &= good[lane] != 0, number &= numbers[lane] != 0;
  if (!number) return {kNaN, kNaN, row.size() - 1, false};
  const float* block = row.block(place);
  int index = 0;
  while (block[index] != best) ++index;
  for (int j = 0; j < row.width(place); ++j)
    if (j != index) others = std::max(others, block[j]);
  return {best, std::max(others, kMasked), place * kBlock + index, finite};
}

struct Shapes {
  int64_t groups, rows, vocabulary;
};

struct Outputs {
  float *m, *l, *a, *b, *cross;  // [G, R]
  int32_t* top1;                 // [G, R]
  float* sums;                   // [A + 2, R]: the sum of each order, the sum of u, the second largest logit
};

// Sums of the output's row `r` and of its lens rows in groups `first` to `end`.
void Read(const float* logits, Shapes shape, const float* orders, int64_t count, const Outputs& to, int64_t r,
          int64_t first, int64_t end) {
  const int64_t last = shape.groups - 1;
  const auto at = [&](int64_t group) { return logits + (group * shape.rows + r) * shape.vocabulary; };
  const auto store = [&](int64_t group, const Largest& found, double l, double a, double b, double cross) {
    const int64_t i = group * shape.rows + r;
    const bool bad = !found.finite;
    to.m[i] = std::max(kMasked, found.value);
    if (found.value != found.value) to.m[i] = kNaN;
    to.l[i] = bad ? kNaN : l;
    to.a[i] = bad ? kNaN : a;
    to.b[i] = bad ? kNaN : b;
    to.cross[i] = cross;
    to.top1[i] = static_cast<int32_t>(found.index);
  };

  const Row output(at(last), shape.vocabulary);
  const Largest top = FindLargest(output);
  const float m = std::max(kMasked, top.value);
  const bool full = end > last;
  std::vector<float> kept(end - first > full ? output.blocks() * kBlock : 0);
  {
    Sum l, a, b, c, entries;
    std::vector<Sum> of_orders(full ? count : 0);
    for (int64_t i = 0; i < output.blocks(); ++i) {
      const float* block = output.block(i);
      for (int j = 0; j < output.width(i); j += kLanes) {
        const Floats s = Load(block + j), shift = s - m, u = Larger(shift, Floats{} + kFloor), e = Exponential(u);
        if (!kept.empty()) std::memcpy(&kept[i * kBlock + j], &e, sizeof e);
        if (!full) continue;
        l.Add(e), a.Add(e * u), b.Add(e * u * u);
        c.Add(s > kMasked ? shift : Floats{});
        entries.Add(s > kMasked ? Floats{} + 1.f : Floats{});
      }
      if (!full) continue;
      l.EndBlock(), a.EndBlock(), b.EndBlock(), c.EndBlock(), entries.EndBlock();
      for (int64_t k = 0; k < count; ++k) {
        if (orders[k] == 0) continue;
        for (int j = 0; j < output.width(i); j += kLanes)
          of_orders[k].Add(Exponential(orders[k] * Larger(Load(block + j) - m, Floats{} + kFloor)));
        of_orders[k].EndBlock();
      }
    }
    if (full) {
      const bool empty = m <= kMasked;
      store(last, top, empty ? 0 : l.total(), empty ? 0 : a.total(), empty ? 0 : b.total(), 0);
      for (int64_t k = 0; k < count; ++k) {
        const double sum = orders[k] == 0 ? entries.total() : of_orders[k].total();
        to.sums[k * shape.rows + r] = !top.finite ? kNaN : empty ? 0 : sum;
      }
      to.sums[count * shape.rows + r] = top.finite ? c.total() : kNaN;
      to.sums[(count + 1) * shape.rows + r] = top.second;
    }
  }

  for (int64_t group = first; group < std::min(end, last); ++group) {
    const Row row(at(group), shape.vocabulary);
    const Largest found = FindLargest(row);
    const float row_m = std::max(kMasked, found.value);
    Sum l, a, b, cross;
    Ints lacks{};
    for (int64_t i = 0; i < row.blocks(); ++i) {
      const float *block = row.block(i), *of_output = output.block(i);
      for (int j = 0; j < row.width(i); j += kLanes) {
        const Floats s = Load(block + j), shift = s - row_m, u = Larger(shift, Floats{} + kFloor), e = Exponential(u);
        const Floats t = Load(of_output + j), weight = Load(&kept[i * kBlock + j]);
        l.Add(e), a.Add(e * u), b.Add(e * u * u);
        const Ints counted = (t > kMasked) & (s > kMasked);
        cross.Add(counted ? weight * ((t - m) - shift) : Floats{});
        lacks |= (t > kMasked) & ~(s > kMasked);
      }
      l.EndBlock(), a.EndBlock(), b.EndBlock(), cross.EndBlock();
    }
    bool infinite = false;
    for (int lane = 0; lane < kLanes; ++lane) infinite |= lacks[lane] != 0;
    const bool empty = row_m <= kMasked, bad = !top.finite || !found.finite;
    store(group, found, empty ? 0 : l.total(), empty ? 0 : a.total(), empty ? 0 : b.total(),
          bad ? kNaN : infinite ? kInfinity : cross.total());
  }
}

ffi::Error Run(ffi::ThreadPool pool, ffi::Buffer<ffi::F32> logits, int64_t groups, ffi::Span<const float> orders,
               ffi::ResultBuffer<ffi::F32> moments, ffi::ResultBuffer<ffi::S32> top1,
               ffi::ResultBuffer<ffi::F32> sums) {
  const Shapes shape{groups, top1->dimensions()[1], logits.dimensions()[1]};
  const int64_t count = orders.size(), rows = shape.groups * shape.rows;
  float* out = moments->typed_data();
  const Outputs to{out, out + rows, out + 2 * rows, out + 3 * rows, out + 4 * rows, top1->typed_data(),
                   sums->typed_data()};
  const float* in = logits.typed_data();

  // Few rows are cut into ranges of groups, one for each thread.
  const int64_t threads = std::max<int64_t>(1, pool.num_threads());
  const int64_t parts = std::min(shape.groups, std::max<int64_t>(1, threads / shape.rows));
  const int64_t tasks = shape.rows * parts;
  struct Progress {
    std::atomic<int64_t> next{0}, done{0};
  };
  const auto progress = std::make_shared<Progress>();
  const float* alphas = orders.begin();
  // A worker that starts after the last task was taken touches nothing but `progress`, which it keeps alive.
  auto work = [=] {
    for (int64_t i; (i = progress->next.fetch_add(1)) < tasks; progress->done.fetch_add(1)) {
      const int64_t r = i / parts, part = i % parts;
      Read(in, shape, alphas, count, to, r, part * shape.groups / parts, (part + 1) * shape.groups / parts);
    }
  };
  for (int64_t i = 1; i < std::min(threads, tasks); ++i) pool.Schedule(decltype(work)(work));
  work();
  while (progress->done.load() < tasks) std::this_thread::yield();
  return ffi::Error::Success();
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(LogitSums, Run,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<ffi::Buffer<ffi::F32>>()
                                  .Attr<int64_t>("groups")
                                  .Attr<ffi::Span<const float>>("orders")
                                  .Ret<ffi::Buffer<ffi::F32>>()
                                  .Ret<ffi::Buffer<ffi::S32>>()
                                  .Ret<ffi::Buffer<ffi::F32>>());
