// SPDX-License-Identifier: MIT
#include "passes.h"

FUSEDVAE_DEFINE_KERNELS(kTf32, Tf32, false)
