// SPDX-License-Identifier: MIT
//
// Where libFuzzer does not bring main(): replays files, then mutates them. A target defines LLVMFuzzerTestOneInput and
// starting_files(), and includes this last.
//
//     fuzz_TARGET [--runs N] [--seed S] [FILE…]
//     fuzz_TARGET --write FOLDER      the starting files, for libFuzzer to begin with (tests/fuzz/corpus)
#pragma once
#if !defined(FUSEDVAE_LIBFUZZER)

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <random>
#include <sstream>
#include <string>
#include <vector>

namespace {

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
        } else if (std::strcmp(argv[i], "--write") == 0 && i + 1 < argc) {
            for (size_t f = 0; f < files.size(); ++f)
                std::ofstream(std::string(argv[i + 1]) + "/" + std::to_string(f), std::ios::binary) << files[f];
            return 0;
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
