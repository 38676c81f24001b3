// The decoder's operations beside its matrix products, for CPUs; what they mean is said in operations.py, whose torch
// versions the tests hold them to.
//
// Everything is computed in float32 from what is stored in float32 or bfloat16. A row's result does not depend on the
// rows beside it: the same instructions in the same order compute it wherever it lies in a batch.
//
// Compiled on first use for the machine at hand (native_build.py) by a compiler with GNU's vector extensions. Nothing of
// torch is included, so that this takes a second or two.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <vector>

#if defined(__AVX512F__)
#include <immintrin.h>
#endif

namespace {

// Floats in a vector register; how many vectors and rows of a product are kept in registers at a time.
#if defined(__AVX512F__)
constexpr int kWidth = 16, kColumns = 4, kRows = 6;
#elif defined(__AVX__)
constexpr int kWidth = 8, kColumns = 2, kRows = 6;
#elif defined(__aarch64__)
constexpr int kWidth = 4, kColumns = 4, kRows = 6;
#else
constexpr int kWidth = 4, kColumns = 2, kRows = 4;
#endif

// Keys that are met at a time, and the most query vectors that meet them together.
constexpr int64_t kTile = 64, kMostQueries = 96;
// Work below which threads cost more than they save: numbers that an operation goes through, or multiplies.
constexpr int64_t kParallelNumbers = 1 << 15, kParallelProducts = 1 << 18;

typedef float Vector __attribute__((vector_size(4 * kWidth)));
typedef float Loose __attribute__((vector_size(4 * kWidth), aligned(4), may_alias));

inline Vector load(const float* from) { return *reinterpret_cast<const Loose*>(from); }
inline void store(float* to, Vector value) { *reinterpret_cast<Loose*>(to) = value; }
inline Vector spread(float value) { return value - Vector{}; }

template <class To, class From>
inline To bits(From from) {
    To to;
    static_assert(sizeof(to) == sizeof(from), "bits are kept");
    __builtin_memcpy(&to, &from, sizeof(to));
    return to;
}

typedef uint16_t Bfloat16;
typedef Bfloat16 LooseHalves __attribute__((vector_size(2 * kWidth), aligned(2), may_alias));
typedef uint32_t Words __attribute__((vector_size(4 * kWidth)));

inline Vector load(const Bfloat16* from) {
    return (Vector)(__builtin_convertvector(*reinterpret_cast<const LooseHalves*>(from), Words) << 16);
}

// Whole numbers of 8 bits.
typedef int8_t Bytes __attribute__((vector_size(kWidth), aligned(1), may_alias));
typedef int16_t Shorts __attribute__((vector_size(2 * kWidth)));
typedef int32_t Integers __attribute__((vector_size(4 * kWidth)));
inline Vector load(const int8_t* from) {
    Shorts halfway = __builtin_convertvector(*reinterpret_cast<const Bytes*>(from), Shorts);
    return __builtin_convertvector(__builtin_convertvector(halfway, Integers), Vector);
}

// Floats of 8 bits, 4 of them the exponent (e4m3).
struct Float8 {
    int8_t bits;
};
inline Vector load(const Float8* from) {
    Shorts code = __builtin_convertvector(*reinterpret_cast<const Bytes*>(from), Shorts);
#if defined(__AVX512F__)
    // As float16 the same bits mean a 256th.
    return (Vector)_mm512_cvtph_ps((__m256i)((code << 7) & (int16_t)0xbfff)) * 256.0f;
#else
    Words word = (Words)__builtin_convertvector(code, Integers);
    Words magnitude = (word & 0x7f) << 20;
    Vector normal = (Vector)(magnitude + (120u << 23));
    // Below the normal ones, m / 512, from 1 / 128 + m / 1024.
    Words small = (Words)(magnitude < (1u << 23));
    Words result = ((Words)normal & ~small) | ((Words)(normal + normal - 0.015625f) & small);
    return (Vector)(result | (word & 0x80) << 24);
#endif
}

inline float widen(float value) { return value; }
inline float widen(Bfloat16 value) { return bits<float>(static_cast<uint32_t>(value) << 16); }

inline void narrow(float value, float& to) { to = value; }
inline void narrow(float value, Bfloat16& to) {
    uint32_t word = bits<uint32_t>(value);
    uint32_t rounded = (word + 0x7fff + ((word >> 16) & 1)) >> 16;
    to = static_cast<Bfloat16>(value == value ? rounded : 0x7fc0);
}

// e to the x, to two units in the last place; 0 below the least normal number.
inline float exponential(float x) {
    float clamped = x < -87.0f ? -87.0f : x > 88.0f ? 88.0f : x;
    float shifted = clamped * 1.44269504f + 12582912.0f;  // rounds to a whole number, in the last bits
    int32_t power = bits<int32_t>(shifted) - 0x4b400000;
    float whole = shifted - 12582912.0f;
    float rest = (clamped - whole * 0.693359375f) + whole * 2.12194440e-4f;
    float sum = 1.9875691500e-4f;
    sum = sum * rest + 1.3981999507e-3f;
    sum = sum * rest + 8.3334519073e-3f;
    sum = sum * rest + 4.1665795894e-2f;
    sum = sum * rest + 1.6666665459e-1f;
    sum = sum * rest + 5.0000001201e-1f;
    sum = sum * rest * rest + rest + 1.0f;
    float result = sum * bits<float>((power + 127) << 23);
    return x < -87.0f ? 0.0f : result;
}

// 2 to the x, to two units in the last place, for x of at most 127; 0 below the least normal number.
inline Vector power_of_two(Vector x) {
    Vector clamped = x < -150.0f ? spread(-150.0f) : x;
    Vector shifted = clamped + 12582912.0f;  // rounds to a whole number, in the last bits
    Vector rest = clamped - (shifted - 12582912.0f);
    Vector sum = rest * 1.32647245e-3f + 9.67151229e-3f;
    sum = sum * rest + 5.55073375e-2f;
    sum = sum * rest + 2.40222421e-1f;
    sum = sum * rest + 6.93146978e-1f;
    sum = sum * rest + 1.0f;
#if defined(__AVX512F__)
    return (Vector)_mm512_scalef_ps((__m512)sum, (__m512)(shifted - 12582912.0f));
#else
    Vector result = (Vector)((Integers)sum + ((Integers)shifted << 23));
    return x < -126.0f ? Vector{} : result;
#endif
}

inline float add_up(Vector vector) {
#if defined(__AVX512F__)
    return _mm512_reduce_add_ps((__m512)vector);
#else
    float sum = 0.0f;
    for (int i = 0; i < kWidth; i++) sum += vector[i];
    return sum;
#endif
}

inline float greatest_of(Vector vector) {
#if defined(__AVX512F__)
    return _mm512_reduce_max_ps((__m512)vector);
#else
    float greatest = vector[0];
    for (int i = 1; i < kWidth; i++) greatest = std::max(greatest, vector[i]);
    return greatest;
#endif
}

// The sum of the squares of `size` floats.
inline float squares(const float* values, int64_t size) {
    Vector sum{};
    int64_t i = 0;
    for (; i + kWidth <= size; i += kWidth) sum += load(values + i) * load(values + i);
    float total = add_up(sum);
    for (; i < size; i++) total += values[i] * values[i];
    return total;
}

// Memory of a thread that grows and is kept.
float* scratch(int which, size_t floats) {
    struct Kept {
        float* memory = nullptr;
        size_t floats = 0;
        ~Kept() { std::free(memory); }
    };
    static thread_local Kept kept[6];
    Kept& one = kept[which];
    if (one.floats < floats) {
        std::free(one.memory);
        one.memory = static_cast<float*>(std::aligned_alloc(64, (floats * sizeof(float) + 63) / 64 * 64));
        one.floats = floats;
    }
    return one.memory;
}

// ---- operations on rows ----

template <class T>
void norm_row(const T* from, const T* weight, T* to, int64_t size, float eps, float* buffer) {
    for (int64_t i = 0; i < size; i++) buffer[i] = widen(from[i]);
    float factor = 1.0f / std::sqrt(squares(buffer, size) / static_cast<float>(size) + eps);
    for (int64_t i = 0; i < size; i++) narrow(buffer[i] * factor * widen(weight[i]), to[i]);
}

template <class T>
void norm(const T* from, const T* weight, T* to, int64_t rows, int64_t size, float eps, int threads) {
#pragma omp parallel num_threads(threads) if (rows > 1 && rows * size > kParallelNumbers)
    {
        float* buffer = scratch(0, size);
#pragma omp for schedule(static)
        for (int64_t row = 0; row < rows; row++) {
            norm_row(from + row * size, weight, to + row * size, size, eps, buffer);
        }
    }
}

template <class T>
void gate(const T* from, T* to, int64_t rows, int64_t size, int threads) {
    constexpr int64_t kPart = 1024;
    int64_t parts = (size + kPart - 1) / kPart;
#pragma omp parallel for num_threads(threads) schedule(static) if (rows * size > kParallelNumbers)
    for (int64_t task = 0; task < rows * parts; task++) {
        int64_t row = task / parts, begin = task % parts * kPart, end = std::min(size, begin + kPart);
        const T* gates = from + row * 2 * size;
        const T* ups = gates + size;
        T* out = to + row * size;
        for (int64_t i = begin; i < end; i++) {
            float x = widen(gates[i]);
            narrow(x / (1.0f + exponential(-x)) * widen(ups[i]), out[i]);
        }
    }
}

// Where a row's keys and values go: `place` is that of its first key head in layer 0.
struct Target {
    int64_t place, head_stride;
};

struct Heads {
    int64_t rows, queries, keys, size;
    int64_t layer;
    float eps;
};

template <class T>
void turn_head(T* head, const T* weight, const float* factors, T* to, int64_t size, float eps, float* buffer) {
    for (int64_t i = 0; i < size; i++) buffer[i] = widen(head[i]);
    if (weight != nullptr) {
        float factor = 1.0f / std::sqrt(squares(buffer, size) / static_cast<float>(size) + eps);
        for (int64_t i = 0; i < size; i++) buffer[i] *= factor * widen(weight[i]);
    }
    for (int64_t i = 0; i < size; i += 2) {
        float real = buffer[i] * factors[i] - buffer[i + 1] * factors[i + 1];
        float imaginary = buffer[i] * factors[i + 1] + buffer[i + 1] * factors[i];
        narrow(real, to[i]);
        narrow(imaginary, to[i + 1]);
    }
}

template <class T>
void turn(T* fused, const T* weight, const float* factors, const Target* targets, const Heads& heads, int threads) {
    int64_t all = heads.queries + 2 * heads.keys, size = heads.size;
#pragma omp parallel num_threads(threads) if (heads.rows * all * size > kParallelNumbers)
    {
        float* buffer = scratch(0, size);
#pragma omp for schedule(static)
        for (int64_t task = 0; task < heads.rows * all; task++) {
            int64_t row = task / all, head = task % all;
            T* from = fused + task * size;
            const T* scale = weight == nullptr || head >= heads.queries + heads.keys ? nullptr : weight + head * size;
            const float* angles = factors + row * size;
            if (head < heads.queries) {
                turn_head(from, scale, angles, from, size, heads.eps, buffer);
                continue;
            }
            const Target& target = targets[row];
            int64_t slab = head - heads.queries + heads.layer * 2 * heads.keys;
            T* to = reinterpret_cast<T*>(target.place) + slab * target.head_stride;
            if (head < heads.queries + heads.keys) {
                turn_head(from, scale, angles, to, size, heads.eps, buffer);
            } else {
                std::memcpy(to, from, size * sizeof(T));
            }
        }
    }
}

// ---- products ----

// How the numbers of a product are held: as floats, or as pairs of bfloat16 that are multiplied and added at once.
// Words are 32 bits; a product's inner length is counted in words.
struct Floats {
    static constexpr int kPer = 1;
    static Vector times(Vector sum, float left, Vector right) { return sum + left * right; }
    static void put(const float* from, int64_t count, float* to) { std::memcpy(to, from, count * sizeof(float)); }
    static void put(const Bfloat16* from, int64_t count, float* to) {
        for (int64_t i = 0; i < count; i++) to[i] = widen(from[i]);
    }
    static void put(Vector values, float* to) { store(to, values); }
};

#if defined(__AVX512BF16__)
struct Pairs {
    static constexpr int kPer = 2;
    static Vector times(Vector sum, float left, Vector right) {
        __m512bh both = (__m512bh)_mm512_set1_epi32(bits<int32_t>(left));
        return (Vector)_mm512_dpbf16_ps((__m512)sum, both, (__m512bh)right);
    }
    static void put(const Bfloat16* from, int64_t count, float* to) { std::memcpy(to, from, count * sizeof(Bfloat16)); }
    static void put(const float* from, int64_t count, float* to) {
        for (int64_t i = 0; i < count; i += kWidth) put(load(from + i), to + i / 2);
    }
    static void put(Vector values, float* to) {
        __m256bh half = _mm512_cvtneps_pbh((__m512)values);
        std::memcpy(to, &half, sizeof(half));
    }
};
#endif

// kR rows by kC vectors: sums[r] += left[r] * right, over `steps` words; rows and steps that many floats apart.
template <class Format, int kR, int kC, class Right>
inline void product(
    const float* left, int64_t left_stride, const Right* right, int64_t right_stride, int64_t steps, float* sums,
    int64_t sums_stride, const float* scales) {
    Vector all[kR][kC];
#pragma GCC unroll 6
    for (int r = 0; r < kR; r++) {
#pragma GCC unroll 4
        for (int c = 0; c < kC; c++) {
            all[r][c] = scales == nullptr ? Vector{} : load(sums + r * sums_stride + c * kWidth) * scales[r];
        }
    }
    for (int64_t step = 0; step < steps; step++) {
        Vector columns[kC];
#pragma GCC unroll 4
        for (int c = 0; c < kC; c++) columns[c] = load(right + step * right_stride + c * kWidth);
#pragma GCC unroll 6
        for (int r = 0; r < kR; r++) {
            float one = left[r * left_stride + step];
#pragma GCC unroll 4
            for (int c = 0; c < kC; c++) all[r][c] = Format::times(all[r][c], one, columns[c]);
        }
    }
#pragma GCC unroll 6
    for (int r = 0; r < kR; r++) {
#pragma GCC unroll 4
        for (int c = 0; c < kC; c++) store(sums + r * sums_stride + c * kWidth, all[r][c]);
    }
}

// `width` columns, a multiple of a vector. scales: what the sums that are there are multiplied by; null for none there.
// Columns that are left over go together too: one vector at a time, each step would wait for the one before.
template <class Format, int kR, int kC = kColumns, class Right>
inline void wide_product(
    const float* left, int64_t left_stride, const Right* right, int64_t right_stride, int64_t steps, float* sums,
    int64_t sums_stride, int64_t width, const float* scales) {
    int64_t at = 0;
    for (; at + kC * kWidth <= width; at += kC * kWidth) {
        product<Format, kR, kC>(left, left_stride, right + at, right_stride, steps, sums + at, sums_stride, scales);
    }
    if constexpr (kC > 1) {
        if (at < width) {
            wide_product<Format, kR, kC / 2>(
                left, left_stride, right + at, right_stride, steps, sums + at, sums_stride, width - at, scales);
        }
    }
}

template <class Format, class... Rest>
inline void any_product(int64_t rows, Rest... rest) {
    switch (rows) {
        case 1: return wide_product<Format, 1>(rest...);
        case 2: return wide_product<Format, 2>(rest...);
        case 3: return wide_product<Format, 3>(rest...);
        case 4: return wide_product<Format, 4>(rest...);
#if defined(__AVX__) || defined(__aarch64__)
        case 5: return wide_product<Format, 5>(rest...);
        case 6: return wide_product<Format, 6>(rest...);
#endif
    }
}

// Rows (num_rows, inner) times weights that lie in panels of kTile outputs: (panels, words, kTile), where a word holds as
// many numbers of the inner length as the format says. Sums go over the inner length in blocks that stay in the cache
// while all rows go by.
template <class Format, class Weight, class T, class Out>
void linear(
    const T* rows, const Weight* panels, const T* bias, const Out* residual, Out* to, int64_t num_rows, int64_t inner,
    int64_t outputs, int threads) {
    constexpr int64_t kWords = 1024, kMostRows = 96;
    static const float ones[6] = {1, 1, 1, 1, 1, 1};
    int64_t num_panels = (outputs + kTile - 1) / kTile, chunks = (num_rows + kMostRows - 1) / kMostRows;
    int64_t words = inner / Format::kPer;
    const float* left = reinterpret_cast<const float*>(rows);
#pragma omp parallel num_threads(threads) if (num_rows * inner * outputs > kParallelProducts)
    {
        float* sums = scratch(0, kMostRows * kTile);
#pragma omp for schedule(dynamic, 1)
        for (int64_t task = 0; task < num_panels * chunks; task++) {
            int64_t panel = task % num_panels, first = task / num_panels * kMostRows;
            int64_t count = std::min(kMostRows, num_rows - first);
            const Weight* weights = panels + panel * words * kTile;
            for (int64_t at = 0; at < words; at += kWords) {
                int64_t steps = std::min(kWords, words - at);
                for (int64_t row = 0; row < count; row += kRows) {
                    any_product<Format>(
                        std::min<int64_t>(kRows, count - row), left + (first + row) * words + at, words,
                        weights + at * kTile, kTile, steps, sums + row * kTile, kTile, kTile,
                        at == 0 ? (const float*)nullptr : ones);
                }
            }
            int64_t column = panel * kTile, width = std::min(kTile, outputs - column);
            for (int64_t row = 0; row < count; row++) {
                int64_t place = (first + row) * outputs + column;
                for (int64_t i = 0; i < width; i++) {
                    float sum = sums[row * kTile + i];
                    if (bias != nullptr) sum += widen(bias[column + i]);
                    if (residual != nullptr) sum += widen(residual[place + i]);
                    narrow(sum, to[place + i]);
                }
            }
        }
    }
}

// ---- products with weights of 8 bits ----

// `steps` rows of a panel as a format's words, (steps / kPer, kTile). What bytes stand for is exact in bfloat16.
template <class Weight>
inline void widen_panel(Floats, const Weight* from, int64_t steps, float* to) {
    for (int64_t i = 0; i < steps * kTile; i += kWidth) store(to + i, load(from + i));
}
#if defined(__AVX512BF16__) && defined(__AVX512VBMI__)
// The two bytes of the bfloat16 that each magnitude stands for, to look 64 of them up at once.
template <class Weight>
struct Table {
    alignas(64) uint8_t low[128], high[128];
    Table() {
        for (int i = 0; i < 128; i++) {
            int8_t codes[kWidth] = {static_cast<int8_t>(i)};
            uint32_t word = ((Words)load(reinterpret_cast<const Weight*>(codes)))[0];
            low[i] = static_cast<uint8_t>(word >> 16), high[i] = static_cast<uint8_t>(word >> 24);
        }
    }
};
inline __m512i magnitude(const int8_t*, __m512i codes) { return _mm512_abs_epi8(codes); }
// A lookup takes no notice of the sign.
inline __m512i magnitude(const Float8*, __m512i codes) { return codes; }

template <class Weight>
inline void widen_panel(Pairs, const Weight* from, int64_t steps, float* to) {
    static const Table<Weight> table;
    const __m512i low[2] = {_mm512_load_si512(table.low), _mm512_load_si512(table.low + 64)};
    const __m512i high[2] = {_mm512_load_si512(table.high), _mm512_load_si512(table.high + 64)};
    const __m512i sign = _mm512_set1_epi8(-128);
    // Bytes are unpacked within quarters of a register, so a quarter is given what each of the four results has in it.
    const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    for (int64_t step = 0; step < steps; step += 2, from += 2 * kTile, to += kTile) {
        __m512i parts[2][2] = {};
        for (int i = 0; i < 2 && step + i < steps; i++) {
            __m512i codes = _mm512_permutexvar_epi32(order, _mm512_loadu_si512(from + i * kTile));
            __m512i index = magnitude(from, codes);
            __m512i lows = _mm512_permutex2var_epi8(low[0], index, low[1]);
            __m512i highs = _mm512_permutex2var_epi8(high[0], index, high[1]);
            highs = _mm512_or_si512(highs, _mm512_and_si512(codes, sign));
            parts[i][0] = _mm512_unpacklo_epi8(lows, highs);
            parts[i][1] = _mm512_unpackhi_epi8(lows, highs);
        }
        for (int half = 0; half < 2; half++) {
            _mm512_storeu_si512(to + 32 * half, _mm512_unpacklo_epi16(parts[0][half], parts[1][half]));
            _mm512_storeu_si512(to + 32 * half + 16, _mm512_unpackhi_epi16(parts[0][half], parts[1][half]));
        }
    }
}
typedef Pairs Halves;
#else
typedef Floats Halves;
#endif

// As `linear`, with a scale for each output; blocks of the inner length are widened once for all rows.
template <class Format, class Weight, class T>
void byte_linear(
    const T* rows, const Weight* panels, const float* scale, const float* bias, const T* residual, T* to,
    int64_t num_rows, int64_t inner, int64_t outputs, int threads) {
    constexpr int64_t kInner = 64, kMostRows = 96;
    static const float ones[6] = {1, 1, 1, 1, 1, 1};
    int64_t num_panels = (outputs + kTile - 1) / kTile, chunks = (num_rows + kMostRows - 1) / kMostRows;
#pragma omp parallel num_threads(threads) if (num_rows * inner * outputs > kParallelProducts)
    {
        float* sums = scratch(0, kMostRows * kTile);
        float* taken = scratch(1, kMostRows * kInner);
        float* wide = scratch(2, kInner * kTile);
#pragma omp for schedule(dynamic, 1)
        for (int64_t task = 0; task < num_panels * chunks; task++) {
            int64_t panel = task % num_panels, first = task / num_panels * kMostRows;
            int64_t count = std::min(kMostRows, num_rows - first);
            for (int64_t at = 0; at < inner; at += kInner) {
                int64_t steps = std::min(kInner, inner - at), words = (steps + Format::kPer - 1) / Format::kPer;
                for (int64_t row = 0; row < count; row++) {
                    float* place = taken + row * words;
                    place[words - 1] = 0.0f;
                    Format::put(rows + (first + row) * inner + at, steps, place);
                }
                widen_panel(Format{}, panels + (panel * inner + at) * kTile, steps, wide);
                for (int64_t row = 0; row < count; row += kRows) {
                    any_product<Format>(
                        std::min<int64_t>(kRows, count - row), (const float*)taken + row * words, words,
                        (const float*)wide, kTile, words, sums + row * kTile, kTile, kTile,
                        at == 0 ? (const float*)nullptr : ones);
                }
            }
            int64_t column = panel * kTile, width = std::min(kTile, outputs - column);
            for (int64_t row = 0; row < count; row++) {
                int64_t place = (first + row) * outputs + column;
                for (int64_t i = 0; i < width; i++) {
                    float sum = sums[row * kTile + i] * scale[column + i];
                    if (bias != nullptr) sum += bias[column + i];
                    if (residual != nullptr) sum += widen(residual[place + i]);
                    narrow(sum, to[place + i]);
                }
            }
        }
    }
}

// ---- attention ----

#if defined(__AVX512F__)
// 16 rows of up to 16 words, `stride` words apart, to 16 columns of a tile.
inline void transpose_block(const float* from, int64_t stride, int rows, int words, float* to) {
    __m512i a[16], b[16];
    __mmask16 some = static_cast<__mmask16>((1u << words) - 1);
    for (int i = 0; i < 16; i++) {
        a[i] = i < rows ? _mm512_maskz_loadu_epi32(some, from + i * stride) : _mm512_setzero_si512();
    }
    for (int i = 0; i < 16; i += 2) {
        b[i] = _mm512_unpacklo_epi32(a[i], a[i + 1]);
        b[i + 1] = _mm512_unpackhi_epi32(a[i], a[i + 1]);
    }
    for (int i = 0; i < 16; i += 4) {
        a[i] = _mm512_unpacklo_epi64(b[i], b[i + 2]);
        a[i + 1] = _mm512_unpackhi_epi64(b[i], b[i + 2]);
        a[i + 2] = _mm512_unpacklo_epi64(b[i + 1], b[i + 3]);
        a[i + 3] = _mm512_unpackhi_epi64(b[i + 1], b[i + 3]);
    }
    for (int i = 0; i < 4; i++) {
        b[i] = _mm512_shuffle_i32x4(a[i], a[i + 4], 0x88);
        b[i + 4] = _mm512_shuffle_i32x4(a[i], a[i + 4], 0xdd);
        b[i + 8] = _mm512_shuffle_i32x4(a[i + 8], a[i + 12], 0x88);
        b[i + 12] = _mm512_shuffle_i32x4(a[i + 8], a[i + 12], 0xdd);
    }
    for (int i = 0; i < 4; i++) {
        a[i] = _mm512_shuffle_i32x4(b[i], b[i + 8], 0x88);
        a[i + 8] = _mm512_shuffle_i32x4(b[i], b[i + 8], 0xdd);
        a[i + 4] = _mm512_shuffle_i32x4(b[i + 4], b[i + 12], 0x88);
        a[i + 12] = _mm512_shuffle_i32x4(b[i + 4], b[i + 12], 0xdd);
    }
    for (int i = 0; i < words; i++) _mm512_storeu_si512(to + i * kTile, a[i]);
}
#endif

// `ahead` is what is packed next, which the processor does not see coming: a line of each row, with as many rows on their
// way at once as are packed, comes faster than line after line. Where nothing lies, nothing happens.
inline void fetch(const void* place) { __builtin_prefetch(place, 0, 2); }

// Rows of words, side by side in memory, to columns: to[word * kTile + row]; zeros up to a multiple of a vector.
inline void transpose(const float* from, int64_t rows, int64_t words, float* to, const float* ahead) {
#if defined(__AVX512F__)
    for (int64_t row = 0; row < rows; row += 16) {
        for (int64_t word = 0; word < words; word += 16) {
            transpose_block(
                from + row * words + word, words, static_cast<int>(std::min<int64_t>(16, rows - row)),
                static_cast<int>(std::min<int64_t>(16, words - word)), to + word * kTile + row);
            for (int i = 0; i < 16; i++) fetch(ahead + (row + i) * words + word);
        }
    }
#else
    int64_t padded = (rows + kWidth - 1) / kWidth * kWidth;
    for (int64_t word = 0; word < words; word++) {
        for (int64_t row = 0; row < rows; row++) to[word * kTile + row] = from[row * words + word];
        for (int64_t row = rows; row < padded; row++) to[word * kTile + row] = 0.0f;
    }
#endif
}

// Keys (count, size) as the columns of `to`: size / kPer rows of kTile words.
inline void put_keys(Floats, const float* keys, int64_t count, int64_t size, float* to, const float* ahead) {
    transpose(keys, count, size, to, ahead);
}
inline void put_keys(Floats format, const Bfloat16* keys, int64_t count, int64_t size, float* to, const Bfloat16* ahead) {
    float* wide = scratch(1, kTile * size);
    format.put(keys, count * size, wide);
    transpose(wide, count, size, to, reinterpret_cast<const float*>(ahead));
}

// Values (count, size), rows padded to `width` numbers.
template <class T>
inline void put_values(
    Floats format, const T* values, int64_t count, int64_t size, int64_t width, float* to, const T*) {
    for (int64_t i = 0; i < count; i++) {
        format.put(values + i * size, size, to + i * width);
        std::fill(to + i * width + size, to + (i + 1) * width, 0.0f);
    }
}

#if defined(__AVX512BF16__)
inline void put_keys(Pairs, const Bfloat16* keys, int64_t count, int64_t size, float* to, const Bfloat16* ahead) {
    transpose(reinterpret_cast<const float*>(keys), count, size / 2, to, reinterpret_cast<const float*>(ahead));
}
// Two values' rows become one of pairs.
inline void put_values(
    Pairs, const Bfloat16* values, int64_t count, int64_t size, int64_t width, float* to, const Bfloat16* ahead) {
    for (int64_t i = 0; i < count; i += 2, to += width) {
        const Bfloat16* upper = values + i * size;
        for (int64_t at = 0; at < 2 * size; at += 32) fetch(ahead + i * size + at);
        for (int64_t at = 0; at < width; at += kWidth) {
            __mmask16 some = static_cast<__mmask16>(at >= size ? 0 : size - at >= 16 ? 0xffff : (1 << (size - at)) - 1);
            __m512i low = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(some, upper + at));
            __m512i high = _mm512_setzero_si512();
            if (i + 1 < count) high = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(some, upper + size + at));
            _mm512_storeu_si512(to + at, _mm512_or_si512(low, _mm512_slli_epi32(high, 16)));
        }
    }
}
#endif

