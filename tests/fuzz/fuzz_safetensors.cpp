// SPDX-License-Identifier: MIT
//
// Feeds bytes to the reader of safetensors files: it may refuse them with FVAE_BAD_FILE and nothing else, and what it
// accepts must be readable. Text that is JSON must survive writing and reading.
//
//     clang++ -fsanitize=fuzzer,address,undefined -DFUSEDVAE_LIBFUZZER …    libFuzzer brings main()
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "files.h"
#include "model/error.h"
#include "model/json.h"

namespace {

using fusedvae::Json;
using fusedvae::SafetensorsFile;

void read_everything(const uint8_t* data, size_t size) {
    try {
        const SafetensorsFile file = SafetensorsFile::parse(data, size, "input");
        size_t sum = 0;
        for (const SafetensorsFile::Tensor& tensor : file.tensors()) {
            require(file.find(tensor.name) != nullptr, "a listed tensor is not found");
            const bool floating =
                tensor.dtype == "F32" || tensor.dtype == "F16" || tensor.dtype == "BF16" || tensor.dtype == "F64";
            std::vector<float> values(static_cast<size_t>(tensor.elements));
            if (floating) file.read_float32(tensor, values.data());
            for (size_t i = 0; i < tensor.bytes; ++i) sum += tensor.data[i];
        }
        require(sum <= 255 * size, "the tensors overlap");
    } catch (const fusedvae::Error& error) {
        require(error.status == FVAE_BAD_FILE, "a refused file has another status");
    }
}

void rewrite_json(std::string_view text) {
    try {
        const std::string once = Json::parse(text).dump();
        require(Json::parse(once).dump() == once, "JSON changes when it is written and read again");
    } catch (const std::invalid_argument&) {
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    read_everything(data, size);
    rewrite_json(std::string_view(reinterpret_cast<const char*>(data), size));
    if (size > 8) rewrite_json(std::string_view(reinterpret_cast<const char*>(data) + 8, size - 8));
    return 0;
}

#if !defined(FUSEDVAE_LIBFUZZER)
namespace {

std::vector<std::string> starting_files() {
    return {with_length("{}", ""),
            with_length(R"({"__metadata__":{"config":"{\"latent\": 20}"},)"
                        R"("encoder.0.weight":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},)"
                        R"("encoder.0.bias":{"dtype":"F16","shape":[2],"data_offsets":[24,28]},)"
                        R"("empty":{"dtype":"F64","shape":[0,7],"data_offsets":[28,28]}}  )",
                        std::string(28, '\x40')),
            with_length(
                R"({"\u00e9\ud83d\ude00":{"dtype":"BF16","shape":[],"data_offsets":[0,2],"more":[-1.5e-3,true,null]}})",
                "ab")};
}

}  // namespace
#endif

#include "driver.h"
