// SPDX-License-Identifier: MIT
//
// Reader, writer and typed access of Json.
#include "model/json.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>
#include <locale>
#include <sstream>
#include <stdexcept>
#include <utility>

namespace fusedvae {
namespace {

constexpr size_t kMaxDepth = 32;
// Bytes of arrays and objects: a number of two characters and its comma takes 40 alone, so short texts get some more.
constexpr size_t kRoom = size_t{16} << 20, kRoomPerByte = 12;

// Bytes of the well-formed UTF-8 sequence at `at`, 0 where there is none (RFC 3629: shortest forms only, no surrogates,
// nothing above U+10FFFF).
size_t utf8_sequence(const char* at, const char* end) {
    const auto byte = [&](size_t i) {
        return i < static_cast<size_t>(end - at) ? static_cast<unsigned char>(at[i]) : 0;
    };
    const int first = byte(0), second = byte(1);
    if (first < 0x80) return 1;
    const size_t length = first < 0xC2 ? 0 : first < 0xE0 ? 2 : first < 0xF0 ? 3 : first < 0xF5 ? 4 : 0;
    for (size_t i = 1; i < length; ++i)
        if ((byte(i) & 0xC0) != 0x80) return 0;
    if ((first == 0xE0 && second < 0xA0) || (first == 0xED && second > 0x9F)) return 0;
    if ((first == 0xF0 && second < 0x90) || (first == 0xF4 && second > 0x8F)) return 0;
    return length;
}

void append_utf8(std::string& out, uint32_t code) {
    const auto append = [&out](uint32_t byte) { out += static_cast<char>(byte); };
    if (code < 0x80) {
        append(code);
    } else if (code < 0x800) {
        append(0xC0 | code >> 6);
        append(0x80 | (code & 0x3F));
    } else if (code < 0x10000) {
        append(0xE0 | code >> 12);
        append(0x80 | (code >> 6 & 0x3F));
        append(0x80 | (code & 0x3F));
    } else {
        append(0xF0 | code >> 18);
        append(0x80 | (code >> 12 & 0x3F));
        append(0x80 | (code >> 6 & 0x3F));
        append(0x80 | (code & 0x3F));
    }
}

// The double nearest to a number already known to be well formed; infinite where it is too large.
double parse_double(const char* begin, const char* end) {
    double value = 0;
#if defined(__cpp_lib_to_chars)  // libc++ has no from_chars for doubles before version 20
    if (std::from_chars(begin, end, value).ec == std::errc()) return value;
#endif
    // Slower, but tells too large from too small; strtod would follow the user's decimal comma.
    std::istringstream text(std::string(begin, end));
    text.imbue(std::locale::classic());
    text >> value;
    return text.fail() && std::fabs(value) > 1 ? HUGE_VAL : value;
}

class Parser {
  public:
    explicit Parser(std::string_view text)
        : begin_(text.data()), at_(begin_), end_(begin_ + text.size()), room_(kRoom + kRoomPerByte * text.size()) {}

    Json document() {
        count_elements();
        Json value = this->value(0);
        skip_space();
        if (at_ != end_) fail("expected the end of the text");
        return value;
    }

  private:
    [[noreturn]] void fail(const std::string& what) const {
        throw std::invalid_argument("JSON, byte " + std::to_string(at_ - begin_) + ": " + what);
    }

    // Elements of each array and object, in the order in which they open, so that none has to grow, which would take
    // three times its size. In text that is no JSON they may be anything, and parsing it finds that.
    void count_elements() {
        std::vector<size_t> open;  // indices into counts_
        for (const char* at = begin_; at != end_ && open.size() <= kMaxDepth; ++at) {
            if (*at == '"') {
                for (++at; at != end_ && *at != '"'; ++at)
                    if (*at == '\\' && ++at == end_) return;
                if (at == end_) return;
            } else if (*at == '[' || *at == '{') {
                open.push_back(counts_.size());
                counts_.push_back(1);
            } else if (!open.empty() && *at == ',') {
                ++counts_[open.back()];
            } else if (!open.empty() && (*at == ']' || *at == '}')) {
                open.pop_back();
            }
        }
    }

