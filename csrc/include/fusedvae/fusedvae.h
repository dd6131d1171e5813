/* SPDX-License-Identifier: MIT
 *
 * fusedvae: trains and serves variational autoencoders. This is the C API, the library's only ABI promise (from 1.0 on;
 * until then compare fvae_abi_version() with FVAE_ABI_VERSION).
 *
 *     fvae_model* model = NULL;
 *     if (fvae_model_load("model.safetensors", &model) != FVAE_OK) { fputs(fvae_last_error(), stderr); return 1; }
 *     fvae_array x = fvae_array_default();
 *     x.data = rows; x.dtype = FVAE_FLOAT32; x.rows = n; x.columns = 784;
 *     fvae_model_elbo(model, &x, 1, 0, scores);          // (n) nats per row, higher is better
 *     fvae_model_free(model);
 *
 * Every function that can fail returns a status; fvae_last_error() then holds one sentence for this thread: what was
 * expected, what came, how to fix it. A call that fails before its first training step leaves its arguments untouched.
 * Letters: n rows, D data width, Z latent width, S Monte-Carlo samples. Terms are in nats per row, summed over features,
 * constants included; loss = reconstruction + beta * KL; elbo = -(reconstruction + KL).
 *
 * Threads: functions on a `const fvae_model*` may run at the same time on one model. Functions on a trainer, and those
 * that change a model, need that one handle for themselves, except that a model may be read while its trainer runs.
 */
#ifndef FUSEDVAE_FUSEDVAE_H
#define FUSEDVAE_FUSEDVAE_H

#include <stddef.h>
#include <stdint.h>

#if defined(_WIN32) && defined(FUSEDVAE_SHARED)
#if defined(FUSEDVAE_BUILDING)
#define FVAE_API __declspec(dllexport)
#else
#define FVAE_API __declspec(dllimport)
#endif
#elif defined(__GNUC__)
#define FVAE_API __attribute__((visibility("default")))
#else
#define FVAE_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

#define FVAE_ABI_VERSION 3 /* grows when a struct or a function changes, before 1.0 */

typedef enum fvae_status {
    FVAE_OK = 0,
    FVAE_INVALID_ARGUMENT = 1, /* a value the caller can change */
    FVAE_TYPE_ERROR = 2,       /* a dtype the library does not read */
    FVAE_OUT_OF_MEMORY = 3,
    FVAE_IO_ERROR = 4, /* the system refused; the message holds its reason */
    FVAE_NOT_FOUND = 5,
    FVAE_PERMISSION_DENIED = 6,
    FVAE_BAD_FILE = 7,   /* truncated, corrupted or foreign file */
    FVAE_NON_FINITE = 8, /* the loss became infinite or NaN; the message names the step */
    FVAE_STOPPED = 9,    /* a callback returned FVAE_CALLBACK_ERROR */
    FVAE_RUNTIME_ERROR = 10
} fvae_status;

/* The message of this thread's latest failure; "" before the first. Valid until this thread's next failure. */
FVAE_API const char* fvae_last_error(void);
FVAE_API const char* fvae_version(void);
FVAE_API uint32_t fvae_abi_version(void);

/* The backend in use ("avx512", "avx2", "neon", "scalar"): the machine's best, or what FUSEDVAE_BACKEND forces.
 * A forced one this machine cannot run is an error. */
FVAE_API fvae_status fvae_backend(const char** name);
/* Comma-separated names of the backends that this library holds and this machine can run. */
FVAE_API const char* fvae_available_backends(void);
/* Threads that trainings and scorings use when they do not say: at first the cores this process may use. */
FVAE_API int32_t fvae_num_threads(void);
FVAE_API fvae_status fvae_set_num_threads(int32_t threads);

/* What the training step's products compute in. Parameters, moments, log-variances and losses are float32 in all. */
typedef enum fvae_precision {
    FVAE_PRECISION_FLOAT32 = 0,
    FVAE_PRECISION_BFLOAT16 = 1, /* bfloat16 factors, float32 sums; refused on processors not known to gain by it */
    FVAE_PRECISION_AUTO = 2,     /* bfloat16 where it would not be refused, else float32 */
    FVAE_PRECISION_TF32 = 3      /* factors of 10 bits of fraction, float32 sums; refused by the CPU */
} fvae_precision;
/* Nonzero where this processor does not refuse bfloat16; GPUs take it. */
FVAE_API int32_t fvae_has_bfloat16(void);
/* Sustained multiply-add rate of `threads` cores, in GFLOP/s: a register-only loop of about `seconds`. */
FVAE_API fvae_status fvae_measure_peak(int32_t threads, double seconds, fvae_precision precision, double* gflops);

