// SPDX-License-Identifier: MIT
//
// Inference on the device against the CPU's, rows and results on either side; and a row's result is its own, whatever
// rows accompany it.
#include <cstring>

#include "check.h"
#include "device_cases.h"

using namespace device_cases;
using kernel_cases::Buffer;
using kernel_cases::Random;

namespace {

const Net kNet{{19, 11}, {11, 19}, 37, 5};
constexpr int64_t kRows = 67;

// Sums of at most 37 terms of size one, through six layers: 37 * 6 * 2^-24 = 1.3e-5 of what they are made of.
constexpr double kBound = 2e-5;

fvae_array array_of(const Buffer& x, int64_t columns) {
    fvae_array array = fvae_array_default();
    array.data = x.data();
    array.rows = x.size() / columns;
    array.columns = columns;
    return array;
}

template <class Got, class Want>
void expect_close(const Got& got, const Want& want, int64_t count, double bound, const char* what) {
    for (int64_t i = 0; i < count; ++i) {
        const double error = std::fabs(double{got[i]} - double{want[i]});
        if (!(error <= bound * (1.0 + std::fabs(double{want[i]}))))
            throw std::runtime_error(std::string(what) + "[" + std::to_string(i) + "] is " + std::to_string(got[i]) +
                                     ", expected " + std::to_string(want[i]));
    }
}

struct Scene {
    Models models;
    Buffer x;
    explicit Scene(const Output& output, int64_t rows = kRows)
        : models(config_of(kNet, output, FVAE_TANH), 3), x(Random(5).uniforms(rows * kNet.D, 0.0f, 1.0f)) {}
    fusedvae::Rows rows() const { return fusedvae::Rows(x.data(), x.size() / kNet.D, kNet.D); }
};

// Device memory that is given back.
struct Memory {
    void* data;
    explicit Memory(size_t bytes) : data(gpu()->allocate(bytes)) {}
    Memory(const Memory&) = delete;
    ~Memory() { gpu()->free(data); }
};

}  // namespace

TEST(inference_is_the_cpus) {
    if (!gpu()) return;
    for (const Output& output : kOutputs) {
        const Scene s(output);
        const fvae_array array = array_of(s.x, kNet.D);
        const int64_t Z = kNet.Z, D = kNet.D;
        Buffer mu(kRows * Z), logvar(kRows * Z), want_mu(kRows * Z), want_logvar(kRows * Z);
        s.models.device->encode(s.rows(), mu.data(), logvar.data(), false);
        s.models.host.encode(array, want_mu.data(), want_logvar.data());
        expect_close(mu, want_mu, mu.size(), kBound, "mu");
        expect_close(logvar, want_logvar, mu.size(), kBound, "logvar");
        Buffer only(kRows * Z);
        s.models.device->encode(s.rows(), nullptr, only.data(), false);
        for (int64_t i = 0; i < only.size(); ++i) CHECK(only[i] == logvar[i]);

        Buffer mean(kRows * D), want(kRows * D);
        s.models.device->decode(fusedvae::Rows(want_mu.data(), kRows, Z), mean.data(), false);
        s.models.host.decode(want_mu.data(), kRows, want.data());
        CHECK(mean.guards_intact());
        expect_close(mean, want, mean.size(), kBound, "decoded mean");
        s.models.device->reconstruct(s.rows(), mean.data(), false);
        s.models.host.reconstruct(array, want.data());
        CHECK(mean.guards_intact());
        expect_close(mean, want, mean.size(), kBound, "reconstruction");
    }
}

TEST(scores_are_the_cpus) {
    if (!gpu()) return;
    for (const Output& output : kOutputs) {
        const Scene s(output);
        const fvae_array array = array_of(s.x, kNet.D);
        std::vector<double> got(kRows), want(kRows);
        for (const int64_t samples : {1, 7}) {
            s.models.device->elbo(s.rows(), samples, 9, got.data(), false);
            s.models.host.elbo(array, samples, 9, want.data());
            expect_close(got, want, kRows, kBound, "elbo");
            s.models.device->log_likelihood(s.rows(), samples, 9, got.data(), false);
            s.models.host.log_likelihood(array, samples, 9, want.data());
            expect_close(got, want, kRows, kBound, "log_likelihood");
        }
    }
}

