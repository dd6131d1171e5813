// SPDX-License-Identifier: MIT
//
// The elementary functions of csrc/layer/formulas.h against libm in double, whose error is far below one unit in the
// last place (ULP) of a float: every float32 of each function's domain with FUSEDVAE_LONG set, else one in kStride.
// The bounds are those stated in formulas.h. The program prints the worst error of each function and backend.
//
// The error is |result - exact| over the spacing of floats at the exact value; subnormals are spaced 2^-149, and an
// infinite result counts as 2^128, the next value that the format would hold.
#include <algorithm>
#include <cfloat>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <mutex>

#include "backend/backend.h"
#include "check.h"
#include "cpu/threads.h"
#include "formulas/table.h"

namespace {

constexpr int64_t kStride = 1021;  // a prime: 8216 mantissas in each of the 510 binades and signs
constexpr int kBlock = 4096;

struct Function {
    const char* name;
    void (*accuracy::Table::*engine)(float* out, const float* in, int n);
    double (*exact)(double x);
    float from, to;
    double bound;  // ULP
};
const Function kFunctions[] = {
#define FORMULA(name, engine, exact, from, to, bound) \
    {#name, &accuracy::Table::name, [](double x) -> double { return exact; }, from, to, bound},
#include "formulas/list.inc"
#undef FORMULA
};

std::vector<const accuracy::Table*> compiled() {  // those that this machine runs
    const accuracy::Table* all[] = {
#if defined(__x86_64__)
        &accuracy::kAvx512,
        &accuracy::kAvx2,
#elif defined(__aarch64__)
        &accuracy::kNeon,
#endif
        &accuracy::kScalar,
    };
    std::vector<const accuracy::Table*> here;
    const std::string available = std::string(",") + fusedvae::available_backends() + ",";
    for (const accuracy::Table* table : all)
        if (available.find("," + std::string(table->backend) + ",") != std::string::npos) here.push_back(table);
    return here;
}

float from_bits(uint32_t bits) {
    float x;
    std::memcpy(&x, &bits, sizeof x);
    return x;
}

double ulps(float got, double exact) {
    const double limit = std::ldexp(1.0, 128);
    if (std::isnan(got)) return INFINITY;
    const double value = std::clamp(static_cast<double>(got), -limit, limit);
    const double right = std::clamp(exact, -limit, limit);
    const int exponent = right == 0.0 ? -126 : std::clamp(std::ilogb(right), -126, 127);
    return std::ldexp(std::fabs(value - right), 23 - exponent);
}

struct Worst {
    double ulps = 0.0;
    float at = 0.0f;
    void meet(double error, float x) {
        if (error > ulps) ulps = error, at = x;
    }
};

// The worst error of each backend over the bit patterns first, first + stride, ... of the function's domain.
std::vector<Worst> measure(const Function& f, const std::vector<const accuracy::Table*>& backends, int64_t stride) {
    const int64_t patterns = (int64_t{1} << 32) / stride, blocks = (patterns + kBlock - 1) / kBlock;
    std::vector<Worst> worst(backends.size());
    std::mutex guard;
    fusedvae::run_checked(fusedvae::default_threads(), [&](const fusedvae::Team& team) {
        std::vector<Worst> mine(backends.size());
        std::vector<float> in(kBlock), out(kBlock);
        std::vector<double> exact(kBlock);
        const fusedvae::Range range = fusedvae::share(blocks, 1, team.thread, team.threads);
        for (int64_t block = range.first; block < range.last; ++block) {
            size_t n = 0;
            for (int64_t i = block * kBlock; i < std::min(patterns, (block + 1) * kBlock); ++i) {
                const float x = from_bits(static_cast<uint32_t>(i * stride));
                if (x >= f.from && x <= f.to) in[n++] = x;
            }
            std::fill(in.begin() + static_cast<std::ptrdiff_t>(n), in.end(), 1.0f);  // not compared
            for (size_t i = 0; i < n; ++i) exact[i] = f.exact(static_cast<double>(in[i]));
            for (size_t b = 0; n > 0 && b < backends.size(); ++b) {
                (backends[b]->*f.engine)(out.data(), in.data(), kBlock);
                for (size_t i = 0; i < n; ++i) mine[b].meet(ulps(out[i], exact[i]), in[i]);
            }
        }
        const std::lock_guard<std::mutex> lock(guard);
        for (size_t b = 0; b < mine.size(); ++b) worst[b].meet(mine[b].ulps, mine[b].at);
    });
    return worst;
}

}  // namespace

TEST(functions_stay_within_their_ulps) {
    const int64_t stride = std::getenv("FUSEDVAE_LONG") ? 1 : kStride;
    const std::vector<const accuracy::Table*> backends = compiled();
    std::printf("worst ULP, over %s\n%-10s", stride == 1 ? "every float32 of the domain" : "a stride of float32", "");
    for (const accuracy::Table* table : backends) std::printf("%-24s", table->backend);
    std::printf("bound\n");
    std::string failures;
    for (const Function& f : kFunctions) {
        const std::vector<Worst> worst = measure(f, backends, stride);
        std::printf("%-10s", f.name);
        for (size_t b = 0; b < worst.size(); ++b) {
            std::printf("%-5.3f at %-15.8g", worst[b].ulps, static_cast<double>(worst[b].at));
            if (!(worst[b].ulps <= f.bound))
                failures += std::string(f.name) + " on " + backends[b]->backend + " exceeds its bound; ";
        }
        std::printf("%g\n", f.bound);
    }
    CHECK_EQUAL(failures, "");
}

TEST(not_a_number_passes_through) {
    const float nan = from_bits(0x7fc00001u);
    for (const accuracy::Table* table : compiled())
        for (const Function& f : kFunctions) {
            if (f.from == FLT_MIN) continue;  // the logarithm is of positive normal numbers alone
            const std::vector<float> in(16, nan);
            std::vector<float> out(16, 0.0f);
            (table->*f.engine)(out.data(), in.data(), 16);
            for (float y : out) CHECK(std::isnan(y));
        }
}