/* ---- GPUs ------------------------------------------------------------------------------------------------------- *
 * Devices are named "cpu", "cuda" (the first GPU) or "cuda:1". Models and their trainings move to a GPU by fvae_model_to.
 * Where none can be used, the failing call's message says why: the library was built without CUDA, there is no driver or
 * an old one, no such index, or the GPU's compute capability is below 8.0. Calls on one model on a GPU take turns.
 *
 * Memory of a GPU is what cudaMalloc gives, or fvae_device_allocate. A model's calls read it after what the streams
 * named by fvae_model_wait_for hold, and write it before what those named by fvae_model_release_to are given next. */

typedef struct fvae_device_properties {
    size_t struct_size;
    char name[256];       /* as the driver tells it */
    int32_t major, minor; /* compute capability */
    uint64_t total_bytes; /* of its memory */
    uint64_t free_bytes;  /* now */
} fvae_device_properties;
/* GPUs that can be asked for by index; 0 also without CUDA in the library, or without a driver. */
FVAE_API int32_t fvae_device_count(void);
FVAE_API fvae_status fvae_device_get_properties(const char* device, fvae_device_properties* properties);
FVAE_API fvae_status fvae_device_allocate(const char* device, size_t bytes, void** memory);
FVAE_API fvae_status fvae_device_free(const char* device, void* memory);
/* From host to GPU, and back; done on return. */
FVAE_API fvae_status fvae_device_upload(const char* device, void* memory, const void* host, size_t bytes);
FVAE_API fvae_status fvae_device_download(const char* device, void* host, const void* memory, size_t bytes);

/* ---- data ------------------------------------------------------------------------------------------------------- */

typedef enum fvae_dtype {
    FVAE_FLOAT32 = 0,
    FVAE_FLOAT64 = 1,
    FVAE_FLOAT16 = 2,
    FVAE_UINT8 = 3, /* read as value * config.uint8_scale */
    FVAE_BOOL = 4,
    FVAE_BFLOAT16 = 5 /* as two bytes: a float's upper half */
} fvae_dtype;

/* Rows of numbers that the caller owns; never copied whole, never written. */
typedef struct fvae_array {
    size_t struct_size;
    const void* data;
    fvae_dtype dtype;
    int64_t rows;
    int64_t columns;    /* neighbouring in memory */
    int64_t row_stride; /* bytes from one row to the next; 0: rows are neighbours too */
    int32_t streamed;   /* nonzero: too large to read ahead (a memory map); values are checked batch by batch */
    int32_t on_device;  /* nonzero: memory of the model's GPU; rows are neighbours */
} fvae_array;
FVAE_API fvae_array fvae_array_default(void);

/* ---- model ------------------------------------------------------------------------------------------------------ */

typedef enum fvae_activation {
    FVAE_IDENTITY = 0,
    FVAE_RELU = 1,
    FVAE_LEAKY_RELU = 2, /* slope 0.01 */
    FVAE_ELU = 3,        /* alpha 1 */
    FVAE_GELU = 4,       /* exact: x * Phi(x) */
    FVAE_SILU = 5,
    FVAE_TANH = 6,
    FVAE_SIGMOID = 7,
    FVAE_SOFTPLUS = 8
} fvae_activation;

typedef enum fvae_likelihood {
    FVAE_BERNOULLI = 0, /* targets in [0, 1] */
    FVAE_GAUSSIAN = 1   /* variance: see fvae_variance */
} fvae_likelihood;

typedef enum fvae_variance {
    FVAE_FIXED = 0,   /* config.fixed_variance for every feature */
    FVAE_FEATURE = 1, /* a learned vector: min_variance + exp(log_variance) */
    FVAE_ELEMENT = 2  /* predicted beside the mean: min_variance + exp(decoder_logvar) */
} fvae_variance;

typedef enum fvae_init {
    FVAE_INIT_PYTORCH = 0, /* torch.nn.Linear: weights and biases uniform in +-1/sqrt(fan_in) */
    FVAE_INIT_GLOROT = 1,  /* uniform in +-sqrt(6/(fan_in + fan_out)), zero bias */
    FVAE_INIT_HE = 2       /* normal with variance 2/fan_in, zero bias */
} fvae_init;

