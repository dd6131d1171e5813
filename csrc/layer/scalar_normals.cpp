// SPDX-License-Identifier: MIT
#include "scalar_normals.h"

#include <algorithm>

#include "cpu/simd/scalar.h"
// scalar.h first: formulas.h is written in its vocabulary
#include "formulas.h"

namespace fusedvae {

void scalar_normals(float* out, const Stream& stream, uint32_t row, int n) {
    for (int j = 0; j < n; j += 4) {
        const uint32_t counter[4] = {static_cast<uint32_t>(j / 4), row, stream.step, stream.step_purpose};
        uint32_t words[4];
        philox4x32(counter, stream.key, words);
        V normals[4];
        normal_pair({words[0]}, {words[1]}, &normals[0], &normals[1]);
        normal_pair({words[2]}, {words[3]}, &normals[2], &normals[3]);
        for (int i = 0; i < std::min(4, n - j); ++i) out[j + i] = normals[i].v;
    }
}

}  // namespace fusedvae