// Query rows that meet `length` keys and values. causal: the last row sees all, each before it one less.
struct Meeting {
    int64_t place, head_stride, length, causal, first_row, num_rows, first_slot;
};

// What a layer's attention is given. rows: the row of each meeting's rows. slot_begin, slots: where the parts of each row
// lie; a row with one part has none, as its result is written at once.
struct Attention {
    const Meeting* meetings;
    int64_t num_meetings;
    const int32_t* rows;
    const int64_t* slot_begin;
    const int64_t* slots;
    int64_t num_rows, num_heads, num_kv_heads, size, query_stride, layer;
    float* parts;  // (slots, num_heads, size), and then (slots, num_heads) log-sum-exps
    int64_t num_slots;
};

struct Item {
    int32_t meeting, head;
    int64_t begin, end;
};

// Of the rows of an item: the greatest score so far, what sums have to be multiplied by since it has grown, and the sums
// of weights, a vector each.
struct Softmax {
    float* greatest;
    float* scales;
    float* sums;
};

// Scores to weights, for rows that see so many of the tile's keys; `width` columns. A weight is 2 to the power of `scale`
// times what a score lies below the greatest. Updates `softmax`.
template <class Format>
inline void soften(
    float* scores, int64_t rows, int64_t width, const int64_t* seen, float scale, Softmax softmax, float* weights) {
    constexpr int kPadded = (kRows + kWidth - 1) / kWidth * kWidth;
    float scales[kPadded] = {};
    for (int64_t r = 0; r < rows; r++) {
        float* row = scores + r * kTile;
        int64_t visible = std::max<int64_t>(seen[r], 0);
        if (visible < width) std::fill(row + visible, row + width, -std::numeric_limits<float>::infinity());
        Vector most = load(row);
        for (int64_t i = kWidth; i < width; i += kWidth) {
            Vector score = load(row + i);
            most = score > most ? score : most;
        }
        float greatest = std::max(softmax.greatest[r], greatest_of(most));
        scales[r] = softmax.greatest[r] - greatest;
        softmax.greatest[r] = greatest;
    }
    for (int i = 0; i < kPadded; i += kWidth) store(scales + i, power_of_two(load(scales + i) * scale));
    for (int64_t r = 0; r < rows; r++) {
        const float* row = scores + r * kTile;
        Vector sum = load(softmax.sums + r * kWidth) * scales[r];
        for (int64_t i = 0; i < width; i += kWidth) {
            Vector weight = power_of_two((load(row + i) - softmax.greatest[r]) * scale);
            sum += weight;
            Format::put(weight, weights + (r * kTile + i) / Format::kPer);
        }
        store(softmax.sums + r * kWidth, sum);
        softmax.scales[r] = scales[r];
    }
}

