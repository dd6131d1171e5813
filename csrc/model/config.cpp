// SPDX-License-Identifier: MIT
#include "config.h"

#include <cmath>
#include <stdexcept>

#include "names.h"

namespace fusedvae {

namespace {

constexpr int64_t kMaxLayers = 256;

std::string text(double value) { return Json(value).dump(); }

void check_width(const char* what, int64_t value) {
    if (value < 1 || value > kMaxWidth)
        throw std::invalid_argument(std::string(what) + " must be between 1 and " + std::to_string(kMaxWidth) +
                                    ", it is " + std::to_string(value));
}

void check_positive(const char* what, double value) {
    // float holds neither smaller nor larger ones as normal numbers
    if (!(value >= 1e-30 && value <= 1e30))
        throw std::invalid_argument(std::string(what) + " must be a positive number (1e-30 to 1e30), it is " +
                                    (std::isfinite(value) ? text(value) : "not finite"));
}

std::vector<int64_t> list(const int64_t* values, size_t count) {
    if (count > static_cast<size_t>(kMaxLayers))
        throw std::invalid_argument("a list of " + std::to_string(count) + " widths is longer than " +
                                    std::to_string(kMaxLayers));
    return count ? std::vector<int64_t>(values, values + count) : std::vector<int64_t>();
}

Json::Array to_array(const std::vector<int64_t>& values) {
    Json::Array array;
    for (int64_t v : values) array.emplace_back(v);
    return array;
}

std::vector<int64_t> to_list(const Json& json, const char* name) {
    std::vector<int64_t> values;
    const Json::Array& array = json.array(name);
    if (array.size() > static_cast<size_t>(kMaxLayers)) throw std::invalid_argument(std::string(name) + " is too long");
    for (const Json& v : array) values.push_back(v.as_integer(name));
    return values;
}

}  // namespace

int64_t Config::width() const {
    int64_t product = 1;
    for (int64_t n : input_shape) product *= n;
    return product;
}

void Config::check() const {
    if (input_shape.empty() || input_shape.size() > 8)
        throw std::invalid_argument("input_shape must have 1 to 8 dimensions, it has " +
                                    std::to_string(input_shape.size()));
    int64_t product = 1;
    for (int64_t n : input_shape) {
        check_width("input_shape", n);
        product *= n;
        check_width("the product of input_shape", product);
    }
    if (hidden.size() > static_cast<size_t>(kMaxLayers) || decoder_hidden.size() > static_cast<size_t>(kMaxLayers))
        throw std::invalid_argument("more than " + std::to_string(kMaxLayers) + " hidden layers");
    for (int64_t n : hidden) check_width("each hidden width", n);
    for (int64_t n : decoder_hidden) check_width("each decoder_hidden width", n);
    check_width("latent", latent);
    name_of(activation);
    name_of(likelihood);
    name_of(variance);
    name_of(init);
    check_positive("fixed_variance", fixed_variance);
    check_positive("min_variance", min_variance);
    check_positive("uint8_scale", uint8_scale);
    if (!columns.empty()) check_columns(columns.list().size());
}

void Config::check_columns(size_t count) const {
    if (static_cast<int64_t>(count) != width())
        throw std::invalid_argument("columns describes " + std::to_string(count) + " columns; input_shape has " +
                                    std::to_string(width()));
}

Config Config::from_c(const fvae_config& c) {
    Config config;
    config.input_shape = list(c.input_shape, c.input_rank);
    config.hidden = list(c.hidden, c.hidden_count);
    config.decoder_hidden = c.decoder_hidden ? list(c.decoder_hidden, c.decoder_hidden_count)
                                             : std::vector<int64_t>(config.hidden.rbegin(), config.hidden.rend());
    config.latent = c.latent;
    name_of(c.activation), name_of(c.likelihood), name_of(c.variance), name_of(c.init);  // known before they are read
    config.activation = c.activation;
    config.likelihood = c.likelihood;
    config.variance = c.variance;
    config.fixed_variance = c.fixed_variance;
    config.min_variance = c.min_variance;
    config.init = c.init;
    config.uint8_scale = c.uint8_scale;
    if (c.column_count && !c.columns) throw std::invalid_argument("config->columns is NULL");
    config.columns = Columns::from_c(c.columns, c.column_count);
    config.check();
    return config;
}

Json Config::to_json() const {
    Json json{Json::Object{}};
    json.set("input_shape", to_array(input_shape));
    json.set("hidden", to_array(hidden));
    json.set("decoder_hidden", to_array(decoder_hidden));
    json.set("latent", latent);
    json.set("activation", name_of(activation));
    json.set("likelihood", name_of(likelihood));
    json.set("variance", name_of(variance));
    json.set("fixed_variance", fixed_variance);
    json.set("min_variance", min_variance);
    json.set("init", name_of(init));
    json.set("uint8_scale", uint8_scale);
    if (!columns.empty()) json.set("columns", columns.to_json());
    return json;
}

Config Config::without_columns(const Json& json) {
    Config config;
    config.input_shape = to_list(json, "input_shape");
    config.hidden = to_list(json, "hidden");
    config.decoder_hidden = to_list(json, "decoder_hidden");
    config.latent = json.integer("latent");
    config.activation = from_name<fvae_activation>(json.string("activation"));
    config.likelihood = from_name<fvae_likelihood>(json.string("likelihood"));
    config.variance = from_name<fvae_variance>(json.string("variance"));
    config.fixed_variance = json.number("fixed_variance");
    config.min_variance = json.number("min_variance");
    config.init = from_name<fvae_init>(json.string("init"));
    config.uint8_scale = json.number("uint8_scale");
    config.check();
    return config;
}

void Config::add_columns(const Json& json) {
    const Json* const found = json.find("columns");
    if (!found || found->as_array("columns").empty()) return;
    check_columns(found->as_array("columns").size());  // before anything is made of them
    columns = Columns::from_json(*found);
}

}  // namespace fusedvae
