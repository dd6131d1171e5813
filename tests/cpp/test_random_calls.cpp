// SPDX-License-Identifier: MIT
//
// Random calls in random order with random arguments, handles aside: none may crash, hang or return a status that does not
// exist, and a refusal leaves a message. Pointers are null or point to as much memory as their call may touch; every number
// may be anything. FUSEDVAE_LONG makes a million calls. Runs under all three sanitizers.
#include <unistd.h>

#include <array>
#include <cstdlib>
#include <cstring>
#include <map>
#include <random>
#include <string>

#include "capi.h"

namespace {

constexpr size_t kFloats = 1 << 19;  // of every buffer: 64 rows of the default model, or its largest weight
constexpr int64_t kMostRows = 64, kMostColumns = 24, kMostLatent = 8;

class Caller {
  public:
    explicit Caller(uint64_t seed) : random_(seed), folder_(make_folder()) {
        for (float& v : floats_) v = static_cast<float>(below(1000)) / 999.0f;
        fvae_set_num_threads(2);
    }
    ~Caller() {
        for (const char* name : {"a", "b", "c"}) std::remove((folder_ + "/" + name).c_str());
        ::rmdir(folder_.c_str());
    }

    // One call; its name for the count of those that succeed.
    void call() {
        using Call = void (Caller::*)();
        static constexpr Call kCalls[] = {&Caller::create,    &Caller::copy,      &Caller::trainer, &Caller::trainer,
                                          &Caller::encode,    &Caller::decode,    &Caller::into,    &Caller::scores,
                                          &Caller::detector,  &Caller::step,      &Caller::fit,     &Caller::source,
                                          &Caller::evaluate,  &Caller::save,      &Caller::load,    &Caller::resume,
                                          &Caller::parameter, &Caller::gradients, &Caller::history, &Caller::latent,
                                          &Caller::kernel,    &Caller::global,    &Caller::rate};
        (this->*kCalls[below(std::size(kCalls))])();
    }
    const std::map<std::string, std::array<long, 2>>& counts() const { return counts_; }

  private:
    static std::string make_folder() {
        char name[] = "/tmp/fusedvae-random-XXXXXX";
        if (!::mkdtemp(name)) throw std::runtime_error("no temporary folder");
        return name;
    }

    // ---- arguments

    size_t below(size_t n) { return static_cast<size_t>(random_() % n); }
    bool rarely() { return below(12) == 0; }
    int64_t number(int64_t usual) {  // mostly a small one, now and then one that no caller means
        static constexpr int64_t kOdd[] = {0,      -1, 1, kLargest, -kLargest - 1, int64_t{1} << 31, int64_t{1} << 33,
                                           1000003};
        return rarely() ? kOdd[below(std::size(kOdd))] : 1 + static_cast<int64_t>(below(static_cast<size_t>(usual)));
    }
    double real() {
        static constexpr double kOdd[] = {0.0, -1.0, 1e-300, 1e300, HUGE_VAL, -HUGE_VAL, NAN};
        return rarely() ? kOdd[below(std::size(kOdd))] : 0.001 * static_cast<double>(1 + below(2000));
    }
    template <class E>
    E code(int count) {  // enumerators, and now and then what is none
        const int value = rarely() ? static_cast<int>(random_()) : static_cast<int>(below(static_cast<size_t>(count)));
        E e;
        std::memcpy(&e, &value, sizeof e);
        return e;
    }
    float* memory() { return rarely() ? nullptr : floats_.data(); }
    float* output() { return rarely() ? nullptr : outputs_.data(); }
    double* doubles() { return rarely() ? nullptr : doubles_.data(); }
    std::string path() {
        static const char* const kNames[] = {"a", "b", "c"};
        return rarely() ? (below(2) ? "" : folder_ + "/none/x") : folder_ + "/" + kNames[below(3)];
    }
    ModelHandle& model() { return models_[below(models_.size())]; }
    TrainerHandle& any_trainer() { return trainers_[below(trainers_.size())]; }

