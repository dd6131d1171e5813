// SPDX-License-Identifier: MIT
#pragma once
#include <stdlib.h>

#include <optional>
#include <string>

// A variable of the environment for a test's length.
class Environment {
  public:
    Environment(const char* name, const std::string& value) : name_(name) {
        if (const char* const before = getenv(name)) before_ = before;
        setenv(name, value.c_str(), 1);
    }
    ~Environment() {
        if (before_)
            setenv(name_, before_->c_str(), 1);
        else
            unsetenv(name_);
    }
    Environment(const Environment&) = delete;
    Environment& operator=(const Environment&) = delete;

  private:
    const char* const name_;
    std::optional<std::string> before_;
};