/* How a table's column is read. A number enters the network as (value - shift) / scale, and leaves it in its own units.
 * With categories the value is an index into them; the network reads it as one-hot and gives the likeliest index. */
typedef struct fvae_column {
    size_t struct_size;
    const char* name; /* UTF-8; NULL or "": none */
    double shift, scale;
    double fill;                   /* stands for NaN in the data; NaN: missing values are refused */
    const char* const* categories; /* NULL: a number */
    size_t category_count;
} fvae_column;
/* A number without a name, read as it is; fill is NaN. */
FVAE_API fvae_column fvae_column_default(void);

typedef struct fvae_config {
    size_t struct_size;
    const int64_t* input_shape; /* e.g. {784} or {28, 28}; D is their product */
    size_t input_rank;
    const int64_t* hidden; /* widths of the encoder's hidden layers, first to last */
    size_t hidden_count;
    const int64_t* decoder_hidden; /* widths of the decoder's; NULL: the encoder's in reverse */
    size_t decoder_hidden_count;
    int64_t latent;
    fvae_activation activation;
    fvae_likelihood likelihood;
    fvae_variance variance;
    double fixed_variance;
    double min_variance; /* learned variances never fall below it */
    fvae_init init;
    double uint8_scale; /* uint8 inputs are multiplied by it, except where columns say how to read them */
    /* NULL: rows are read as they are; else one for each column of a row. elbo, log_likelihood and losses are then those of
     * rows as the caller has them: for Gaussians they include the Jacobian, sum ln scale. */
    const fvae_column* columns;
    size_t column_count;
} fvae_config;
/* 784-400-20, relu, Bernoulli; the pointers are to static storage. */
FVAE_API fvae_config fvae_config_default(void);

typedef struct fvae_model fvae_model;

FVAE_API fvae_status fvae_model_create(const fvae_config* config, uint64_t seed, fvae_model** model);
FVAE_API void fvae_model_free(fvae_model* model);
/* A second model that shares nothing with the first: parameters, detector, and what its file held that this version does
 * not know, in the same place. weights: what the copy holds its weights in, FLOAT32 or BFLOAT16, whatever the model's are;
 * all else stays float32. BFLOAT16 is for serving: each weight is the nearest bfloat16 (ties to even, at most 1/256 of it
 * away; zero below 2^-126), half the bytes to read, so that calls with few rows are faster. Every function that reads the
 * copy computes in float32 with those values, on any processor: its bits are those of a float32 model with the rounded
 * weights. A weight too large for bfloat16 is an error. Such a copy is not trained; in a file it is float32. */
FVAE_API fvae_status fvae_model_copy(const fvae_model* model, fvae_precision weights, fvae_model** copy);
/* What its weights are held in: FVAE_PRECISION_FLOAT32 but for a copy of the other kind. */
FVAE_API fvae_status fvae_model_weights(const fvae_model* model, fvae_precision* weights);
/* Where it computes from now on. Its parameters move there when they are first needed; its trainers follow with their
 * moments. A model on a GPU does everything there but contributions and the *_into calls, which read the host's copy of
 * the parameters: that is brought up to date when it is read, as for files and fvae_model_get_parameter. Changes the
 * model; a trainer may not be within fit or step. */
FVAE_API fvae_status fvae_model_to(fvae_model* model, const char* device);
/* "cpu" or "cuda:0"; valid until the model moves or is freed. */
FVAE_API const char* fvae_model_device(const fvae_model* model);
/* Of a model on a GPU: what it is asked next begins after what `stream` holds now (a cudaStream_t; NULL: the default one). */
FVAE_API fvae_status fvae_model_wait_for(const fvae_model* model, void* stream);
/* What `stream` is given next begins after what the model was asked for. */
FVAE_API fvae_status fvae_model_release_to(const fvae_model* model, void* stream);
/* Waits until what the model was asked for is done, which results in a GPU's memory need not be when a call returns. */
FVAE_API fvae_status fvae_model_synchronize(const fvae_model* model);
/* The pointers inside *config live as long as the model. */
FVAE_API fvae_status fvae_model_config(const fvae_model* model, fvae_config* config);