    // Rows of the model's width mostly; whatever they say of themselves, they stay inside the memory.
    fvae_array array(int64_t columns) {
        fvae_array a = fvae_array_default();
        if (rarely()) a.struct_size = below(200);
        a.data = memory();
        a.dtype = rarely() ? code<fvae_dtype>(6) : FVAE_FLOAT32;
        a.rows = rarely() ? -static_cast<int64_t>(below(3)) : 1 + static_cast<int64_t>(below(kMostRows));
        a.columns = rarely() ? static_cast<int64_t>(below(2 * kMostColumns)) : columns;
        if (rarely()) a.row_stride = static_cast<int64_t>(below(3000));
        a.streamed = static_cast<int32_t>(below(2));
        return a;
    }

    void count(const char* name, fvae_status status) {
        ++counts_[name][status == FVAE_OK];
        CHECK(status >= FVAE_OK && status <= FVAE_RUNTIME_ERROR);
        if (status != FVAE_OK) CHECK(std::strlen(fvae_last_error()) > 0);
    }

    int64_t width(const fvae_model* m) const {
        fvae_config config = fvae_config_default();
        if (fvae_model_config(m, &config) != FVAE_OK) return 1;
        int64_t product = 1;
        for (size_t i = 0; i < config.input_rank; ++i) product *= config.input_shape[i];
        return product;
    }
    static int64_t latent_of(const fvae_model* m) {
        fvae_config config = fvae_config_default();
        return fvae_model_config(m, &config) == FVAE_OK ? config.latent : 1;
    }

    // ---- calls

    void create() {
        fvae_config config = fvae_config_default();
        const int64_t shape[2] = {number(4), number(6)}, hidden[2] = {number(20), number(20)};
        if (rarely()) config.struct_size = below(300);
        config.input_shape = rarely() ? nullptr : shape;
        config.input_rank = below(3);
        config.hidden = rarely() ? nullptr : hidden;
        config.hidden_count = below(3);
        config.latent = number(kMostLatent);
        config.activation = code<fvae_activation>(9);
        config.likelihood = code<fvae_likelihood>(2);
        config.variance = code<fvae_variance>(3);
        config.init = code<fvae_init>(3);
        if (rarely()) config.fixed_variance = real();
        if (rarely()) config.min_variance = real();
        if (rarely()) config.uint8_scale = real();
        static const char* const kCategories[] = {"a", "b", "c", "b"};
        std::vector<fvae_column> columns(
            config.input_rank == 1 && shape[0] > 0 && shape[0] < 30 ? static_cast<size_t>(shape[0]) : 1,
            fvae_column_default());
        for (fvae_column& column : columns) {
            if (rarely()) column.struct_size = below(100);
            column.shift = real();
            column.scale = real();
            if (below(2)) column.fill = real();
            if (below(3) == 0) column.categories = kCategories, column.category_count = below(5);
        }
        if (below(3) == 0) config.columns = rarely() ? nullptr : columns.data(), config.column_count = columns.size();
        // What a width of 2^31 would take is refused for its memory; smaller ones are a long wait, not a finding.
        for (const int64_t n : {shape[0], shape[1], hidden[0], hidden[1], config.latent})
            if (n > 1000) return;
        fvae_model* made = nullptr;
        const fvae_status status = fvae_model_create(rarely() ? nullptr : &config, random_(), &made);
        count("create", status);
        if (status == FVAE_OK)
            (models_.size() < 6 ? models_.emplace_back(nullptr, fvae_model_free) : model()).reset(made);
    }