// A product whose factors are rounded to n bits errs by 2^-n of its terms, most of which cancel among each other.
TEST(lower_precisions_score_nearby) {
    if (!gpu()) return;
    const Scene s(kOutputs[0]);
    std::vector<double> exact(kRows), got(kRows);
    s.models.device->log_likelihood(s.rows(), 5, 9, exact.data(), false);
    for (const auto& [precision, bound] :
         {std::pair(Precision::tf32, 0x1p-11), std::pair(Precision::bfloat16, 0x1p-8)}) {
        s.models.device->set_precision(precision);
        s.models.device->log_likelihood(s.rows(), 5, 9, got.data(), false);
        expect_close(got, exact, kRows, bound, name_of(precision));
        CHECK(got != exact);
    }
}

TEST(a_rows_results_do_not_depend_on_the_rows_beside_it) {
    if (!gpu()) return;
    for (const Precision precision : kPrecisions)
        for (const Output& output : kOutputs) {
            const Scene s(output, 300);
            s.models.device->set_precision(precision);
            std::vector<double> all(300), one(1);
            Buffer mean(300 * kNet.D), alone(kNet.D);
            s.models.device->log_likelihood(s.rows(), 3, 9, all.data(), false);
            s.models.device->reconstruct(s.rows(), mean.data(), false);
            for (const int64_t r : {0, 33, 299}) {
                const fusedvae::Rows row(s.x.data() + r * kNet.D, 1, kNet.D);
                s.models.device->log_likelihood(row, 3, 9, one.data(), false);
                CHECK(one[0] == all[static_cast<size_t>(r)]);
                s.models.device->reconstruct(row, alone.data(), false);
                CHECK(std::memcmp(alone.data(), mean.data() + r * kNet.D, sizeof(float) * kNet.D) == 0);
            }
        }
}

TEST(rows_and_results_may_stay_on_the_device) {
    if (!gpu()) return;
    const Scene s(kOutputs[3]);
    const int64_t Z = kNet.Z, D = kNet.D, wide = 44;  // rows with a gap: read in place, or copied where 37 do not align
    std::vector<double> want(kRows), got(kRows);
    Buffer mean(kRows * D), want_mean(kRows * D), mu(kRows * Z), want_mu(kRows * Z);
    s.models.device->elbo(s.rows(), 2, 4, want.data(), false);
    s.models.device->reconstruct(s.rows(), want_mean.data(), false);
    s.models.device->encode(s.rows(), want_mu.data(), nullptr, false);
    for (const int64_t stride : {D, wide}) {
        std::vector<float> spread(static_cast<size_t>(kRows * stride), std::nanf(""));
        for (int64_t r = 0; r < kRows; ++r)
            std::memcpy(&spread[static_cast<size_t>(r * stride)], s.x.data() + r * D, sizeof(float) * D);
        const Memory x(spread.size() * sizeof(float)), codes(sizeof(float) * kRows * Z),
            out(sizeof(double) * kRows * D);
        gpu()->upload(x.data, spread.data(), spread.size() * sizeof(float));
        CHECK(fusedvae::Device::device_of(x.data) == 0);
        CHECK(fusedvae::Device::device_of(spread.data()) == -1);
        fusedvae::Rows rows = s.rows();
        rows.data = static_cast<const unsigned char*>(x.data);
        rows.stride = stride * static_cast<int64_t>(sizeof(float));
        rows.on_device = true;
        CHECK(gpu()->find_bad(rows) == -1);

        s.models.device->elbo(rows, 2, 4, static_cast<double*>(out.data), true);
        gpu()->download(got.data(), out.data, sizeof(double) * kRows);
        CHECK(got == want);
        s.models.device->encode(rows, static_cast<float*>(codes.data), nullptr, true);
        gpu()->download(mu.data(), codes.data, sizeof(float) * kRows * Z);
        fusedvae::Rows z(want_mu.data(), kRows, Z);
        z.data = static_cast<const unsigned char*>(codes.data);
        z.on_device = true;
        s.models.device->decode(z, static_cast<float*>(out.data), true);
        gpu()->download(mean.data(), out.data, sizeof(float) * kRows * D);
        for (int64_t i = 0; i < mu.size(); ++i) CHECK(mu[i] == want_mu[i]);
        for (int64_t i = 0; i < mean.size(); ++i) CHECK(mean[i] == want_mean[i]);

        spread[static_cast<size_t>(5 * stride + 3)] = std::nanf("");
        gpu()->upload(x.data, spread.data(), spread.size() * sizeof(float));
        CHECK(gpu()->find_bad(rows) == 5 * D + 3);
    }
}
