// SPDX-License-Identifier: MIT
//
// Compiles list.inc for one instruction set: included after its simd header and after TABLE and BACKEND are defined.
// The rules of csrc/cpu/isa_*.cpp hold here too: everything but the table is in an unnamed namespace.
#include "layer/gemm.h"
// gemm.h first: formulas.h uses its enumerations
#include "layer/formulas.h"
#include "table.h"

namespace fusedvae {
namespace {

#define FORMULA(name, engine, ...)                       \
    void name##_of(float* out, const float* in, int n) { \
        for (int i = 0; i < n; i += kLanes) {            \
            const V x = load(in + i);                    \
            store(out + i, engine);                      \
        }                                                \
    }
#include "list.inc"
#undef FORMULA

}  // namespace
}  // namespace fusedvae

const accuracy::Table accuracy::TABLE = {
    BACKEND,
#define FORMULA(name, ...) fusedvae::name##_of,
#include "list.inc"
#undef FORMULA
};
