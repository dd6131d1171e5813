// SPDX-License-Identifier: MIT
//
// Writer and distrustful reader of safetensors files. Nothing a header says is used before it is checked, and nothing
// is allocated by a length that a file merely claims.
#include "model/safetensors.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <string_view>

#include "model/error.h"
#include "model/json.h"

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "safetensors files are little endian; this machine needs byte swaps"
#endif

namespace fusedvae {
namespace {

constexpr size_t kLengthBytes = 8;
// The format's limit. Honest headers are far below: 100 000 named columns take 8 MB, a history of 100 000 epochs 23 MB.
constexpr uint64_t kMaxHeader = 100'000'000;
constexpr const char* kMetadata = "__metadata__";

// Bytes of one element; 0 for a dtype that the format does not have, or has with less than a byte.
size_t dtype_bytes(std::string_view dtype) {
    constexpr struct {
        std::string_view dtype;
        size_t bytes;
    } kTable[] = {{"F32", 4}, {"F16", 2}, {"BF16", 2},    {"F64", 8},     {"BOOL", 1},   {"U8", 1},
                  {"I8", 1},  {"I16", 2}, {"U16", 2},     {"I32", 4},     {"U32", 4},    {"I64", 8},
                  {"U64", 8}, {"C64", 8}, {"F8_E4M3", 1}, {"F8_E5M2", 1}, {"F8_E8M0", 1}};
    for (const auto& entry : kTable)
        if (entry.dtype == dtype) return entry.bytes;
    return 0;
}

// Product of the extents; -1 where one is negative or the product times 8 bytes exceeds int64.
int64_t element_count(const std::vector<int64_t>& shape) {
    constexpr int64_t kMost = std::numeric_limits<int64_t>::max() / 8;
    int64_t elements = 1;
    for (const int64_t extent : shape) {
        if (extent < 0 || (extent > 0 && elements > kMost / extent)) return -1;
        elements *= extent;
    }
    return elements;
}

float float_from_bits(uint32_t bits) {
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

float float_from_half(uint16_t half) {
    const uint32_t sign = (half & 0x8000u) << 16, exponent = half >> 10 & 31u, fraction = half & 0x3FFu;
    if (exponent == 31) return float_from_bits(sign | 0x7F800000u | fraction << 13);  // infinity, NaN
    if (exponent > 0) return float_from_bits(sign | (exponent + 112) << 23 | fraction << 13);
    const float magnitude = static_cast<float>(fraction) * 0x1p-24f;  // zero, subnormal: exact
    return sign ? -magnitude : magnitude;
}

// values[i] = convert(element i), elements read through memcpy because they need not be aligned.
template <class Element, class Convert>
void convert_all(const SafetensorsFile::Tensor& tensor, float* values, Convert convert) {
    for (int64_t i = 0; i < tensor.elements; ++i) {
        Element element;
        std::memcpy(&element, tensor.data + static_cast<size_t>(i) * sizeof element, sizeof element);
        values[i] = convert(element);
    }
}

// Checks one entry of the header against the `size` bytes that follow it at `data`; std::invalid_argument where it is
// wrong.
SafetensorsFile::Tensor read_entry(const Json& entry, const unsigned char* data, size_t size) {
    const auto refuse = [](const std::string& what) { throw std::invalid_argument(what); };
    SafetensorsFile::Tensor tensor;
    tensor.dtype = entry.string("dtype");
    const size_t width = dtype_bytes(tensor.dtype);
    if (width == 0) refuse("its dtype '" + shown(tensor.dtype) + "' is unknown");
    for (const Json& extent : entry.array("shape")) tensor.shape.push_back(extent.as_integer("shape"));
    tensor.elements = element_count(tensor.shape);
    if (tensor.elements < 0) refuse("its shape is impossible");
    tensor.bytes = static_cast<size_t>(tensor.elements) * width;

    const Json::Array& offsets = entry.array("data_offsets");
    if (offsets.size() != 2) refuse("it needs two data_offsets");
    const int64_t begin = offsets[0].as_integer("data_offsets"), end = offsets[1].as_integer("data_offsets");
    if (begin < 0 || begin > end) refuse("its data_offsets are out of order");
    if (static_cast<uint64_t>(end) > size)
        refuse("it ends at byte " + std::to_string(end) + " of the data, which has " + std::to_string(size) +
               " (is the file cut short?)");
    if (static_cast<size_t>(end - begin) != tensor.bytes)
        refuse("its shape asks for " + std::to_string(tensor.bytes) + " bytes, its data_offsets for " +
               std::to_string(end - begin));
    tensor.data = data + begin;
    return tensor;
}

std::string header_of(const std::vector<TensorToWrite>& tensors, const Metadata& metadata) {
    Json header = Json::Object{};
    if (!metadata.empty()) {
        Json strings = Json::Object{};
        for (const auto& [key, value] : metadata) strings.set(key, value);
        header.set(kMetadata, std::move(strings));
    }
    int64_t offset = 0;
    for (const TensorToWrite& tensor : tensors) {
        const int64_t end = offset + element_count(tensor.shape) * static_cast<int64_t>(sizeof(float));
        Json entry = Json::Object{};
        entry.set("dtype", "F32");
        entry.set("shape", Json::Array(tensor.shape.begin(), tensor.shape.end()));
        entry.set("data_offsets", Json::Array{offset, end});
        header.set(tensor.name, std::move(entry));
        offset = end;
    }
    std::string text = header.dump();
    text.resize((text.size() + 7) / 8 * 8, ' ');  // the data starts at a multiple of 8
    return text;
}

}  // namespace

void write_safetensors(const std::string& path, const std::vector<TensorToWrite>& tensors, const Metadata& metadata) {
    const std::string header = header_of(tensors, metadata);
    if (header.size() > kMaxHeader)
        throw std::invalid_argument("the header of '" + path + "' would take " + std::to_string(header.size()) +
                                    " bytes, more than the " + std::to_string(kMaxHeader) + " that the format allows");
    unsigned char length[kLengthBytes];
    for (size_t i = 0; i < kLengthBytes; ++i)
        length[i] = static_cast<unsigned char>(uint64_t{header.size()} >> (8 * i));
    platform::write_file_atomically(path, [&](const platform::Sink& sink) {
        sink(length, sizeof length);
        sink(header.data(), header.size());
        int64_t most = 0;
        for (const TensorToWrite& tensor : tensors) most = std::max(most, element_count(tensor.shape));
        std::vector<float> values(static_cast<size_t>(most));
        for (const TensorToWrite& tensor : tensors) {
            tensor.fill(values.data());
            sink(values.data(), static_cast<size_t>(element_count(tensor.shape)) * sizeof(float));
        }
    });
}

SafetensorsFile SafetensorsFile::open(const std::string& path) {
    platform::FileView view(path);
    SafetensorsFile file(view.data(), view.size(), path);
    file.view_ = std::move(view);
    return file;
}

SafetensorsFile SafetensorsFile::parse(const void* data, size_t size, const std::string& name) {
    return SafetensorsFile(static_cast<const unsigned char*>(data), size, name);
}

SafetensorsFile::SafetensorsFile(const unsigned char* data, size_t size, const std::string& path) : path_(path) {
    try {
        if (size < kLengthBytes) throw std::invalid_argument("it has " + std::to_string(size) + " bytes");
        uint64_t length = 0;
        for (size_t i = 0; i < kLengthBytes; ++i) length |= uint64_t{data[i]} << (8 * i);
        const size_t rest = size - kLengthBytes;
        if (length > rest || length > kMaxHeader)
            throw std::invalid_argument("its header claims " + std::to_string(length) + " bytes where " +
                                        std::to_string(std::min<uint64_t>(rest, kMaxHeader)) + " are possible");
        const std::string_view text(reinterpret_cast<const char*>(data) + kLengthBytes, static_cast<size_t>(length));
        if (text.empty() || text[0] != '{') throw std::invalid_argument("its header is not a JSON object");
        const Json header = Json::parse(text);

        const unsigned char* const contents = data + kLengthBytes + length;
        const size_t content_bytes = rest - static_cast<size_t>(length);
        for (const Json::Member& member : header.as_object("header")) {
            if (member.name == kMetadata) {
                for (const Json::Member& string : member.value.as_object(kMetadata))
                    metadata_.emplace_back(string.name, string.value.as_string(string.name));
            } else {
                try {
                    tensors_.push_back(read_entry(member.value, contents, content_bytes));
                } catch (const std::invalid_argument& reason) {
                    throw std::invalid_argument("tensor '" + shown(member.name) + "': " + reason.what());
                }
                tensors_.back().name = member.name;
            }
        }
        // An empty tensor comes before the one that starts where it lies.
        std::sort(tensors_.begin(), tensors_.end(), [](const Tensor& a, const Tensor& b) {
            return a.data != b.data ? a.data < b.data : a.bytes < b.bytes;
        });
        const unsigned char* next = contents;
        for (const Tensor& tensor : tensors_) {
            if (tensor.data != next)
                throw std::invalid_argument("tensor '" + shown(tensor.name) +
                                            "': it does not start where the one before it ends");
            next += tensor.bytes;
        }
        if (next != contents + content_bytes)
            throw std::invalid_argument(std::to_string(contents + content_bytes - next) +
                                        " bytes follow the last tensor");
    } catch (const std::invalid_argument& reason) {
        throw Error(FVAE_BAD_FILE, "'" + path + "' is not a readable safetensors file: " + reason.what());
    }
}

std::vector<std::string> SafetensorsFile::names() const {
    std::vector<std::string> names;
    for (const Tensor& tensor : tensors_) names.push_back(tensor.name);
    return names;
}

const std::string* SafetensorsFile::find_metadata(const std::string& key) const {
    for (const auto& [name, value] : metadata_)
        if (name == key) return &value;
    return nullptr;
}

const SafetensorsFile::Tensor* SafetensorsFile::find(const std::string& name) const {
    for (const Tensor& tensor : tensors_)
        if (tensor.name == name) return &tensor;
    return nullptr;
}

void SafetensorsFile::read_float32(const Tensor& tensor, float* values) const {
    if (tensor.dtype == "F32") {
        if (tensor.bytes > 0) std::memcpy(values, tensor.data, tensor.bytes);
    } else if (tensor.dtype == "F16") {
        convert_all<uint16_t>(tensor, values, float_from_half);
    } else if (tensor.dtype == "BF16") {
        convert_all<uint16_t>(tensor, values, [](uint16_t high) { return float_from_bits(uint32_t{high} << 16); });
    } else if (tensor.dtype == "F64") {
        convert_all<double>(tensor, values, [](double value) { return static_cast<float>(value); });
    } else {
        throw Error(FVAE_BAD_FILE, "tensor '" + shown(tensor.name) + "' in '" + path_ + "' has dtype " + tensor.dtype +
                                       "; F32, F16, BF16 or F64 was expected");
    }
}

}  // namespace fusedvae
