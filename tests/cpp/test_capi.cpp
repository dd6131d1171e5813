// SPDX-License-Identifier: MIT
//
// The C API against careless and hostile callers: NULL, structs of other sizes, numbers that are no enumerators, extents
// whose product overflows. Runs under AddressSanitizer and UndefinedBehaviorSanitizer, which turn what a plain run would
// forgive into failures.
#include <cstddef>
#include <cstring>
#include <iterator>

#include "capi.h"

namespace {

// A number where C's type says enumeration.
template <class E>
void write_code(E& place, int code) {
    std::memcpy(static_cast<void*>(&place), &code, sizeof code);
}

}  // namespace

TEST(null_is_an_error) {
    ModelHandle model = make_model();
    TrainerHandle trainer = make_trainer(model.get());
    const fvae_array x = rows();
    const fvae_config config = small_config();
    const fvae_trainer_options options = fvae_trainer_options_default();
    float value = 0.0f;
    double score = 0.0;
    fvae_losses losses;
    fvae_model* new_model = nullptr;
    fvae_trainer* new_trainer = nullptr;
    fvae_array no_data = x;
    no_data.data = nullptr;
    fvae_config no_shape = config;
    no_shape.input_shape = nullptr;
    const fvae_status all[] = {
        fvae_backend(nullptr),
        fvae_measure_peak(1, 0.01, FVAE_PRECISION_FLOAT32, nullptr),
        fvae_model_create(nullptr, 0, &new_model),
        fvae_model_create(&config, 0, nullptr),
        fvae_model_create(&no_shape, 0, &new_model),
        fvae_model_copy(nullptr, FVAE_PRECISION_FLOAT32, &new_model),
        fvae_model_copy(model.get(), FVAE_PRECISION_FLOAT32, nullptr),
        fvae_model_weights(nullptr, nullptr),
        fvae_model_weights(model.get(), nullptr),
        fvae_model_config(nullptr, nullptr),
        fvae_model_config(model.get(), nullptr),
        fvae_model_parameter_info(nullptr, 0, nullptr, nullptr, nullptr),
        fvae_model_get_parameter(nullptr, 0, &value),
        fvae_model_get_parameter(model.get(), 0, nullptr),
        fvae_model_set_parameter(nullptr, 0, &value),
        fvae_model_set_parameter(model.get(), 0, nullptr),
        fvae_model_init_output_bias(model.get(), nullptr),
        fvae_model_save(model.get(), nullptr),
        fvae_model_save(nullptr, "x"),
        fvae_model_load(nullptr, &new_model),
        fvae_model_load("x", nullptr),
        fvae_model_encode(nullptr, &x, nullptr, nullptr),
        fvae_model_encode(model.get(), nullptr, nullptr, nullptr),
        fvae_model_encode(model.get(), &no_data, nullptr, nullptr),
        fvae_model_decode(model.get(), nullptr, 1, &value),
        fvae_model_decode(model.get(), &value, 1, nullptr),
        fvae_model_reconstruct(model.get(), &x, nullptr),
        fvae_model_elbo(model.get(), &x, 1, 0, nullptr),
        fvae_model_log_likelihood(model.get(), nullptr, 1, 0, &score),
        fvae_model_gradients(nullptr, &x, nullptr, 1, 0, 1.0, 0.0, FVAE_PRECISION_FLOAT32, &losses, nullptr),
        fvae_sample_latent(0, 0, 1, 1, 1.0, nullptr),
        fvae_trainer_create(nullptr, &options, &new_trainer),
        fvae_trainer_create(model.get(), nullptr, &new_trainer),
        fvae_trainer_create(model.get(), &options, nullptr),
        fvae_trainer_get_options(trainer.get(), nullptr),
        fvae_trainer_model(trainer.get(), nullptr),
        fvae_trainer_fit(nullptr, &x, 1, nullptr, nullptr, 0, nullptr),
        fvae_trainer_fit(trainer.get(), nullptr, 1, nullptr, nullptr, 0, nullptr),
        fvae_trainer_step(trainer.get(), nullptr, nullptr, &losses),
        fvae_trainer_evaluate(trainer.get(), &x, 0, nullptr),
        fvae_trainer_history(nullptr, 0, nullptr),
        fvae_trainer_history(trainer.get(), 0, nullptr),
        fvae_trainer_set_learning_rate(nullptr, 1.0),
        fvae_trainer_save(trainer.get(), nullptr),
        fvae_trainer_resume(nullptr, &new_trainer),
        fvae_kernel_linear_act(nullptr, nullptr, &value, nullptr, 1, 1, 1, FVAE_RELU, &value, nullptr),
        fvae_kernel_store(nullptr, &value, &value, 1, 1, 1, nullptr, &value),
        fvae_kernel_adam(nullptr, &value, &value, 1, 1, 1, nullptr, 1, &value, &value, &value, &value, &value, &value),
    };
    for (size_t i = 0; i < std::size(all); ++i)
        if (all[i] != FVAE_INVALID_ARGUMENT) throw std::runtime_error("call " + std::to_string(i) + " is no error");
    CHECK(!new_model && !new_trainer);
    CHECK_EQUAL(fvae_model_parameter_count(nullptr) + fvae_trainer_epochs(nullptr) + fvae_trainer_steps(nullptr), 0);
    CHECK_EQUAL(fvae_trainer_memory(nullptr, 0, nullptr, nullptr), 0);
    fvae_model_free(nullptr);
    fvae_trainer_free(nullptr);
}

