// SPDX-License-Identifier: MIT
//
// Rows shared among as many threads as they are worth, each with a pass of its own.
#pragma once
#include <algorithm>

#include "pass.h"

namespace fusedvae {

// Runs body(pass, range) over all rows; flops is the work of all.
template <class Body>
void on_threads(const Model& model, const Rows& rows, double flops, Body body) {
    constexpr int64_t kGrain = 32;  // rows below which a second thread is not worth waking
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

}  // namespace fusedvae