    fvae_trainer_options options() {
        fvae_trainer_options o = fvae_trainer_options_default();
        if (rarely()) o.struct_size = below(400);
        o.optimizer = code<fvae_optimizer>(3);
        o.schedule = code<fvae_schedule>(3);
        o.beta_schedule = code<fvae_beta_schedule>(3);
        o.precision = code<fvae_precision>(3);
        o.batch_size = number(40);
        o.threads = static_cast<int32_t>(rarely() ? number(4) : static_cast<int64_t>(below(4)));
        for (double* value : {&o.learning_rate, &o.momentum, &o.beta1, &o.beta2, &o.epsilon, &o.weight_decay,
                              &o.schedule_factor, &o.clip_norm, &o.beta, &o.beta_ratio, &o.free_bits})
            if (rarely()) *value = real();
        for (int64_t* value : {&o.warmup_steps, &o.schedule_steps, &o.beta_steps})
            if (rarely()) *value = number(10);
        for (int32_t* value : {&o.nesterov, &o.shuffle, &o.drop_last, &o.snapshot})
            if (rarely()) *value = static_cast<int32_t>(random_());
        return o;
    }
    void trainer() {
        if (models_.empty()) return;
        const fvae_trainer_options o = options();
        fvae_trainer* made = nullptr;
        const fvae_status status = fvae_trainer_create(model().get(), rarely() ? nullptr : &o, &made);
        count("trainer", status);
        if (status == FVAE_OK) keep(made);
    }
    void keep(fvae_trainer* made) {
        if (trainers_.size() < 6)
            trainers_.emplace_back(made, fvae_trainer_free);
        else
            any_trainer().reset(made);
    }

    void encode() {
        if (models_.empty()) return;
        const fvae_model* m = model().get();
        const fvae_array x = array(width(m));
        count("encode", fvae_model_encode(m, &x, output(), output()));
        count("encoded_rows", fvae_model_encoded_rows(m, &x, output()));
        count("reconstruct", fvae_model_reconstruct(m, rarely() ? nullptr : &x, output()));
        count("contributions", fvae_model_contributions(m, &x, doubles()));
    }
    void decode() {
        if (models_.empty()) return;
        const int64_t n = rarely() ? -1 : static_cast<int64_t>(below(kMostRows));
        count("decode", fvae_model_decode(model().get(), memory(), n, output()));
    }
    void into() {
        if (models_.empty()) return;
        const fvae_model* m = model().get();
        const int64_t n = static_cast<int64_t>(below(kMostRows));
        size_t bytes = 0;
        count("workspace_bytes", fvae_model_workspace_bytes(m, n, &bytes));
        if (bytes > workspace_.size()) workspace_.resize(bytes);
        void* const at = rarely() ? nullptr : workspace_.data();
        if (rarely()) bytes = below(100);
        count("encode_into", fvae_model_encode_into(m, memory(), n, output(), output(), at, bytes));
        count("decode_into", fvae_model_decode_into(m, memory(), n, output(), at, bytes));
        count("reconstruct_into", fvae_model_reconstruct_into(m, memory(), n, output(), at, bytes));
    }
    void scores() {
        if (models_.empty()) return;
        const fvae_model* m = model().get();
        const fvae_array x = array(width(m));
        const int64_t samples = rarely() ? -1 : static_cast<int64_t>(below(9));
        count("elbo", fvae_model_elbo(m, &x, samples, random_(), doubles()));
        count("log_likelihood", fvae_model_log_likelihood(m, &x, samples, random_(), doubles()));
        count("score", fvae_model_score(m, &x, nullptr, doubles()));
    }
    void detector() {
        if (models_.empty()) return;
        fvae_detector d = fvae_detector_default();
        if (rarely()) d.struct_size = below(100);
        d.score = code<fvae_score>(5);
        d.samples = rarely() ? -5 : static_cast<int64_t>(below(5));
        d.threshold = real();
        if (below(2)) d.distance = real();
        d.latent_mean = rarely() ? nullptr : doubles_.data();
        d.latent_precision = rarely() ? nullptr : doubles_.data();
        count("set_detector", fvae_model_set_detector(model().get(), rarely() ? nullptr : &d));
        fvae_detector got{};
        count("detector", fvae_model_detector(model().get(), rarely() ? nullptr : &got));
    }

