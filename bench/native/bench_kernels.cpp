// SPDX-License-Identifier: MIT
//
// Times every line of csrc/layer/pairs.inc on one thread, at the shape that the network in the arguments gives it,
// beside the plain product of the same shape: the same pass finished by the epilogue that does least (linear_act and
// act_grad without an activation, store). Prints one JSON object; bench/kernels.py makes a table of it.
//
//     bench_kernels 784-400-20 BATCH BACKEND TURNS SECONDS
//
// Kernel, plain product and arithmetic peak take turns. Bytes are what must move at least: each operand once, in or
// out, and twice where it is read and written; results in bfloat16 are written along and across. The plain products are
// checked against sums in double first.
#include <cmath>
#include <cstdio>
#include <cstring>
#include <functional>
#include <random>

#include "backend/platform.h"
#include "model/json.h"
#include "model/network.h"
#include "training.h"

using namespace fusedvae;

namespace {

enum class Pass { forward, dgrad, wgrad };

struct Line {
    Pass pass;
    Epilogue epilogue;
    const char *pass_name, *prologue_name, *epilogue_name;
};
const Line kLines[] = {
#define PAIR(pass, prologue, epilogue) {Pass::pass, Epilogue::epilogue, #pass, #prologue, #epilogue},
#include "layer/pairs.inc"
#undef PAIR
};

Matrix normals(std::mt19937& engine, int64_t rows, int64_t columns, float scale) {
    std::normal_distribution<float> normal(0.0f, scale);
    Matrix m(rows, columns);
    for (int64_t i = 0; i < rows; ++i)
        for (int64_t j = 0; j < columns; ++j) m.row(i)[j] = normal(engine);
    return m;
}

uint16_t to_bfloat16(float value) {  // to nearest even
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    return static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1)) >> 16);
}
float from_bfloat16(uint16_t half) {
    const uint32_t bits = uint32_t{half} << 16;
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

int padded(const std::vector<int32_t>& starts) { return starts.back(); }
Panels panels(const std::vector<int32_t>& starts) { return {starts.data(), static_cast<int32_t>(starts.size()) - 1}; }

// One kernel's operands: left (B, inner), right packed (inner, columns); or, for wgrad, left (B, K) and right (B, N).
struct Kernel {
    const Backend& backend;
    Pass pass;
    Epilogue epilogue;
    bool plain;
    int B, K, N, Z;
    std::vector<int32_t> columns, columns_t;
    Matrix left, right, out, saved, target, z, eps;
    WordMatrix left_words, right_words, out_words, saved_words, z_words;  // bfloat16: what is read and written instead
    Buffer weight, weight_t, words, m, v, bias, bias_m, bias_v, partial;

    Kernel(const Backend& b, const Line& line, bool only_product, const Config& config, int batch)
        : backend(b), pass(line.pass), epilogue(line.epilogue), plain(only_product), B(batch) {
        const bool pairs = epilogue == Epilogue::gaussian_element_nll;
        const int D = static_cast<int>(config.width()), H = static_cast<int>(config.hidden.front());
        const int last = static_cast<int>(config.hidden.back());
        Z = static_cast<int>(config.latent);
        switch (epilogue) {
            case Epilogue::linear_act:
                K = D, N = H;  // the first layer
                break;
            case Epilogue::reparameterize_kl:
                K = last, N = 2 * Z;  // the head
                break;
            case Epilogue::reparameterize_grad:
                K = Z, N = last;  // the decoder's first layer
                break;
            default:
                K = H, N = pairs ? 2 * D : D;  // the output layer
        }
        columns = cut(N, b.groups_per_panel);
        columns_t = cut(K, b.groups_per_panel);
        std::mt19937 engine(3);
        const float unit = 1.0f / std::sqrt(static_cast<float>(pass == Pass::dgrad ? N : K));
        const int inner = pass == Pass::dgrad ? N : K;
        const auto& outside = pass == Pass::dgrad ? columns_t : columns;
        left = normals(engine, B, inner, 1.0f);
        weight = Buffer(static_cast<size_t>(inner) * static_cast<size_t>(padded(outside)));
        std::normal_distribution<float> normal(0.0f, unit);
        for (size_t i = 0; i < weight.size(); ++i) weight.data()[i] = normal(engine);
        bias = Buffer(static_cast<size_t>(padded(columns)));
        if (pass == Pass::wgrad) {
            right = normals(engine, B, padded(columns), 1.0f / static_cast<float>(B));
            weight_t = Buffer(static_cast<size_t>(N) * static_cast<size_t>(padded(columns_t)));
            for (Buffer* state : {&m, &v}) *state = Buffer(weight.size());
            for (Buffer* state : {&bias_m, &bias_v}) *state = Buffer(bias.size());
        } else {
            const int wide = epilogue == Epilogue::reparameterize_grad ? padded(cut(2 * K, 1)) : padded(outside);
            out = Matrix(B, wide);
            saved = normals(engine, B, wide, 1.0f);
            z = Matrix(B, Z);
            eps = normals(engine, B, Z, 1.0f);
            partial = Buffer(static_cast<size_t>(B) * columns.size());
            target = Matrix(B, D);
            for (int64_t i = 0; i < B; ++i)
                for (int64_t j = 0; j < D; ++j) target.row(i)[j] = static_cast<float>(engine() >> 8) * 0x1p-24f;
        }
        if (plain)
            epilogue = pass == Pass::forward ? Epilogue::linear_act
                       : pass == Pass::dgrad ? Epilogue::act_grad
                                             : Epilogue::store;
        if (backend.bfloat16) make_words();
    }

    // The same operands as words; the floats are rounded with them, so that check() knows what was multiplied.
    void make_words() {
        const auto rounded = [this](Matrix& floats, int64_t rows, int64_t n) {
            for (int64_t i = 0; i < rows; ++i)
                for (int64_t j = 0; j < n; ++j) floats.row(i)[j] = from_bfloat16(to_bfloat16(floats.row(i)[j]));
            WordMatrix made(rows, n);
            backend.to_words(made.words(), floats.rows(), 0, static_cast<int>(rows), static_cast<int>(n));
            return made;
        };
        left_words = rounded(left, B, inner());
        if (pass == Pass::wgrad) {
            right_words = rounded(right, B, padded(columns));
            words = Buffer(static_cast<size_t>(words_of(K)) * static_cast<size_t>(padded(columns)));
            return;
        }
        out_words = WordMatrix(B, out.ld());
        saved_words = rounded(saved, B, saved.ld());
        z_words = WordMatrix(B, Z);
        const std::vector<int32_t>& outside = pass == Pass::dgrad ? columns_t : columns;
        words = Buffer(static_cast<size_t>(words_of(inner())) * static_cast<size_t>(padded(outside)));
        for (size_t p = 0; p + 1 < outside.size(); ++p) {
            const int w = outside[p + 1] - outside[p];
            float* const from = weight.data() + int64_t{outside[p]} * inner();
            auto* const to = reinterpret_cast<uint16_t*>(words.data() + int64_t{outside[p]} * words_of(inner()));
            for (int k = 0; k < inner(); ++k)
                for (int c = 0; c < w; ++c) {
                    const uint16_t half = to_bfloat16(from[k * w + c]);
                    to[2 * (k / 2 * w + c) + k % 2] = half;
                    from[k * w + c] = from_bfloat16(half);
                }
        }
    }

    int inner() const { return pass == Pass::dgrad ? N : K; }  // the left factor's columns
    // Element (i, j) of a plain product's result, and by what part of itself it may be rounded once more.
    float result(int64_t i, int64_t j) const {
        if (!backend.bfloat16) return out.row(i)[j];
        uint32_t word;
        std::memcpy(&word, &out_words.along()[i][j / 2], sizeof word);
        return from_bfloat16(static_cast<uint16_t>(word >> (16 * (j % 2))));
    }
    float rounding() const { return backend.bfloat16 && pass != Pass::wgrad ? 0x1p-8f : 0.0f; }

    void run() {
        if (pass == Pass::forward) return run_forward();
        if (pass == Pass::dgrad) return run_dgrad();
        run_wgrad();
    }
    void run_forward() {
        Forward f{};
        const bool bf16 = backend.bfloat16;
        f.rows = bf16 ? left_words.along() : left.rows();
        f.weight = bf16 ? words.data() : weight.data();
        f.bias = bias.data();
        f.panels = panels(columns);
        f.K = bf16 ? words_of(K) : K;
        f.N = N;
        f.epilogue = epilogue;
        f.activation = plain ? Activation::identity : Activation::relu;
        f.y = f.head = f.dy = out.data();
        f.ld = out.ld();
        f.stored = padded(columns);
        f.z = z.data();
        f.ld_z = z.ld();
        f.eps = eps.data();
        f.ld_eps = eps.ld();
        f.target = target.rows();
        f.scale = 1.0f / static_cast<float>(B);
        f.fixed_variance = 1.0f;
        f.min_variance = 1e-4f;
        f.partial = partial.data();
        f.y_words = f.dy_words = out_words.words();
        f.z_words = z_words.words();
        backend.forward(f, 0, B, 0, f.panels.count);
    }
    void run_dgrad() {
        Dgrad g{};
        const bool bf16 = backend.bfloat16;
        g.rows = bf16 ? left_words.along() : left.rows();
        g.weight_t = bf16 ? words.data() : weight.data();
        g.panels = panels(columns_t);
        g.N = bf16 ? words_of(N) : N;
        g.K = K;
        g.epilogue = epilogue;
        g.activation = plain ? Activation::identity : Activation::relu;
        g.saved = g.head = saved.data();
        g.dx = out.data();
        g.ld = out.ld();
        g.eps = eps.data();
        g.ld_eps = eps.ld();
        g.kl_weight = 1.0f / static_cast<float>(B);
        g.saved_words = saved_words.words();
        g.dx_words = out_words.words();
        backend.dgrad(g, 0, B, 0, g.panels.count);
    }
    void run_wgrad() {
        Wgrad w{};
        const bool bf16 = backend.bfloat16;
        w.rows = bf16 ? left_words.across() : left.rows();
        w.dy = bf16 ? right_words.words().across : right.data();
        w.ld = bf16 ? right_words.words().ld_across : right.ld();
        w.B = B;
        w.depth = bf16 ? words_of(B) : B;
        w.K = K;
        w.N = N;
        w.panels = panels(columns);
        w.panels_t = panels(columns_t);
        w.epilogue = epilogue;
        w.update = update_at(fvae_trainer_options_default(), 0);
        const bool adam = epilogue == Epilogue::adam;
        w.weight = {weight.data(), adam ? m.data() : nullptr, adam ? v.data() : nullptr, m.data()};
        w.weight_t = epilogue == Epilogue::store ? nullptr : weight_t.data();
        if (bf16 && epilogue != Epilogue::store) w.words = words.data();
        w.bias = {bias.data(), adam ? bias_m.data() : nullptr, adam ? bias_v.data() : nullptr, bias_m.data()};
        for (int p = 0; p < w.panels.count; ++p) backend.wgrad(w, p, 0, K);
    }

    double flops() const { return 2.0 * B * K * N; }
    double bytes() const {
        const double X = static_cast<double>(B) * K, Y = static_cast<double>(B) * N, W = static_cast<double>(K) * N;
        const double product = X + Y + W;  // of every pass: two factors and the result
        if (backend.bfloat16) {
            const double factors = 2.0 * (pass == Pass::forward ? X + W : pass == Pass::dgrad ? Y + W : X + Y);
            switch (epilogue) {
                case Epilogue::reparameterize_kl:  // the head's pairs in float32, z
                    return factors + 4.0 * (Y + B * Z);
                case Epilogue::bernoulli_nll:  // the target in float32
                case Epilogue::gaussian_nll:
                    return factors + 4.0 * (Y + Y);
                case Epilogue::gaussian_element_nll:
                    return factors + 4.0 * (Y + Y / 2);
                case Epilogue::act_grad:
                    return factors + 4.0 * X + (plain ? 0.0 : 2.0 * X);
                case Epilogue::reparameterize_grad:  // pairs in float32 read, in bfloat16 written
                    return factors + 8.0 * X + 8.0 * X;
                case Epilogue::sgd:  // weight in and out, both words out
                    return factors + (8.0 + 4.0) * W;
                case Epilogue::adam:
                    return factors + (24.0 + 4.0) * W;
                default:
                    return factors + 4.0 * (pass == Pass::forward ? Y : W);
            }
        }
        switch (epilogue) {
            case Epilogue::reparameterize_kl:  // z beside the head
                return 4.0 * (product + B * Z);
            case Epilogue::bernoulli_nll:  // the target
            case Epilogue::gaussian_nll:
                return 4.0 * (product + Y);
            case Epilogue::gaussian_element_nll:
                return 4.0 * (product + Y / 2);
            case Epilogue::act_grad:  // what was saved
                return 4.0 * (product + (plain ? 0.0 : X));
            case Epilogue::reparameterize_grad:  // the head's pairs read, theirs written instead of dz
                return 4.0 * (product + 3 * X);
            case Epilogue::sgd:  // weight in and out, transposed copy out
                return 4.0 * (product + 2 * W);
            case Epilogue::adam:  // weight and two moments in and out, transposed copy out
                return 4.0 * (product + 6 * W);
            default:
                return 4.0 * product;
        }
    }
};

// The plain product's elements at odd places, against sums in double: (K + 1) roundings of at most 2^-24 each, and that
// of a result to bfloat16.
void check(Kernel& kernel) {
    kernel.run();
    const Kernel& k = kernel;
    const auto& starts = k.pass == Pass::dgrad ? k.columns_t : k.columns;
    const int rows = k.pass == Pass::wgrad ? k.K : k.B, columns = k.pass == Pass::dgrad ? k.K : k.N;
    const int inner = k.pass == Pass::forward ? k.K : k.pass == Pass::dgrad ? k.N : k.B;
    for (int at = 0; at < 64; ++at) {
        const int i = 7 * at % rows, j = 11 * at % columns;
        size_t p = 0;
        while (starts[p + 1] <= j) ++p;
        const int64_t w = starts[p + 1] - starts[p],
                      packed = int64_t{starts[p]} * (k.pass == Pass::wgrad ? k.K : inner);
        double sum = 0.0, size = 0.0;
        for (int n = 0; n < inner; ++n) {
            const double a = k.pass == Pass::wgrad ? k.left.row(n)[i] : k.left.row(i)[n];
            const double b =
                k.pass == Pass::wgrad ? k.right.row(n)[j] : k.weight.data()[packed + n * w + j - starts[p]];
            sum += a * b;
            size += std::fabs(a * b);
        }
        const float got = k.pass == Pass::wgrad ? k.m.data()[packed + i * w + j - starts[p]] : k.result(i, j);
        if (!(std::fabs(got - sum) <= 0x1p-23 * (inner + 1) * size + k.rounding() * std::fabs(sum)))
            throw std::runtime_error("a plain product is wrong");
    }
}

double time(double seconds, const std::function<void()>& work) {
    int64_t runs = 0;
    double now, start = platform::seconds();
    do work(), ++runs;
    while ((now = platform::seconds()) - start < seconds);
    return 1e6 * (now - start) / static_cast<double>(runs);
}

void bench_kernels(int argc, char** argv) {
    if (argc != 6) throw std::invalid_argument("usage: bench_kernels LAYERS BATCH BACKEND TURNS SECONDS");
    const Config config = bench::parse_network(argv[1], "bernoulli");
    const Backend& b = bench::find_backend(argv[3]);
    const int B = std::atoi(argv[2]), turns = std::atoi(argv[4]);
    const double seconds = std::atof(argv[5]);
    Json::Array lines;
    for (const Line& line : kLines) {
        Kernel kernel(b, line, false, config, B), plain(b, line, true, config, B);
        check(plain);
        Json::Array us, plain_us, peak;
        for (int turn = 0; turn < turns; ++turn) {
            us.emplace_back(time(seconds, [&] { kernel.run(); }));
            plain_us.emplace_back(time(seconds, [&] { plain.run(); }));
            float sink;
            double flops = 0.0;
            const double took = time(seconds, [&] { flops = b.fma_loop(20000, &sink); });
            peak.emplace_back(1e-3 * flops / took);
        }
        Json one{Json::Object{}};
        one.set("pass", line.pass_name);
        one.set("prologue", line.prologue_name);
        one.set("epilogue", line.epilogue_name);
        one.set("B", kernel.B);
        one.set("K", kernel.K);
        one.set("N", kernel.N);
        one.set("flops", kernel.flops());
        one.set("bytes", kernel.bytes());
        one.set("us", std::move(us));
        one.set("plain_us", std::move(plain_us));
        one.set("peak_gflops", std::move(peak));
        lines.push_back(std::move(one));
    }
    Json result{Json::Object{}};
    result.set("kernels", std::move(lines));
    std::printf("%s\n", result.dump().c_str());
}

}  // namespace

int main(int argc, char** argv) try {
    bench_kernels(argc, argv);
    return 0;
} catch (const std::exception& error) {
    std::fprintf(stderr, "bench_kernels: %s\n", error.what());
    return 2;
}
