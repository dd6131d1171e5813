// SPDX-License-Identifier: MIT
//
// The native tests' few tools. A test file is one program: it includes this header, which holds its main().
//
//     TEST(adds) { CHECK(1 + 1 == 2); }
//
// A failed check ends its test, so later lines may rely on it; checks belong on the test's own thread. The program
// prints each failed test and a closing line "N passed, N failed", and exits with 1 if any failed or none ran.
// Arguments choose the tests whose names contain one of them.
#pragma once

#include <cmath>
#include <cstdio>
#include <exception>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

namespace native_test {

struct Test {
    const char* name;
    void (*run)();
};

inline std::vector<Test>& tests() {
    static std::vector<Test> all;
    return all;
}

struct Registration {
    Registration(const char* name, void (*run)()) { tests().push_back({name, run}); }
};

struct Failure : std::runtime_error {
    Failure(const char* file, int line, const std::string& what)
        : std::runtime_error(std::string(file) + ":" + std::to_string(line) + ": " + what) {}
};

template <class A, class B>
std::string two_values(const char* expression, const A& a, const B& b) {
    std::ostringstream text;
    text.precision(17);
    text << expression << ", they are " << a << " and " << b;
    return text.str();
}

inline bool chosen(const char* name, int argc, char** argv) {
    if (argc < 2) return true;
    for (int i = 1; i < argc; ++i)
        if (std::string(name).find(argv[i]) != std::string::npos) return true;
    return false;
}

}  // namespace native_test

#define TEST(name)                                                                    \
    static void test_##name();                                                        \
    static const ::native_test::Registration registration_##name(#name, test_##name); \
    static void test_##name()

#define CHECK(condition)                                                                \
    do {                                                                                \
        if (!(condition)) throw ::native_test::Failure(__FILE__, __LINE__, #condition); \
    } while (false)

#define CHECK_EQUAL(a, b)                                                                            \
    do {                                                                                             \
        const auto check_a = (a); /* copies: a reference might be into a temporary */                \
        const auto check_b = (b);                                                                    \
        if (!(check_a == check_b))                                                                   \
            throw ::native_test::Failure(__FILE__, __LINE__,                                         \
                                         ::native_test::two_values(#a " == " #b, check_a, check_b)); \
    } while (false)

// |a - b| <= tolerance; a NaN on either side fails.
#define CHECK_NEAR(a, b, tolerance)                                                                 \
    do {                                                                                            \
        const double check_a = static_cast<double>(a), check_b = static_cast<double>(b);            \
        if (!(std::fabs(check_a - check_b) <= static_cast<double>(tolerance)))                      \
            throw ::native_test::Failure(                                                           \
                __FILE__, __LINE__,                                                                 \
                ::native_test::two_values(#a " near " #b " within " #tolerance, check_a, check_b)); \
    } while (false)

// The expression must throw Type (or a class derived from it) with `part` in its message.
#define CHECK_THROWS(expression, Type, part)                                                                  \
    do {                                                                                                      \
        std::string check_message;                                                                            \
        bool check_thrown = false;                                                                            \
        try {                                                                                                 \
            static_cast<void>(expression);                                                                    \
        } catch (const Type& check_error) {                                                                   \
            check_thrown = true;                                                                              \
            check_message = check_error.what();                                                               \
        }                                                                                                     \
        if (!check_thrown) throw ::native_test::Failure(__FILE__, __LINE__, #expression " throws no " #Type); \
        if (check_message.find(part) == std::string::npos)                                                    \
            throw ::native_test::Failure(                                                                     \
                __FILE__, __LINE__,                                                                           \
                std::string(#expression " says \"") + check_message + "\" without \"" + (part) + "\"");       \
    } while (false)

int main(int argc, char** argv) {
    int passed = 0, failed = 0;
    for (const auto& test : native_test::tests()) {
        if (!native_test::chosen(test.name, argc, argv)) continue;
        try {
            test.run();
            ++passed;
        } catch (const std::exception& error) {
            ++failed;
            std::printf("FAILED %s\n    %s\n", test.name, error.what());
        }
    }
    std::printf("%d passed, %d failed\n", passed, failed);
    return failed == 0 && passed > 0 ? 0 : 1;
}