    void step() {
        if (trainers_.empty()) return;
        fvae_trainer* t = any_trainer().get();
        const fvae_array x = array(width_of(t));
        fvae_losses losses;
        count("step", fvae_trainer_step(t, &x, below(3) ? nullptr : memory(), rarely() ? nullptr : &losses));
    }
    int64_t width_of(fvae_trainer* t) {
        fvae_model* m = nullptr;
        if (fvae_trainer_model(t, &m) != FVAE_OK) return 1;
        const ModelHandle own(m, fvae_model_free);
        return width(m);
    }
    void fit() {
        if (trainers_.empty()) return;
        fvae_trainer* t = any_trainer().get();
        const fvae_array x = array(width_of(t)), held_out = array(width_of(t));
        const fvae_callback callback = [](void* user, fvae_event, const fvae_progress*) -> int32_t {
            Caller& self = *static_cast<Caller*>(user);
            return self.below(40) ? FVAE_CALLBACK_CONTINUE : static_cast<int32_t>(self.below(4));
        };
        const int64_t epochs = rarely() ? -3 : static_cast<int64_t>(below(3));
        count("fit", fvae_trainer_fit(t, &x, epochs, below(2) ? &held_out : nullptr, below(2) ? callback : nullptr,
                                      static_cast<uint32_t>(random_()), this));
    }
    void source() {
        if (trainers_.empty()) return;
        fvae_trainer* t = any_trainer().get();
        source_width_ = width_of(t);
        const fvae_source next = [](void* user, int64_t, int64_t batch, fvae_array* rows) -> int32_t {
            Caller& self = *static_cast<Caller*>(user);
            *rows = self.array(self.source_width_);
            if (self.rarely()) return static_cast<int32_t>(self.below(4));
            return batch > 3 ? FVAE_CALLBACK_STOP : FVAE_CALLBACK_CONTINUE;
        };
        count("fit_source",
              fvae_trainer_fit_source(t, next, static_cast<int64_t>(below(3)), nullptr, nullptr, 0, this));
    }
    void evaluate() {
        if (trainers_.empty()) return;
        fvae_trainer* t = any_trainer().get();
        const fvae_array x = array(width_of(t));
        fvae_losses losses;
        count("evaluate", fvae_trainer_evaluate(t, &x, random_(), rarely() ? nullptr : &losses));
    }