// Where an item's keys begin; its values lie so many numbers behind as all key heads have keys.
template <class T>
inline const T* keys_of(const Attention& a, const Item& item) {
    const Meeting& meeting = a.meetings[item.meeting];
    return reinterpret_cast<const T*>(meeting.place) + (a.layer * 2 * a.num_kv_heads + item.head) * meeting.head_stride;
}

// next: what is met after it.
template <class Format, class T>
void meet(const Attention& a, const Item& item, const Item& next, const T* query, T* result) {
    const Meeting& meeting = a.meetings[item.meeting];
    int64_t group = a.num_heads / a.num_kv_heads, size = a.size;
    int64_t words = size / Format::kPer, width = (size + kWidth - 1) / kWidth * kWidth;
    int64_t count = (item.end - item.begin) * group;
    const T* keys = keys_of<T>(a, item);
    const T* values = keys + a.num_kv_heads * meeting.head_stride;
    const T* next_keys = keys_of<T>(a, next);
    const T* next_values = next_keys + a.num_kv_heads * a.meetings[next.meeting].head_stride;

    float* queries = scratch(2, kMostQueries * size);
    float* packed = scratch(3, kTile * (size + width));
    float* packed_values = packed + kTile * size;
    float* output = scratch(4, kMostQueries * (width + 2 + kWidth));
    float* totals = output + kMostQueries * width;
    float* scores = scratch(5, 2 * kRows * kTile);
    float* weights = scores + kRows * kTile;
    Softmax whole{totals, totals + kMostQueries, totals + 2 * kMostQueries};
    std::fill(output, output + count * width, 0.0f);
    std::fill(whole.greatest, whole.greatest + count, -std::numeric_limits<float>::infinity());
    std::fill(whole.sums, whole.sums + count * kWidth, 0.0f);

    int64_t seen[kMostQueries];
    for (int64_t i = 0; i < count; i++) {
        int64_t row = item.begin + i / group;
        seen[i] = meeting.causal ? meeting.length - meeting.num_rows + row + 1 : meeting.length;
        int64_t head = item.head * group + i % group;
        Format::put(query + a.rows[meeting.first_row + row] * a.query_stride + head * size, size, queries + i * words);
    }
    float scale = 1.0f / std::sqrt(static_cast<float>(size)), scale_of_two = scale * 1.44269504f;
    int64_t limit = seen[count - 1];
    for (int64_t tile = 0; tile < limit; tile += kTile) {
        int64_t here = std::min(kTile, limit - tile), columns = (here + kWidth - 1) / kWidth * kWidth;
        bool is_last = tile + kTile >= limit;
        put_keys(Format{}, keys + tile * size, here, size, packed, is_last ? next_keys : keys + (tile + kTile) * size);
        const float* tile_values = packed_values;
        if (Format::kPer == 1 && sizeof(T) == sizeof(float) && width == size) {
            tile_values = reinterpret_cast<const float*>(values + tile * size);
            for (int64_t at = 0; at < here * size; at += 16) fetch(tile_values + at);
        } else {
            const T* ahead = is_last ? next_values : values + (tile + kTile) * size;
            put_values(Format{}, values + tile * size, here, size, width, packed_values, ahead);
        }
        for (int64_t at = 0; at < count; at += kRows) {
            int64_t rows = std::min<int64_t>(kRows, count - at);
            if (seen[at + rows - 1] <= tile) continue;
            int64_t visible[kRows];
            for (int64_t r = 0; r < rows; r++) visible[r] = seen[at + r] - tile;
            any_product<Format>(
                rows, (const float*)queries + at * words, words, (const float*)packed, kTile, words, scores, kTile,
                columns, (const float*)nullptr);
            Softmax part{whole.greatest + at, whole.scales + at, whole.sums + at * kWidth};
            soften<Format>(scores, rows, columns, visible, scale_of_two, part, weights);
            any_product<Format>(
                rows, (const float*)weights, kTile / Format::kPer, tile_values, width, (here + Format::kPer - 1) / Format::kPer,
                output + at * width, width, width, (const float*)part.scales);
        }
    }
    for (int64_t i = 0; i < count; i++) {
        int64_t index = item.begin + i / group, row = a.rows[meeting.first_row + index];
        int64_t head = item.head * group + i % group;
        float sum = add_up(load(whole.sums + i * kWidth)), factor = 1.0f / sum;
        if (a.slot_begin[row] == a.slot_begin[row + 1]) {
            T* to = result + (row * a.num_heads + head) * size;
            for (int64_t j = 0; j < size; j++) narrow(output[i * width + j] * factor, to[j]);
        } else {
            int64_t slot = (meeting.first_slot + index) * a.num_heads + head;
            for (int64_t j = 0; j < size; j++) a.parts[slot * size + j] = output[i * width + j] * factor;
            a.parts[a.num_slots * a.num_heads * size + slot] = whole.greatest[i] * scale + std::log(sum);
        }
    }
}

