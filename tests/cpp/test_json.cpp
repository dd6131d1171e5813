// SPDX-License-Identifier: MIT
//
// Json: what is read and written, to the bit, and what is refused with which message.
#include "model/json.h"

#include <cfloat>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>

#include "check.h"

using fusedvae::Json;

namespace {

std::string again(const std::string& text) { return Json::parse(text).dump(); }

uint64_t bits(double value) {
    uint64_t result;
    std::memcpy(&result, &value, sizeof result);
    return result;
}

double through_text(double value) { return Json::parse(Json(value).dump()).as_number("value"); }

std::string nested(int depth) { return std::string(depth, '[') + std::string(depth, ']'); }

}  // namespace

TEST(reads_and_writes_every_type_in_order) {
    const std::string text = R"({"z":null,"a":[true,false,[],{}],"i":-12,"d":0.5,"s":"x"})";
    CHECK_EQUAL(again(text), text);
    CHECK_EQUAL(again(" {\t\"a\" :\r\n [ 1 , 2 ] } \n"), "{\"a\":[1,2]}");
    CHECK_EQUAL(again("null"), "null");
    CHECK(Json::parse("null").is_null() && Json().is_null() && !Json(0).is_null());
}

TEST(integers_of_64_bits_stay_exact) {
    for (const char* text : {"0", "-1", "9223372036854775807", "-9223372036854775808", "9007199254740993"})
        CHECK_EQUAL(again(text), text);
    CHECK_EQUAL(Json::parse("9223372036854775807").as_integer("n"), std::numeric_limits<int64_t>::max());
    CHECK_THROWS(Json::parse("9223372036854775808").as_integer("n"), std::invalid_argument, "'n' must be an integer");
    CHECK_EQUAL(Json::parse("9223372036854775808").as_number("n"), 9223372036854775808.0);
}

TEST(doubles_keep_their_bits) {
    const double edges[] = {0.0, -0.0, 0.1, 1.0, -1.0, 1e22, 1e23, 1.0 / 3, DBL_MIN, DBL_MAX, 5e-324};
    for (const double value : edges) CHECK_EQUAL(bits(through_text(value)), bits(value));
    std::mt19937_64 random(1);
    for (int i = 0; i < 2000; ++i) {
        const uint64_t pattern = random();
        double value;
        std::memcpy(&value, &pattern, sizeof value);
        if (std::isfinite(value)) CHECK_EQUAL(bits(through_text(value)), pattern);
    }
    CHECK_EQUAL(Json(0.1).dump(), "0.1");
    CHECK_EQUAL(Json(2.0).dump(), "2.0");
    CHECK_THROWS(Json::parse(Json(2.0).dump()).as_integer("n"), std::invalid_argument, "it is a number");
    CHECK_EQUAL(std::signbit(Json::parse("-0").as_number("n")), true);
    CHECK_THROWS(Json(std::nan("")).dump(), std::invalid_argument, "cannot hold the number nan");
    CHECK_THROWS(Json(-HUGE_VAL).dump(), std::invalid_argument, "cannot hold the number -inf");
}

TEST(numbers_out_of_range) {
    CHECK_THROWS(Json::parse("1e309"), std::invalid_argument, "too large");
    CHECK_THROWS(Json::parse("-1" + std::string(400, '0')), std::invalid_argument, "too large");
    CHECK_EQUAL(Json::parse("1e-400").as_number("n"), 0.0);
    CHECK_EQUAL(Json::parse("0." + std::string(400, '0') + "1").as_number("n"), 0.0);
    CHECK_EQUAL(Json::parse("1" + std::string(400, '0') + "e-400").as_number("n"), 1.0);
}

TEST(numbers_that_are_not_json) {
    for (const char* text :
         {"01", "-", "+1", "1.", ".5", "1e", "1e+", "0x10", "NaN", "Infinity", "-Infinity", "1 2", "--1"})
        CHECK_THROWS(Json::parse(text), std::invalid_argument, "JSON, byte ");
}

TEST(strings_and_escapes) {
    CHECK_EQUAL(Json::parse(R"("\"\\\/\b\f\n\r\t")").as_string("s"), "\"\\/\b\f\n\r\t");
    CHECK_EQUAL(Json::parse(R"("\u0041\u00e9\u20AC\ud83d\ude00")").as_string("s"),
                "A\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80");
    CHECK_EQUAL(Json::parse(R"("\u0000")").as_string("s"), std::string(1, '\0'));
    CHECK_EQUAL(Json("a\"b\\\n\x01\xC3\xA9").dump(), "\"a\\\"b\\\\\\u000a\\u0001\xC3\xA9\"");
    std::string every;  // all ASCII characters survive the way through text
    for (int c = 0; c < 128; ++c) every += static_cast<char>(c);
    CHECK_EQUAL(Json::parse(Json(every).dump()).as_string("s"), every);
}