    // Room for the elements of the array or object that has just opened.
    template <class List>
    void reserve(List& list, size_t opened) {
        const size_t bytes = counts_[opened] * sizeof list[0];
        if (bytes > room_) fail("more values than " + std::to_string(end_ - begin_) + " bytes of text should hold");
        room_ -= bytes;
        list.reserve(counts_[opened]);
    }

    void skip_space() {
        while (at_ != end_ && (*at_ == ' ' || *at_ == '\n' || *at_ == '\r' || *at_ == '\t')) ++at_;
    }

    // NUL at the end; a NUL in the text fits nowhere either.
    char peek() const { return at_ != end_ ? *at_ : '\0'; }

    bool take(char c) {
        if (peek() != c) return false;
        ++at_;
        return true;
    }

    bool take_word(std::string_view word) {
        if (std::string_view(at_, static_cast<size_t>(end_ - at_)).substr(0, word.size()) != word) return false;
        at_ += word.size();
        return true;
    }

    Json value(size_t depth) {
        skip_space();
        switch (peek()) {
            case '{':
                return object(depth + 1);
            case '[':
                return array(depth + 1);
            case '"':
                return string();
            case 't':
                if (take_word("true")) return true;
                break;
            case 'f':
                if (take_word("false")) return false;
                break;
            case 'n':
                if (take_word("null")) return Json();
                break;
            default:
                if (peek() == '-' || is_digit()) return number();
        }
        fail(at_ == end_ ? "the text ends where a value should be" : "expected a value");
    }

    Json object(size_t depth) {
        if (depth > kMaxDepth) fail("nested too deeply");
        Json::Object members;
        const size_t opened = opened_++;
        ++at_;
        skip_space();
        if (!take('}')) {
            reserve(members, opened);
            do {
                skip_space();
                if (peek() != '"') fail("expected a name in quotation marks");
                std::string name = string();
                skip_space();
                if (!take(':')) fail("expected ':'");
                members.push_back({std::move(name), value(depth)});
                skip_space();
            } while (take(','));
            if (!take('}')) fail("expected ',' or '}'");
        }
        refuse_duplicates(members);
        return Json(std::move(members));
    }

    void refuse_duplicates(const Json::Object& members) const {
        std::vector<std::string_view> names;  // sorted, for a header may hold a million of them
        names.reserve(members.size());
        for (const Json::Member& member : members) names.push_back(member.name);
        std::sort(names.begin(), names.end());
        const auto twice = std::adjacent_find(names.begin(), names.end());
        if (twice != names.end()) fail("this object has '" + shown(*twice) + "' twice");
    }

    Json array(size_t depth) {
        if (depth > kMaxDepth) fail("nested too deeply");
        Json::Array elements;
        const size_t opened = opened_++;
        ++at_;
        skip_space();
        if (take(']')) return Json(std::move(elements));
        reserve(elements, opened);
        do {
            elements.push_back(value(depth));
            skip_space();
        } while (take(','));
        if (!take(']')) fail("expected ',' or ']'");
        return Json(std::move(elements));
    }

    std::string string() {
        std::string out;
        ++at_;
        while (!take('"')) {
            if (at_ == end_) fail("the text ends inside a string");
            if (static_cast<unsigned char>(*at_) < 0x20) fail("control character in a string");
            if (take('\\')) {
                escape(out);
            } else {
                const size_t length = utf8_sequence(at_, end_);
                if (length == 0) fail("not UTF-8");
                out.append(at_, length);
                at_ += length;
            }
        }
        return out;
    }

    void escape(std::string& out) {
        static constexpr std::string_view kLetters = "\"\\/bfnrt", kMeanings = "\"\\/\b\f\n\r\t";
        if (take('u')) {
            uint32_t code = hex4();
            if (code >= 0xDC00 && code <= 0xDFFF) fail("second half of a surrogate pair without the first");
            if (code >= 0xD800 && code <= 0xDBFF) {
                const uint32_t low = take_word("\\u") ? hex4() : 0;
                if (low < 0xDC00 || low > 0xDFFF) fail("first half of a surrogate pair without the second");
                code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
            }
            return append_utf8(out, code);
        }
        const size_t letter = at_ != end_ ? kLetters.find(*at_) : std::string_view::npos;
        if (letter == std::string_view::npos) fail("unknown escape in a string");
        out += kMeanings[letter];
        ++at_;
    }

