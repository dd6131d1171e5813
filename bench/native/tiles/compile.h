// SPDX-License-Identifier: MIT
//
// Compiles the table for one instruction set: included after its simd header and after TABLE, BACKEND, MULTIPLY_ADD,
// REGISTERS and FLOATS (in a register) are defined. The rules of csrc/cpu/isa_*.cpp hold here too: all but the table is
// unnamed.
#include "layer/gemm.h"
#include "table.h"

namespace fusedvae {
namespace {
constexpr int kWidest = 1, kTallest[] = {0, 1};  // microkernel.h's own choice, which is not used here
FUSEDVAE_FN V multiply_add(V a, V b, V sum) { return MULTIPLY_ADD(a, b, sum); }
}  // namespace
}  // namespace fusedvae

#include "cpu/microkernel.h"

namespace fusedvae {
namespace {

template <Walk kWalk, int kRows, int kGroups>
constexpr Product tile() {
    constexpr int kRegisters = kGroups * kGroup / FLOATS;  // in a row of the tile
    constexpr int kShorter = kRows < kRegisters ? kRows : kRegisters;
    if constexpr (kRows * kRegisters + kShorter + 1 <= REGISTERS)
        return product<kWalk, kRows, kGroups * kGroup / kLanes>;
    else
        return nullptr;
}

}  // namespace
}  // namespace fusedvae

#define ROW(walk, rows) \
    { nullptr, tile<walk, rows, 1>(), tile<walk, rows, 2>(), tile<walk, rows, 3>(), tile<walk, rows, 4>() }
#define ROWS(walk)                                                                                                \
    {                                                                                                             \
        {}, ROW(walk, 1), ROW(walk, 2), ROW(walk, 3), ROW(walk, 4), ROW(walk, 5), ROW(walk, 6), ROW(walk, 7),     \
            ROW(walk, 8), ROW(walk, 9), ROW(walk, 10), ROW(walk, 11), ROW(walk, 12), ROW(walk, 13), ROW(walk, 14) \
    }

namespace fusedvae {
const tiles::Table tiles::TABLE = {BACKEND, ROWS(Walk::along), ROWS(Walk::across)};
}
