// SPDX-License-Identifier: MIT
//
// Philox4x32-10 (Salmon, Moraes, Dror, Shaw 2011, "Parallel random numbers: as easy as 1, 2, 3"), the only source of
// randomness. A number depends on its counter alone, never on a thread or on what was drawn before:
//
//     key      seed, low and high word
//     counter  [0] index: which group of four numbers within the row
//              [1] row of the batch (of the data set, where the purpose has no batch), low word
//              [2] step, low word (for kSample: the row's high word)
//              [3] step's next 24 bits, shifted left by 8, + purpose
//
// Two words (a, b) make two normals by Box-Muller: u = float(float(a >> 1) 2^-31 + 2^-32) in (0, 1], r = sqrt(-2 ln u), an angle
// of (b >> 30) quarter turns plus (int32(b << 2) 2^-32) quarter turns: n0 = r cos, n1 = r sin. Words 0 and 1 give the
// normals 4i and 4i + 1, words 2 and 3 give 4i + 2 and 4i + 3.
//
// Included by files built for different instruction sets, hence the unnamed namespace (see backend/backend.h).
#pragma once
#include <math.h>
#include <stdint.h>

namespace fusedvae {

// A stream: what an epilogue needs to draw the noise of any row.
struct Stream {
    uint32_t key[2];
    uint32_t step;          // counter[2]
    uint32_t step_purpose;  // counter[3]
};

namespace {

enum Purpose : uint32_t { kTrain = 0, kShuffle = 1, kInit = 2, kScore = 3, kSample = 4, kEvaluate = 5 };

constexpr uint32_t kPhiloxM0 = 0xD2511F53u, kPhiloxM1 = 0xCD9E8D57u;  // multipliers
constexpr uint32_t kPhiloxW0 = 0x9E3779B9u, kPhiloxW1 = 0xBB67AE85u;  // key increments: golden ratio, sqrt(3) - 1
constexpr int kPhiloxRounds = 10;

inline void philox4x32(const uint32_t counter[4], const uint32_t key[2], uint32_t words[4]) {
    uint32_t c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3], k0 = key[0], k1 = key[1];
    for (int round = 0; round < kPhiloxRounds; ++round) {
        const uint64_t p0 = (uint64_t)kPhiloxM0 * c0, p1 = (uint64_t)kPhiloxM1 * c2;
        c0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0;
        c1 = (uint32_t)p1;
        c2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c3 = (uint32_t)p0;
        k0 += kPhiloxW0;
        k1 += kPhiloxW1;
    }
    words[0] = c0, words[1] = c1, words[2] = c2, words[3] = c3;
}

// The stream of one purpose and step.
inline Stream make_stream(uint64_t seed, uint64_t step, Purpose purpose) {
    return {{(uint32_t)seed, (uint32_t)(seed >> 32)}, (uint32_t)step, ((uint32_t)(step >> 32) << 8) | purpose};
}

}  // namespace
}  // namespace fusedvae
