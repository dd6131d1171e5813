// SPDX-License-Identifier: MIT
//
// Kernels on the emulated GPU: it computes what the PTX manual says, and finds the mistakes that it is there to find.
#include <cmath>
#include <random>

#include "emulator/cuda/ptx.h"
#include "emulator_cases.h"

using namespace emulator_cases;
using namespace fusedvae::cuda;

namespace {

std::vector<float> random_floats(size_t count, unsigned seed) {
    std::mt19937 bits(seed);
    std::vector<float> out(count);
    for (float& x : out) x = static_cast<float>(static_cast<int>(bits() % 2001) - 1000) / 256.0f;
    return out;
}

// ---- threads, barriers, shuffles -------------------------------------------------------------------------------------

__global__ void number_threads(int* out) {
    const unsigned thread = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
    const unsigned block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
    const unsigned size = blockDim.x * blockDim.y * blockDim.z;
    out[block * size + thread] = static_cast<int>(block * size + thread);
}

TEST(every_thread_runs_once) {
    OnDevice<int> out(3 * 2 * 2 * 4 * 3 * 2);
    ok(start(number_threads, dim3(3, 2, 2), dim3(4, 3, 2), 0, nullptr, out.p));
    const auto numbers = out.get();
    for (size_t i = 0; i < numbers.size(); ++i) CHECK_EQUAL(numbers[i], static_cast<int>(i));
}

__global__ void reverse_block(const float* in, float* out) {
    float* shared = shared_memory<float>();
    const int n = static_cast<int>(blockDim.x), i = static_cast<int>(threadIdx.x),
              at = static_cast<int>(blockIdx.x) * n;
    shared[i] = in[at + i];
    __syncthreads();
    out[at + i] = shared[n - 1 - i];
}

__global__ void reverse_without_barrier(const float* in, float* out) {
    float* shared = shared_memory<float>();
    const int n = static_cast<int>(blockDim.x), i = static_cast<int>(threadIdx.x);
    shared[i] = in[i];
    out[i] = shared[n - 1 - i];
}

TEST(a_barrier_makes_shared_memory_visible) {
    const auto values = random_floats(3 * 96, 1);
    OnDevice<float> in(values), out(values.size());
    for (const char* setting : {"", "order=backward", "races=1"}) {
        const Setting set(setting);
        ok(start(reverse_block, 3, 96, 96 * 4, nullptr, in.p, out.p));
        const auto got = out.get();
        for (size_t i = 0; i < got.size(); ++i) CHECK_EQUAL(got[i], values[i / 96 * 96 + 95 - i % 96]);
    }
}

TEST(a_missing_barrier_is_a_race) {
    const Setting set("races=1");
    OnDevice<float> in(random_floats(64, 2)), out(64);
    expect_fault(start(reverse_without_barrier, 1, 64, 64 * 4, nullptr, in.p, out.p),
                 {"kernel: the order of its threads"});
}

// Blocks of two hand their values around: each writes, all meet, each reads another's.
__global__ void pass_on(const float* in, float* out, float* between, bool meet, unsigned blocks) {
    float* shared = shared_memory<float>();
    const int n = static_cast<int>(gridDim.x), block = static_cast<int>(blockIdx.x), i = static_cast<int>(threadIdx.x);
    const int first = block / 2 * 2, other = first + (block + 1) % 2, size = static_cast<int>(blockDim.x);
    shared[i] = in[block * size + i];
    __syncthreads();
    between[block * size + i] = shared[size - 1 - i];
    if (meet) group_barrier(nullptr, blocks);
    if (block < n) out[block * size + i] = between[other * size + i];
}

cudaError_t start_together(unsigned grid, unsigned together, bool clusters, const float* in, float* out, float* between,
                           bool meet, unsigned blocks) {
    return emulator::launch_groups({"kernel", grid, 64, 64 * 4, 64, together}, clusters, nullptr,
                                   [=] { pass_on(in, out, between, meet, blocks); });
}

TEST(blocks_that_run_together_meet_at_a_barrier) {
    const auto values = random_floats(6 * 64, 3);
    OnDevice<float> in(values), out(values.size()), between(values.size());
    for (const char* setting : {"", "order=backward", "races=1"})
        for (const bool clusters : {false, true}) {
            const Setting set(setting);
            ok(start_together(6, 2, clusters, in.p, out.p, between.p, true, 2));
            const auto got = out.get();
            for (size_t i = 0; i < got.size(); ++i) {
                const size_t block = i / 64, other = block / 2 * 2 + (block + 1) % 2;
                CHECK_EQUAL(got[i], values[other * 64 + 63 - i % 64]);
            }
        }
}

TEST(blocks_that_do_not_meet_are_faults) {
    const Setting set("races=1");
    OnDevice<float> in(random_floats(4 * 64, 3)), out(4 * 64), between(4 * 64);
    expect_fault(start_together(4, 2, true, in.p, out.p, between.p, false, 2), {"kernel: the order of its threads"});
    expect_fault(start_together(4, 2, true, in.p, out.p, between.p, true, 4),
                 {"a barrier of 4 blocks, of which 2 run together"});
    expect_fault(start_together(4, 1, true, in.p, out.p, between.p, true, 2),
                 {"a barrier of 2 blocks, of which 1 run together"});
}

TEST(launches_of_blocks_together_have_limits) {
    OnDevice<float> in(64 * 64), out(64 * 64), between(64 * 64);
    const auto run = [&](unsigned grid, unsigned together, bool clusters) {
        return static_cast<int>(start_together(grid, together, clusters, in.p, out.p, between.p, false, together));
    };
    CHECK_EQUAL(run(5, 2, true), static_cast<int>(cudaErrorInvalidConfiguration));
    CHECK_EQUAL(run(32, 16, true), static_cast<int>(cudaErrorInvalidConfiguration));
    const unsigned room = 4 * static_cast<unsigned>(emulator::blocks_per_multiprocessor(64, 64 * 4));
    CHECK_EQUAL(run(room + 2, 2, false), static_cast<int>(cudaErrorCooperativeLaunchTooLarge));
    const Setting set("architecture=80");
    CHECK_EQUAL(run(4, 2, true), static_cast<int>(cudaErrorNotSupported));
    CHECK_EQUAL(emulator::blocks_per_multiprocessor(128, 80 * 1024), 2);
}

TEST(shared_memory_that_nobody_wrote_is_nan) {
    OnDevice<float> in(random_floats(64, 2)), out(64);
    ok(start(reverse_without_barrier, 1, 64, 64 * 4, nullptr, in.p, out.p));
    CHECK(std::isnan(out.get()[0]));
}

__global__ void shuffles(int* out) {  // (6, 32)
    const int lane = static_cast<int>(threadIdx.x);
    out[lane] = __shfl_xor_sync(0xffffffffu, lane, 5);
    out[32 + lane] = __shfl_down_sync(0xffffffffu, lane, 3);
    out[64 + lane] = __shfl_up_sync(0xffffffffu, lane, 3);
    out[96 + lane] = __shfl_sync(0xffffffffu, lane * lane, 7);
    out[128 + lane] = static_cast<int>(__ballot_sync(0xffffffffu, lane % 3 == 0));
    float sum = static_cast<float>(lane);
    for (int step = 16; step > 0; step /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, step);
    out[160 + lane] = static_cast<int>(sum);
}

TEST(shuffles_move_values_between_lanes) {
    OnDevice<int> out(6 * 32);
    ok(start(shuffles, 1, 32, 0, nullptr, out.p));
    const auto got = out.get();
    unsigned ballot = 0;
    for (int lane = 0; lane < 32; ++lane) ballot |= static_cast<unsigned>(lane % 3 == 0) << lane;
    for (int lane = 0; lane < 32; ++lane) {
        CHECK_EQUAL(got[lane], lane ^ 5);
        CHECK_EQUAL(got[32 + lane], lane + 3 < 32 ? lane + 3 : lane);
        CHECK_EQUAL(got[64 + lane], lane - 3 >= 0 ? lane - 3 : lane);
        CHECK_EQUAL(got[96 + lane], 49);
        CHECK_EQUAL(static_cast<unsigned>(got[128 + lane]), ballot);
        CHECK_EQUAL(got[160 + lane], 31 * 32 / 2);
    }
}

__global__ void leave_early(int limit) {
    if (static_cast<int>(threadIdx.x) >= limit) return;
    __syncthreads();
}
__global__ void barriers_apart() {
    if (threadIdx.x < 32)
        __syncthreads();
    else
        __syncthreads();
}
__global__ void shuffle_in_half_a_warp() {
    if (threadIdx.x < 16) __shfl_xor_sync(0xffffffffu, 1, 1);
    __syncthreads();
}
__global__ void shuffle_of_some() { __shfl_xor_sync(0xffffu, 1, 1); }
__global__ void synchronise_warp() { __syncwarp(); }

TEST(barriers_that_not_all_reach_are_faults) {
    expect_fault(start(leave_early, 2, 64, 0, nullptr, 40),
                 {"kernel: thread (0, 0, 0) of block (0, 0, 0) waits at __syncthreads() (test_emulator_kernels.cpp:",
                  "which thread (40, 0, 0)", "never reaches: it has returned"});
    expect_fault(start(barriers_apart, 1, 64, 0, nullptr), {"while thread", "all must reach the same"});
    expect_fault(start(shuffle_in_half_a_warp, 1, 32, 0, nullptr), {"__shfl_xor_sync()", "waits at __syncthreads()"});
    expect_fault(start(shuffle_of_some, 1, 32, 0, nullptr), {"without all lanes in its mask"});
    expect_fault(start(synchronise_warp, 1, 48, 0, nullptr), {"its warp has only 16 threads"});
    ok(start(leave_early, 2, 64, 0, nullptr, 64));  // the runtime is well again
}

__global__ void write_at(float* p, int at) { p[at] = 1.0f; }
__global__ void write_shared_at(int at) { shared_memory<float>()[at] = 1.0f; }

TEST(writes_outside_memory_are_faults) {
    if (emulator::kAddressSanitizer) return;  // it ends the program, with a report of its own
    OnDevice<float> out(10);
    expect_fault(start(write_at, 1, 1, 0, nullptr, out.p, 10),
                 {"written 0 bytes after the end of an allocation of 40"});
    OnDevice<float> other(10);
    expect_fault(start(write_at, 1, 1, 0, nullptr, other.p, -2), {"written 8 bytes before the start"});
    expect_fault(start(write_shared_at, 1, 1, 12, nullptr, 3), {"wrote beyond its 12 bytes of shared memory"});
}

// ---- what ptx.h has --------------------------------------------------------------------------------------------------

// c (16, 8) = a (16, 8) b (8, 8): fragments gathered as the manual's formulas say, by element.
__global__ void multiply_tf32(const float* a, const float* b, float* c) {
    const int lane = static_cast<int>(threadIdx.x), group = lane >> 2, in_group = lane % 4;
    uint32_t ra[4], rb[2];
    for (int i = 0; i < 4; ++i) {
        const int row = i == 0 || i == 2 ? group : group + 8;
        const int column = i <= 1 ? in_group : in_group + 4;
        ra[i] = to_tf32(a[row * 8 + column]);
    }
    for (int i = 0; i < 2; ++i) rb[i] = to_tf32(b[(i == 0 ? in_group : in_group + 4) * 8 + group]);
    float d[4] = {};
    mma_tf32(d, ra, rb);
    for (int i = 0; i < 4; ++i) c[(i < 2 ? group : group + 8) * 8 + in_group * 2 + (i & 1)] = d[i];
}

// c (16, 8) = a (16, 16) b (16, 8); a through ldmatrix from shared memory, b transposed by it.
__global__ void multiply_bf16(const float* a, const float* b, float* c) {
    auto* shared = shared_memory<uint16_t>();  // a (16, 16), then b (16, 8)
    const int lane = static_cast<int>(threadIdx.x), group = lane >> 2, in_group = lane % 4;
    for (int i = lane; i < 256; i += 32) shared[i] = static_cast<uint16_t>(pack_bf16(a[i], 0.0f));
    for (int i = lane; i < 128; i += 32) shared[256 + i] = static_cast<uint16_t>(pack_bf16(b[i], 0.0f));
    __syncwarp();
    uint32_t ra[4], rb[4];
    // Matrices in the order of the registers: rows 0..7, rows 8..15, both of columns 0..7, then of columns 8..15.
    ldmatrix_x4(ra, shared + lane % 16 * 16 + lane / 16 * 8);
    ldmatrix_x4_transposed(rb, shared + 256 + lane % 16 * 8);
    float d[4] = {};
    mma_bf16(d, ra, rb);
    for (int i = 0; i < 4; ++i) c[(i < 2 ? group : group + 8) * 8 + in_group * 2 + (i & 1)] = d[i];
}

template <int K>
void check_product(void (*kernel)(const float*, const float*, float*)) {
    // Multiples of 1/256 below 4 have 10 bits at most here: both types and all sums hold them exactly.
    auto a = random_floats(16 * K, 3), b = random_floats(K * 8, 4);
    for (auto* values : {&a, &b})
        for (float& x : *values) x = std::trunc(x * 8.0f);
    OnDevice<float> da(a), db(b), dc(16 * 8);
    ok(start(kernel, 1, 32, (256 + 128) * 2, nullptr, da.p, db.p, dc.p));
    const auto c = dc.get();
    for (int i = 0; i < 16; ++i)
        for (int j = 0; j < 8; ++j) {
            float sum = 0;
            for (int k = 0; k < K; ++k) sum += a[i * K + k] * b[k * 8 + j];
            CHECK_EQUAL(c[i * 8 + j], sum);
        }
}

TEST(tensor_core_products_have_the_manuals_layout) {
    check_product<8>(multiply_tf32);
    check_product<16>(multiply_bf16);
}

TEST(conversions_round_as_the_hardware) {
    const auto tf32 = [](float x) { return __uint_as_float(to_tf32(x)); };
    CHECK_EQUAL(tf32(1.0f + 0x1p-10f), 1.0f + 0x1p-10f);
    CHECK_EQUAL(tf32(1.0f + 0x1p-11f), 1.0f + 0x1p-10f);  // a tie: away from zero
    CHECK_EQUAL(tf32(-1.0f - 0x1p-11f), -1.0f - 0x1p-10f);
    CHECK_EQUAL(tf32(1.0f + 0x1p-11f - 0x1p-23f), 1.0f);
    CHECK(std::isinf(tf32(INFINITY)) && std::isnan(tf32(NAN)));
    const uint32_t pair = pack_bf16(1.0f + 0x1p-8f, 1.0f + 0x3p-8f);  // ties: to even
    CHECK_EQUAL(bf16_value(pair, 0), 1.0f);
    CHECK_EQUAL(bf16_value(pair, 1), 1.0f + 0x1p-6f);
    CHECK(std::isnan(bf16_value(pack_bf16(NAN, 0.0f), 0)));
}

__global__ void copy_through_shared(const float* in, float* out, int valid, bool wait) {
    float* shared = shared_memory<float>();  // two stages of 4 floats per thread
    const int i = static_cast<int>(threadIdx.x), n = static_cast<int>(blockDim.x);
    copy_async16(shared + 4 * i, in + 4 * i, i < valid);
    commit_copies();
    copy_async16(shared + 4 * (n + i), in + 4 * (n + i), true);
    commit_copies();
    if (wait) wait_copies<1>();
    for (int j = 0; j < 4; ++j) out[4 * i + j] = shared[4 * i + j];
    wait_copies<0>();
    for (int j = 0; j < 4; ++j) out[4 * (n + i) + j] = shared[4 * (n + i) + j];
}

TEST(asynchronous_copies_arrive_when_waited_for) {
    const auto values = random_floats(2 * 32 * 4, 5);
    OnDevice<float> in(values), out(values.size());
    for (const char* setting : {"", "order=backward", "races=1"}) {
        const Setting set(setting);
        ok(start(copy_through_shared, 1, 32, 2 * 32 * 16, nullptr, in.p, out.p, 20, true));
        const auto got = out.get();
        for (size_t i = 0; i < got.size(); ++i) CHECK_EQUAL(got[i], i >= 20 * 4 && i < 32 * 4 ? 0.0f : values[i]);
    }
    const Setting set("races=1");
    expect_fault(start(copy_through_shared, 1, 32, 2 * 32 * 16, nullptr, in.p, out.p, 20, false), {"the order of"});
}

__global__ void copy_wrongly(const float* in, int shared_at, int at) {
    copy_async16(shared_memory<float>() + shared_at, in + at, true);
}

TEST(wrong_asynchronous_copies_are_faults) {
    OnDevice<float> in(8);
    expect_fault(start(copy_wrongly, 1, 1, 16, nullptr, in.p, 0, 1), {"multiples of 16"});
    expect_fault(start(copy_wrongly, 1, 1, 16, nullptr, in.p, 1, 0), {"outside the block's shared memory"});
    expect_fault(start(copy_wrongly, 1, 1, 16, nullptr, in.p, 0, 8), {"outside the device's memory"});
}

}  // namespace