// The parts of one row and head, weighted by their log-sum-exps.
template <class T>
void merge(const Attention& a, int64_t row, int64_t head, T* result, float* sums) {
    const float* logs = a.parts + a.num_slots * a.num_heads * a.size;
    float greatest = -std::numeric_limits<float>::infinity(), total = 0.0f;
    for (int64_t i = a.slot_begin[row]; i < a.slot_begin[row + 1]; i++) {
        greatest = std::max(greatest, logs[a.slots[i] * a.num_heads + head]);
    }
    std::fill(sums, sums + a.size, 0.0f);
    for (int64_t i = a.slot_begin[row]; i < a.slot_begin[row + 1]; i++) {
        int64_t slot = a.slots[i] * a.num_heads + head;
        float weight = exponential(logs[slot] - greatest);
        total += weight;
        for (int64_t j = 0; j < a.size; j++) sums[j] += a.parts[slot * a.size + j] * weight;
    }
    float factor = 1.0f / total;
    T* to = result + (row * a.num_heads + head) * a.size;
    for (int64_t j = 0; j < a.size; j++) narrow(sums[j] * factor, to[j]);
}

template <class Format, class T>
void attend(const Attention& a, const T* query, T* result, int threads) {
    int64_t group = a.num_heads / a.num_kv_heads, most = std::max<int64_t>(1, kMostQueries / group), work = 0;
    std::vector<Item> items;
    for (int64_t m = 0; m < a.num_meetings; m++) {
        const Meeting& meeting = a.meetings[m];
        work += meeting.length * meeting.num_rows * a.num_heads * a.size;
        // From the last rows on: of a causal square these are the most work.
        for (int64_t end = meeting.num_rows; end > 0; end -= most) {
            for (int64_t head = 0; head < a.num_kv_heads; head++) {
                int64_t begin = std::max<int64_t>(0, end - most);
                items.push_back({static_cast<int32_t>(m), static_cast<int32_t>(head), begin, end});
            }
        }
    }
    bool is_shared = threads > 1 && work > kParallelProducts;
    size_t apart = is_shared ? threads : 1;
#pragma omp parallel num_threads(threads) if (is_shared)
    {
#pragma omp for schedule(dynamic, 1)
        for (size_t i = 0; i < items.size(); i++) {
            meet<Format, T>(a, items[i], items[std::min(i + apart, items.size() - 1)], query, result);
        }
        float* sums = scratch(0, a.size);
#pragma omp for schedule(static)
        for (int64_t i = 0; i < a.num_rows * a.num_heads; i++) {
            int64_t row = i / a.num_heads;
            if (a.slot_begin[row] != a.slot_begin[row + 1]) merge(a, row, i % a.num_heads, result, sums);
        }
    }
}