TEST(structs_of_other_sizes) {
    fvae_trainer_options options = fvae_trainer_options_default();
    ModelHandle model = make_model();
    fvae_trainer* raw = nullptr;
    for (size_t size : {size_t{0}, size_t{3}, SIZE_MAX}) {
        options.struct_size = size;
        CHECK_FAILS(fvae_trainer_create(model.get(), &options, &raw), FVAE_INVALID_ARGUMENT, "struct_size");
    }
    // An older program's options end before the moments' constants: those keep their defaults.
    options.learning_rate = 0.5;
    options.beta1 = std::nan("");
    options.struct_size = offsetof(fvae_trainer_options, beta1);
    TrainerHandle trainer = make_trainer(model.get(), options);
    fvae_trainer_options now = fvae_trainer_options_default();
    ok(fvae_trainer_get_options(trainer.get(), &now));
    CHECK_EQUAL(now.learning_rate, 0.5);
    CHECK_EQUAL(now.beta1, fvae_trainer_options_default().beta1);
    // And what it is given back ends there too.
    now.struct_size = offsetof(fvae_trainer_options, beta1);
    now.beta1 = -7.0;
    ok(fvae_trainer_get_options(trainer.get(), &now));
    CHECK_EQUAL(now.beta1, -7.0);
    CHECK_EQUAL(now.struct_size, offsetof(fvae_trainer_options, beta1));
}

TEST(numbers_that_are_no_enumerators) {
    fvae_model* model = nullptr;
    for (int code : {-1, 9, 99, INT32_MAX}) {
        fvae_config config = small_config();
        write_code(config.activation, code);
        CHECK_FAILS(fvae_model_create(&config, 0, &model), FVAE_INVALID_ARGUMENT, "activation must be one of identity");
        config = small_config();
        write_code(config.likelihood, code);
        CHECK_FAILS(fvae_model_create(&config, 0, &model), FVAE_INVALID_ARGUMENT, "likelihood");
        ModelHandle good = make_model();
        fvae_array x = rows();
        write_code(x.dtype, code);
        CHECK_FAILS(fvae_model_encode(good.get(), &x, nullptr, nullptr), FVAE_TYPE_ERROR, "float32, float64");
        fvae_trainer_options options = fvae_trainer_options_default();
        write_code(options.optimizer, code);
        fvae_trainer* trainer = nullptr;
        CHECK_FAILS(fvae_trainer_create(good.get(), &options, &trainer), FVAE_INVALID_ARGUMENT, "sgd, adam, adamw");
    }
    CHECK(!model);
}

