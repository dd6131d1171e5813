// SPDX-License-Identifier: MIT
#include "passes.h"

FUSEDVAE_DEFINE_KERNELS(kFloat32, Fma, false)