/* Parameters as plain row-major matrices under PyTorch's names and (out, in) shapes. */
FVAE_API int64_t fvae_model_parameter_count(const fvae_model* model);
/* rank is 1 or 2; a vector's shape is {n, 1}. *name lives as long as the model. */
FVAE_API fvae_status fvae_model_parameter_info(const fvae_model* model, int64_t index, const char** name, int32_t* rank,
                                               int64_t shape[2]);
FVAE_API fvae_status fvae_model_get_parameter(const fvae_model* model, int64_t index, float* values);
FVAE_API fvae_status fvae_model_set_parameter(fvae_model* model, int64_t index, const float* values);
/* Sets the output layer's bias so that a zero code decodes to the data's column means. */
FVAE_API fvae_status fvae_model_init_output_bias(fvae_model* model, const fvae_array* x);

FVAE_API fvae_status fvae_model_save(const fvae_model* model, const char* path);
FVAE_API fvae_status fvae_model_load(const char* path, fvae_model** model);

/* x (n, D) -> encoded (n, E), the rows as the network reads them: uint8 scaled, columns shifted and scaled, fills in place
 * of what is missing, categories as one-hot. E is D without columns, else their sum, where one with categories counts
 * category_count. Values must be finite, also where Bernoulli targets would have to lie in [0, 1]. */
FVAE_API fvae_status fvae_model_encoded_rows(const fvae_model* model, const fvae_array* x, float* encoded);
/* Of a model on a GPU, encode, decode, reconstruct, elbo, log_likelihood and score take results' and codes' pointers into
 * the GPU's memory as well as the host's. */
/* x (n, D) -> mu (n, Z), logvar (n, Z); either may be NULL (both: x is checked, nothing computed). Deterministic. */
FVAE_API fvae_status fvae_model_encode(const fvae_model* model, const fvae_array* x, float* mu, float* logvar);
/* z (n, Z) float32 -> mean (n, D) of p(x|z). */
FVAE_API fvae_status fvae_model_decode(const fvae_model* model, const float* z, int64_t n, float* mean);
/* mean of p(x|z) at the mean code z = mu: x (n, D) -> mean (n, D). */
FVAE_API fvae_status fvae_model_reconstruct(const fvae_model* model, const fvae_array* x, float* mean);

/* Serving: encode, decode and reconstruct for programs that may neither wait nor allocate (an audio callback, a request
 * handler with threads of its own). A call computes on the calling thread alone, in the caller's workspace, and gives the
 * bits of the function without `_into`. x (n, D) and z (n, Z) are dense float32, apart from the outputs, except that
 * reconstruct's mean may be x itself. Only a failing call allocates, for its message.
 *
 * Threads: any number of them may call these on one model at the same time, each with a workspace of its own. Nothing is
 * locked, so nobody may change the model meanwhile: no parameter may be set, and its trainer may not be within fit or
 * step; a callback of fit's may call them. */
/* Bytes of workspace for calls with up to `rows` rows; constant from 128 rows on. Safe from any thread at any time. */
FVAE_API fvae_status fvae_model_workspace_bytes(const fvae_model* model, int64_t rows, size_t* bytes);
/* x (n, D) -> mu (n, Z), logvar (n, Z); either may be NULL. workspace: any alignment, contents do not matter. */
FVAE_API fvae_status fvae_model_encode_into(const fvae_model* model, const float* x, int64_t n, float* mu,
                                            float* logvar, void* workspace, size_t workspace_bytes);
/* z (n, Z) -> mean (n, D) of p(x|z). */
FVAE_API fvae_status fvae_model_decode_into(const fvae_model* model, const float* z, int64_t n, float* mean,
                                            void* workspace, size_t workspace_bytes);
/* x (n, D) -> mean (n, D) of p(x|z) at the mean code. */
FVAE_API fvae_status fvae_model_reconstruct_into(const fvae_model* model, const float* x, int64_t n, float* mean,
                                                 void* workspace, size_t workspace_bytes);

/* -(reconstruction + KL) per row, the mean over `samples` draws: elbo (n). The same noise serves every row. */
FVAE_API fvae_status fvae_model_elbo(const fvae_model* model, const fvae_array* x, int64_t samples, uint64_t seed,
                                     double* elbo);
/* Importance-weighted estimate of log p(x) per row (Burda et al. 2015, eq. 8): log_likelihood (n). */
FVAE_API fvae_status fvae_model_log_likelihood(const fvae_model* model, const fvae_array* x, int64_t samples,
                                               uint64_t seed, double* log_likelihood);

