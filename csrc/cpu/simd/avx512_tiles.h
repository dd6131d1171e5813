// SPDX-License-Identifier: MIT
//
// AVX-512's tiles: 32 registers. 48 columns take 8 x 3 accumulators + 3 + 1; taller tiles gain nothing (8 x 32 has 98 % of
// peak). Both precisions take them: parameters lie in the same panels, whichever a step computes in.
#pragma once

namespace fusedvae {
namespace {

constexpr int kWidest = 3;                           // panels of up to this many kGroup columns
constexpr int kTallest[kWidest + 1] = {0, 8, 8, 8};  // rows of a tile, by the panel's groups
constexpr const int* kTallestWidening = kTallest;

}  // namespace
}  // namespace fusedvae
