// SPDX-License-Identifier: MIT
//
// Training on the device against the CPU's trainer: losses of every step, parameters and moments after them, for each
// optimiser, with clipping and free bits; graphs, streamed and uint8 data; what a loss that is not finite leaves behind.
#include <cstring>
#include <cstdlib>
#include <limits>
#include <optional>

#include "check.h"
#include "device_cases.h"
#include "environment.h"
#include "model/trainer.h"

using namespace device_cases;
using kernel_cases::Buffer;
using kernel_cases::Random;
using kernel_cases::to_matrix;

namespace {

const Net kNet{{19, 11}, {11, 19}, 37, 5};

// 45 batches in an epoch of 16 rows and one of 7: a graph of many steps, graphs of one, and a short batch.
constexpr int64_t kRows = 45 * 16 + 7, kBatch = 16;

fvae_trainer_options options_of(fvae_optimizer optimizer) {
    fvae_trainer_options o = fvae_trainer_options_default();
    o.optimizer = optimizer;
    o.learning_rate = optimizer == FVAE_SGD ? 1e-3 : 2e-3;
    o.momentum = optimizer == FVAE_SGD ? 0.9 : 0.0;
    o.weight_decay = 0.01;
    o.warmup_steps = 5;
    o.beta_schedule = FVAE_BETA_LINEAR;
    o.beta_steps = 20;
    o.batch_size = kBatch;
    o.seed = 77;
    o.threads = 1;
    return o;
}

struct Data {
    Buffer x;
    std::vector<uint32_t> order;

    explicit Data(int64_t rows = kRows, int64_t D = 37) : x(Random(5).uniforms(rows * D, 0.0f, 1.0f)) {
        for (int64_t i = 0; i < rows; ++i) order.push_back(static_cast<uint32_t>(i * 331 % rows));  // a permutation
    }
};

fvae_array array_of(const float* x, int64_t rows, int64_t columns) {
    fvae_array array = fvae_array_default();
    array.data = x;
    array.rows = rows;
    array.columns = columns;
    return array;
}

struct Result {
    std::vector<fvae_losses> losses;
    std::vector<float> plain, m, v;
};

Result train_on_cpu(const Config& config, const fvae_trainer_options& o, const Data& data) {
    Models models(config, 3);
    const auto model = std::make_shared<fusedvae::Model>(config);
    const std::vector<float> start = plain_of(models.host);
    const float* at = start.data();
    for (const fusedvae::Parameter& p : model->network.parameters) model->set(p, at), at += p.size();
    fusedvae::Trainer trainer(model, o);
    Result result;
    const int64_t D = config.width(), rows = static_cast<int64_t>(data.order.size());
    for (int64_t first = 0; first < rows; first += o.batch_size) {
        const int64_t n = std::min<int64_t>(o.batch_size, rows - first);
        std::vector<float> batch;
        for (int64_t b = 0; b < n; ++b) {
            const float* row = data.x.data() + data.order[static_cast<size_t>(first + b)] * D;
            batch.insert(batch.end(), row, row + D);
        }
        result.losses.push_back(trainer.step(array_of(batch.data(), n, D), nullptr));
    }
    result.plain = plain_of(*model);
    return result;
}

Result train_on_device(const Config& config, const fvae_trainer_options& o, const fusedvae::Rows& rows,
                       const std::vector<uint32_t>& order, Precision precision = Precision::float32, int64_t piece = 0,
                       int64_t rows_before = 0) {
    Models models(config, 3);
    const std::vector<float> start = plain_of(models.host);
    const auto step = fusedvae::DeviceStep::make(*models.device, o, precision);
    const fusedvae::Rows before = rows.part(0, std::max<int64_t>(rows_before, 1));
    if (rows_before > 0) {  // a smaller data set, whose training is taken back
        const std::vector<uint32_t> all(static_cast<size_t>(rows_before), 0);
        const fusedvae::StepScalars scalars = fusedvae::scalars_at(o, 0);
        fvae_losses losses;
        step->hold(before);
        step->set_order(all.data(), rows_before);
        CHECK(step->run(0, 1, &scalars, &losses) == 1);
        const std::vector<float> zeros(start.size(), 0.0f);
        step->upload_moments(zeros.data(), zeros.data());
        models.device->upload(start.data());
    }
    step->hold(rows);
    step->set_order(order.data(), static_cast<int64_t>(order.size()));
    const int64_t batches = (static_cast<int64_t>(order.size()) + o.batch_size - 1) / o.batch_size;
    Result result;
    result.losses.resize(static_cast<size_t>(batches));
    std::vector<fusedvae::StepScalars> scalars;
    for (int64_t i = 0; i < batches; ++i) scalars.push_back(fusedvae::scalars_at(o, i));
    for (int64_t first = 0, n; first < batches; first += n) {
        n = std::min(piece > 0 ? piece : batches, batches - first);
        CHECK(step->run(first, n, scalars.data() + first, result.losses.data() + first) == n);
    }
    const size_t floats = static_cast<size_t>(fusedvae::plain_floats(models.host.network));
    result.plain.resize(floats);
    models.device->download(result.plain.data());
    result.m.resize(floats);
    result.v.resize(floats);
    step->download_moments(result.m.data(), result.v.data());
    return result;
}

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
    return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}