/* Scores of rows by name. Higher is more normal, lower more anomalous, for all of them. */
typedef enum fvae_score {
    FVAE_SCORE_ELBO = 0,           /* nats; the mean over `samples` draws */
    FVAE_SCORE_LOG_LIKELIHOOD = 1, /* nats; importance-weighted, from `samples` draws */
    FVAE_SCORE_RECONSTRUCTION = 2, /* minus the mean squared error at the mean code, of columns as they are read */
    FVAE_SCORE_KL = 3,             /* minus KL(q(z|x) || N(0, I)), nats */
    FVAE_SCORE_MAHALANOBIS = 4 /* minus the squared distance of the mean code from latent_mean in the given metric */
} fvae_score;

/* A score and the threshold below which a row is an anomaly. A model keeps one, in its file too. */
typedef struct fvae_detector {
    size_t struct_size;
    fvae_score score;
    int64_t samples;
    uint64_t seed;
    double threshold;               /* NaN: none chosen */
    double distance;                /* this times half the squared norm of the row, as columns are read, is taken off */
    const double* latent_mean;      /* (Z), Mahalanobis alone */
    const double* latent_precision; /* (Z, Z): the inverse of the codes' covariance */
} fvae_detector;
/* The ELBO of 32 draws, without a threshold or distance. */
FVAE_API fvae_detector fvae_detector_default(void);
/* Nonzero where the model has a detector. */
FVAE_API int32_t fvae_model_has_detector(const fvae_model* model);
/* The model's detector, or the default one where it has none; its pointers live until it is set again or the model is
 * freed. */
FVAE_API fvae_status fvae_model_detector(const fvae_model* model, fvae_detector* detector);
/* Sets it; NULL removes it. Changes the model: nobody else may use it meanwhile. The arrays are copied. */
FVAE_API fvae_status fvae_model_set_detector(fvae_model* model, const fvae_detector* detector);
/* The score of each row: scores (n), the same bits whatever rows accompany it. detector NULL: the model's own. */
FVAE_API fvae_status fvae_model_score(const fvae_model* model, const fvae_array* x, const fvae_detector* detector,
                                      double* scores);
/* Which columns a row's surprise comes from: -log p(x_j | mean code) of each column as the caller has it, nats:
 * contributions (n, columns). */
FVAE_API fvae_status fvae_model_contributions(const fvae_model* model, const fvae_array* x, double* contributions);

typedef struct fvae_losses {
    double loss;           /* reconstruction + beta * KL (free bits applied), what is optimised */
    double reconstruction; /* -log p(x|z) */
    double kl;
} fvae_losses;

/* Loss and gradients of one batch by the training kernels. noise (S, n, Z) or NULL (then S = 1 and drawn from `seed`).
 * gradients[i] receives the gradient of parameter i, in its shape; NULL entries are skipped. */
FVAE_API fvae_status fvae_model_gradients(const fvae_model* model, const fvae_array* x, const float* noise,
                                          int64_t samples, uint64_t seed, double beta, double free_bits,
                                          fvae_precision precision, fvae_losses* losses, float* const* gradients);

/* n rows of Z standard normals, scaled by `temperature`: row i is a function of (seed, first + i) alone. */
FVAE_API fvae_status fvae_sample_latent(uint64_t seed, uint64_t first, int64_t n, int64_t latent, double temperature,
                                        float* z);
/* The draws that elbo and log_likelihood use for every row: noise (samples, Z), standard normal. */
FVAE_API fvae_status fvae_score_noise(uint64_t seed, int64_t samples, int64_t latent, float* noise);
/* The words of Philox4x32-10 (Salmon et al. 2011) for one counter and key. */
FVAE_API void fvae_philox(const uint32_t counter[4], const uint32_t key[2], uint32_t words[4]);

/* ---- training --------------------------------------------------------------------------------------------------- */

typedef enum fvae_optimizer { FVAE_SGD = 0, FVAE_ADAM = 1, FVAE_ADAMW = 2 } fvae_optimizer;
typedef enum fvae_schedule { FVAE_CONSTANT = 0, FVAE_COSINE = 1, FVAE_STEP = 2 } fvae_schedule;
typedef enum fvae_beta_schedule {
    FVAE_BETA_CONSTANT = 0,
    FVAE_BETA_LINEAR = 1,
    FVAE_BETA_CYCLICAL = 2
} fvae_beta_schedule;