TEST(strings_that_are_refused) {
    CHECK_THROWS(Json::parse(R"("\ud83d")"), std::invalid_argument, "without the second");
    CHECK_THROWS(Json::parse(R"("\ud83d\u0041")"), std::invalid_argument, "without the second");
    CHECK_THROWS(Json::parse(R"("\ude00")"), std::invalid_argument, "without the first");
    CHECK_THROWS(Json::parse(R"("\u12")"), std::invalid_argument, "four hexadecimal digits");
    CHECK_THROWS(Json::parse(R"("\u+123")"), std::invalid_argument, "four hexadecimal digits");
    CHECK_THROWS(Json::parse(R"("\x")"), std::invalid_argument, "unknown escape");
    CHECK_THROWS(Json::parse("\"\\"), std::invalid_argument, "unknown escape");
    CHECK_THROWS(Json::parse("\"ab"), std::invalid_argument, "byte 3: the text ends inside a string");
    CHECK_THROWS(Json::parse("\"a\nb\""), std::invalid_argument, "control character");
    // Stray and missing continuation bytes, overlong forms, a surrogate, beyond U+10FFFF.
    for (const char* bad : {"\x80", "\xC3", "\xC3(", "\xC0\x80", "\xC1\xBF", "\xE0\x80\x80", "\xE2\x82", "\xED\xA0\x80",
                            "\xF0\x80\x80\x80", "\xF4\x90\x80\x80", "\xF5\x80\x80\x80", "\xFF"}) {
        CHECK_THROWS(Json::parse('"' + std::string(bad) + '"'), std::invalid_argument, "not UTF-8");
        CHECK_THROWS(Json(bad).dump(), std::invalid_argument, "not UTF-8");
    }
    for (const char* good : {"\xC2\x80", "\xDF\xBF", "\xE0\xA0\x80", "\xED\x9F\xBF", "\xEE\x80\x80", "\xF0\x90\x80\x80",
                             "\xF4\x8F\xBF\xBF"})
        CHECK_EQUAL(again('"' + std::string(good) + '"'), '"' + std::string(good) + '"');
}

TEST(structure_that_is_refused) {
    CHECK_THROWS(Json::parse(""), std::invalid_argument, "byte 0: the text ends where a value should be");
    CHECK_THROWS(Json::parse("{} {}"), std::invalid_argument, "byte 3: expected the end");
    CHECK_THROWS(Json::parse("[1,]"), std::invalid_argument, "byte 3: expected a value");
    CHECK_THROWS(Json::parse("[1 2]"), std::invalid_argument, "expected ',' or ']'");
    CHECK_THROWS(Json::parse("{\"a\":1,}"), std::invalid_argument, "name in quotation marks");
    CHECK_THROWS(Json::parse("{\"a\" 1}"), std::invalid_argument, "expected ':'");
    CHECK_THROWS(Json::parse("{\"a\":1"), std::invalid_argument, "expected ',' or '}'");
    CHECK_THROWS(Json::parse("tru"), std::invalid_argument, "expected a value");
    CHECK_THROWS(Json::parse("nullx"), std::invalid_argument, "expected the end");
    CHECK_THROWS(Json::parse(std::string("1\0", 2)), std::invalid_argument, "expected the end");
    CHECK_THROWS(Json::parse("{\"a\":1,\"b\":2,\"\\u0061\":3}"), std::invalid_argument, "has 'a' twice");
}

TEST(reads_no_further_than_the_given_length) {
    const std::string text = "[12]";
    CHECK_THROWS(Json::parse(std::string_view(text).substr(0, 3)), std::invalid_argument, "byte 3");
    CHECK_EQUAL(Json::parse(std::string_view(text).substr(1, 1)).as_integer("n"), 1);
    CHECK_THROWS(Json::parse(std::string_view("true").substr(0, 2)), std::invalid_argument, "expected a value");
}

