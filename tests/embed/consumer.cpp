// SPDX-License-Identifier: MIT
//
// The same as consumer.c through the C++ header: owning classes, exceptions instead of status codes, a callback that
// stops the run. Argument: the path of the model file to write.
#include <cstdio>
#include <fusedvae/fusedvae.hpp>
#include <numeric>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

constexpr int64_t kRows = 512, kColumns = 12, kLatent = 2;

void require(bool condition, const char* what) {
    if (!condition) throw std::logic_error(what);
}

// Rows on a line through the space, with a small sawtooth about it.
std::vector<float> make_rows() {
    std::vector<float> x(kRows * kColumns);
    for (int64_t b = 0; b < kRows; ++b)
        for (int64_t d = 0; d < kColumns; ++d) {
            const double along = 4.0 * b / kRows - 2.0, aside = (b * 7 + d * 3) % 11 / 11.0 - 0.5;
            x[b * kColumns + d] = static_cast<float>(along * (d - 6) / 6 + 0.1 * aside);
        }
    return x;
}

double mean_elbo(const fusedvae::Model& model, const fvae_array& data) {
    std::vector<double> scores(kRows);
    model.elbo(data, 1, 0, scores.data());
    return std::accumulate(scores.begin(), scores.end(), 0.0) / kRows;
}

void run(const std::string& path) {
    const std::vector<float> x = make_rows();
    const fvae_array data = fusedvae::rows(x.data(), kRows, kColumns);

    fusedvae::Config config;
    config.input_shape = {kColumns};
    config.hidden = {16, 8};
    config.latent = kLatent;
    config.activation = FVAE_TANH;
    config.likelihood = FVAE_GAUSSIAN;
    config.variance = FVAE_FEATURE;
    fusedvae::Model model(config, 1);
    const double before = mean_elbo(model, data);

    fvae_trainer_options options = fvae_trainer_options_default();
    options.batch_size = 64;
    options.learning_rate = 1e-2;
    fusedvae::Trainer trainer(model, options);
    trainer.fit(data, 100, &data, [](fvae_event event, const fvae_progress& progress) -> int32_t {
        return event == FVAE_EPOCH_END && progress.epoch == 19 ? FVAE_CALLBACK_STOP : FVAE_CALLBACK_CONTINUE;
    });
    require(trainer.epochs() == 20, "the callback stops the training at the end of its epoch");
    require(trainer.history().back().validation.loss < trainer.history().front().validation.loss, "the loss falls");

    bool thrown = false;
    try {
        trainer.fit(data, 1, nullptr,
                    [](fvae_event, const fvae_progress&) -> int32_t { throw std::out_of_range("mine"); });
    } catch (const std::out_of_range& error) {
        thrown = std::string(error.what()) == "mine";
    }
    require(thrown, "a callback's exception comes out of fit");

    const double after = mean_elbo(model, data);
    require(after > before + 1, "training gains more than a nat per row");
    model.save(path);
    require(mean_elbo(fusedvae::Model::load(path), data) == after, "the loaded model gives the saved one's scores");

    thrown = false;
    try {
        fusedvae::Model::load(path + ".missing");
    } catch (const fusedvae::io_error& error) {
        thrown = error.status() == FVAE_NOT_FOUND;
    }
    require(thrown, "a missing file is an io_error that says so");
    std::printf("fusedvae %s: elbo %.3f before, %.3f after 20 epochs\n", fvae_version(), before, after);
}

}  // namespace

int main(int argc, char** argv) {
    try {
        require(argc == 2, "usage: consumer MODEL.safetensors");
        run(argv[1]);
        return 0;
    } catch (const std::exception& error) {
        std::fprintf(stderr, "%s\n", error.what());
        return 1;
    }
}