    uint32_t hex4() {
        uint32_t code = 0;
        const char* const stop = at_ + std::min<std::ptrdiff_t>(4, end_ - at_);
        const auto result = std::from_chars(at_, stop, code, 16);
        if (stop - at_ < 4 || result.ptr != stop) fail("expected four hexadecimal digits");
        at_ = stop;
        return code;
    }

    bool is_digit() const { return peek() >= '0' && peek() <= '9'; }

    void digits() {
        if (!is_digit()) fail("expected a digit");
        while (is_digit()) ++at_;
    }

    Json number() {
        const char* const start = at_;
        bool integral = true;
        take('-');
        if (!take('0')) digits();
        if (take('.')) {
            integral = false;
            digits();
        }
        if (take('e') || take('E')) {
            integral = false;
            if (!take('+')) take('-');
            digits();
        }
        int64_t integer = 0;  // "-0" is a double: integers have no negative zero
        if (integral && std::string_view(start, static_cast<size_t>(at_ - start)) != "-0" &&
            std::from_chars(start, at_, integer).ec == std::errc())
            return integer;
        const double value = parse_double(start, at_);
        if (std::isinf(value)) fail("number too large");
        return value;
    }

    const char* begin_;
    const char* at_;
    const char* end_;
    std::vector<uint32_t> counts_;  // [array or object]
    size_t opened_ = 0;             // arrays and objects so far
    size_t room_;                   // bytes that those to come may take
};

void append_string(std::string& out, const std::string& text) {
    static constexpr char kHex[] = "0123456789abcdef";
    const char* at = text.data();
    const char* const end = at + text.size();
    out += '"';
    while (at != end) {
        const size_t length = utf8_sequence(at, end);
        if (length == 0) throw std::invalid_argument("'" + shown(text) + "' is not UTF-8, so it cannot be saved");
        if (*at == '"' || *at == '\\') {
            (out += '\\') += *at;
        } else if (static_cast<unsigned char>(*at) < 0x20) {
            ((out += "\\u00") += kHex[*at >> 4]) += kHex[*at & 15];
        } else {
            out.append(at, length);
        }
        at += length;
    }
    out += '"';
}

// As many as give the same bits when they are read.
std::string digits_of(double value) {
#if defined(__cpp_lib_to_chars) || (defined(_LIBCPP_VERSION) && _LIBCPP_VERSION >= 14000)
    char text[32];
    return std::string(text, std::to_chars(text, text + sizeof text, value).ptr);
#else  // more than are needed; printf would follow the user's decimal comma
    std::ostringstream text;
    text.imbue(std::locale::classic());
    text.precision(std::numeric_limits<double>::max_digits10);
    text << value;
    return text.str();
#endif
}

void append_double(std::string& out, double value) {
    if (!std::isfinite(value)) throw std::invalid_argument("JSON cannot hold the number " + std::to_string(value));
    const std::string digits = digits_of(value);
    out += digits;
    if (digits.find_first_of(".e") == std::string::npos) out += ".0";  // it stays a double when read
}

// `found` is the index of what the value holds instead.
[[noreturn]] void wrong_type(std::string_view what, const char* wanted, size_t found) {
    constexpr const char* kNames[] = {"null",     "a boolean", "an integer", "a number",
                                      "a string", "an array",  "an object"};
    throw std::invalid_argument("'" + shown(what) + "' must be " + wanted + ", it is " + kNames[found]);
}

}  // namespace

struct Json::Writer {
    std::string& out;

    void operator()(std::monostate) { out += "null"; }
    void operator()(bool value) { out += value ? "true" : "false"; }
    void operator()(int64_t value) { out += std::to_string(value); }
    void operator()(double value) { append_double(out, value); }
    void operator()(const std::string& value) { append_string(out, value); }