bool same_bits(const Result& a, const Result& b) {
    return same_bits(a.plain, b.plain) && same_bits(a.m, b.m) && same_bits(a.v, b.v) &&
           std::memcmp(a.losses.data(), b.losses.data(), a.losses.size() * sizeof(fvae_losses)) == 0;
}

// Rows on the device, given back at the end.
struct Memory {
    void* data;
    Memory(const void* values, size_t bytes) : data(gpu()->allocate(bytes)) { gpu()->upload(data, values, bytes); }
    // of a stride
    Memory(int64_t rows, int64_t stride, const float* values, int64_t columns) {
        std::vector<float> spread(static_cast<size_t>(rows * stride), std::numeric_limits<float>::quiet_NaN());
        for (int64_t r = 0; r < rows; ++r)
            std::memcpy(&spread[static_cast<size_t>(r * stride)], values + r * columns,
                        static_cast<size_t>(columns) * sizeof(float));
        data = gpu()->allocate(spread.size() * sizeof(float));
        gpu()->upload(data, spread.data(), spread.size() * sizeof(float));
    }
    Memory(const Memory&) = delete;
    ~Memory() { gpu()->free(data); }
};

double distance(const std::vector<float>& a, const std::vector<float>& b) {
    double sum = 0.0;
    for (size_t i = 0; i < a.size(); ++i) sum += (double{a[i]} - b[i]) * (double{a[i]} - b[i]);
    return std::sqrt(sum);
}

// Two float32 engines that add in different orders: a gradient differs by 1e-5 of its norm (test_device_gradients), and so
// does what sgd makes of it. Adam divides each element by its own size: a step of an element whose gradient is a thousandth
// of the others errs by 1e-2 of itself, but such elements are few.
void expect_alike(const Result& got, const Result& want, const std::vector<float>& start, bool sgd, const char* what) {
    for (size_t i = 0; i < want.losses.size(); ++i) {
        const double size = std::fabs(want.losses[i].reconstruction) + std::fabs(want.losses[i].kl);
        CHECK_NEAR(got.losses[i].loss, want.losses[i].loss, 2e-5 * size);
        CHECK_NEAR(got.losses[i].reconstruction, want.losses[i].reconstruction, 2e-5 * size);
        CHECK_NEAR(got.losses[i].kl, want.losses[i].kl, 2e-5 * size);
    }
    const double moved = distance(want.plain, start), error = distance(got.plain, want.plain);
    if (!(error <= (sgd ? 1e-4 : 1e-2) * moved))
        throw std::runtime_error(std::string(what) + ": parameters moved by " + std::to_string(moved) +
                                 " and differ by " + std::to_string(error));
}

void compare(const Output& output, const fvae_trainer_options& o, const char* what) {
    const Config config = config_of(kNet, output, FVAE_TANH);
    const Data data;
    const fusedvae::Rows rows(data.x.data(), kRows, kNet.D);
    const Result cpu = train_on_cpu(config, o, data), device = train_on_device(config, o, rows, data.order);
    expect_alike(device, cpu, plain_of(Models(config, 3).host), o.optimizer == FVAE_SGD, what);
}

}  // namespace

