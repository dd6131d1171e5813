// SPDX-License-Identifier: MIT
//
// Feeds bytes to the readers of models and checkpoints: they may refuse them with FVAE_BAD_FILE and nothing else, and a
// model that is accepted must be usable.
//
//     clang++ -fsanitize=fuzzer,address,undefined -DFUSEDVAE_LIBFUZZER …    libFuzzer brings main()
#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

#include "files.h"
#include "model/error.h"
#include "model/json.h"
#include "model/trainer.h"

namespace {

using fusedvae::Error;
using fusedvae::Model;
using fusedvae::SafetensorsFile;
using fusedvae::Trainer;

void use(const std::shared_ptr<Model>& model) {
    if (model->config.width() > 4096) return;
    std::vector<float> row(static_cast<size_t>(model->config.width()), 0.0f),
        code(static_cast<size_t>(model->network.Z));
    fvae_array x = fvae_array_default();
    x.data = row.data();
    x.rows = 1;
    x.columns = model->config.width();
    double score = 0.0;
    try {
        model->encode(x, code.data(), nullptr);
        model->decode(code.data(), 1, row.data());
        if (model->detector && model->detector->samples < 100) model->score(x, *model->detector, &score);
    } catch (const std::invalid_argument&) {  // a zero may not be what its columns take
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    try {
        use(fusedvae::read_model(SafetensorsFile::parse(data, size, "input")));
        use(Trainer::resume(SafetensorsFile::parse(data, size, "input"))->model());
    } catch (const Error& error) {
        require(error.status == FVAE_BAD_FILE, "a refused file has another status");
    }
    return 0;
}

#if !defined(FUSEDVAE_LIBFUZZER)
namespace {

std::string quoted(const char* json) { return fusedvae::Json(json).dump(); }

std::vector<std::string> starting_files() {
    const std::string config = quoted(
        R"({"input_shape":[2],"hidden":[],"decoder_hidden":[],"latent":1,"activation":"relu","likelihood":"gaussian",)"
        R"("variance":"fixed","fixed_variance":1.0,"min_variance":1e-4,"init":"pytorch","uint8_scale":0.5,)"
        R"("columns":[{"name":"a","shift":1.5,"scale":2.0,"fill":0.0},{"categories":["x","y"]}]})");
    const std::string tensors = R"("encoder_mean.weight":{"dtype":"F32","shape":[1,3],"data_offsets":[0,12]},)"
                                R"("encoder_mean.bias":{"dtype":"F32","shape":[1],"data_offsets":[12,16]},)"
                                R"("encoder_logvar.weight":{"dtype":"F32","shape":[1,3],"data_offsets":[16,28]},)"
                                R"("encoder_logvar.bias":{"dtype":"F32","shape":[1],"data_offsets":[28,32]},)"
                                R"("decoder_mean.weight":{"dtype":"F32","shape":[3,1],"data_offsets":[32,44]},)"
                                R"("decoder_mean.bias":{"dtype":"F32","shape":[3],"data_offsets":[44,56]})";
    const std::string options = quoted(fusedvae::to_json([] {
                                           fvae_trainer_options o = fvae_trainer_options_default();
                                           o.optimizer = FVAE_SGD;
                                           return o;
                                       }())
                                           .dump()
                                           .c_str());
    const auto file = [&](const char* format, const std::string& more) {
        return with_length(R"({"__metadata__":{"format":")" + std::string(format) + R"(","version":"1","config":)" +
                               config + more + "}," + tensors + "}",
                           std::string(56, '\0'));
    };
    return {file("fusedvae.model",
                 R"(,"detector":)" +
                     quoted(R"({"score":"mahalanobis","samples":2,"seed":"3","threshold":-1.5,"distance":1.5,)"
                            R"("latent_mean":[0.5],"latent_precision":[2.0]})")),
            file("fusedvae.checkpoint",
                 R"(,"detector":)" + quoted(R"({"score":"elbo","samples":2,"seed":"3"})") + R"(,"options":)" + options +
                     R"(,"state":)" + quoted(R"({"steps":3,"epoch":1,"batch":1,"sums":[1,2,3,4],"data":"5"})") +
                     R"(,"history":)" +
                     quoted(R"([{"epoch":0,"step":2,"train":[1,2,3],"validation":[null,null,null],)"
                            R"("learning_rate":0.1,"beta":1}])"))};
}

}  // namespace
#endif

#include "driver.h"
