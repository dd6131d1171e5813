// SPDX-License-Identifier: MIT
//
// Safetensors files: exact round trips, every rule of the format with its message, and hostile files.
#include "model/safetensors.h"

#include <atomic>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <new>
#include <random>
#include <sstream>

#include "check.h"
#include "model/error.h"

using fusedvae::Error;
using fusedvae::SafetensorsFile;

// The largest request so far, to see that a length which a file merely claims is never allocated. Out of line, or GCC
// takes the halves of an inlined new and delete for a mismatch.
static std::atomic<size_t> largest_allocation{0};

[[gnu::noinline]] void* operator new(size_t bytes) {
    if (bytes > largest_allocation) largest_allocation = bytes;
    if (void* block = std::malloc(bytes > 0 ? bytes : 1)) return block;
    throw std::bad_alloc();
}
[[gnu::noinline]] void operator delete(void* block) noexcept { std::free(block); }
[[gnu::noinline]] void operator delete(void* block, size_t) noexcept { std::free(block); }

namespace {

std::string length_bytes(uint64_t length) {
    std::string bytes;
    for (int i = 0; i < 8; ++i) bytes += static_cast<char>(length >> (8 * i) & 0xFF);
    return bytes;
}

std::string file_of(const std::string& header, const std::string& data) {
    return length_bytes(header.size()) + header + data;
}

SafetensorsFile parse(const std::string& file) { return SafetensorsFile::parse(file.data(), file.size(), "test"); }

// Parses and reads all it can; true if the file was accepted, an exception if it failed in any but the stated way.
bool accepted(const std::string& file) {
    // A block of exactly the file's size, so that AddressSanitizer sees a read past its end.
    std::vector<char> block(file.begin(), file.end());
    try {
        const SafetensorsFile parsed = SafetensorsFile::parse(block.data(), block.size(), "test");
        for (const SafetensorsFile::Tensor& tensor : parsed.tensors()) {
            std::vector<float> values(static_cast<size_t>(tensor.elements));
            if (tensor.dtype == "F32" || tensor.dtype == "F16") parsed.read_float32(tensor, values.data());
        }
        return true;
    } catch (const Error& error) {
        CHECK_EQUAL(error.status, FVAE_BAD_FILE);
        return false;
    }
}

void refused(const std::string& header, const std::string& data, const std::string& part) {
    CHECK_THROWS(parse(file_of(header, data)), Error, part);
    CHECK(!accepted(file_of(header, data)));
}

std::string two_tensors() {
    return file_of(R"({"__metadata__":{"k":"v"},"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},)"
                   R"("b":{"dtype":"F16","shape":[1,3],"data_offsets":[8,14]}})",
                   std::string(14, '\x3C'));
}

std::vector<float> values_of(const std::string& dtype, int64_t count, const std::string& data) {
    // One byte in front makes every element misaligned.
    const std::string header = R"({"pad":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"t":{"dtype":")" + dtype +
                               R"(","shape":[)" + std::to_string(count) + R"(],"data_offsets":[1,)" +
                               std::to_string(1 + data.size()) + "]}}";
    const std::string file = file_of(header, "x" + data);
    const SafetensorsFile parsed = parse(file);
    const SafetensorsFile::Tensor* tensor = parsed.find("t");
    CHECK(tensor != nullptr);
    std::vector<float> values(static_cast<size_t>(count));
    parsed.read_float32(*tensor, values.data());
    return values;
}

template <class T>
std::string bytes_of(const std::vector<T>& values) {
    return std::string(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T));
}

struct TemporaryPath {
    std::string path = (std::filesystem::temp_directory_path() /
                        ("fusedvae-test-" + std::to_string(std::random_device()()) + ".safetensors"))
                           .u8string();
    ~TemporaryPath() { std::remove(path.c_str()); }
};

}  // namespace

