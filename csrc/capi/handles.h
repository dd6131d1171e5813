// SPDX-License-Identifier: MIT
//
// What the handles hold, and the one catch wrapper that turns exceptions into status codes.
#pragma once
#include <cstring>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>
#include <vector>

#include "fusedvae/fusedvae.h"
#include "model/error.h"
#include "model/trainer.h"

struct fvae_model {
    explicit fvae_model(std::shared_ptr<fusedvae::Model> owned);

    std::shared_ptr<fusedvae::Model> model;
    std::vector<std::vector<const char*>> categories;  // of each column, pointing into the model's configuration
    std::vector<fvae_column> columns;
};

struct fvae_trainer {
    std::shared_ptr<fusedvae::Trainer> trainer;
};

namespace fusedvae {

fvae_status fail(fvae_status status, const char* message) noexcept;  // sets fvae_last_error()

template <class Body>
fvae_status guarded(Body body) noexcept {
    try {
        body();
        return FVAE_OK;
    } catch (const Error& e) {
        return fail(e.status, e.what());
    } catch (const std::invalid_argument& e) {
        return fail(FVAE_INVALID_ARGUMENT, e.what());
    } catch (const std::bad_alloc&) {
        return fail(FVAE_OUT_OF_MEMORY, "not enough memory; lower the batch size or the model's widths");
    } catch (const std::length_error&) {
        return fail(FVAE_OUT_OF_MEMORY, "not enough memory; lower the batch size or the model's widths");
    } catch (const std::exception& e) {
        return fail(FVAE_RUNTIME_ERROR, e.what());
    } catch (...) {
        return fail(FVAE_RUNTIME_ERROR, "unknown failure");
    }
}

// Throws where a pointer that must not be NULL is.
inline void require(const void* pointer, const char* name) {
    if (!pointer) throw std::invalid_argument(std::string(name) + " is NULL");
}

// The caller's struct, which an older or newer header may have made shorter or longer than ours: fields it does not
// have keep their defaults.
template <class T>
T read_struct(const T* given, T defaults, const char* name) {
    require(given, name);
    // No version of a struct ends within a field: its size is a multiple of its alignment.
    if (given->struct_size < sizeof(size_t) || given->struct_size > 65536 || given->struct_size % alignof(T) != 0)
        throw std::invalid_argument(std::string(name) + "->struct_size is " + std::to_string(given->struct_size) +
                                    "; begin with the default the library makes");
    std::memcpy(&defaults, given, given->struct_size < sizeof(T) ? given->struct_size : sizeof(T));
    defaults.struct_size = sizeof(T);
    return defaults;
}

inline fvae_array array_of(const fvae_array* given, const char* name) {
    return read_struct(given, fvae_array_default(), name);
}

// Fills the caller's struct as far as it reaches; its struct_size says how far, 0 standing for ours.
template <class T>
void write_struct(T* out, const T& value, const char* name) {
    require(out, name);
    if (out->struct_size != 0 && out->struct_size < sizeof(size_t))
        throw std::invalid_argument(std::string(name) + "->struct_size is " + std::to_string(out->struct_size) +
                                    "; begin with the default the library makes");
    const size_t room = out->struct_size && out->struct_size < sizeof(T) ? out->struct_size : sizeof(T);
    std::memcpy(out, &value, room);
    out->struct_size = room;
}

}  // namespace fusedvae
