// SPDX-License-Identifier: MIT
//
// Feeds bytes to the reader of safetensors files: it may refuse them with FVAE_BAD_FILE and nothing else, and what it
// accepts must be readable. Text that is JSON must survive writing and reading.
//
//     clang++ -fsanitize=fuzzer,address,undefined -DFUSEDVAE_LIBFUZZER …    libFuzzer brings main()
//     fuzz_safetensors [--runs N] [--seed S] [FILE…]                        else: replays files, then N mutated ones
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <random>
#include <sstream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "model/error.h"
#include "model/json.h"
#include "model/safetensors.h"

namespace {

using fusedvae::Json;
using fusedvae::SafetensorsFile;

// An abort is what libFuzzer and the sanitizers report.
void require(bool condition, const char* what) {
    if (condition) return;
    std::fprintf(stderr, "%s\n", what);
    std::abort();
}

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

std::string with_length(const std::string& header, const std::string& data) {
    std::string file;
    for (int i = 0; i < 8; ++i) file += static_cast<char>(header.size() >> (8 * i) & 0xFF);
    return file + header + data;
}

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

std::vector<std::string> pieces_of_headers() {
    std::istringstream text(R"({ } [ ] , : " \ \u 0 -1 1e9 9223372036854775807 18446744073709551616 null [0,0]
                               "dtype" "F32" "shape" "data_offsets")");
    std::vector<std::string> pieces{"\xC3", "\xF0\x9F", std::string(1, '\0')};
    for (std::string piece; text >> piece;) pieces.push_back(piece);
    return pieces;
}

// A file with a few random changes; most keep the header's length right, for the checks behind it are the larger part.
std::string mutated(std::string file, std::mt19937_64& random) {
    static const std::vector<std::string> kPieces = pieces_of_headers();
    const auto below = [&random](size_t n) { return static_cast<size_t>(random() % n); };
    const bool repair = below(4) != 0;
    size_t data_bytes = below(30);
    for (size_t changes = 1 + below(4); changes > 0; --changes) {
        const size_t at = below(file.size() + 1), count = below(8);
        const std::string& piece = kPieces[below(kPieces.size())];
        switch (below(4)) {
            case 0:
                file.insert(at, piece);
                break;
            case 1:
                file.erase(at, count);
                break;
            case 2:
                file.replace(at, count, piece);
                break;
            default:
                if (at < file.size()) file[at] = static_cast<char>(random());
        }
    }
    if (repair && file.size() > 8) {
        const size_t end = file.rfind('}');
        if (end != std::string::npos && end >= 8) data_bytes = file.size() - end - 1;
        const size_t header = file.size() - 8 - std::min(data_bytes, file.size() - 8);
        for (size_t i = 0; i < 8; ++i) file[i] = static_cast<char>(header >> (8 * i) & 0xFF);
    }
    return file;
}

}  // namespace

int main(int argc, char** argv) {
    long runs = 20000;
    uint64_t seed = 1;
    std::vector<std::string> files = starting_files();
    for (int i = 1; i < argc; ++i) {
        if (std::strcmp(argv[i], "--runs") == 0 && i + 1 < argc) {
            runs = std::atol(argv[++i]);
        } else if (std::strcmp(argv[i], "--seed") == 0 && i + 1 < argc) {
            seed = std::strtoull(argv[++i], nullptr, 10);
        } else {
            std::ifstream input(argv[i], std::ios::binary);
            if (!input) {
                std::fprintf(stderr, "cannot read %s\n", argv[i]);
                return 1;
            }
            std::ostringstream bytes;
            bytes << input.rdbuf();
            files.push_back(bytes.str());
        }
    }
    const auto feed = [](const std::string& file) {
        const std::vector<uint8_t> exact(file.begin(), file.end());  // its end is where AddressSanitizer watches
        LLVMFuzzerTestOneInput(exact.data(), exact.size());
    };
    for (const std::string& file : files) feed(file);
    std::mt19937_64 random(seed);
    for (long run = 0; run < runs; ++run) feed(mutated(files[static_cast<size_t>(random() % files.size())], random));
    std::printf("%zu files and %ld mutations, seed %llu\n", files.size(), runs, static_cast<unsigned long long>(seed));
    return 0;
}

#endif
