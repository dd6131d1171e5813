// SPDX-License-Identifier: MIT
//
// A small strict JSON value (RFC 8259) for what the library keeps in file headers: integers of 64 bits stay exact,
// objects keep their order, doubles are written so that reading gives the same bits. The reader trusts nothing: UTF-8
// and escapes are checked, duplicate names, text after the value and nesting beyond 32 are refused; so is a text that
// would take more than 16 MB and twelve times its own length, of which what this library writes takes at most ten. All
// failures are std::invalid_argument.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace fusedvae {

class Json {
  public:
    struct Member;
    using Array = std::vector<Json>;
    using Object = std::vector<Member>;

    Json();  // null
    Json(bool value);
    Json(int value);
    Json(int64_t value);
    Json(double value);  // dump() refuses NaN and infinities, which JSON cannot write
    Json(const char* value);
    Json(std::string value);
    Json(Array value);
    Json(Object value);

    // Reads one value; messages hold the byte offset.
    static Json parse(std::string_view text);
    // Compact text.
    std::string dump() const;

    bool is_null() const;
    bool is_object() const;

    // The value if it has that type, else "'what' must be an integer, it is a string". Integers are numbers too.
    bool as_boolean(std::string_view what) const;
    int64_t as_integer(std::string_view what) const;
    double as_number(std::string_view what) const;
    const std::string& as_string(std::string_view what) const;
    const Array& as_array(std::string_view what) const;
    const Object& as_object(std::string_view what) const;

    // Members of an object. find gives null where there is none, at and the typed ones say "'name' is missing".
    const Json* find(std::string_view name) const;
    const Json& at(std::string_view name) const;
    bool boolean(std::string_view name) const { return at(name).as_boolean(name); }
    int64_t integer(std::string_view name) const { return at(name).as_integer(name); }
    double number(std::string_view name) const { return at(name).as_number(name); }
    const std::string& string(std::string_view name) const { return at(name).as_string(name); }
    const Array& array(std::string_view name) const { return at(name).as_array(name); }
    // All 64 bits of a number, which stands as text: many readers of JSON hold integers to 53.
    uint64_t unsigned64(std::string_view name) const;

    // Appends a member to an object, whose names are the caller's to keep distinct.
    void set(std::string name, Json value);

  private:
    struct Writer;
    std::variant<std::monostate, bool, int64_t, double, std::string, Array, Object> value_;
};

struct Json::Member {
    std::string name;
    Json value;
};

// A name from a file as a message may show it: at most 80 bytes, without control characters.
std::string shown(std::string_view name);

}  // namespace fusedvae
