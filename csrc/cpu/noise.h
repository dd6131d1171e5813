// SPDX-License-Identifier: MIT
//
// The noise of the reparameterisation, drawn for whole rows before the head's products: its epilogue only reads it.
#pragma once
#include <string.h>

#include "../layer/formulas.h"
#include "inline.h"

namespace fusedvae {
namespace {

// Normals (count, Z) of a stream's rows first_row.., row stride ld. Lanes run over (row, group of four) together, so that
// narrow latents fill them too, and two registers' lanes pass at once: one's chain of operations leaves a core half idle.
void normals(float* out, ptrdiff_t ld, const Stream& stream, uint32_t first_row, int count, int Z) {
    constexpr int kAtOnce = 2, kStep = kAtOnce * kLanes;
    const int groups = (Z + 3) / 4;
    const ptrdiff_t total = (ptrdiff_t)count * groups;
    uint32_t r = 0, g = 0;
    for (ptrdiff_t first = 0; first < total; first += kStep) {
        uint32_t index[kStep], row[kStep];
        for (int lane = 0; lane < kStep; ++lane) {
            index[lane] = g;
            row[lane] = r;
            if (++g == (uint32_t)groups) g = 0, ++r;
        }
        U words[kAtOnce][4];
        for (int i = 0; i < kAtOnce; ++i)
            philox(uload(index + i * kLanes), uload(row + i * kLanes) + uset1(first_row), uset1(stream.step),
                   uset1(stream.step_purpose), stream, words[i]);
        float drawn[kStep][4];
        for (int i = 0; i < kAtOnce; ++i) {
            V n[4];
            normal_pair(words[i][0], words[i][1], &n[0], &n[1]);
            normal_pair(words[i][2], words[i][3], &n[2], &n[3]);
            store_quads(drawn[i * kLanes], n);
        }
        for (int lane = 0; lane < kStep && first + lane < total; ++lane) {
            const int j = 4 * (int)index[lane];
            float* const o = out + (ptrdiff_t)row[lane] * ld + j;
            if (Z - j >= 4)
                memcpy(o, drawn[lane], 4 * sizeof(float));
            else
                for (int i = 0; i < Z - j; ++i) o[i] = drawn[lane][i];
        }
    }
}

}  // namespace
}  // namespace fusedvae
