// SPDX-License-Identifier: MIT
//
// Trains on a file of float32 rows that is mapped into memory and never read whole, and saves the model:
//
//     train ROWS.f32 COLUMNS EPOCHS SEED MODEL.safetensors
//
// The parameters are those of Python's Trainer on the same rows (numpy.memmap) with the same seeds.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>
#include <fusedvae/fusedvae.hpp>
#include <stdexcept>
#include <string>

namespace {

class MappedFile {
  public:
    explicit MappedFile(const std::string& path) {
        const int file = open(path.c_str(), O_RDONLY);
        struct stat status;
        if (file >= 0 && fstat(file, &status) == 0) {
            bytes_ = static_cast<size_t>(status.st_size);
            data_ = mmap(nullptr, bytes_, PROT_READ, MAP_PRIVATE, file, 0);
        }
        if (file >= 0) close(file);
        if (data_ == MAP_FAILED) throw std::runtime_error("cannot map " + path);
    }
    ~MappedFile() { munmap(data_, bytes_); }
    MappedFile(const MappedFile&) = delete;
    MappedFile& operator=(const MappedFile&) = delete;

    const float* data() const { return static_cast<const float*>(data_); }
    size_t bytes() const { return bytes_; }

  private:
    void* data_ = MAP_FAILED;
    size_t bytes_ = 0;
};

void run(const std::string& rows_path, int64_t columns, int64_t epochs, uint64_t seed, const std::string& model_path) {
    const MappedFile file(rows_path);
    fvae_array rows =
        fusedvae::rows(file.data(), static_cast<int64_t>(file.bytes() / sizeof(float)) / columns, columns);
    rows.streamed = 1;

    fusedvae::Config config;
    config.input_shape = {columns};
    config.hidden = {32};
    config.latent = 4;
    config.likelihood = FVAE_GAUSSIAN;
    config.variance = FVAE_FEATURE;
    fusedvae::Model model(config, seed);
    fvae_trainer_options options = fvae_trainer_options_default();
    options.seed = seed;
    fusedvae::Trainer trainer(model, options);
    trainer.fit(rows, epochs, nullptr, [](fvae_event event, const fvae_progress& progress) -> int32_t {
        if (event == FVAE_EPOCH_END)
            std::printf("epoch %lld  loss %.4f\n", static_cast<long long>(progress.epoch), progress.train.loss);
        return FVAE_CALLBACK_CONTINUE;
    });
    model.save(model_path);
}

}  // namespace

int main(int argc, char** argv) {
    try {
        if (argc != 6) throw std::invalid_argument("usage: train ROWS.f32 COLUMNS EPOCHS SEED MODEL.safetensors");
        run(argv[1], std::stoll(argv[2]), std::stoll(argv[3]), std::stoull(argv[4]), argv[5]);
        return 0;
    } catch (const std::exception& error) {
        std::fprintf(stderr, "train: %s\n", error.what());
        return 1;
    }
}