TEST(written_tensors_come_back_exactly) {
    const TemporaryPath file;
    std::vector<float> a(600), scalar{-0.0f};
    for (size_t i = 0; i < a.size(); ++i) a[i] = static_cast<float>(i) * 0.1f - 7.0f;
    a[0] = std::nanf("");
    const auto copy = [](const std::vector<float>& from) {
        return [&from](float* values) { std::copy(from.begin(), from.end(), values); };
    };
    fusedvae::write_safetensors(file.path,
                                {{"encoder.0.weight", {20, 30}, copy(a)},
                                 {"empty", {0, 5}, [](float*) {}},
                                 {"scalar \"\xC3\xA9\"", {}, copy(scalar)}},
                                {{"config", R"({"latent": 20})"}, {"note", "line\nbreak"}});
    const SafetensorsFile read = SafetensorsFile::open(file.path);
    CHECK_EQUAL(read.path(), file.path);
    CHECK_EQUAL(read.tensors().size(), size_t{3});
    CHECK(read.names() == (std::vector<std::string>{"encoder.0.weight", "empty", "scalar \"\xC3\xA9\""}));
    const SafetensorsFile::Tensor* weight = read.find("encoder.0.weight");
    CHECK(weight != nullptr && weight->dtype == "F32" && weight->shape == (std::vector<int64_t>{20, 30}));
    CHECK_EQUAL(reinterpret_cast<uintptr_t>(weight->data) % 8, uintptr_t{0});
    std::vector<float> back(600);
    read.read_float32(*weight, back.data());
    CHECK_EQUAL(std::memcmp(a.data(), back.data(), 2400), 0);
    CHECK_EQUAL(read.find("empty")->elements, 0);
    read.read_float32(*read.find("empty"), nullptr);
    float minus_zero = 1;
    read.read_float32(*read.find("scalar \"\xC3\xA9\""), &minus_zero);
    CHECK(minus_zero == 0 && std::signbit(minus_zero));
    CHECK_EQUAL(read.metadata().size(), size_t{2});
    CHECK_EQUAL(*read.find_metadata("note"), "line\nbreak");
    CHECK(read.find_metadata("none") == nullptr && read.find("none") == nullptr);
}

TEST(the_written_bytes_are_the_format) {
    const TemporaryPath file;
    fusedvae::write_safetensors(file.path, {{"a", {2}, [](float* v) { v[0] = 1.0f, v[1] = -2.0f; }}}, {{"k", "v"}});
    std::ostringstream bytes;
    bytes << std::ifstream(std::filesystem::u8path(file.path), std::ios::binary).rdbuf();
    std::string header = R"({"__metadata__":{"k":"v"},"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})";
    header.resize((header.size() + 7) / 8 * 8, ' ');
    CHECK_EQUAL(bytes.str(), file_of(header, std::string("\0\0\x80\x3F\0\0\0\xC0", 8)));
}

TEST(a_failing_fill_leaves_no_file) {
    const TemporaryPath file;
    const auto fail = [](float*) { throw std::runtime_error("stop"); };
    CHECK_THROWS(fusedvae::write_safetensors(file.path, {{"a", {2}, fail}}, {}), std::runtime_error, "stop");
    CHECK(!std::filesystem::exists(std::filesystem::u8path(file.path)));
}

TEST(half_precision_becomes_float) {
    // Every finite half against its definition (-1)^s 2^(e-15) (1 + f/1024); infinities and NaN beside them.
    std::vector<uint16_t> halves(65536);
    for (size_t i = 0; i < halves.size(); ++i) halves[i] = static_cast<uint16_t>(i);
    const std::vector<float> values = values_of("F16", 65536, bytes_of(halves));
    for (int i = 0; i < 65536; ++i) {
        const int exponent = i >> 10 & 31, fraction = i & 1023;
        const float value = values[static_cast<size_t>(i)];
        CHECK_EQUAL(std::signbit(value), i >= 32768);
        if (exponent == 31) {
            CHECK(fraction == 0 ? std::isinf(value) : std::isnan(value));
        } else {
            const double magnitude =
                exponent == 0 ? std::ldexp(fraction, -24) : std::ldexp(1024 + fraction, exponent - 25);
            CHECK_EQUAL(std::fabs(static_cast<double>(value)), magnitude);
        }
    }
}

TEST(other_float_types_become_float) {
    const std::vector<float> singles = values_of("F32", 2, bytes_of(std::vector<float>{0.1f, -3.0f}));
    CHECK(singles[0] == 0.1f && singles[1] == -3.0f);
    const std::vector<float> doubles = values_of("F64", 2, bytes_of(std::vector<double>{0.1, -3.0}));
    CHECK(doubles[0] == 0.1f && doubles[1] == -3.0f);
    const std::vector<float> brains = values_of("BF16", 3, bytes_of(std::vector<uint16_t>{0x3F80, 0xC040, 0x7F80}));
    CHECK(brains[0] == 1.0f && brains[1] == -3.0f && std::isinf(brains[2]));
    CHECK_THROWS(values_of("I64", 1, std::string(8, 'x')), Error, "has dtype I64; F32, F16, BF16 or F64 was expected");
}

TEST(order_in_the_header_does_not_matter) {
    const std::string file = file_of(R"({"b":{"dtype":"U8","shape":[2],"data_offsets":[1,3]},)"
                                     R"("e":{"dtype":"U8","shape":[0],"data_offsets":[1,1]},)"
                                     R"("a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}   )",
                                     "xyz");
    CHECK(parse(file).names() == (std::vector<std::string>{"a", "e", "b"}));
    CHECK_EQUAL(parse(file_of("{}", "")).tensors().size(), size_t{0});
}

