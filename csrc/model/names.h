// SPDX-License-Identifier: MIT
//
// The names under which the C API's enumerations stand in files and messages.
#pragma once
#include <cstring>
#include <stdexcept>
#include <string>

#include "fusedvae/fusedvae.h"

namespace fusedvae {

template <class E>
struct Names;

#define FUSEDVAE_NAMES(type, text, ...)                      \
    template <>                                              \
    struct Names<type> {                                     \
        static constexpr const char* what = text;            \
        static constexpr const char* list[] = {__VA_ARGS__}; \
    };
FUSEDVAE_NAMES(fvae_activation, "activation", "identity", "relu", "leaky_relu", "elu", "gelu", "silu", "tanh",
               "sigmoid", "softplus")
FUSEDVAE_NAMES(fvae_likelihood, "likelihood", "bernoulli", "gaussian")
FUSEDVAE_NAMES(fvae_variance, "variance", "fixed", "feature", "element")
FUSEDVAE_NAMES(fvae_init, "init", "pytorch", "glorot", "he")
FUSEDVAE_NAMES(fvae_score, "score", "elbo", "log_likelihood", "reconstruction", "kl", "mahalanobis")
FUSEDVAE_NAMES(fvae_dtype, "dtype", "float32", "float64", "float16", "uint8", "bool", "bfloat16")
FUSEDVAE_NAMES(fvae_optimizer, "optimizer", "sgd", "adam", "adamw")
FUSEDVAE_NAMES(fvae_schedule, "schedule", "constant", "cosine", "step")
FUSEDVAE_NAMES(fvae_beta_schedule, "beta_schedule", "constant", "linear", "cyclical")
FUSEDVAE_NAMES(fvae_precision, "precision", "float32", "bfloat16", "auto", "tf32")
#undef FUSEDVAE_NAMES

template <class E>
std::string known_names() {
    std::string names;
    for (const char* n : Names<E>::list) names += (names.empty() ? "" : ", ") + std::string(n);
    return names;
}

// The number in an enumeration that C wrote, where any may stand: reading it as E before it is checked has no meaning.
template <class E>
int code_of(const E& value) {
    static_assert(sizeof(E) == sizeof(int));
    int code;
    std::memcpy(&code, &value, sizeof code);
    return code;
}

// Throws std::invalid_argument for a number that is no enumerator.
template <class E>
const char* name_of(const E& value) {
    const int i = code_of(value), count = sizeof(Names<E>::list) / sizeof(*Names<E>::list);
    if (i < 0 || i >= count)
        throw std::invalid_argument(std::string(Names<E>::what) + " must be one of " + known_names<E>() +
                                    "; it is the number " + std::to_string(i));
    return Names<E>::list[i];
}

template <class E>
E from_name(const std::string& name) {
    int i = 0;
    for (const char* n : Names<E>::list) {
        if (name == n) return static_cast<E>(i);
        ++i;
    }
    throw std::invalid_argument(std::string(Names<E>::what) + " must be one of " + known_names<E>() + "; it is '" +
                                name.substr(0, 80) + "'");
}

}  // namespace fusedvae