typedef struct fvae_trainer_options {
    size_t struct_size;
    fvae_optimizer optimizer;
    double learning_rate;
    double momentum; /* SGD */
    int32_t nesterov;
    double beta1, beta2, epsilon; /* Adam, AdamW */
    double weight_decay;          /* SGD and Adam: added to the gradient; AdamW: decoupled */
    fvae_schedule schedule;
    int64_t warmup_steps;   /* learning rate rises linearly over these first steps */
    int64_t schedule_steps; /* cosine: steps after warm-up to reach final_fraction; step: steps between drops */
    double schedule_factor; /* cosine: final fraction of the rate; step: factor of each drop */
    double clip_norm;       /* 0: none; else the gradient's global norm is limited to it */
    int64_t batch_size;
    double beta; /* final weight of the KL */
    fvae_beta_schedule beta_schedule;
    int64_t beta_steps; /* linear: steps from 0 to beta; cyclical: steps per cycle */
    double beta_ratio;  /* cyclical: fraction of a cycle spent rising */
    double free_bits;   /* nats per latent dimension, on the batch-mean KL (Kingma et al. 2016, eq. 15); 0: none */
    int32_t threads;    /* at most; 0: fvae_num_threads() */
    uint64_t seed;      /* of shuffle and noise */
    int32_t shuffle;    /* nonzero: a new order each epoch */
    int32_t drop_last;  /* nonzero: leave a last short batch out */
    int32_t snapshot;   /* nonzero: keep the state of each epoch's start, restored when a loss is not finite */
    fvae_precision precision;
} fvae_trainer_options;
/* Adam at 1e-3, batches of 128, beta 1, shuffled, float32. */
FVAE_API fvae_trainer_options fvae_trainer_options_default(void);

typedef struct fvae_trainer fvae_trainer;

/* The trainer keeps the model alive; free both in any order. */
FVAE_API fvae_status fvae_trainer_create(fvae_model* model, const fvae_trainer_options* options,
                                         fvae_trainer** trainer);
FVAE_API void fvae_trainer_free(fvae_trainer* trainer);
/* Options and model as they are now; release the model with fvae_model_free. */
FVAE_API fvae_status fvae_trainer_get_options(const fvae_trainer* trainer, fvae_trainer_options* options);
FVAE_API fvae_status fvae_trainer_model(fvae_trainer* trainer, fvae_model** model);

typedef enum fvae_event {
    FVAE_TRAIN_BEGIN = 0,
    FVAE_EPOCH_BEGIN = 1,
    FVAE_BATCH_END = 2,
    FVAE_EPOCH_END = 3,
    FVAE_TRAIN_END = 4,
    FVAE_TICK = 5 /* about every 50 ms, between two steps */
} fvae_event;

typedef struct fvae_progress {
    size_t struct_size;
    int64_t epoch;   /* of the whole training, from 0 */
    int64_t epochs;  /* where this fit will stop */
    int64_t batch;   /* batches done in this epoch */
    int64_t batches; /* of an epoch; 0: unknown, they come from a source */
    int64_t step;    /* steps of the whole training */
    double learning_rate, beta;
    fvae_losses batch_losses; /* BATCH_END */
    fvae_losses train;        /* row-weighted means over this epoch so far */
    fvae_losses validation;   /* EPOCH_END with validation data */
    int32_t has_validation;
} fvae_progress;

enum { FVAE_CALLBACK_CONTINUE = 0, FVAE_CALLBACK_STOP = 1, FVAE_CALLBACK_ERROR = 2 };
/* Runs between two steps on the thread that called fit. It may read, save and score the model. STOP ends the run
 * normally at this step; ERROR ends it with FVAE_STOPPED. */
typedef int32_t (*fvae_callback)(void* user, fvae_event event, const fvae_progress* progress);

/* `epochs` further epochs; a partial one is finished first and counts. validation may be NULL. callback may be NULL;
 * events is a sum of 1 << fvae_event, the events to call it for. */
FVAE_API fvae_status fvae_trainer_fit(fvae_trainer* trainer, const fvae_array* x, int64_t epochs,
                                      const fvae_array* validation, fvae_callback callback, uint32_t events,
                                      void* user);

/* Gives batch number `batch` of epoch `epoch`, both from 0: fills *rows, whose memory must stay as it is until the next
 * call, and returns CONTINUE; STOP: the epoch has no more; ERROR ends the run with FVAE_STOPPED. */
