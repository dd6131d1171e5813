// SPDX-License-Identifier: MIT
#include "options.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <string>

#include "names.h"

namespace fusedvae {

namespace {

void check_range(const char* name, double value, double low, double high, bool open_high = false) {
    if (value >= low && (open_high ? value < high : value <= high)) return;
    throw std::invalid_argument(std::string(name) + " must be between " + Json(low).dump() + " and " +
                                Json(high).dump() + (open_high ? " (exclusive)" : "") + ", it is " +
                                (std::isfinite(value) ? Json(value).dump() : "not finite"));
}

void check_count(const char* name, int64_t value, int64_t low) {
    constexpr int64_t kMost = int64_t{1} << 53;  // beyond, a double no longer counts steps
    if (value < low || value > kMost)
        throw std::invalid_argument(std::string(name) + " must be at least " + std::to_string(low) + ", it is " +
                                    std::to_string(value));
}

constexpr double kHuge = 1e30;

}  // namespace

void check(const fvae_trainer_options& o) {
    name_of(o.optimizer);
    name_of(o.schedule);
    name_of(o.beta_schedule);
    name_of(o.precision);
    check_range("learning_rate", o.learning_rate, 0.0, kHuge);
    check_range("momentum", o.momentum, 0.0, 1.0, true);
    if (o.nesterov && o.momentum == 0.0) throw std::invalid_argument("nesterov needs a momentum above 0");
    check_range("beta1", o.beta1, 0.0, 1.0, true);
    check_range("beta2", o.beta2, 0.0, 1.0, true);
    check_range("epsilon", o.epsilon, 1e-30, kHuge);
    check_range("weight_decay", o.weight_decay, 0.0, kHuge);
    check_count("warmup_steps", o.warmup_steps, 0);
    if (o.schedule != FVAE_CONSTANT) check_count("schedule_steps", o.schedule_steps, 1);
    check_range("schedule_factor", o.schedule_factor, 0.0, 1.0);
    check_range("clip_norm", o.clip_norm, 0.0, kHuge);
    check_count("batch_size", o.batch_size, 1);
    if (o.batch_size > (1 << 24))
        throw std::invalid_argument("batch_size must be at most 16777216, it is " + std::to_string(o.batch_size));
    check_range("beta", o.beta, 0.0, kHuge);
    if (o.beta_schedule != FVAE_BETA_CONSTANT) check_count("beta_steps", o.beta_steps, 1);
    if (o.beta_schedule == FVAE_BETA_CYCLICAL) check_range("beta_ratio", o.beta_ratio, 1e-9, 1.0);
    check_range("free_bits", o.free_bits, 0.0, kHuge);
    if (o.threads < 0 || o.threads > 1024)
        throw std::invalid_argument("threads must be between 0 (the default number) and 1024, it is " +
                                    std::to_string(o.threads));
}

fvae_precision available(fvae_precision wanted, bool on_device) {
    name_of(wanted);
    if (on_device) return wanted == FVAE_PRECISION_AUTO ? FVAE_PRECISION_BFLOAT16 : wanted;
    if (wanted == FVAE_PRECISION_TF32)
        throw std::invalid_argument(
            "precision 'tf32' is not available on the CPU: move the model to a GPU first, or use 'float32' or 'auto'");
    if (wanted == FVAE_PRECISION_AUTO) return bfloat16_backend() ? FVAE_PRECISION_BFLOAT16 : FVAE_PRECISION_FLOAT32;
    if (wanted == FVAE_PRECISION_BFLOAT16 && !bfloat16_backend())
        throw std::invalid_argument(
            "precision 'bfloat16' is not available here: on a CPU it needs the avx512 backend on an AMD processor with "
            "AVX512-BF16 (Zen 4 or later), where it is known to be faster. Use 'float32', or 'auto', which takes "
            "bfloat16 where it can");
    return wanted;
}

const Backend& backend_in(fvae_precision wanted) {
    return available(wanted, false) == FVAE_PRECISION_BFLOAT16 ? *bfloat16_backend() : backend();
}

double learning_rate_at(const fvae_trainer_options& o, int64_t step) {
    if (step < o.warmup_steps)
        return o.learning_rate * static_cast<double>(step + 1) / static_cast<double>(o.warmup_steps);
    const double past = static_cast<double>(step - o.warmup_steps), span = static_cast<double>(o.schedule_steps);
    if (o.schedule == FVAE_COSINE) {
        const double progress = std::min(1.0, past / span);
        const double fraction = 0.5 * (1.0 + std::cos(3.14159265358979323846 * progress));
        return o.learning_rate * (o.schedule_factor + (1.0 - o.schedule_factor) * fraction);
    }
    if (o.schedule == FVAE_STEP) return o.learning_rate * std::pow(o.schedule_factor, std::floor(past / span));
    return o.learning_rate;
}

double beta_at(const fvae_trainer_options& o, int64_t step) {
    const double at = static_cast<double>(step), span = static_cast<double>(o.beta_steps);
    if (o.beta_schedule == FVAE_BETA_LINEAR) return o.beta * std::min(1.0, at / span);
    if (o.beta_schedule == FVAE_BETA_CYCLICAL)  // Fu et al. 2019, eq. 6
        return o.beta * std::min(1.0, std::fmod(at, span) / span / o.beta_ratio);
    return o.beta;
}

Update update_at(const fvae_trainer_options& o, int64_t done) {
    const double lr = learning_rate_at(o, done), t = static_cast<double>(done + 1);
    const bool decoupled = o.optimizer == FVAE_ADAMW;
    Update u{};
    u.weight_decay = decoupled ? 0.0f : static_cast<float>(o.weight_decay);
    u.decay_factor = decoupled ? static_cast<float>(1.0 - lr * o.weight_decay) : 1.0f;
    u.lr = static_cast<float>(lr);
    u.momentum = static_cast<float>(o.momentum);
    u.nesterov = o.nesterov != 0;
    u.beta1 = static_cast<float>(o.beta1);
    u.beta2 = static_cast<float>(o.beta2);
    u.one_minus_beta1 = static_cast<float>(1.0 - o.beta1);
    u.one_minus_beta2 = static_cast<float>(1.0 - o.beta2);
    u.step_size = static_cast<float>(lr / (1.0 - std::pow(o.beta1, t)));
    u.inv_bias2 = static_cast<float>(1.0 / std::sqrt(1.0 - std::pow(o.beta2, t)));
    u.epsilon = static_cast<float>(o.epsilon);
    u.gradient_scale = 1.0f;
    return u;
}

Json to_json(const fvae_trainer_options& o) {
    Json json{Json::Object{}};
    json.set("optimizer", name_of(o.optimizer));
    json.set("learning_rate", o.learning_rate);
    json.set("momentum", o.momentum);
    json.set("nesterov", o.nesterov != 0);
    json.set("beta1", o.beta1);
    json.set("beta2", o.beta2);
    json.set("epsilon", o.epsilon);
    json.set("weight_decay", o.weight_decay);
    json.set("schedule", name_of(o.schedule));
    json.set("warmup_steps", o.warmup_steps);
    json.set("schedule_steps", o.schedule_steps);
    json.set("schedule_factor", o.schedule_factor);
    json.set("clip_norm", o.clip_norm);
    json.set("batch_size", o.batch_size);
    json.set("beta", o.beta);
    json.set("beta_schedule", name_of(o.beta_schedule));
    json.set("beta_steps", o.beta_steps);
    json.set("beta_ratio", o.beta_ratio);
    json.set("free_bits", o.free_bits);
    json.set("threads", static_cast<int>(o.threads));
    json.set("seed", std::to_string(o.seed));  // as text: 64 bits do not fit a JSON number
    json.set("shuffle", o.shuffle != 0);
    json.set("drop_last", o.drop_last != 0);
    json.set("snapshot", o.snapshot != 0);
    json.set("precision", name_of(o.precision));
    return json;
}

fvae_trainer_options options_from_json(const Json& json) {
    fvae_trainer_options o = fvae_trainer_options_default();
    o.optimizer = from_name<fvae_optimizer>(json.string("optimizer"));
    o.learning_rate = json.number("learning_rate");
    o.momentum = json.number("momentum");
    o.nesterov = json.boolean("nesterov");
    o.beta1 = json.number("beta1");
    o.beta2 = json.number("beta2");
    o.epsilon = json.number("epsilon");
    o.weight_decay = json.number("weight_decay");
    o.schedule = from_name<fvae_schedule>(json.string("schedule"));
    o.warmup_steps = json.integer("warmup_steps");
    o.schedule_steps = json.integer("schedule_steps");
    o.schedule_factor = json.number("schedule_factor");
    o.clip_norm = json.number("clip_norm");
    o.batch_size = json.integer("batch_size");
    o.beta = json.number("beta");
    o.beta_schedule = from_name<fvae_beta_schedule>(json.string("beta_schedule"));
    o.beta_steps = json.integer("beta_steps");
    o.beta_ratio = json.number("beta_ratio");
    o.free_bits = json.number("free_bits");
    const int64_t threads = json.integer("threads");
    o.threads = static_cast<int32_t>(threads < 0 || threads > 1024 ? -1 : threads);
    o.seed = json.unsigned64("seed");
    o.shuffle = json.boolean("shuffle");
    o.drop_last = json.boolean("drop_last");
    o.snapshot = json.boolean("snapshot");
    if (const Json* precision = json.find("precision"))  // checkpoints of 0.1.0 have none
        o.precision = from_name<fvae_precision>(precision->as_string("precision"));
    check(o);
    return o;
}

}  // namespace fusedvae
