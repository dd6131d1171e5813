// SPDX-License-Identifier: MIT
#include "passes.h"

FUSEDVAE_DEFINE_KERNELS(kBfloat16, Bfloat16, true)