typedef int32_t (*fvae_source)(void* user, int64_t epoch, int64_t batch, fvae_array* rows);
/* fit on batches that a program makes or reads as they are needed, of any sizes: not shuffled here, and batch_size counts
 * for validation alone. A partial epoch goes on with the batch after its last. user is given to callback and source. */
FVAE_API fvae_status fvae_trainer_fit_source(fvae_trainer* trainer, fvae_source source, int64_t epochs,
                                             const fvae_array* validation, fvae_callback callback, uint32_t events,
                                             void* user);
/* As fvae_callback, of trainers[index]: STOP ends that one alone, ERROR ends all with FVAE_STOPPED. It runs on the thread
 * that trains it, so several may run at once. While the caller's thread waits for the others, it calls TICK with index -1
 * and progress NULL, whose STOP means nothing. */
typedef int32_t (*fvae_ensemble_callback)(void* user, int64_t index, fvae_event event, const fvae_progress* progress);
/* fvae_trainer_fit of each of `count` trainers of different models on the same rows, each on one thread and as many at a
 * time as `threads` says (0: fvae_num_threads(), or up to 64 where all are on GPUs, which run their steps side by side):
 * the same bits, and for small models several times as fast as one after another. A loss that becomes non-finite ends its
 * own training alone (fvae_trainer_failure says why, and the call succeeds); any other failure ends all of them at their
 * next step's boundary and is returned. No handle may be freed meanwhile. */
FVAE_API fvae_status fvae_ensemble_fit(fvae_trainer* const* trainers, int64_t count, const fvae_array* x,
                                       int64_t epochs, const fvae_array* validation, int32_t threads,
                                       fvae_ensemble_callback callback, uint32_t events, void* user);
/* Why this trainer's last run in an ensemble became non-finite, NULL where it did not; lives until its next one. */
FVAE_API const char* fvae_trainer_failure(const fvae_trainer* trainer);
/* One optimiser step on one batch of any size; noise (n, Z) or NULL. */
FVAE_API fvae_status fvae_trainer_step(fvae_trainer* trainer, const fvae_array* batch, const float* noise,
                                       fvae_losses* losses);
/* Mean losses over x at the final beta, noise fixed by `seed`; in float32. */
FVAE_API fvae_status fvae_trainer_evaluate(const fvae_trainer* trainer, const fvae_array* x, uint64_t seed,
                                           fvae_losses* losses);

typedef struct fvae_epoch {
    size_t struct_size;
    int64_t epoch; /* of the whole training, from 0 */
    int64_t step;  /* steps of the whole training at this epoch's end */
    fvae_losses train;
    fvae_losses validation; /* NaN where there was no validation data */
    double learning_rate, beta;
} fvae_epoch;
/* Finished epochs. */
FVAE_API int64_t fvae_trainer_epochs(const fvae_trainer* trainer);
FVAE_API int64_t fvae_trainer_steps(const fvae_trainer* trainer);
FVAE_API fvae_status fvae_trainer_history(const fvae_trainer* trainer, int64_t index, fvae_epoch* epoch);
/* The learning rate from the next step on (schedules multiply it). */
FVAE_API fvae_status fvae_trainer_set_learning_rate(fvae_trainer* trainer, double learning_rate);

/* What the trainer holds, named: "parameters", "transposed", "words" (of bfloat16), "moments", "gradients", "snapshot",
 * "workspace". Returns the number of entries; index past it leaves the outputs alone. */
FVAE_API int64_t fvae_trainer_memory(const fvae_trainer* trainer, int64_t index, const char** name, int64_t* bytes);

FVAE_API fvae_status fvae_trainer_save(const fvae_trainer* trainer, const char* path);
/* A trainer with its model, as saved: fit then goes on to the bits of the run that was never stopped. */
FVAE_API fvae_status fvae_trainer_resume(const char* path, fvae_trainer** trainer);

/* ---- fused kernels ---------------------------------------------------------------------------------------------- *
 * Each is one entry of the list that the step is made of: a product with what finishes it. Matrices are row-major and
 * dense; weights are (out, in). Backend: NULL for the one in use, or a name of fvae_available_backends(). */

/* y = act(x W^T + b): x (B, K), weight (N, K), bias (N) or NULL -> y (B, N); slope (B, N) or NULL receives act'. */
FVAE_API fvae_status fvae_kernel_linear_act(const char* backend, const float* x, const float* weight, const float* bias,
                                            int64_t B, int64_t K, int64_t N, fvae_activation activation, float* y,
                                            float* slope);
