// SPDX-License-Identifier: MIT
//
// The copies of the weights that products read: transposed for dgrad, and in bfloat16 the words of both. A step's
// optimiser keeps them equal to the parameters; who else writes parameters has them made anew.
#pragma once
#include "buffer.h"
#include "network.h"

namespace fusedvae {

struct Copies {
    Copies(const Network& network, const Backend& backend)
        : bfloat16(backend.bfloat16),
          transposed(bfloat16 ? network.words_t : network.floats_t),
          words(bfloat16 ? network.words : 0) {}

    void refresh(const Network& network, const float* flat) {
        if (bfloat16)
            network.make_words(flat, words.data(), transposed.data());
        else
            network.transpose(flat, transposed.data());
    }

    const bool bfloat16;
    Buffer transposed;
    Buffer words;  // bfloat16
};

}  // namespace fusedvae
