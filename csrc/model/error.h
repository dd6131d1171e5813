// SPDX-License-Identifier: MIT
//
// What the library throws when the fault is the world's, not the caller's (that is std::invalid_argument): a status of
// the C API and one sentence. The C API's catch wrapper turns it into exactly these two.
#pragma once

#include <stdexcept>
#include <string>

#include "fusedvae/fusedvae.h"

namespace fusedvae {

struct Error : std::runtime_error {
    Error(fvae_status code, const std::string& message) : std::runtime_error(message), status(code) {}
    fvae_status status;
};

}  // namespace fusedvae