/* The head: mu = x Wm^T + bm, logvar = x Wv^T + bv, z = mu + exp(logvar / 2) * noise,
 * kl_b = -1/2 sum_j (1 + logvar - mu^2 - exp(logvar)) (Kingma and Welling 2013, appendix B).
 * weight (2Z, K): the rows of Wm, then of Wv; bias (2Z). noise (B, Z) or NULL: drawn from (seed, step, row). */
FVAE_API fvae_status fvae_kernel_reparameterize_kl(const char* backend, const float* x, const float* weight,
                                                   const float* bias, const float* noise, uint64_t seed, uint64_t step,
                                                   int64_t B, int64_t K, int64_t Z, float* mu, float* logvar, float* z,
                                                   float* kl);
/* -log p(target | logits = x W^T + b) per row, summed over columns -> nll (B), and its gradient dlogits (B, N). */
FVAE_API fvae_status fvae_kernel_bernoulli_nll(const char* backend, const float* x, const float* weight,
                                               const float* bias, const float* target, int64_t B, int64_t K, int64_t N,
                                               float* nll, float* dlogits);
/* The same for a Gaussian of mean x W^T + b. log_variance (N) or NULL; the variance is fixed_variance where it is
 * NULL, else min_variance + exp(log_variance) -> nll (B), dmean (B, N). */
FVAE_API fvae_status fvae_kernel_gaussian_nll(const char* backend, const float* x, const float* weight,
                                              const float* bias, const float* target, const float* log_variance,
                                              double fixed_variance, double min_variance, int64_t B, int64_t K,
                                              int64_t N, float* nll, float* dmean);
/* Mean and log-variance predicted per element: weight (2N, K): the rows of the mean, then of the log-variance;
 * bias (2N) -> nll (B), dmean (B, N), dlogvar (B, N). */
FVAE_API fvae_status fvae_kernel_gaussian_element_nll(const char* backend, const float* x, const float* weight,
                                                      const float* bias, const float* target, double min_variance,
                                                      int64_t B, int64_t K, int64_t N, float* nll, float* dmean,
                                                      float* dlogvar);
/* dx = (dy W) * act'(saved): dy (B, N), weight (N, K); saved (B, K) is act's output y, or act' itself for gelu and
 * silu -> dx (B, K). */
FVAE_API fvae_status fvae_kernel_act_grad(const char* backend, const float* dy, const float* weight, const float* saved,
                                          int64_t B, int64_t N, int64_t K, fvae_activation activation, float* dx);
/* dz = dy W, then dmu = dz + kl_weight * mu, dlogvar = dz * noise * exp(logvar / 2) / 2 + kl_weight * (exp(logvar) - 1) / 2:
 * dy (B, N), weight (N, Z) -> dmu (B, Z), dlogvar (B, Z). */
FVAE_API fvae_status fvae_kernel_reparameterize_grad(const char* backend, const float* dy, const float* weight,
                                                     const float* mu, const float* logvar, const float* noise,
                                                     uint64_t seed, uint64_t step, double kl_weight, int64_t B,
                                                     int64_t N, int64_t Z, float* dmu, float* dlogvar);
/* dweight = dy^T x, dbias = column sums of dy: x (B, K), dy (B, N) -> dweight (N, K), dbias (N). */
FVAE_API fvae_status fvae_kernel_store(const char* backend, const float* x, const float* dy, int64_t B, int64_t K,
                                       int64_t N, float* dweight, float* dbias);
/* The same product finished by an optimiser step, in place on weight (N, K), bias (N) and their moments (N, K), (N):
 * options gives the constants, step counts from 1. */
FVAE_API fvae_status fvae_kernel_sgd(const char* backend, const float* x, const float* dy, int64_t B, int64_t K,
                                     int64_t N, const fvae_trainer_options* options, float* weight, float* bias,
                                     float* weight_m, float* bias_m);
FVAE_API fvae_status fvae_kernel_adam(const char* backend, const float* x, const float* dy, int64_t B, int64_t K,
                                      int64_t N, const fvae_trainer_options* options, int64_t step, float* weight,
                                      float* bias, float* weight_m, float* bias_m, float* weight_v, float* bias_v);

#ifdef __cplusplus
}
#endif
#endif /* FUSEDVAE_FUSEDVAE_H */
