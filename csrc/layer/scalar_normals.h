// SPDX-License-Identifier: MIT
//
// Normals for what must have the same bits whatever backend runs: initial parameters (model/network.cpp).
#pragma once
#include "gemm.h"

namespace fusedvae {

// Normals 0..n - 1 of a row of the stream, as the scalar backend has them.
void scalar_normals(float* out, const Stream& stream, uint32_t row, int n);

}  // namespace fusedvae
