// SPDX-License-Identifier: MIT
//
// Draws images from a model and writes each as a PGM file (portable graymap, 8 bits):
//
//     images MODEL.safetensors FOLDER COUNT SEED
//
// The images are those of Python's Sampler of the same seed.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <fusedvae/fusedvae.hpp>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

void write_pgm(const std::string& path, const float* pixels, int64_t height, int64_t width) {
    std::ofstream file(path, std::ios::binary);
    file << "P5\n" << width << " " << height << "\n255\n";
    for (int64_t i = 0; i < height * width; ++i)
        file.put(static_cast<char>(std::lround(255.0f * std::clamp(pixels[i], 0.0f, 1.0f))));
    if (!file.flush()) throw std::runtime_error("cannot write " + path);
}

void run(const std::string& model_path, const std::string& folder, int64_t count, uint64_t seed) {
    const fusedvae::Model model = fusedvae::Model::load(model_path);
    const fusedvae::Config config = model.config();
    if (config.input_shape.size() != 2) throw std::runtime_error("the model's rows are no images (height, width)");
    const int64_t height = config.input_shape[0], width = config.input_shape[1], pixels = height * width;

    std::vector<float> codes(static_cast<size_t>(count * config.latent)), images(static_cast<size_t>(count * pixels));
    fusedvae::check(fvae_sample_latent(seed, 0, count, config.latent, 1.0, codes.data()));
    model.decode(codes.data(), count, images.data());
    for (int64_t i = 0; i < count; ++i)
        write_pgm(folder + "/" + std::to_string(i) + ".pgm", images.data() + i * pixels, height, width);
}

}  // namespace

int main(int argc, char** argv) {
    try {
        if (argc != 5) throw std::invalid_argument("usage: images MODEL.safetensors FOLDER COUNT SEED");
        run(argv[1], argv[2], std::stoll(argv[3]), std::stoull(argv[4]));
        return 0;
    } catch (const std::exception& error) {
        std::fprintf(stderr, "images: %s\n", error.what());
        return 1;
    }
}