TEST(depth_is_limited) {
    CHECK_EQUAL(again(nested(32)), nested(32));
    CHECK_THROWS(Json::parse(nested(33)), std::invalid_argument, "nested too deeply");
    CHECK_THROWS(Json::parse(std::string(1'000'000, '[')), std::invalid_argument, "nested too deeply");
    std::string objects;
    for (int i = 0; i < 33; ++i) objects += "{\"a\":";
    CHECK_THROWS(Json::parse(objects), std::invalid_argument, "nested too deeply");
}

// Values of text take up to forty bytes each: what has more of them than any honest text is refused before they are made.
TEST(memory_is_bounded_by_the_length_of_the_text) {
    const auto list = [](const char* element, size_t count) {
        std::string text = "[";
        for (size_t i = 0; i < count; ++i) (text += element) += ',';
        text.back() = ']';
        return text;
    };
    for (const char* const element : {"0", "[[[[0]]]]"})
        CHECK_THROWS(Json::parse(list(element, 2'000'000)), std::invalid_argument, "more values than");
    // the densest that the library writes: numbers of three characters, names of one, columns without names
    for (const char* const element : {"0.0", "\"a\"", R"({"shift":0.0,"scale":1.0})", "[null,null,null]"})
        CHECK_EQUAL(Json::parse(list(element, 1'000'000)).as_array("list").size(), size_t{1'000'000});
    // and what is short may be as dense as it likes
    CHECK_EQUAL(Json::parse(list("0", 100'000)).as_array("list").size(), size_t{100'000});
}

// Brackets, commas and quotation marks within strings are no structure.
TEST(elements_are_counted_outside_strings) {
    const char* const text = R"(["[,]{\"\\",{"a,]":[1,2,[]],"\"b":{}},[],3])";
    CHECK_EQUAL(Json::parse(text).dump(), text);
}

TEST(typed_access_says_what_is_wrong) {
    const Json json = Json::parse(R"({"latent":"20","n":3,"x":1.5,"b":true,"list":[1],"o":{},"nothing":null})");
    CHECK_THROWS(json.integer("latent"), std::invalid_argument, "'latent' must be an integer, it is a string");
    CHECK_THROWS(json.integer("x"), std::invalid_argument, "'x' must be an integer, it is a number");
    CHECK_THROWS(json.number("b"), std::invalid_argument, "'b' must be a number, it is a boolean");
    CHECK_THROWS(json.string("list"), std::invalid_argument, "'list' must be a string, it is an array");
    CHECK_THROWS(json.array("o"), std::invalid_argument, "'o' must be an array, it is an object");
    CHECK_THROWS(json.boolean("nothing"), std::invalid_argument, "'nothing' must be a boolean, it is null");
    CHECK_THROWS(json.at("n").as_object("n"), std::invalid_argument, "'n' must be an object, it is an integer");
    CHECK_THROWS(json.integer("missing"), std::invalid_argument, "'missing' is missing");
    CHECK_EQUAL(json.integer("n"), 3);
    CHECK_EQUAL(json.number("n"), 3.0);
    CHECK_EQUAL(json.number("x"), 1.5);
    CHECK_EQUAL(json.boolean("b"), true);
    CHECK_EQUAL(json.array("list").at(0).as_integer("list"), 1);
    CHECK(json.find("missing") == nullptr && json.find("n") != nullptr);
    CHECK(Json(1).find("n") == nullptr);
}

TEST(objects_are_built_in_order) {
    Json json = Json::Object{};
    json.set("b", 1);
    json.set("a", Json::Array{int64_t{2}, 0.25, "c", Json()});
    CHECK_EQUAL(json.dump(), R"({"b":1,"a":[2,0.25,"c",null]})");
    CHECK_EQUAL(Json(Json::Array{}).dump() + Json(Json::Object{}).dump(), "[]{}");
}

TEST(names_in_messages_are_short_and_printable) {
    CHECK_EQUAL(fusedvae::shown("encoder.0"), "encoder.0");
    CHECK_EQUAL(fusedvae::shown("a\x1B[31m\n\x7F"), "a?[31m??");
    CHECK_EQUAL(fusedvae::shown(std::string(80, 'x')), std::string(80, 'x'));
    CHECK_EQUAL(fusedvae::shown(std::string(81, 'x')), std::string(77, 'x') + "...");
    std::string wide;
    for (int i = 0; i < 30; ++i) wide += "\xE2\x82\xAC";
    const std::string cut = fusedvae::shown(wide);  // whole characters only
    CHECK_EQUAL(cut, wide.substr(0, cut.size() - 3) + "...");
    CHECK_EQUAL((cut.size() - 3) % 3, size_t{0});
}
