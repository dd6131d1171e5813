// SPDX-License-Identifier: MIT
//
// Who does what in a step. Two ways to share the work among threads, with the same bits:
//
//     by columns  each thread owns a range of a layer's output columns in forward, and nearly the same one in dW and update,
//                 so that a weight stays in one core's cache; a barrier per layer. Shares are equal, dW's in cost: they end
//                 within a panel, part of whose rows (of the batch; for dW, of the weights) goes to the next thread
//     by rows     each thread takes a block of batch rows through forward, loss and dX without a barrier; then one
//                 barrier, then dW by tiles. Where dW is a sum of splits, each thread has computed its own rows' before
//                 the barrier
#pragma once
#include <vector>

#include "../cpu/threads.h"
#include "network.h"

namespace fusedvae {

enum Way { kRows, kColumns, kAlone };  // kAlone: by one of several threads

// What decides: the network's and the batch's shape, or what training measures (tuner.h). Tests and benches force a way.
enum class Sharing { by_shape, by_measure, by_columns, by_rows };

// Parts of a batch, whose products dW is the sum of; a power of two, 1: the whole batch at once. Weights must be few. By
// rows sums alone go from core to core then, and not all that the products read; the sum is the same whichever way a step
// is shared. It is taken in pairs of neighbours, of those again pairs and so on: whether one thread computes four parts or
// four threads one each, the bits are the same.
int splits_of(const Network& network, int B);
Range split_rows(int split, int splits, int B);

struct Plan {       // for one number of threads and rows
    struct Block {  // rows [b0, b1) of panels [p0, p1)
        int b0, b1, p0, p1;
    };
    struct Tiles {  // rows [k0, k1) of dW's panel
        int layer, panel, k0, k1;
    };
    using Blocks = std::vector<std::vector<std::vector<Block>>>;  // [layer][thread][...]
    int threads = 0, B = 0;
    bool by_columns = false;
    std::vector<Range> rows;                // [thread], of what is done row by row
    Blocks forward, dgrad;                  // dgrad: panels of the transposed copy
    std::vector<std::vector<Tiles>> tiles;  // [thread], wgrad
    int splits = 1;                         // that dW is the sum of
    int own_splits = 0;                     // of them that each thread computes of its own rows; 0: tile by tile
};
Plan make_plan(const Network& network, Way way, int threads, int B);
Way way_by_shape(const Network& network, int B);

// Threads that a batch of B rows is worth.
double worth_threads(const Network& network, int64_t B);
int useful_threads(const Network& network, int64_t B, int available);

}  // namespace fusedvae
