// SPDX-License-Identifier: MIT
#include "settings.h"

#include <cstdio>
#include <cstdlib>
#include <sstream>
#include <stdexcept>

namespace emulator {

namespace {

size_t parse_bytes(const std::string& text) {
    size_t end = 0;
    const size_t number = std::stoull(text, &end);
    const std::string unit = text.substr(end);
    if (unit.empty()) return number;
    if (unit == "K") return number << 10;
    if (unit == "M") return number << 20;
    if (unit == "G") return number << 30;
    throw std::invalid_argument("bytes end with K, M, G or nothing");
}

// One of two words: whether it is the second.
bool second_of(const std::string& word, const char* first, const char* second) {
    if (word != first && word != second) throw std::invalid_argument(std::string("it is ") + first + " or " + second);
    return word == second;
}

void parse_fail(const std::string& text, Settings* out) {
    std::istringstream parts(text);
    std::string call, code;
    std::getline(parts, out->fail, ':');
    if (std::getline(parts, call, ':')) out->fail_call = std::stoi(call);
    if (std::getline(parts, code, ':')) out->fail_code = std::stoi(code);
}

void parse_one(const std::string& key, const std::string& value, Settings* out) {
    if (key == "devices")
        out->devices = std::stoi(value);
    else if (key == "architecture")
        out->architecture = std::stoi(value);
    else if (key == "memory")
        out->memory = parse_bytes(value);
    else if (key == "driver")
        out->driver = std::stoi(value);
    else if (key == "order")
        out->order = second_of(value, "forward", "backward") ? Order::kBackward : Order::kForward;
    else if (key == "streams")
        out->late_streams = second_of(value, "at_once", "late");
    else if (key == "races")
        out->races = second_of(value, "0", "1");
    else if (key == "fail")
        parse_fail(value, out);
    else
        throw std::invalid_argument("settings.h lists what there is");
}

}  // namespace

Settings parse(const std::string& text) {
    Settings out;
    out.source = text;
    std::istringstream items(text);
    for (std::string item; std::getline(items, item, ',');) {
        const size_t equals = item.find('=');
        const std::string key = item.substr(0, equals);
        try {
            parse_one(key, equals == std::string::npos ? "" : item.substr(equals + 1), &out);
        } catch (const std::exception& error) {
            throw std::invalid_argument("FUSEDVAE_EMULATED_GPU has \"" + item + "\": " + error.what());
        }
    }
    return out;
}

const Settings& settings() {
    static Settings current;
    const char* text = std::getenv("FUSEDVAE_EMULATED_GPU");
    if (current.source != (text ? text : "")) try {
            current = parse(text ? text : "");
        } catch (const std::exception& error) {
            std::fprintf(stderr, "%s\n", error.what());
            std::exit(2);
        }
    return current;
}

}  // namespace emulator
