// SPDX-License-Identifier: MIT
//
// Safetensors files, the format of models and checkpoints: 8 bytes that hold the header's length (little endian), the
// header as a JSON object {"name": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}, ...} with strings about
// the whole under "__metadata__", then the tensors' bytes, which the offsets tile without holes or overlap.
// Format: https://github.com/huggingface/safetensors
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "backend/platform.h"

namespace fusedvae {

using Metadata = std::vector<std::pair<std::string, std::string>>;

struct TensorToWrite {
    std::string name;
    std::vector<int64_t> shape;
    std::function<void(float* values)> fill;  // writes the whole tensor, row-major
};

// Writes float32 tensors in the order given, atomically; `fill` is called once for each, in that order. Memory needed
// beside the tensors: the largest one once more.
void write_safetensors(const std::string& path, const std::vector<TensorToWrite>& tensors, const Metadata& metadata);

// A file whose header has been checked whole: every tensor lies inside it and has the bytes its shape asks for.
// Opening one that is not throws Error(FVAE_BAD_FILE).
class SafetensorsFile {
  public:
    struct Tensor {
        std::string name;
        std::string dtype;  // "F32", "F16", ...
        std::vector<int64_t> shape;
        int64_t elements;
        const unsigned char* data;  // as aligned as the file made it: copy out
        size_t bytes;
    };

    static SafetensorsFile open(const std::string& path);
    // A file that lies in memory, which must outlive the result; `name` stands for its path in messages.
    static SafetensorsFile parse(const void* data, size_t size, const std::string& name);

    const std::string& path() const { return path_; }
    const Metadata& metadata() const { return metadata_; }
    const std::vector<Tensor>& tensors() const { return tensors_; }  // in the order of their bytes
    std::vector<std::string> names() const;

    // Null where there is none.
    const std::string* find_metadata(const std::string& key) const;
    const Tensor* find(const std::string& name) const;

    // Copies a tensor's elements to `values` as float32; it may be F32, F16, BF16 or F64, else Error(FVAE_BAD_FILE).
    void read_float32(const Tensor& tensor, float* values) const;

  private:
    SafetensorsFile(const unsigned char* data, size_t size, const std::string& path);

    platform::FileView view_;
    std::string path_;
    Metadata metadata_;
    std::vector<Tensor> tensors_;
};

}  // namespace fusedvae