    void operator()(const Array& elements) {
        char before = '[';
        for (const Json& element : elements) {
            out += std::exchange(before, ',');
            std::visit(*this, element.value_);
        }
        out += elements.empty() ? "[]" : "]";
    }

    void operator()(const Object& members) {
        char before = '{';
        for (const Member& member : members) {
            out += std::exchange(before, ',');
            append_string(out, member.name);
            out += ':';
            std::visit(*this, member.value.value_);
        }
        out += members.empty() ? "{}" : "}";
    }
};

Json::Json() = default;
Json::Json(bool value) : value_(value) {}
Json::Json(int value) : value_(int64_t{value}) {}
Json::Json(int64_t value) : value_(value) {}
Json::Json(double value) : value_(value) {}
Json::Json(const char* value) : value_(std::string(value)) {}
Json::Json(std::string value) : value_(std::move(value)) {}
Json::Json(Array value) : value_(std::move(value)) {}
Json::Json(Object value) : value_(std::move(value)) {}

Json Json::parse(std::string_view text) { return Parser(text).document(); }

std::string Json::dump() const {
    std::string out;
    std::visit(Writer{out}, value_);
    return out;
}

bool Json::is_null() const { return std::holds_alternative<std::monostate>(value_); }
bool Json::is_object() const { return std::holds_alternative<Object>(value_); }

bool Json::as_boolean(std::string_view what) const {
    if (const auto* value = std::get_if<bool>(&value_)) return *value;
    wrong_type(what, "a boolean", value_.index());
}

int64_t Json::as_integer(std::string_view what) const {
    if (const auto* value = std::get_if<int64_t>(&value_)) return *value;
    wrong_type(what, "an integer", value_.index());
}

double Json::as_number(std::string_view what) const {
    if (const auto* value = std::get_if<double>(&value_)) return *value;
    if (const auto* value = std::get_if<int64_t>(&value_)) return static_cast<double>(*value);
    wrong_type(what, "a number", value_.index());
}

const std::string& Json::as_string(std::string_view what) const {
    if (const auto* value = std::get_if<std::string>(&value_)) return *value;
    wrong_type(what, "a string", value_.index());
}

const Json::Array& Json::as_array(std::string_view what) const {
    if (const auto* value = std::get_if<Array>(&value_)) return *value;
    wrong_type(what, "an array", value_.index());
}

const Json::Object& Json::as_object(std::string_view what) const {
    if (const auto* value = std::get_if<Object>(&value_)) return *value;
    wrong_type(what, "an object", value_.index());
}

const Json* Json::find(std::string_view name) const {
    if (const auto* members = std::get_if<Object>(&value_))
        for (const Member& member : *members)
            if (member.name == name) return &member.value;
    return nullptr;
}

const Json& Json::at(std::string_view name) const {
    if (const Json* value = find(name)) return *value;
    throw std::invalid_argument("'" + shown(name) + "' is missing");
}

uint64_t Json::unsigned64(std::string_view name) const {
    const std::string& text = string(name);
    uint64_t value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc() || end != text.data() + text.size())
        throw std::invalid_argument("'" + shown(name) + "' must be a whole number below 2^64, as text");
    return value;
}

void Json::set(std::string name, Json value) {
    std::get<Object>(value_).push_back({std::move(name), std::move(value)});
}

std::string shown(std::string_view name) {
    constexpr size_t kMost = 80;
    std::string text(name.substr(0, kMost));
    if (name.size() > kMost) {
        text.resize(kMost - 3);
        // Not in the middle of a character: drop continuation bytes, then what they continued.
        while (!text.empty() && (text.back() & 0xC0) == 0x80) text.pop_back();
        if (!text.empty() && (text.back() & 0x80) != 0) text.pop_back();
        text += "...";
    }
    for (char& c : text)
        if (static_cast<unsigned char>(c) < 0x20 || c == 0x7F) c = '?';
    return text;
}

}  // namespace fusedvae
