/* SPDX-License-Identifier: MIT
 *
 * What page.html calls: one model, its size, and its decoder. Functions return 0, or 1 with a message in error().
 */
#include <emscripten.h>
#include <fusedvae/fusedvae.h>

static fvae_model* model = NULL;

EMSCRIPTEN_KEEPALIVE const char* error(void) { return fvae_last_error(); }

EMSCRIPTEN_KEEPALIVE int load(const char* path) {
    fvae_model_free(model);
    model = NULL;
    return fvae_model_load(path, &model) != FVAE_OK;
}

/* size: latent width, then the image's height and width */
EMSCRIPTEN_KEEPALIVE int sizes(int32_t* size) {
    fvae_config config = fvae_config_default();
    if (fvae_model_config(model, &config) != FVAE_OK || config.input_rank != 2) return 1;
    size[0] = (int32_t)config.latent;
    size[1] = (int32_t)config.input_shape[0];
    size[2] = (int32_t)config.input_shape[1];
    return 0;
}

EMSCRIPTEN_KEEPALIVE int decode(const float* codes, int32_t n, float* mean) {
    return fvae_model_decode(model, codes, n, mean) != FVAE_OK;
}
