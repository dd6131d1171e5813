// SPDX-License-Identifier: MIT
//
// What the fuzz targets share: a check that libFuzzer and the sanitizers report, and safetensors files from their parts.
#pragma once
#include <cstdio>
#include <cstdlib>
#include <string>

#include "model/safetensors.h"

inline void require(bool condition, const char* what) {
    if (condition) return;
    std::fprintf(stderr, "%s\n", what);
    std::abort();
}

inline std::string with_length(const std::string& header, const std::string& data) {
    std::string file;
    for (int i = 0; i < 8; ++i) file += static_cast<char>(header.size() >> (8 * i) & 0xFF);
    return file + header + data;
}
