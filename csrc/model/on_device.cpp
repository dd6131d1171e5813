// SPDX-License-Identifier: MIT
#include "on_device.h"

#include <stdexcept>

#include "model.h"

namespace fusedvae {

int device_index(const std::string& name) {
    if (name == "cpu") return kCpu;
    if (name == "cuda") return 0;
    const std::string digits = name.rfind("cuda:", 0) == 0 ? name.substr(5) : "";
    if (digits.empty() || digits.size() > 4 || digits.find_first_not_of("0123456789") != std::string::npos)
        throw std::invalid_argument("device must be \"cpu\", \"cuda\" or \"cuda:\" and a GPU's index; it is \"" +
                                    name.substr(0, 80) + "\"");
    return std::stoi(digits);
}

Precision device_precision(fvae_precision precision) {
    switch (precision) {
        case FVAE_PRECISION_TF32:
            return Precision::tf32;
        case FVAE_PRECISION_BFLOAT16:
            return Precision::bfloat16;
        default:
            return Precision::float32;
    }
}

std::vector<float> to_plain(const Network& network, const float* flat) {
    std::vector<float> plain(static_cast<size_t>(plain_floats(network)));
    float* at = plain.data();
    for (const Parameter& p : network.parameters) {
        network.unpack(flat, p, at);
        at += p.size();
    }
    return plain;
}

void from_plain(const Network& network, const float* plain, float* flat) {
    for (const Parameter& p : network.parameters) {
        network.pack(plain, p, flat);
        plain += p.size();
    }
}

int64_t plain_floats(const Network& network) {
    int64_t floats = 0;
    for (const Parameter& p : network.parameters) floats += p.size();
    return floats;
}

OnDevice::OnDevice(int index, const Config& config, const Network& network)
    : network_(network),
      name_("cuda:" + std::to_string(index)),
      device_(Device::open(index)),
      model_(DeviceModel::make(device_, config, network)) {}

DeviceModel& OnDevice::model(const Buffer& flat) {
    const std::lock_guard lock(mutex_);
    if (host_ahead_) {
        model_->upload(to_plain(network_, flat.data()).data());
        host_ahead_ = false;
    }
    return *model_;
}

void OnDevice::fetch(const Buffer& flat) {
    const std::lock_guard lock(mutex_);
    if (!device_ahead_) return;
    std::vector<float> plain(static_cast<size_t>(plain_floats(network_)));
    model_->download(plain.data());
    from_plain(network_, plain.data(), flat.data());
    device_ahead_ = false;
}

// ---- a model's way there and back ------------------------------------------------------------------------------------

void Model::to(const std::string& name) {
    const int index = device_index(name);
    std::shared_ptr<OnDevice> there;
    if (index != kCpu) {
        if (on_device_ && on_device_->device().index() == index) return;
        there = std::make_shared<OnDevice>(index, config, network);
    }
    const std::unique_lock lock(mutex);
    host();
    on_device_ = std::move(there);
}

const char* Model::device() const { return on_device_ ? on_device_->name().c_str() : "cpu"; }

const float* Model::host() const {
    if (on_device_) on_device_->fetch(flat);
    return flat.data();
}

float* Model::change() {
    host();
    if (on_device_) on_device_->host_changed();
    ++version;
    return flat.data();
}

void Model::changed_on_device() {
    on_device_->device_changed();
    ++version;
}

DeviceModel* Model::on_device() const { return on_device_ ? &on_device_->model(flat) : nullptr; }

void Model::check_place(const Rows& rows) const {
    if (on_device_ && Device::device_of(rows.data) == on_device_->device().index()) return;
    const int where = on_device_ ? Device::device_of(rows.data) : 0;
    throw std::invalid_argument(rows.what() + (where < 0 ? " is not memory of a GPU" : " is in a GPU's memory") +
                                "; the model is on " + device() + ": move one of them to the other's place");
}

void Model::check(const Rows& rows, int threads) const {
    if (!rows.on_device) return rows.check_all(backend, threads);
    check_place(rows);
    const std::shared_lock lock(mutex);  // a training step's work is not to be mixed with ours
    const int64_t bad = on_device_->device().find_bad(rows);
    std::vector<float> converted(static_cast<size_t>(rows.width));
    if (bad >= 0) HostRows(*this, rows.part(bad / rows.columns, 1)).rows().check_row(backend, 0, converted.data());
}

uint64_t Model::fingerprint(const Rows& rows) const {
    if (!rows.on_device) return rows.fingerprint([&](int64_t i) { return rows.row(i); });
    check_place(rows);
    std::vector<unsigned char> one(static_cast<size_t>(rows.stride));
    const std::shared_lock lock(mutex);
    return rows.fingerprint([&](int64_t i) {
        on_device_->device().download(one.data(), rows.row(i), one.size());
        return one.data();
    });
}

bool Model::is_there(const void* pointer) const {
    const int where = Device::device_of(pointer);
    if (where < 0) return false;
    if (!on_device_ || on_device_->device().index() != where)
        throw std::invalid_argument("codes and results must be on the host or with the model on " +
                                    std::string(device()) + ", not on cuda:" + std::to_string(where));
    return true;
}

HostRows::HostRows(const Model& model, const Rows& rows) : rows_(rows) {
    if (!rows.on_device) return;
    values_.resize(static_cast<size_t>(rows.count * rows.stride));
    model.place()->device().download(values_.data(), rows.data, values_.size());
    rows_.data = values_.data();
    rows_.on_device = false;
}

}  // namespace fusedvae