TEST(each_rule_has_its_message) {
    CHECK_THROWS(parse(""), Error, "'test' is not a readable safetensors file: it has 0 bytes");
    CHECK_THROWS(parse("1234567"), Error, "it has 7 bytes");
    CHECK_THROWS(parse(length_bytes(5) + "{}"), Error, "its header claims 5 bytes where 2 are possible");
    CHECK_THROWS(parse(length_bytes(~uint64_t{0}) + "{}"), Error, "claims 18446744073709551615 bytes");
    CHECK_THROWS(parse("PK\x03\x04 a zip archive"), Error, "its header claims");
    refused("", "", "not a JSON object");
    refused(" {}", "", "not a JSON object");
    refused("[]", "", "not a JSON object");
    refused("{\"a\"", "", "expected ':'");
    refused("{} x", "", "expected the end");
    refused(R"({"a":1})", "", "tensor 'a': 'dtype' is missing");
    refused(R"({"a":{"dtype":"F31","shape":[],"data_offsets":[0,0]}})", "", "tensor 'a': its dtype 'F31' is unknown");
    refused(R"({"a":{"dtype":4,"shape":[],"data_offsets":[0,0]}})", "", "'dtype' must be a string");
    refused(R"({"a":{"dtype":"U8","shape":1,"data_offsets":[0,0]}})", "", "'shape' must be an array");
    refused(R"({"a":{"dtype":"U8","shape":[1.0],"data_offsets":[0,1]}})", "x", "'shape' must be an integer");
    refused(R"({"a":{"dtype":"U8","shape":[-1],"data_offsets":[0,0]}})", "", "shape is impossible");
    refused(R"({"a":{"dtype":"U8","shape":[4294967296,4294967296],"data_offsets":[0,0]}})", "", "shape is impossible");
    refused(R"({"a":{"dtype":"U8","shape":[1]}})", "x", "'data_offsets' is missing");
    refused(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0]}})", "x", "needs two data_offsets");
    refused(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[1,0]}})", "x", "out of order");
    refused(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[-1,0]}})", "x", "out of order");
    refused(R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}})", "x", "(is the file cut short?)");
    refused(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,3]}})", "xyz",
            "asks for 4 bytes, its data_offsets for 3");
    refused(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})", "xy", "1 bytes follow the last tensor");
    refused("{}", "xy", "2 bytes follow");
    refused(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}})", "xy", "does not start where");
    refused(
        R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}})",
        "xyz", "tensor 'b': it does not start where the one before it ends");
    refused(
        R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"b":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})",
        "x", "does not start where");
    refused(
        R"({"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}})",
        "", "has 'a' twice");
    refused(R"({"__metadata__":{"k":1}})", "", "'k' must be a string");
    refused(R"({"__metadata__":[]})", "", "'__metadata__' must be an object");
}

TEST(files_that_cannot_be_opened) {
    const TemporaryPath file;
    CHECK_THROWS(SafetensorsFile::open(file.path), Error, "cannot read '" + file.path + "'");
    { std::ofstream empty(std::filesystem::u8path(file.path)); }
    CHECK_THROWS(SafetensorsFile::open(file.path), Error, "it has 0 bytes");
}

TEST(every_truncation_is_refused) {
    const std::string whole = two_tensors();
    CHECK(accepted(whole));
    for (size_t size = 0; size < whole.size(); ++size) CHECK(!accepted(whole.substr(0, size)));
    CHECK(!accepted(whole + "x"));
}

TEST(damaged_bytes_never_do_harm) {
    const std::string whole = two_tensors();
    for (size_t i = 0; i < whole.size(); ++i)
        for (int bit = 0; bit < 8; ++bit) {
            std::string damaged = whole;
            damaged[i] = static_cast<char>(damaged[i] ^ 1 << bit);
            accepted(damaged);
        }
    std::mt19937 random(7);
    for (int round = 0; round < 3000; ++round) {
        std::string damaged = whole;
        for (int i = 0; i < 4; ++i) damaged[random() % damaged.size()] = static_cast<char>(random());
        accepted(damaged);
    }
}

TEST(claimed_lengths_are_not_allocated) {
    largest_allocation = 0;
    accepted(length_bytes(uint64_t{1} << 62) + "{}");
    accepted(length_bytes(99'000'000) + "{}");
    accepted(file_of(R"({"a":{"dtype":"F64","shape":[100000000000],"data_offsets":[0,800000000000]}})", "x"));
    accepted(file_of(R"({"a":{"dtype":"F64","shape":[100000000000],"data_offsets":[0,8]}})", "12345678"));
    CHECK(largest_allocation < 10000);
}
