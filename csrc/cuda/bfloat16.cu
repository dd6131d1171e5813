// SPDX-License-Identifier: MIT
#include "persistent.h"

FUSEDVAE_DEFINE_KERNELS(kBfloat16, Bfloat16, true)
