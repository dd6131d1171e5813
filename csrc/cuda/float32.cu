// SPDX-License-Identifier: MIT
#include "persistent.h"

FUSEDVAE_DEFINE_KERNELS(kFloat32, Fma, false)
