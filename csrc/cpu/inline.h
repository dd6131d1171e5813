// SPDX-License-Identifier: MIT
//
// FUSEDVAE_FN: a formula or a vector operation, inlined whatever the compiler's size heuristics say, because a call
// would spill the accumulators of the tile around it.
#pragma once
#define FUSEDVAE_FN __attribute__((always_inline)) inline
