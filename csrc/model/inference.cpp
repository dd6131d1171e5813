// SPDX-License-Identifier: MIT
//
// Encoding and decoding. Each thread takes blocks of rows through the layers by itself (pass.h); a row's result is a
// function of that row alone, whatever block or thread it falls to. The *_into calls are one such pass in the caller's
// workspace: no allocation, no lock, no other thread.
#include <algorithm>
#include <cfloat>
#include <stdexcept>

#include "pass.h"

namespace fusedvae {

namespace {

constexpr int64_t kGrain = 32;  // rows below which a second thread is not worth waking

// Runs body(pass, range) over all rows, on as many threads as they are worth.
template <class Body>
void on_threads(const Model& model, const Rows& rows, double flops, Body body) {
    const int64_t by_rows = (rows.count + kGrain - 1) / kGrain, by_work = static_cast<int64_t>(flops / 1e6) + 1;
    const auto part = [&](Range range) {
        const int64_t n = range.last - range.first;
        if (n == 0) return;
        const Workspace workspace(model, n, !rows.direct());
        Pass pass(model, n, !rows.direct(), workspace.data());
        body(pass, range);
    };
    const int threads = static_cast<int>(std::min<int64_t>({default_threads(), by_rows, by_work}));
    if (threads == 1) return part({0, rows.count});
    run_checked(threads, [&](const Team& team) { part(share(rows.count, 1, team.thread, team.threads)); });
}

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

void decode_rows(Pass& pass, const Rows& z, Range range, int D, float* mean) {
    for (int64_t first = range.first, n; first < range.last; first += n) {
        n = pass.block(range, first);
        pass.decode(pass.read(z, first, static_cast<int>(n)), static_cast<int>(n), mean + first * D);
    }
}

void reconstruct_rows(Pass& pass, const Rows& x, Range range, const Network& net, float* mean) {
    for (int64_t first = range.first, n; first < range.last; first += n) {
        n = pass.block(range, first);
        const float* const* head = pass.encode(pass.read(x, first, static_cast<int>(n)), static_cast<int>(n));
        float* const codes = pass.codes(static_cast<int>(n));
        for (int64_t r = 0; r < n; ++r)
            for (int j = 0; j < net.Z; ++j) codes[r * net.Z + j] = head[r][2 * j];
        pass.decode(pass.code_rows(), static_cast<int>(n), mean + first * net.D);
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

// The dense float rows of a serving call, with their errors in the words of every other call.
Rows checked_rows(const Model& model, const float* x, int64_t n) {
    const int64_t D = model.network.D;
    const bool bernoulli = model.config.likelihood == FVAE_BERNOULLI;
    if (n <= 0 || n > UINT32_MAX || !x ||
        model.backend.find_bad(x, n * D, bernoulli ? 0.0f : -FLT_MAX, bernoulli ? 1.0f : FLT_MAX) < n * D) {
        fvae_array array = fvae_array_default();
        array.data = x;
        array.rows = n;
        array.columns = D;
        Rows(array, model.config, "x").check_all(model.backend, 1);
    }
    return Rows(x, n, D);
}

}  // namespace

size_t Model::workspace_bytes(int64_t rows) const {
    if (rows < 1) throw std::invalid_argument("rows must be at least 1, it is " + std::to_string(rows));
    return Pass::bytes(*this, rows, false);
}

Pass Model::pass(int64_t rows, void* workspace, size_t bytes) const {
    const size_t needed = workspace_bytes(rows);
    if (!workspace || bytes < needed)
        throw std::invalid_argument("workspace has " + std::to_string(workspace ? bytes : 0) + " bytes; " +
                                    std::to_string(rows) + " rows take " + std::to_string(needed));
    return Pass(*this, rows, false, workspace);
}

void Model::encode_into(const float* x, int64_t n, float* mu, float* logvar, void* workspace, size_t bytes) const {
    const Rows rows = checked_rows(*this, x, n);
    Pass one = pass(n, workspace, bytes);
    encode_rows(one, rows, {0, n}, network.Z, mu, logvar);
}

void Model::decode_into(const float* z, int64_t n, float* mean, void* workspace, size_t bytes) const {
    check_codes(*this, z, n);
    Pass one = pass(n, workspace, bytes);
    decode_rows(one, Rows(z, n, network.Z), {0, n}, network.D, mean);
}

void Model::reconstruct_into(const float* x, int64_t n, float* mean, void* workspace, size_t bytes) const {
    const Rows rows = checked_rows(*this, x, n);
    Pass one = pass(n, workspace, bytes);
    reconstruct_rows(one, rows, {0, n}, network, mean);
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
               [&](Pass& pass, Range range) { decode_rows(pass, rows, range, network.D, mean); });
}

void Model::reconstruct(const fvae_array& x, float* mean) const {
    const Rows rows(x, config, "x");
    rows.check_all(backend, default_threads());
    const std::shared_lock lock(mutex);
    on_threads(*this, rows, network.flops_per_row() * static_cast<double>(rows.count),
               [&](Pass& pass, Range range) { reconstruct_rows(pass, rows, range, network, mean); });
}

}  // namespace fusedvae
