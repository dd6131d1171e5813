// SPDX-License-Identifier: MIT
//
// Who does what in a step. Two ways to share the work among threads, with the same bits:
//
//     by columns  each thread owns a range of every layer's output columns, in forward, dW and update alike, so that a
//                 weight stays in one core's cache; a barrier per layer
//     by rows     each thread takes a block of batch rows through forward, loss and dX without a barrier; then one
//                 barrier, then dW by tiles
#pragma once
#include <vector>

#include "../cpu/threads.h"
#include "network.h"

namespace fusedvae {

// by_shape takes the faster way for the network, batch and threads at hand; tests and benches force one.
enum class Sharing { by_shape, by_columns, by_rows };

struct Plan {       // for one number of threads and rows
    struct Tiles {  // rows [k0, k1) of dW's panel
        int layer, panel, k0, k1;
    };
    int threads = 0, B = 0;
    bool by_columns = false;
    std::vector<Range> rows;                   // [thread]
    std::vector<std::vector<Range>> panels;    // [layer][thread], forward
    std::vector<std::vector<Range>> panels_t;  // [layer][thread], dgrad
    std::vector<std::vector<Tiles>> tiles;     // [thread], wgrad
};
Plan make_plan(const Network& network, Sharing sharing, int threads, int B);

// Threads that a batch of B rows is worth.
int useful_threads(const Network& network, int64_t B, int available);

}  // namespace fusedvae
