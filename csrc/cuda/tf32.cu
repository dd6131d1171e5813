// SPDX-License-Identifier: MIT
#include "persistent.h"

FUSEDVAE_DEFINE_KERNELS(kTf32, Tf32, false)