// ---- all layers ----

// A linear layer: one of the products below, its weights, and how many numbers it makes of a row.
struct Matrix {
    void (*product)(const void*, const void*, const void*, const void*, void*, int64_t, int64_t, int64_t, int);
    const void *panels, *bias;
    int64_t outputs;
};

struct Layer {
    const void *input_norm, *qk_norm, *mlp_norm;
    Matrix qkv, output, gate_up, down;
};

struct Decoder {
    const Layer* layers;
    int64_t num_layers, size;
    const void* norm;
};

template <class T>
inline void multiply(
    const Matrix& matrix, const T* rows, const T* residual, T* to, int64_t num_rows, int64_t inner, int threads) {
    matrix.product(rows, matrix.panels, matrix.bias, residual, to, num_rows, inner, matrix.outputs, threads);
}

// Moves these rows to the front, by way of `buffer`.
template <class T>
inline void pick(T* rows, const int64_t* wanted, int64_t count, int64_t size, T* buffer) {
    for (int64_t i = 0; i < count; i++) std::memcpy(buffer + i * size, rows + wanted[i] * size, size * sizeof(T));
    std::memcpy(rows, buffer, count * size * sizeof(T));
}

// Hidden states (rows, size), which are used up, to those behind the final norm: of the num_wanted rows `wanted`, or of
// all where that is negative. buffer: room for what a layer makes of the rows, besides `to`.
template <class T>
void decode(
    T* hidden, const float* factors, const Target* targets, const int64_t* wanted, T* buffer, T* to, const Decoder& d,
    Heads heads, Attention a, int64_t num_wanted, int threads, void (*attend)(const Attention*, const T*, T*, int)) {
    int64_t rows = heads.rows, attended_size = heads.queries * heads.size;
    const Layer& first = d.layers[0];
    T* normed = buffer;
    T* fused = normed + rows * d.size;
    T* attended = fused + rows * first.qkv.outputs;
    T* gate_up = attended + rows * attended_size;
    T* gated = gate_up + rows * first.gate_up.outputs;
    for (int64_t l = 0; l < d.num_layers; l++) {
        const Layer& layer = d.layers[l];
        heads.layer = a.layer = l;
        norm(hidden, static_cast<const T*>(layer.input_norm), normed, rows, d.size, heads.eps, threads);
        multiply<T>(layer.qkv, normed, nullptr, fused, rows, d.size, threads);
        turn(fused, static_cast<const T*>(layer.qk_norm), factors, targets, heads, threads);
        attend(&a, fused, attended, threads);
        if (num_wanted >= 0 && l == d.num_layers - 1) {
            pick(hidden, wanted, num_wanted, d.size, normed);
            pick(attended, wanted, num_wanted, attended_size, fused);
            rows = num_wanted;
        }
        multiply<T>(layer.output, attended, hidden, hidden, rows, attended_size, threads);
        norm(hidden, static_cast<const T*>(layer.mlp_norm), normed, rows, d.size, heads.eps, threads);
        multiply<T>(layer.gate_up, normed, nullptr, gate_up, rows, d.size, threads);
        gate(gate_up, gated, rows, layer.gate_up.outputs / 2, threads);
        multiply<T>(layer.down, gated, hidden, hidden, rows, layer.gate_up.outputs / 2, threads);
    }
    norm(hidden, static_cast<const T*>(d.norm), to, rows, d.size, heads.eps, threads);
}

}  // namespace