TEST(optimisers_train_as_on_the_cpu) {
    if (!gpu()) return;
    compare(kOutputs[0], options_of(FVAE_SGD), "sgd");
    compare(kOutputs[2], options_of(FVAE_ADAM), "adam");
    compare(kOutputs[3], options_of(FVAE_ADAMW), "adamw");
}

TEST(clipping_and_free_bits_train_as_on_the_cpu) {
    if (!gpu()) return;
    fvae_trainer_options o = options_of(FVAE_SGD);
    o.clip_norm = 5.0;  // below the gradient's norm at first, above it later
    compare(kOutputs[2], o, "clip_norm");
    o.free_bits = 0.05;
    compare(kOutputs[1], o, "clip_norm and free_bits");
}

// FUSEDVAE_GPU_STEPS for a test's length.
struct Way : Environment {
    explicit Way(const char* name) : Environment("FUSEDVAE_GPU_STEPS", name) {}
};

void compare_ways(const Output& output, const fvae_trainer_options& o, Precision precision) {
    const Data data;
    const fusedvae::Rows rows(data.x.data(), kRows, kNet.D);
    const Config config = config_of(kNet, output, FVAE_GELU);
    std::optional<Result> graphs;
    {
        const Way way("graphs");
        graphs = train_on_device(config, o, rows, data.order, precision);
    }
    const Way way("programs");
    CHECK(same_bits(*graphs, train_on_device(config, o, rows, data.order, precision)));
    CHECK(same_bits(*graphs, train_on_device(config, o, rows, data.order, precision, 11)));
}

TEST(programs_give_the_bits_of_graphs) {
    if (!gpu()) return;
    fvae_trainer_options o = options_of(FVAE_ADAM);
    for (const Output& output : kOutputs) compare_ways(output, o, Precision::float32);
    o.clip_norm = 3.0;
    o.free_bits = 0.05;
    for (const Precision precision : kPrecisions) compare_ways(kOutputs[2], o, precision);
}

TEST(networks_of_too_many_layers_for_a_program_run_as_graphs) {
    if (!gpu()) return;
    const Data data(40);
    const std::vector<int64_t> deep(14, 5);
    const Config config = config_of({deep, deep, 37, 3}, kOutputs[0], FVAE_TANH);
    const fusedvae::Rows rows(data.x.data(), 40, kNet.D);
    const auto train = [&](const char* name) {
        const Way way(name);
        return train_on_device(config, options_of(FVAE_ADAM), rows, data.order);
    };
    const Result graphs = train("graphs");
    const char* const emulator = getenv("FUSEDVAE_EMULATED_GPU");  // where there is one, a program fails
    const Environment no_programs("FUSEDVAE_EMULATED_GPU",
                                  (emulator ? emulator + std::string(",") : "") + "fail=run:1:719");
    CHECK(same_bits(graphs, train("programs")));
}

TEST(runs_give_the_same_bits) {
    if (!gpu()) return;
    const Data data;
    const fusedvae::Rows rows(data.x.data(), kRows, kNet.D);
    const fvae_trainer_options o = options_of(FVAE_ADAM);
    for (const Precision precision : kPrecisions) {
        const Config config = config_of(kNet, kOutputs[2], FVAE_GELU);
        const Result once = train_on_device(config, o, rows, data.order, precision);
        CHECK(same_bits(once, train_on_device(config, o, rows, data.order, precision)));
        // one graph of many steps, or many of one
        CHECK(same_bits(once, train_on_device(config, o, rows, data.order, precision, 7)));
        // from the host batch by batch
        fusedvae::Rows streamed = rows;
        streamed.streamed = true;
        CHECK(same_bits(once, train_on_device(config, o, streamed, data.order, precision)));
        CHECK(same_bits(once, train_on_device(config, o, streamed, data.order, precision, 0, 3)));
        // from the device's memory, dense or not
        for (const int64_t stride : {kNet.D, int64_t{44}}) {
            const Memory x(kRows, stride, data.x.data(), kNet.D);
            fusedvae::Rows there = rows;
            there.data = static_cast<const unsigned char*>(x.data);
            there.stride = stride * static_cast<int64_t>(sizeof(float));
            there.on_device = true;
            CHECK(same_bits(once, train_on_device(config, o, there, data.order, precision)));
        }
    }
}