TEST(impossible_extents) {
    ModelHandle model = make_model();
    fvae_array x = rows();
    x.columns = kLargest;  // whose bytes do not fit 64 bits
    CHECK_FAILS(fvae_model_encode(model.get(), &x, nullptr, nullptr), FVAE_INVALID_ARGUMENT, "reads 12 columns");
    for (int64_t n : {int64_t{0}, int64_t{-1}, kLargest}) {
        x = rows();
        x.rows = n;
        CHECK_EQUAL(fvae_model_encode(model.get(), &x, nullptr, nullptr), FVAE_INVALID_ARGUMENT);
        float value[kD] = {};
        CHECK_EQUAL(fvae_model_decode(model.get(), value, n, value), FVAE_INVALID_ARGUMENT);
    }
    for (int64_t stride : {kLargest, -kLargest - 1, kLargest / kRows + 1}) {
        x = rows();
        x.row_stride = stride;
        CHECK_FAILS(fvae_model_encode(model.get(), &x, nullptr, nullptr), FVAE_INVALID_ARGUMENT, "row_stride");
    }
    x = rows();
    x.row_stride = kD * 4 + 2;
    CHECK_FAILS(fvae_model_encode(model.get(), &x, nullptr, nullptr), FVAE_INVALID_ARGUMENT, "aligned");

    const int64_t shapes[][3] = {{0, 1, 1}, {-4, 1, 1}, {1 << 24, 1 << 24, 1}, {kLargest, kLargest, kLargest}};
    fvae_model* none = nullptr;
    for (const auto& shape : shapes) {
        fvae_config config = small_config();
        config.input_shape = shape;
        config.input_rank = 3;
        CHECK_FAILS(fvae_model_create(&config, 0, &none), FVAE_INVALID_ARGUMENT, "input_shape");
    }
    for (size_t rank : {size_t{0}, SIZE_MAX}) {
        fvae_config config = small_config();
        config.input_rank = rank;
        CHECK_EQUAL(fvae_model_create(&config, 0, &none), FVAE_INVALID_ARGUMENT);
    }
    float value = 0.0f;
    CHECK_FAILS(fvae_sample_latent(0, 0, kLargest / 2, 3, 1.0, &value), FVAE_INVALID_ARGUMENT, "64 bits");
    for (int64_t Z : {int64_t{0}, kLargest, -kLargest, kLargest / 2 + 2}) {  // twice the last one overflows to 2
        CHECK_FAILS(fvae_kernel_reparameterize_kl(nullptr, &value, &value, nullptr, nullptr, 0, 0, 1, 1, Z, nullptr,
                                                  nullptr, &value, nullptr),
                    FVAE_INVALID_ARGUMENT, "sizes");
        CHECK_FAILS(fvae_kernel_reparameterize_grad(nullptr, &value, &value, &value, &value, nullptr, 0, 0, 1.0, 1, 1,
                                                    Z, nullptr, nullptr),
                    FVAE_INVALID_ARGUMENT, "sizes");
        CHECK_FAILS(fvae_kernel_gaussian_element_nll(nullptr, &value, &value, nullptr, &value, 1.0, 1, 1, Z, nullptr,
                                                     nullptr, nullptr),
                    FVAE_INVALID_ARGUMENT, "sizes");
    }
    CHECK_FAILS(fvae_kernel_gaussian_nll(nullptr, &value, &value, nullptr, &value, nullptr, 0.0, 1e-4, 1, 1, 1, &value,
                                         nullptr),
                FVAE_INVALID_ARGUMENT, "fixed_variance");
}

TEST(rows_may_run_backwards) {
    ModelHandle model = make_model();
    fvae_array x = rows();
    std::vector<double> forwards(kRows), backwards(kRows);
    ok(fvae_model_elbo(model.get(), &x, 2, 0, forwards.data()));
    x.data = data().data() + (kRows - 1) * kD;
    x.row_stride = -kD * 4;
    ok(fvae_model_elbo(model.get(), &x, 2, 0, backwards.data()));
    CHECK(forwards == std::vector<double>(backwards.rbegin(), backwards.rend()));
}

TEST(a_copy_shares_nothing_with_its_model) {
    const ModelHandle model = make_model();
    const fvae_detector detector = fvae_detector_default();
    ok(fvae_model_set_detector(model.get(), &detector));
    fvae_model* made = nullptr;
    ok(fvae_model_copy(model.get(), FVAE_PRECISION_FLOAT32, &made));
    const ModelHandle copy(made, fvae_model_free);
    CHECK(parameters(copy.get()) == parameters(model.get()));
    CHECK_EQUAL(fvae_model_has_detector(copy.get()), 1);
    auto changed = parameters(copy.get());
    changed[0][0] += 1.0f;
    set_parameters(copy.get(), changed);
    CHECK(parameters(copy.get()) != parameters(model.get()));
    CHECK_FAILS(fvae_model_copy(nullptr, FVAE_PRECISION_FLOAT32, &made), FVAE_INVALID_ARGUMENT, "model is NULL");
    CHECK_FAILS(fvae_model_copy(model.get(), FVAE_PRECISION_FLOAT32, nullptr), FVAE_INVALID_ARGUMENT, "copy is NULL");
}

