/* SPDX-License-Identifier: MIT
 *
 * Every fused kernel as a function of arrays: shapes are checked against one another, results are fresh arrays (the
 * optimisers return stepped copies). Formulas and shapes: fusedvae.h; python/fusedvae/kernels.py documents them.
 */
#include <algorithm>
#include <initializer_list>

#include "bindings.h"

namespace fusedvae::python {
namespace {

using Matrix = py::array_t<float, py::array::c_style | py::array::forcecast>;
using OptionalMatrix = std::optional<Matrix>;
using Backend = std::optional<std::string>;

const char* name_of(const Backend& backend) { return backend ? backend->c_str() : nullptr; }

std::string shape_text(const py::ssize_t* extents, size_t rank) {
    std::string text = "(";
    for (size_t i = 0; i < rank; ++i) text += (i ? ", " : "") + std::to_string(extents[i]);
    return text + (rank == 1 ? ",)" : ")");
}

// The array's data, once its shape is the expected one.
const float* shaped(const char* name, const Matrix& array, std::initializer_list<py::ssize_t> shape) {
    const size_t rank = static_cast<size_t>(array.ndim());
    if (rank != shape.size() || !std::equal(shape.begin(), shape.end(), array.shape())) {
        throw std::invalid_argument(std::string(name) + " has shape " + shape_text(array.shape(), rank) +
                                    "; the other arguments ask for " + shape_text(shape.begin(), shape.size()));
    }
    return array.data();
}

const float* shaped(const char* name, const OptionalMatrix& array, std::initializer_list<py::ssize_t> shape) {
    return array ? shaped(name, *array, shape) : nullptr;
}

struct Extents {
    int64_t rows, columns;
};

Extents extents(const char* name, const Matrix& array) {
    if (array.ndim() != 2) throw std::invalid_argument(std::string(name) + " must be a matrix");
    return {array.shape(0), array.shape(1)};
}

int64_t half_rows(const char* name, const Matrix& weight) {
    const int64_t rows = extents(name, weight).rows;
    if (rows % 2)
        throw std::invalid_argument(std::string(name) + " must have an even number of rows: two stacked layers");
    return rows / 2;
}

Floats vector(int64_t n) { return Floats(n); }

Floats copy(const char* name, const Matrix& array, std::initializer_list<py::ssize_t> shape) {
    const float* const data = shaped(name, array, shape);
    return Floats(std::vector<py::ssize_t>(shape), data);
}

py::tuple linear_act(const Matrix& x, const Matrix& weight, const OptionalMatrix& bias, int activation,
                     const Backend& backend) {
    const auto [B, K] = extents("x", x);
    const int64_t N = extents("weight", weight).rows;
    Floats y = matrix(B, N), slope = matrix(B, N);
    {
        const py::gil_scoped_release released;
        check(fvae_kernel_linear_act(name_of(backend), x.data(), shaped("weight", weight, {N, K}),
                                     shaped("bias", bias, {N}), B, K, N, static_cast<fvae_activation>(activation),
                                     y.mutable_data(), slope.mutable_data()));
    }
    return py::make_tuple(y, slope);
}

py::tuple reparameterize_kl(const Matrix& x, const Matrix& weight, const Matrix& bias, const OptionalMatrix& noise,
                            uint64_t seed, uint64_t step, const Backend& backend) {
    const auto [B, K] = extents("x", x);
    const int64_t Z = half_rows("weight", weight);
    Floats mu = matrix(B, Z), logvar = matrix(B, Z), z = matrix(B, Z), kl = vector(B);
    {
        const py::gil_scoped_release released;
        check(fvae_kernel_reparameterize_kl(name_of(backend), x.data(), shaped("weight", weight, {2 * Z, K}),
                                            shaped("bias", bias, {2 * Z}), shaped("noise", noise, {B, Z}), seed, step,
                                            B, K, Z, mu.mutable_data(), logvar.mutable_data(), z.mutable_data(),
                                            kl.mutable_data()));
    }
    return py::make_tuple(mu, logvar, z, kl);
}

py::tuple bernoulli_nll(const Matrix& x, const Matrix& weight, const Matrix& bias, const Matrix& target,
                        const Backend& backend) {
    const auto [B, K] = extents("x", x);
    const int64_t N = extents("weight", weight).rows;
    Floats nll = vector(B), dlogits = matrix(B, N);
    {
        const py::gil_scoped_release released;
        check(fvae_kernel_bernoulli_nll(name_of(backend), x.data(), shaped("weight", weight, {N, K}),
                                        shaped("bias", bias, {N}), shaped("target", target, {B, N}), B, K, N,
                                        nll.mutable_data(), dlogits.mutable_data()));
    }
    return py::make_tuple(nll, dlogits);
}

py::tuple gaussian_nll(const Matrix& x, const Matrix& weight, const Matrix& bias, const Matrix& target,
                       const OptionalMatrix& log_variance, double fixed_variance, double min_variance,
                       const Backend& backend) {
    const auto [B, K] = extents("x", x);
    const int64_t N = extents("weight", weight).rows;
    Floats nll = vector(B), dmean = matrix(B, N);
    {
        const py::gil_scoped_release released;
        check(fvae_kernel_gaussian_nll(name_of(backend), x.data(), shaped("weight", weight, {N, K}),
                                       shaped("bias", bias, {N}), shaped("target", target, {B, N}),
                                       shaped("log_variance", log_variance, {N}), fixed_variance, min_variance, B, K, N,
                                       nll.mutable_data(), dmean.mutable_data()));
    }
    return py::make_tuple(nll, dmean);
}

py::tuple gaussian_element_nll(const Matrix& x, const Matrix& weight, const Matrix& bias, const Matrix& target,
                               double min_variance, const Backend& backend) {
    const auto [B, K] = extents("x", x);
    const int64_t N = half_rows("weight", weight);
    Floats nll = vector(B), dmean = matrix(B, N), dlogvar = matrix(B, N);
    {
        const py::gil_scoped_release released;
        check(fvae_kernel_gaussian_element_nll(name_of(backend), x.data(), shaped("weight", weight, {2 * N, K}),
                                               shaped("bias", bias, {2 * N}), shaped("target", target, {B, N}),
                                               min_variance, B, K, N, nll.mutable_data(), dmean.mutable_data(),
                                               dlogvar.mutable_data()));
    }
    return py::make_tuple(nll, dmean, dlogvar);
}

Floats act_grad(const Matrix& dy, const Matrix& weight, const Matrix& saved, int activation, const Backend& backend) {
    const auto [B, N] = extents("dy", dy);
    const int64_t K = extents("weight", weight).columns;
    Floats dx = matrix(B, K);
    {
        const py::gil_scoped_release released;
        check(fvae_kernel_act_grad(name_of(backend), dy.data(), shaped("weight", weight, {N, K}),
                                   shaped("saved", saved, {B, K}), B, N, K, static_cast<fvae_activation>(activation),
                                   dx.mutable_data()));
    }
    return dx;
}

py::tuple reparameterize_grad(const Matrix& dy, const Matrix& weight, const Matrix& mu, const Matrix& logvar,
                              const OptionalMatrix& noise, uint64_t seed, uint64_t step, double kl_weight,
                              const Backend& backend) {
    const auto [B, N] = extents("dy", dy);
    const int64_t Z = extents("weight", weight).columns;
    Floats dmu = matrix(B, Z), dlogvar = matrix(B, Z);
    {
        const py::gil_scoped_release released;
        check(fvae_kernel_reparameterize_grad(name_of(backend), dy.data(), shaped("weight", weight, {N, Z}),
                                              shaped("mu", mu, {B, Z}), shaped("logvar", logvar, {B, Z}),
                                              shaped("noise", noise, {B, Z}), seed, step, kl_weight, B, N, Z,
                                              dmu.mutable_data(), dlogvar.mutable_data()));
    }
    return py::make_tuple(dmu, dlogvar);
}

py::tuple store(const Matrix& x, const Matrix& dy, const Backend& backend) {
    const auto [B, K] = extents("x", x);
    const int64_t N = extents("dy", dy).columns;
    Floats dweight = matrix(N, K), dbias = vector(N);
    {
        const py::gil_scoped_release released;
        check(fvae_kernel_store(name_of(backend), x.data(), shaped("dy", dy, {B, N}), B, K, N, dweight.mutable_data(),
                                dbias.mutable_data()));
    }
    return py::make_tuple(dweight, dbias);
}

py::tuple sgd(const Matrix& x, const Matrix& dy, const fvae_trainer_options& options, const Matrix& weight,
              const Matrix& bias, const Matrix& weight_m, const Matrix& bias_m, const Backend& backend) {
    const auto [B, K] = extents("x", x);
    const int64_t N = extents("dy", dy).columns;
    Floats w = copy("weight", weight, {N, K}), w_m = copy("weight_m", weight_m, {N, K});
    Floats b = copy("bias", bias, {N}), b_m = copy("bias_m", bias_m, {N});
    {
        const py::gil_scoped_release released;
        check(fvae_kernel_sgd(name_of(backend), x.data(), shaped("dy", dy, {B, N}), B, K, N, &options, w.mutable_data(),
                              b.mutable_data(), w_m.mutable_data(), b_m.mutable_data()));
    }
    return py::make_tuple(w, b, w_m, b_m);
}

py::tuple adam(const Matrix& x, const Matrix& dy, const fvae_trainer_options& options, int64_t step,
               const Matrix& weight, const Matrix& bias, const Matrix& weight_m, const Matrix& bias_m,
               const Matrix& weight_v, const Matrix& bias_v, const Backend& backend) {
    const auto [B, K] = extents("x", x);
    const int64_t N = extents("dy", dy).columns;
    Floats w = copy("weight", weight, {N, K}), w_m = copy("weight_m", weight_m, {N, K});
    Floats w_v = copy("weight_v", weight_v, {N, K}), b = copy("bias", bias, {N});
    Floats b_m = copy("bias_m", bias_m, {N}), b_v = copy("bias_v", bias_v, {N});
    {
        const py::gil_scoped_release released;
        check(fvae_kernel_adam(name_of(backend), x.data(), shaped("dy", dy, {B, N}), B, K, N, &options, step,
                               w.mutable_data(), b.mutable_data(), w_m.mutable_data(), b_m.mutable_data(),
                               w_v.mutable_data(), b_v.mutable_data()));
    }
    return py::make_tuple(w, b, w_m, b_m, w_v, b_v);
}

}  // namespace

void bind_kernels(py::module_& m) {
    const py::arg_v backend("backend", py::none());
    using py::arg;
    m.def("linear_act", &linear_act, arg("x"), arg("weight"), arg("bias"), arg("activation"), backend);
    m.def("reparameterize_kl", &reparameterize_kl, arg("x"), arg("weight"), arg("bias"), arg("noise"), arg("seed"),
          arg("step"), backend);
    m.def("bernoulli_nll", &bernoulli_nll, arg("x"), arg("weight"), arg("bias"), arg("target"), backend);
    m.def("gaussian_nll", &gaussian_nll, arg("x"), arg("weight"), arg("bias"), arg("target"), arg("log_variance"),
          arg("fixed_variance"), arg("min_variance"), backend);
    m.def("gaussian_element_nll", &gaussian_element_nll, arg("x"), arg("weight"), arg("bias"), arg("target"),
          arg("min_variance"), backend);
    m.def("act_grad", &act_grad, arg("dy"), arg("weight"), arg("saved"), arg("activation"), backend);
    m.def("reparameterize_grad", &reparameterize_grad, arg("dy"), arg("weight"), arg("mu"), arg("logvar"), arg("noise"),
          arg("seed"), arg("step"), arg("kl_weight"), backend);
    m.def("store", &store, arg("x"), arg("dy"), backend);
    m.def("sgd", &sgd, arg("x"), arg("dy"), arg("options"), arg("weight"), arg("bias"), arg("weight_m"), arg("bias_m"),
          backend);
    m.def("adam", &adam, arg("x"), arg("dy"), arg("options"), arg("step"), arg("weight"), arg("bias"), arg("weight_m"),
          arg("bias_m"), arg("weight_v"), arg("bias_v"), backend);
}

}  // namespace fusedvae::python