TEST(bytes_train_as_the_floats_they_stand_for) {
    if (!gpu()) return;
    const int64_t n = 50, D = 21;
    std::vector<uint8_t> bytes(static_cast<size_t>(n * D));
    std::vector<float> floats;
    for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<uint8_t>(i * 37 % 256);
    const Config config = config_of({{9}, {9}, D, 3}, kOutputs[0], FVAE_RELU);
    fvae_array array = fvae_array_default();
    array.data = bytes.data();
    array.dtype = FVAE_UINT8;
    array.rows = n;
    array.columns = D;
    const fusedvae::Rows as_bytes(array, config, "x");
    for (const uint8_t byte : bytes) floats.push_back(static_cast<float>(byte) * as_bytes.factor);
    const fusedvae::Rows as_floats(floats.data(), n, D);
    const Data order(n, D);
    for (const Precision precision : kPrecisions)
        CHECK(same_bits(train_on_device(config, options_of(FVAE_ADAM), as_bytes, order.order, precision),
                        train_on_device(config, options_of(FVAE_ADAM), as_floats, order.order, precision)));
}

TEST(bfloat16_rows_train_as_the_floats_they_stand_for) {
    if (!gpu()) return;
    const int64_t n = 50;
    for (const int64_t D : {24, 21}) {  // 24: where products of bfloat16 read them in place
        const Config config = config_of({{9}, {9}, D, 3}, kOutputs[2], FVAE_RELU);
        const Data data(n, D);
        std::vector<uint16_t> words;
        std::vector<float> floats;
        for (int64_t i = 0; i < n * D; ++i) {
            uint32_t bits;
            std::memcpy(&bits, data.x.data() + i, 4);
            words.push_back(static_cast<uint16_t>(bits >> 16));
            bits &= 0xffff0000u;
            floats.push_back(0.0f);
            std::memcpy(&floats.back(), &bits, 4);
        }
        fvae_array array = array_of(nullptr, n, D);
        array.data = words.data();
        array.dtype = FVAE_BFLOAT16;
        const fusedvae::Rows as_words(array, config, "x"), as_floats(floats.data(), n, D);
        const Memory x(words.data(), words.size() * sizeof(uint16_t));
        fusedvae::Rows there = as_words;
        there.data = static_cast<const unsigned char*>(x.data);
        there.on_device = true;
        for (const Precision precision : kPrecisions) {
            const Result want = train_on_device(config, options_of(FVAE_ADAM), as_floats, data.order, precision);
            for (const fusedvae::Rows& rows : {as_words, there})
                CHECK(same_bits(train_on_device(config, options_of(FVAE_ADAM), rows, data.order, precision), want));
        }
    }
}

TEST(single_steps_are_those_of_a_run) {
    if (!gpu()) return;
    const Data data(kBatch, kNet.D);
    const Config config = config_of(kNet, kOutputs[0], FVAE_ELU);
    const fvae_trainer_options o = options_of(FVAE_ADAM);
    const fusedvae::Rows rows(data.x.data(), kBatch, kNet.D);
    std::vector<uint32_t> in_order;
    for (uint32_t i = 0; i < kBatch; ++i) in_order.push_back(i);
    const Result run = train_on_device(config, o, rows, in_order);
    Models models(config, 3);
    const auto step = fusedvae::DeviceStep::make(*models.device, o, Precision::float32);
    fvae_losses losses{};
    CHECK(step->step(rows, nullptr, fusedvae::scalars_at(o, 0), &losses));
    CHECK(losses.loss == run.losses[0].loss);
    std::vector<float> plain(run.plain.size());
    models.device->download(plain.data());
    CHECK(same_bits(plain, run.plain));
}

