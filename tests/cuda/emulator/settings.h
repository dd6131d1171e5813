// SPDX-License-Identifier: MIT
//
// What the environment says of the emulated GPUs, read anew by each call of the runtime so that a test can change it:
//
//     FUSEDVAE_EMULATED_GPU="memory=64M,order=backward,streams=late"
//
//     devices=N         how many there are (1)
//     architecture=NN   their compute capability (90)
//     memory=BYTES      of each, with K, M or G (1G)
//     driver=VERSION    as cudaDriverGetVersion gives it (13000); 0: there is none
//     order=forward     or backward: the order in which blocks, and the threads between two barriers, run; backward
//                       also lets asynchronous copies happen when they are issued, forward when they are waited for
//     streams=at_once   or late: work runs when it is given to a stream, or when something waits for it
//     races=1           every kernel runs in both orders from the same memory, and other bits are an error
//     fail=NAME:K:CODE  the K-th call (1) of the runtime's function NAME from here on gives CODE (2, out of memory)
#pragma once
#include <cstddef>
#include <string>

namespace emulator {

enum class Order { kForward, kBackward };

struct Settings {
    int devices = 1, architecture = 90, driver = 13000;
    size_t memory = size_t{1} << 30;
    Order order = Order::kForward;
    bool late_streams = false, races = false;
    std::string fail;    // a function's name
    int fail_call = 1;   // which of its calls
    int fail_code = 2;   // what it gives
    std::string source;  // the variable's value
};

// Throws std::invalid_argument for words that are not listed above.
Settings parse(const std::string& text);

// The environment's; a value that cannot be read ends the program with a sentence, since no test may pass with it.
const Settings& settings();

}  // namespace emulator
