/* SPDX-License-Identifier: MIT
 *
 * A C program that trains a model on rows it makes itself, saves it, loads it and finds the same scores: what an
 * embedder does, with the installed header and library alone. Argument: the path of the model file to write.
 */
#include <fusedvae/fusedvae.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { kRows = 512, kColumns = 12, kLatent = 2, kEpochs = 30 };

static void require(int condition, const char* what) {
    if (condition) return;
    fprintf(stderr, "%s; last error: %s\n", what, fvae_last_error());
    exit(1);
}

/* Two prototypes with each value flipped at one in ten: a model that learns beats one that has not. */
static void fill(float* x) {
    uint32_t state = 1;
    for (int b = 0; b < kRows; ++b) {
        for (int d = 0; d < kColumns; ++d) {
            state = state * 1664525u + 1013904223u;
            const int flipped = (state >> 16) % 10 == 0;
            x[b * kColumns + d] = (float)(((b + d) % 2) ^ flipped);
        }
    }
}

static double mean(const double* values, int n) {
    double sum = 0;
    for (int i = 0; i < n; ++i) sum += values[i];
    return sum / n;
}

static int32_t count_epochs(void* user, fvae_event event, const fvae_progress* progress) {
    if (event == FVAE_EPOCH_END && progress->batches > 0) ++*(int*)user;
    return FVAE_CALLBACK_CONTINUE;
}

int main(int argc, char** argv) {
    require(argc == 2, "usage: consumer MODEL.safetensors");
    require(fvae_abi_version() == FVAE_ABI_VERSION, "header and library are of one version");

    static float x[kRows * kColumns];
    fill(x);
    fvae_array data = fvae_array_default();
    data.data = x;
    data.dtype = FVAE_FLOAT32;
    data.rows = kRows;
    data.columns = kColumns;

    const int64_t shape[] = {kColumns}, hidden[] = {16};
    fvae_config config = fvae_config_default();
    config.input_shape = shape;
    config.input_rank = 1;
    config.hidden = hidden;
    config.hidden_count = 1;
    config.latent = kLatent;
    fvae_model* model = NULL;
    require(fvae_model_create(&config, 0, &model) == FVAE_OK, "the model is made");

    static double before[kRows], after[kRows], loaded[kRows];
    require(fvae_model_elbo(model, &data, 1, 0, before) == FVAE_OK, "the untrained model scores");

    fvae_trainer_options options = fvae_trainer_options_default();
    options.batch_size = 64;
    options.learning_rate = 1e-2;
    fvae_trainer* trainer = NULL;
    require(fvae_trainer_create(model, &options, &trainer) == FVAE_OK, "the trainer is made");
    int epochs = 0;
    require(fvae_trainer_fit(trainer, &data, kEpochs, NULL, count_epochs, 1u << FVAE_EPOCH_END, &epochs) == FVAE_OK,
            "the training runs");
    require(epochs == kEpochs && fvae_trainer_epochs(trainer) == kEpochs, "every epoch is reported");
    fvae_trainer_free(trainer);

    require(fvae_model_elbo(model, &data, 1, 0, after) == FVAE_OK, "the trained model scores");
    require(mean(after, kRows) > mean(before, kRows) + 1, "training gains more than a nat per row");

    require(fvae_model_save(model, argv[1]) == FVAE_OK, "the model is saved");
    fvae_model_free(model);
    model = NULL;
    require(fvae_model_load(argv[1], &model) == FVAE_OK, "the model is loaded");
    require(fvae_model_elbo(model, &data, 1, 0, loaded) == FVAE_OK, "the loaded model scores");
    require(memcmp(after, loaded, sizeof after) == 0, "the loaded model gives the saved one's scores");

    data.columns = kColumns - 1;
    require(fvae_model_elbo(model, &data, 1, 0, loaded) == FVAE_INVALID_ARGUMENT, "a wrong width is refused");
    require(strstr(fvae_last_error(), "11") != NULL, "the message holds the width that came");
    fvae_model_free(model);

    const char* backend = NULL;
    require(fvae_backend(&backend) == FVAE_OK, "a backend is in use");
    printf("fusedvae %s (%s): elbo %.3f before, %.3f after %d epochs\n", fvae_version(), backend, mean(before, kRows),
           mean(after, kRows), kEpochs);
    return 0;
}