TEST(a_decoder_without_hidden_layers_is_told_as_such) {
    const int64_t none = 0;
    fvae_config config = small_config();
    config.decoder_hidden = &none;
    config.decoder_hidden_count = 0;
    ModelHandle model = make_model(config);
    fvae_config told = fvae_config_default();
    ok(fvae_model_config(model.get(), &told));
    ModelHandle again = make_model(told);  // NULL would have meant the encoder's mirror image
    CHECK_EQUAL(fvae_model_parameter_count(again.get()), fvae_model_parameter_count(model.get()));
}

TEST(gradients_refuse_what_has_none) {
    ModelHandle model = make_model();
    const fvae_array x = rows();
    std::vector<float> noise(2 * kRows * kZ, 0.0f);
    noise[(kRows + 7) * kZ + 1] = std::nanf("");
    fvae_losses losses;
    CHECK_FAILS(
        fvae_model_gradients(model.get(), &x, noise.data(), 2, 0, 1.0, 0.0, FVAE_PRECISION_FLOAT32, &losses, nullptr),
        FVAE_INVALID_ARGUMENT, "row 7, column 1 of sample 1");
    CHECK_EQUAL(
        fvae_model_gradients(model.get(), &x, nullptr, 1, 0, 1e300, 0.0, FVAE_PRECISION_FLOAT32, &losses, nullptr),
        FVAE_INVALID_ARGUMENT);
    CHECK_EQUAL(fvae_model_gradients(model.get(), &x, noise.data(), kLargest, 0, 1.0, 0.0, FVAE_PRECISION_FLOAT32,
                                     &losses, nullptr),
                FVAE_INVALID_ARGUMENT);
    std::vector<std::vector<float>> values = parameters(model.get());
    for (auto& parameter : values)
        for (float& v : parameter) v = 1e30f;
    set_parameters(model.get(), values);
    CHECK_FAILS(
        fvae_model_gradients(model.get(), &x, nullptr, 1, 0, 1.0, 0.0, FVAE_PRECISION_FLOAT32, &losses, nullptr),
        FVAE_NON_FINITE, "no gradient");
}

TEST(copies_hold_float32_or_bfloat16) {
    const ModelHandle model = make_model();
    fvae_model* made = nullptr;
    for (const fvae_precision other : {FVAE_PRECISION_AUTO, FVAE_PRECISION_TF32})
        CHECK_FAILS(fvae_model_copy(model.get(), other, &made), FVAE_INVALID_ARGUMENT, "float32 or bfloat16");
    CHECK(made == nullptr);
}

TEST(bfloat16_weights_are_not_trained) {
    ModelHandle model = make_model();
    fvae_model* made = nullptr;
    ok(fvae_model_copy(model.get(), FVAE_PRECISION_BFLOAT16, &made));
    const ModelHandle held(made, fvae_model_free);
    const fvae_trainer_options options = fvae_trainer_options_default();
    fvae_trainer* trainer = nullptr;
    CHECK_FAILS(fvae_trainer_create(held.get(), &options, &trainer), FVAE_INVALID_ARGUMENT, "float32 copy");
    CHECK(trainer == nullptr);
    const fvae_array x = rows();
    fvae_losses losses;
    CHECK_FAILS(fvae_model_gradients(held.get(), &x, nullptr, 1, 0, 1.0, 0.0, FVAE_PRECISION_FLOAT32, &losses, nullptr),
                FVAE_INVALID_ARGUMENT, "float32 copy");

    std::vector<std::vector<float>> values = parameters(held.get());
    values[0][5] = 0x1.ffp127f;
    CHECK_FAILS(fvae_model_set_parameter(held.get(), 0, values[0].data()), FVAE_INVALID_ARGUMENT,
                "too large for bfloat16");
    ok(fvae_model_set_parameter(model.get(), 0, values[0].data()));
    made = nullptr;
    CHECK_FAILS(fvae_model_copy(model.get(), FVAE_PRECISION_BFLOAT16, &made), FVAE_INVALID_ARGUMENT,
                "'encoder.0.weight'");
    CHECK(made == nullptr);
}