    void save() {
        if (!models_.empty()) count("save", fvae_model_save(model().get(), path().c_str()));
        if (!trainers_.empty()) count("trainer_save", fvae_trainer_save(any_trainer().get(), path().c_str()));
    }
    void load() {
        fvae_model* made = nullptr;
        const fvae_status status = fvae_model_load(path().c_str(), &made);
        count("load", status);
        if (status == FVAE_OK && !models_.empty()) return model().reset(made);
        fvae_model_free(made);
    }
    void copy() {
        if (models_.empty()) return;
        fvae_model* made = nullptr;
        const fvae_status status =
            fvae_model_copy(rarely() ? nullptr : model().get(), code<fvae_precision>(2), rarely() ? nullptr : &made);
        count("copy", status);
        if (status != FVAE_OK) return;
        fvae_precision weights;
        count("weights", fvae_model_weights(made, rarely() ? nullptr : &weights));
        model().reset(made);
    }
    void resume() {
        fvae_trainer* made = nullptr;
        const fvae_status status = fvae_trainer_resume(path().c_str(), &made);
        count("resume", status);
        if (status == FVAE_OK) keep(made);
    }
    void parameter() {
        if (models_.empty()) return;
        fvae_model* m = model().get();
        const int64_t index = below(2) ? 0 : number(4);
        const char* name = nullptr;
        int32_t rank = 0;
        int64_t shape[2];
        count("parameter_info", fvae_model_parameter_info(m, index, &name, &rank, shape));
        count("get_parameter", fvae_model_get_parameter(m, index, output()));
        if (rarely()) count("set_parameter", fvae_model_set_parameter(m, index, memory()));
        const fvae_array x = array(width(m));
        if (rarely()) count("init_output_bias", fvae_model_init_output_bias(m, &x));
    }
    void gradients() {
        if (models_.empty()) return;
        const fvae_model* m = model().get();
        fvae_array x = array(width(m));
        const int64_t samples = rarely() ? -1 : 1 + static_cast<int64_t>(below(3));
        std::vector<float*> results(static_cast<size_t>(fvae_model_parameter_count(m)));
        for (float*& r : results) r = output();
        fvae_losses losses;
        count("gradients",
              fvae_model_gradients(m, &x, samples == 1 && below(2) ? nullptr : floats_.data(), samples, random_(),
                                   real(), rarely() ? real() : 0.0, code<fvae_precision>(3), &losses, results.data()));
    }
    void history() {
        if (trainers_.empty()) return;
        const fvae_trainer* t = any_trainer().get();
        fvae_epoch epoch{};
        count("history", fvae_trainer_history(t, below(2) ? 0 : number(3), &epoch));
        const char* name = nullptr;
        int64_t bytes = 0;
        fvae_trainer_memory(t, number(9), &name, &bytes);
    }
    void latent() {
        const int64_t n = rarely() ? -1 : static_cast<int64_t>(below(kMostRows));
        count("sample_latent",
              fvae_sample_latent(random_(), random_(), n, rarely() ? -1 : 1 + static_cast<int64_t>(below(kMostLatent)),
                                 real(), output()));
        count("score_noise",
              fvae_score_noise(random_(), n, rarely() ? -1 : 1 + static_cast<int64_t>(below(kMostLatent)), output()));
    }
    void kernel() {
        const int64_t B = below(16), K = below(16), N = below(16);
        const char* const backend = rarely() ? "none" : nullptr;
        count("linear_act", fvae_kernel_linear_act(backend, memory(), memory(), memory(), B, K, N,
                                                   code<fvae_activation>(9), output(), nullptr));
        count("bernoulli_nll", fvae_kernel_bernoulli_nll(backend, memory(), memory(), memory(), memory(), B, K, N,
                                                         output(), outputs_.data() + kFloats / 2));
    }
    void global() {
        const char* name = nullptr;
        count("backend", fvae_backend(rarely() ? nullptr : &name));
        count("set_num_threads", fvae_set_num_threads(rarely() ? static_cast<int32_t>(number(9)) : 2));
        CHECK(fvae_num_threads() >= 1);
        fvae_set_num_threads(2);
    }
    void rate() {
        if (trainers_.empty()) return;
        count("set_learning_rate", fvae_trainer_set_learning_rate(any_trainer().get(), real()));
    }

    std::mt19937_64 random_;
    std::string folder_;
    std::vector<float> floats_ = std::vector<float>(kFloats), outputs_ = std::vector<float>(kFloats);
    std::vector<double> doubles_ = std::vector<double>(kFloats, 0.5);
    std::vector<unsigned char> workspace_ = std::vector<unsigned char>(1);
    std::vector<ModelHandle> models_;
    std::vector<TrainerHandle> trainers_;
    int64_t source_width_ = 1;
    std::map<std::string, std::array<long, 2>> counts_;  // refused, done
};

}  // namespace

TEST(random_calls_never_crash) {
    const long calls = std::getenv("FUSEDVAE_LONG") ? 1000000 : 20000;
    Caller caller(1);
    for (long i = 0; i < calls; ++i) caller.call();
    for (const auto& [name, count] : caller.counts()) {
        std::printf("%-20s %8ld refused %8ld done\n", name.c_str(), count[0], count[1]);
        CHECK(count[0] > 0 && count[1] > 0);  // otherwise its arguments are no test of it
    }
}
