/* SPDX-License-Identifier: MIT
 *
 * Column, Config and TrainerOptions: the C API's option structs as plain attributes, each made with the library's defaults.
 * Enumerations are their integer codes here; python/fusedvae gives them names.
 */
#include "bindings.h"

namespace fusedvae::python {
namespace {

template <class T, class Enum>
void def_code(py::class_<T>& type, const char* name, Enum T::*member) {
    type.def_property(
        name, [member](const T& object) { return static_cast<int>(object.*member); },
        [member](T& object, int code) { object.*member = static_cast<Enum>(code); });
}

}  // namespace

void bind_config(py::module_& m) {
    py::class_<Column>(m, "Column")
        .def(py::init<>())
        .def_readwrite("name", &Column::name)
        .def_readwrite("shift", &Column::shift)
        .def_readwrite("scale", &Column::scale)
        .def_readwrite("fill", &Column::fill)
        .def_readwrite("categories", &Column::categories);

    py::class_<Config> config(m, "Config");
    config.def(py::init<>())
        .def_readwrite("input_shape", &Config::input_shape)
        .def_readwrite("hidden", &Config::hidden)
        .def_readwrite("decoder_hidden", &Config::decoder_hidden)
        .def_readwrite("latent", &Config::latent)
        .def_readwrite("fixed_variance", &Config::fixed_variance)
        .def_readwrite("min_variance", &Config::min_variance)
        .def_readwrite("uint8_scale", &Config::uint8_scale)
        .def_readwrite("columns", &Config::columns);
    def_code(config, "activation", &Config::activation);
    def_code(config, "likelihood", &Config::likelihood);
    def_code(config, "variance", &Config::variance);
    def_code(config, "init", &Config::init);

    using Options = fvae_trainer_options;
    py::class_<Options> options(m, "TrainerOptions");
    options.def(py::init(&fvae_trainer_options_default))
        .def_readwrite("learning_rate", &Options::learning_rate)
        .def_readwrite("momentum", &Options::momentum)
        .def_readwrite("nesterov", &Options::nesterov)
        .def_readwrite("beta1", &Options::beta1)
        .def_readwrite("beta2", &Options::beta2)
        .def_readwrite("epsilon", &Options::epsilon)
        .def_readwrite("weight_decay", &Options::weight_decay)
        .def_readwrite("warmup_steps", &Options::warmup_steps)
        .def_readwrite("schedule_steps", &Options::schedule_steps)
        .def_readwrite("schedule_factor", &Options::schedule_factor)
        .def_readwrite("clip_norm", &Options::clip_norm)
        .def_readwrite("batch_size", &Options::batch_size)
        .def_readwrite("beta", &Options::beta)
        .def_readwrite("beta_steps", &Options::beta_steps)
        .def_readwrite("beta_ratio", &Options::beta_ratio)
        .def_readwrite("free_bits", &Options::free_bits)
        .def_readwrite("threads", &Options::threads)
        .def_readwrite("seed", &Options::seed)
        .def_readwrite("shuffle", &Options::shuffle)
        .def_readwrite("drop_last", &Options::drop_last)
        .def_readwrite("snapshot", &Options::snapshot);
    def_code(options, "optimizer", &Options::optimizer);
    def_code(options, "schedule", &Options::schedule);
    def_code(options, "beta_schedule", &Options::beta_schedule);
    def_code(options, "precision", &Options::precision);
}

}  // namespace fusedvae::python