extern "C" {

void ramify_norm_float32(const float* from, const float* weight, float* to, int64_t rows, int64_t size, float eps, int threads) {
    norm(from, weight, to, rows, size, eps, threads);
}
void ramify_norm_bfloat16(
    const uint16_t* from, const uint16_t* weight, uint16_t* to, int64_t rows, int64_t size, float eps, int threads) {
    norm(from, weight, to, rows, size, eps, threads);
}

void ramify_linear_float32(
    const float* rows, const float* panels, const float* bias, const float* residual, float* to, int64_t num_rows,
    int64_t inner, int64_t outputs, int threads) {
    linear<Floats>(rows, panels, bias, residual, to, num_rows, inner, outputs, threads);
}
void ramify_linear_halves(
    const float* rows, const uint16_t* panels, const float* bias, const float* residual, float* to, int64_t num_rows,
    int64_t inner, int64_t outputs, int threads) {
    linear<Floats>(rows, panels, bias, residual, to, num_rows, inner, outputs, threads);
}
#if defined(__AVX512BF16__)
void ramify_linear_bfloat16(
    const uint16_t* rows, const float* panels, const uint16_t* bias, const uint16_t* residual, uint16_t* to,
    int64_t num_rows, int64_t inner, int64_t outputs, int threads) {
    linear<Pairs>(rows, panels, bias, residual, to, num_rows, inner, outputs, threads);
}
// Sums as they are, not rounded.
void ramify_logits_bfloat16(
    const uint16_t* rows, const float* panels, const uint16_t* bias, const float* residual, float* to, int64_t num_rows,
    int64_t inner, int64_t outputs, int threads) {
    linear<Pairs>(rows, panels, bias, residual, to, num_rows, inner, outputs, threads);
}
#endif

void ramify_linear_float32_int8(
    const float* rows, const int8_t* panels, const float* scale, const float* bias, const float* residual, float* to,
    int64_t num_rows, int64_t inner, int64_t outputs, int threads) {
    byte_linear<Floats>(rows, panels, scale, bias, residual, to, num_rows, inner, outputs, threads);
}
void ramify_linear_float32_fp8(
    const float* rows, const Float8* panels, const float* scale, const float* bias, const float* residual, float* to,
    int64_t num_rows, int64_t inner, int64_t outputs, int threads) {
    byte_linear<Floats>(rows, panels, scale, bias, residual, to, num_rows, inner, outputs, threads);
}
void ramify_linear_bfloat16_int8(
    const uint16_t* rows, const int8_t* panels, const float* scale, const float* bias, const uint16_t* residual,
    uint16_t* to, int64_t num_rows, int64_t inner, int64_t outputs, int threads) {
    byte_linear<Halves>(rows, panels, scale, bias, residual, to, num_rows, inner, outputs, threads);
}
void ramify_linear_bfloat16_fp8(
    const uint16_t* rows, const Float8* panels, const float* scale, const float* bias, const uint16_t* residual,
    uint16_t* to, int64_t num_rows, int64_t inner, int64_t outputs, int threads) {
    byte_linear<Halves>(rows, panels, scale, bias, residual, to, num_rows, inner, outputs, threads);
}

void ramify_gate_float32(const float* from, float* to, int64_t rows, int64_t size, int threads) {
    gate(from, to, rows, size, threads);
}
void ramify_gate_bfloat16(const uint16_t* from, uint16_t* to, int64_t rows, int64_t size, int threads) {
    gate(from, to, rows, size, threads);
}

void ramify_turn_float32(
    float* fused, const float* weight, const float* factors, const Target* targets, const Heads* heads, int threads) {
    turn(fused, weight, factors, targets, *heads, threads);
}
void ramify_turn_bfloat16(
    uint16_t* fused, const uint16_t* weight, const float* factors, const Target* targets, const Heads* heads, int threads) {
    turn(fused, weight, factors, targets, *heads, threads);
}

void ramify_attend_float32(const Attention* attention, const float* query, float* result, int threads) {
    attend<Floats>(*attention, query, result, threads);
}
void ramify_attend_bfloat16(const Attention* attention, const uint16_t* query, uint16_t* result, int threads) {
#if defined(__AVX512BF16__)
    attend<Pairs>(*attention, query, result, threads);
#else
    attend<Floats>(*attention, query, result, threads);
#endif
}

void ramify_decode_float32(
    float* hidden, const float* factors, const Target* targets, const int64_t* wanted, float* buffer, float* to,
    const Decoder* decoder, const Heads* heads, const Attention* attention, int64_t num_wanted, int threads) {
    decode(
        hidden, factors, targets, wanted, buffer, to, *decoder, *heads, *attention, num_wanted, threads,
        ramify_attend_float32);
}
void ramify_decode_bfloat16(
    uint16_t* hidden, const float* factors, const Target* targets, const int64_t* wanted, uint16_t* buffer, uint16_t* to,
    const Decoder* decoder, const Heads* heads, const Attention* attention, int64_t num_wanted, int threads) {
    decode(
        hidden, factors, targets, wanted, buffer, to, *decoder, *heads, *attention, num_wanted, threads,
        ramify_attend_bfloat16);
}

}
