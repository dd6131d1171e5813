// SPDX-License-Identifier: MIT
//
// Random numbers: Philox4x32-10 against the vectors that its authors publish (Random123, tests/kat_vectors), the engine
// against the reference, and the normals that samples are made of against Box-Muller in double.
#include <array>
#include <cmath>
#include <cstdint>
#include <vector>

#include "check.h"
#include "fusedvae/fusedvae.h"
#include "backend/backend.h"
#include "layer/reference.h"
#include "layer/scalar_normals.h"

namespace reference = fusedvae::reference;

namespace {

using Words = std::array<uint32_t, 4>;
using Key = std::array<uint32_t, 2>;

Words engine(const Words& counter, const Key& key) {
    Words words{};
    fvae_philox(counter.data(), key.data(), words.data());
    return words;
}

constexpr uint32_t kSample = 4;  // philox.h's purpose of samples

std::vector<float> sample(uint64_t seed, uint64_t first, int64_t n, int64_t latent, double temperature) {
    std::vector<float> z(static_cast<size_t>(n * latent));
    CHECK(fvae_sample_latent(seed, first, n, latent, temperature, z.data()) == FVAE_OK);
    return z;
}

}  // namespace

TEST(philox_gives_the_published_words) {
    struct {
        Words counter;
        Key key;
        Words words;
    } const vectors[] = {
        {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
         {0xffffffff, 0xffffffff},
         {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        // the digits of pi
        {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
         {0xa4093822, 0x299f31d0},
         {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };
    for (const auto& vector : vectors) {
        CHECK(engine(vector.counter, vector.key) == vector.words);
        CHECK(reference::philox(vector.counter, vector.key) == vector.words);
    }
}

TEST(engine_and_reference_agree_on_any_counter) {
    Words counter{1, 2, 3, 4};
    for (int i = 0; i < 1000; ++i) {
        const Key key{counter[3], counter[1]};
        const Words words = reference::philox(counter, key);
        CHECK(engine(counter, key) == words);
        counter = words;
    }
}

TEST(samples_are_the_reference_normals) {
    // rows on both sides of 2^32, where the counter's next word begins to count; widths around groups of four
    for (uint64_t first : {uint64_t{0}, uint64_t{12345}, (uint64_t{1} << 32) - 3})
        for (int64_t latent : {1, 2, 3, 4, 5, 8, 20, 33}) {
            const uint64_t seed = 0xfeedfacecafebeefull;
            const std::vector<float> z = sample(seed, first, 50, latent, 1.0);
            for (int64_t i = 0; i < 50; ++i)
                for (int64_t j = 0; j < latent; ++j) {
                    const uint64_t row = first + static_cast<uint64_t>(i);
                    const double want = reference::normal(seed, row >> 32, kSample, static_cast<uint32_t>(row), j);
                    // a few roundings of ln, sqrt, sin and cos; the angle's own is 2^-24 of a quarter turn
                    CHECK_NEAR(z[static_cast<size_t>(i * latent + j)], want, 1e-6 + 5e-7 * std::fabs(want));
                }
        }
}

TEST(a_sample_depends_on_seed_and_row_alone) {
    const std::vector<float> all = sample(5, 100, 40, 7, 1.0), tail = sample(5, 117, 23, 7, 1.0);
    CHECK(std::vector<float>(all.begin() + 17 * 7, all.end()) == tail);
    CHECK(sample(6, 100, 40, 7, 1.0) != all);
}

TEST(scores_draw_the_reference_normals) {
    constexpr uint32_t kScore = 3;             // philox.h's purpose of scores
    const int64_t samples = 2500, latent = 5;  // shared among threads
    std::vector<float> noise(static_cast<size_t>(samples * latent));
    CHECK(fvae_score_noise(77, samples, latent, noise.data()) == FVAE_OK);
    for (int64_t s = 0; s < samples; s += 7)
        for (int64_t j = 0; j < latent; ++j) {
            const double want = reference::normal(77, 0, kScore, static_cast<uint32_t>(s), j);
            CHECK_NEAR(noise[static_cast<size_t>(s * latent + j)], want, 1e-6 + 5e-7 * std::fabs(want));
        }
    CHECK(fvae_score_noise(77, 0, latent, noise.data()) == FVAE_INVALID_ARGUMENT);
    CHECK(fvae_score_noise(77, 1, 0, noise.data()) == FVAE_INVALID_ARGUMENT);
    CHECK(fvae_score_noise(77, 1, 1, nullptr) == FVAE_INVALID_ARGUMENT);
}

TEST(scalar_normals_have_the_scalar_backends_bits) {
    const fusedvae::Stream stream = fusedvae::make_stream(0xfeedfacecafebeefull, 9, fusedvae::kInit);
    for (int n : {1, 3, 4, 30, 4096}) {
        std::vector<float> one(static_cast<size_t>(n)), other(static_cast<size_t>(n));
        fusedvae::scalar_normals(one.data(), stream, 6, n);
        fusedvae::cpu::kScalar.normals(other.data(), n, stream, 6, 1, n);
        CHECK(one == other);
    }
}

TEST(temperature_scales_samples) {
    const std::vector<float> hot = sample(5, 0, 10, 6, 1.0), cool = sample(5, 0, 10, 6, 0.5);
    for (size_t i = 0; i < hot.size(); ++i) CHECK(cool[i] == 0.5f * hot[i]);
    for (float value : sample(5, 0, 10, 6, 0.0)) CHECK(value == 0.0f);
}
