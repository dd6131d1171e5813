// SPDX-License-Identifier: MIT
//
// Encoding and decoding. Each thread takes blocks of rows through the layers by itself (pass.h); a row's result is a
// function of that row alone, whatever block or thread it falls to. The *_into calls are one such pass in the caller's
// workspace: no allocation, no lock, no other thread.
#include <algorithm>
#include <cfloat>
#include <stdexcept>

#include "on_threads.h"

namespace fusedvae {

namespace {

void encode_rows(Pass& pass, const Rows& x, Range range, int Z, float* mu, float* logvar) {
    for (int64_t first = range.first, n; first < range.last; first += n) {
        n = pass.block(range, first);
        const float* const* head = pass.encode(pass.read(x, first, static_cast<int>(n)), static_cast<int>(n));
        for (int64_t r = 0; r < n; ++r)
            for (int j = 0; j < Z; ++j) {
                if (mu) mu[(first + r) * Z + j] = head[r][2 * j];
                if (logvar) logvar[(first + r) * Z + j] = head[r][2 * j + 1];
            }
    }
}

void decode_rows(Pass& pass, const Rows& z, Range range, int64_t width, float* mean) {
    for (int64_t first = range.first, n; first < range.last; first += n) {
        n = pass.block(range, first);
        pass.decode(pass.read(z, first, static_cast<int>(n)), static_cast<int>(n), mean + first * width);
    }
}

void reconstruct_rows(Pass& pass, const Rows& x, Range range, const Model& model, float* mean) {
    const int Z = model.network.Z;
    for (int64_t first = range.first, n; first < range.last; first += n) {
        n = pass.block(range, first);
        const float* const* head = pass.encode(pass.read(x, first, static_cast<int>(n)), static_cast<int>(n));
        float* const codes = pass.codes(static_cast<int>(n));
        for (int64_t r = 0; r < n; ++r)
            for (int j = 0; j < Z; ++j) codes[r * Z + j] = head[r][2 * j];
        pass.decode(pass.code_rows(), static_cast<int>(n), mean + first * model.config.width());
    }
}

void check_codes(const Model& model, const float* z, int64_t n) {
    if (n <= 0 || !z) throw std::invalid_argument("z is empty: it has " + std::to_string(n) + " rows");
    if (n > UINT32_MAX) throw std::invalid_argument("z has " + std::to_string(n) + " rows; at most 2^32 - 1 are read");
    const int64_t Z = model.network.Z, bad = model.backend.find_bad(z, n * Z, -FLT_MAX, FLT_MAX);
    if (bad < n * Z)
        throw std::invalid_argument("z holds NaN or an infinity in row " + std::to_string(bad / Z) + ", column " +
                                    std::to_string(bad % Z));
}

// The dense float rows of a serving call.
Rows served_rows(const Model& model, const float* x, int64_t n) {
    fvae_array array = fvae_array_default();
    array.data = x;
    array.rows = n;
    array.columns = model.config.width();
    return Rows(array, model.config, "x");
}

void check_values(const Model& model, const Rows& rows, Pass& pass) {
    if (!rows.direct()) {
        for (int64_t i = 0; i < rows.count; ++i) rows.check_row(model.backend, i, pass.converted(0));
        return;
    }
    const int64_t values = rows.count * rows.width;
    const auto* const x = reinterpret_cast<const float*>(rows.data);
    if (model.backend.find_bad(x, values, rows.low, rows.high) < values)
        rows.check_all(model.backend, 1);  // which says where
}

}  // namespace

size_t Model::workspace_bytes(int64_t rows) const {
    if (rows < 1) throw std::invalid_argument("rows must be at least 1, it is " + std::to_string(rows));
    return Pass::bytes(*this, rows, !config.columns.empty());
}

Pass Model::pass(int64_t rows, void* workspace, size_t bytes) const {
    const size_t needed = workspace_bytes(rows);
    if (!workspace || bytes < needed)
        throw std::invalid_argument("workspace has " + std::to_string(workspace ? bytes : 0) + " bytes; " +
                                    std::to_string(rows) + " rows take " + std::to_string(needed));
    return Pass(*this, rows, !config.columns.empty(), workspace);
}

void Model::encode_into(const float* x, int64_t n, float* mu, float* logvar, void* workspace, size_t bytes) const {
    const Rows rows = served_rows(*this, x, n);
    Pass one = pass(n, workspace, bytes);
    check_values(*this, rows, one);
    encode_rows(one, rows, {0, n}, network.Z, mu, logvar);
}

void Model::decode_into(const float* z, int64_t n, float* mean, void* workspace, size_t bytes) const {
    check_codes(*this, z, n);
    Pass one = pass(n, workspace, bytes);
    decode_rows(one, Rows(z, n, network.Z), {0, n}, config.width(), mean);
}

void Model::reconstruct_into(const float* x, int64_t n, float* mean, void* workspace, size_t bytes) const {
    const Rows rows = served_rows(*this, x, n);
    Pass one = pass(n, workspace, bytes);
    check_values(*this, rows, one);
    reconstruct_rows(one, rows, {0, n}, *this, mean);
}

void Model::encoded_rows(const fvae_array& x, float* encoded) const {
    Rows rows(x, config, "x");
    rows.low = -FLT_MAX, rows.high = FLT_MAX;  // they need not be targets
    rows.check_all(backend, default_threads());
    for (int64_t i = 0; i < rows.count; ++i) {
        float* const own = encoded + i * rows.width;
        const float* const row = rows.read(backend, i, own);
        if (row != own) std::copy(row, row + rows.width, own);
    }
}

void Model::encode(const fvae_array& x, float* mu, float* logvar) const {
    const Rows rows(x, config, "x");
    rows.check_all(backend, default_threads());
    if (!mu && !logvar) return;
    const std::shared_lock lock(mutex);
    on_threads(*this, rows, network.flops_per_row() * static_cast<double>(rows.count) / 2,
               [&](Pass& pass, Range range) { encode_rows(pass, rows, range, network.Z, mu, logvar); });
}

void Model::decode(const float* z, int64_t n, float* mean) const {
    check_codes(*this, z, n);
    const Rows rows(z, n, network.Z);
    const std::shared_lock lock(mutex);
    on_threads(*this, rows, network.flops_per_row() * static_cast<double>(n) / 2,
               [&](Pass& pass, Range range) { decode_rows(pass, rows, range, config.width(), mean); });
}

void Model::reconstruct(const fvae_array& x, float* mean) const {
    const Rows rows(x, config, "x");
    rows.check_all(backend, default_threads());
    const std::shared_lock lock(mutex);
    on_threads(*this, rows, network.flops_per_row() * static_cast<double>(rows.count),
               [&](Pass& pass, Range range) { reconstruct_rows(pass, rows, range, *this, mean); });
}

}  // namespace fusedvae
