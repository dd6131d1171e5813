// SPDX-License-Identifier: MIT
#include "detector.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>

#include "names.h"

namespace fusedvae {

namespace {

// Codes this wide have a covariance of 128 MB as text.
constexpr int64_t kWidestMetric = 2048;

Json::Array to_array(const std::vector<double>& values) { return Json::Array(values.begin(), values.end()); }

std::vector<double> to_list(const Json& json, const char* name) {
    std::vector<double> values;
    for (const Json& v : json.array(name)) values.push_back(v.as_number(name));
    return values;
}

}  // namespace

void Detector::check(int64_t latent) const {
    name_of(score);
    if (samples < 1 || samples > 1'000'000)
        throw std::invalid_argument("samples must be between 1 and 1000000, it is " + std::to_string(samples));
    if (std::isinf(threshold)) throw std::invalid_argument("threshold must be finite, or NaN for none");
    if (!(distance >= 0.0 && distance <= 1e30))
        throw std::invalid_argument("distance must be between 0 and 1e30, it is " +
                                    (std::isfinite(distance) ? Json(distance).dump() : "not finite"));
    if (score != FVAE_SCORE_MAHALANOBIS) return;
    if (latent > kWidestMetric)
        throw std::invalid_argument("the mahalanobis score is for at most " + std::to_string(kWidestMetric) +
                                    " latent dimensions, the model has " + std::to_string(latent));
    const auto finite = [](double v) { return std::fabs(v) <= 1e100; };  // so are sums of their products
    if (static_cast<int64_t>(latent_mean.size()) != latent ||
        static_cast<int64_t>(latent_precision.size()) != latent * latent ||
        !std::all_of(latent_mean.begin(), latent_mean.end(), finite) ||
        !std::all_of(latent_precision.begin(), latent_precision.end(), finite))
        throw std::invalid_argument("the mahalanobis score needs latent_mean (" + std::to_string(latent) +
                                    ") and latent_precision (" + std::to_string(latent) + ", " +
                                    std::to_string(latent) + "), finite: the codes' mean and inverse covariance");
}

Detector Detector::from_c(const fvae_detector& c, int64_t latent) {
    name_of(c.score);  // known before it is read
    Detector d{c.score, c.samples, c.seed, c.threshold, c.distance, {}, {}};
    if (d.score == FVAE_SCORE_MAHALANOBIS && c.latent_mean && c.latent_precision && latent <= kWidestMetric) {
        d.latent_mean.assign(c.latent_mean, c.latent_mean + latent);
        d.latent_precision.assign(c.latent_precision, c.latent_precision + latent * latent);
    }
    d.check(latent);
    return d;
}

Json Detector::to_json() const {
    Json json{Json::Object{}};
    json.set("score", name_of(score));
    json.set("samples", samples);
    json.set("seed", std::to_string(seed));
    if (!std::isnan(threshold)) json.set("threshold", threshold);
    if (distance > 0.0) json.set("distance", distance);
    if (score == FVAE_SCORE_MAHALANOBIS) {
        json.set("latent_mean", to_array(latent_mean));
        json.set("latent_precision", to_array(latent_precision));
    }
    return json;
}

Detector Detector::from_json(const Json& json, int64_t latent) {
    Detector d;
    d.score = from_name<fvae_score>(json.string("score"));
    d.samples = json.integer("samples");
    d.seed = json.unsigned64("seed");
    if (json.find("threshold")) d.threshold = json.number("threshold");
    if (json.find("distance")) d.distance = json.number("distance");
    if (d.score == FVAE_SCORE_MAHALANOBIS) {
        d.latent_mean = to_list(json, "latent_mean");
        d.latent_precision = to_list(json, "latent_precision");
    }
    d.check(latent);
    return d;
}

}  // namespace fusedvae
