/* SPDX-License-Identifier: MIT
 *
 * What bench/arms/serving.py times inside the library: calls of the C API in a loop, and the plain read of as many bytes
 * as the weights have, the least that a call at batch 1 can take. Built by that file, beside the library it loads. */
#include <stdlib.h>
#include <time.h>

#include "fusedvae/fusedvae.h"

static double seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* Seconds of `calls` reconstructions of the same n rows by a model with such weights, or a negative number where one
 * fails. */
double serve(const char* path, fvae_precision weights, const float* x, float* out, int64_t n, int64_t calls) {
    fvae_model *loaded = NULL, *model = NULL;
    size_t bytes = 0;
    if (fvae_model_load(path, &loaded) != FVAE_OK || fvae_model_copy(loaded, weights, &model) != FVAE_OK ||
        fvae_model_workspace_bytes(model, n, &bytes) != FVAE_OK)
        return -1.0;
    fvae_model_free(loaded);
    void* workspace = malloc(bytes);
    fvae_status status = fvae_model_reconstruct_into(model, x, n, out, workspace, bytes);
    const double start = seconds();
    for (int64_t i = 0; i < calls; ++i) status |= fvae_model_reconstruct_into(model, x, n, out, workspace, bytes);
    const double took = seconds() - start;
    free(workspace);
    fvae_model_free(model);
    return status == FVAE_OK ? took : -1.0;
}

typedef float block __attribute__((vector_size(64)));

/* Seconds of `passes` reads of `bytes` (rounded down to 512); *sum keeps the reads from being left out. */
double read_all(int64_t bytes, int64_t passes, float* sum) {
    const int64_t n = bytes / 512 * 8;
    block* memory = aligned_alloc(4096, ((size_t)bytes + 4095) / 4096 * 4096);
    if (!memory) return -1.0;
    for (int64_t i = 0; i < n; ++i) memory[i] = (block){1.0f};
    block sums[8] = {{0.0f}};
    double start = 0.0;
    for (int64_t pass = -1; pass < passes; ++pass) { /* the first one warms the caches */
        if (pass == 0) start = seconds();
        for (int64_t i = 0; i < n; i += 8)
            for (int j = 0; j < 8; ++j) sums[j] += memory[i + j];
    }
    const double took = seconds() - start;
    for (int j = 0; j < 8; ++j) *sum += sums[j][0];
    free(memory);
    return took;
}
