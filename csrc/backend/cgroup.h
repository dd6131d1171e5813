// SPDX-License-Identifier: MIT
//
// How many cores the CPU quotas of Linux control groups (versions 1 and 2) leave a process; containers are limited this
// way. Plain file reading, apart from platform.cpp so that a test can point it at files of its own.
#pragma once

#include <algorithm>
#include <cmath>
#include <fstream>
#include <limits>
#include <string>

namespace fusedvae::platform {

// The least quota of the groups named in `membership` (/proc/self/cgroup) and mounted at `mount` (/sys/fs/cgroup), in
// cores, rounded up; 0 where nothing limits them.
inline int cgroup_core_limit(const std::string& membership, const std::string& mount) {
    double limit = std::numeric_limits<double>::infinity();
    std::ifstream lines(membership);
    for (std::string line; std::getline(lines, line);) {  // hierarchy:controllers:path; version 2 names no controllers
        const size_t first = line.find(':');
        const size_t second = first == std::string::npos ? first : line.find(':', first + 1);
        if (second == std::string::npos) continue;
        const std::string controllers = line.substr(first + 1, second - first - 1);
        const bool version2 = controllers.empty();
        if (!version2 && ("," + controllers + ",").find(",cpu,") == std::string::npos) continue;
        // Every ancestor's quota holds too. In a container the path may be the host's, and only its root is mounted.
        std::string path = line.substr(second + 1);
        while (true) {
            const std::string folder = mount + (version2 ? "" : "/cpu") + path;
            double quota = 0, period = 0;  // microseconds; unlimited is "max" in version 2, -1 in version 1
            if (version2) {
                std::ifstream(folder + "/cpu.max") >> quota >> period;
            } else {
                std::ifstream(folder + "/cpu.cfs_quota_us") >> quota;
                std::ifstream(folder + "/cpu.cfs_period_us") >> period;
            }
            if (quota > 0 && period > 0) limit = std::min(limit, quota / period);
            const size_t slash = path.rfind('/');
            if (slash == std::string::npos) break;
            path.erase(slash);
        }
    }
    // Beyond a million cores a quota limits nothing.
    return limit < 1e6 ? std::max(1, static_cast<int>(std::ceil(limit))) : 0;
}

}  // namespace fusedvae::platform