TEST(nothing_is_updated_from_a_loss_that_is_not_finite_on) {
    if (!gpu()) return;
    const Config config = config_of(kNet, kOutputs[1], FVAE_IDENTITY);
    for (const double clip_norm : {0.0, 1.0}) {
        fvae_trainer_options o = options_of(FVAE_ADAM);
        o.clip_norm = clip_norm;
        Data data(5 * kBatch, kNet.D);
        std::vector<uint32_t> order;
        for (uint32_t i = 0; i < 5 * kBatch; ++i) order.push_back(i);
        data.x[3 * kBatch * kNet.D] = 3e38f;  // in the fourth batch: its square overflows
        const fusedvae::Rows rows(data.x.data(), 5 * kBatch, kNet.D);
        Models models(config, 3);
        const auto step = fusedvae::DeviceStep::make(*models.device, o, Precision::float32);
        step->hold(rows);
        step->set_order(order.data(), 5 * kBatch);
        std::vector<fusedvae::StepScalars> scalars;
        for (int64_t i = 0; i < 5; ++i) scalars.push_back(fusedvae::scalars_at(o, i));
        fvae_losses losses[5] = {};
        CHECK(step->run(0, 3, scalars.data(), losses) == 3);
        std::vector<float> good(static_cast<size_t>(fusedvae::plain_floats(models.host.network))), after = good;
        models.device->download(good.data());
        CHECK(step->run(3, 2, scalars.data() + 3, losses + 3) == 0);
        CHECK(!std::isfinite(losses[3].loss));
        models.device->download(after.data());
        CHECK(same_bits(good, after));
        // the device goes on where the data do
        CHECK(step->run(4, 1, scalars.data() + 3, losses + 3) == 1);
    }
}

TEST(evaluation_is_the_cpus) {
    if (!gpu()) return;
    const Data data;
    for (const Output& output : kOutputs) {
        const Config config = config_of(kNet, output, FVAE_SILU);
        fvae_trainer_options o = options_of(FVAE_ADAM);
        o.beta_schedule = FVAE_BETA_CONSTANT;
        o.free_bits = 0.02;
        Models models(config, 3);
        const fusedvae::Rows rows(data.x.data(), kRows, kNet.D);
        for (const Precision precision : {Precision::float32, Precision::bfloat16}) {
            const auto step = fusedvae::DeviceStep::make(*models.device, o, precision);
            const fvae_losses got = step->evaluate(rows, 9, o.beta);
            const auto model = std::make_shared<fusedvae::Model>(config);
            const std::vector<float> start = plain_of(models.host);
            const float* at = start.data();
            for (const fusedvae::Parameter& p : model->network.parameters) model->set(p, at), at += p.size();
            const fvae_losses want = fusedvae::Trainer(model, o).evaluate(array_of(data.x.data(), kRows, kNet.D), 9);
            const double size = std::fabs(want.reconstruction) + std::fabs(want.kl);
            CHECK_NEAR(got.loss, want.loss, 2e-6 * size);
            CHECK_NEAR(got.reconstruction, want.reconstruction, 2e-6 * size);
            CHECK_NEAR(got.kl, want.kl, 2e-6 * size);
        }
    }
}

TEST(moments_and_parameters_come_back_as_they_went) {
    if (!gpu()) return;
    const Config config = config_of(kNet, kOutputs[3], FVAE_RELU);
    Models models(config, 3);
    const auto floats = fusedvae::plain_floats(models.host.network);
    Random random(8);
    Buffer m = random.uniforms(floats, -1.0f, 1.0f), v = random.uniforms(floats, 0.0f, 1.0f);
    const auto step = fusedvae::DeviceStep::make(*models.device, options_of(FVAE_ADAM), Precision::float32);
    step->upload_moments(m.data(), v.data());
    Buffer got_m(floats), got_v(floats), plain(floats);
    step->download_moments(got_m.data(), got_v.data());
    models.device->download(plain.data());
    CHECK(got_m.guards_intact() && got_v.guards_intact() && plain.guards_intact());
    const std::vector<float> want = plain_of(models.host);
    for (int64_t i = 0; i < floats; ++i) {
        CHECK(got_m[i] == m[i] && got_v[i] == v[i]);
        CHECK(plain[i] == want[static_cast<size_t>(i)]);
    }
}
