// SPDX-License-Identifier: MIT
//
// What backend/device.h is without CUDA: there is no GPU, and whoever asks for one is told why.
#include "../backend/device.h"
#include "../model/error.h"

namespace fusedvae {

namespace {

[[noreturn]] void refuse() {
    throw Error(FVAE_RUNTIME_ERROR,
                "this fusedvae is built without CUDA: use device \"cpu\", or build it with -DFUSEDVAE_CUDA=ON");
}

}  // namespace

int Device::count() { return 0; }
std::shared_ptr<Device> Device::open(int) { refuse(); }
int Device::device_of(const void*) { return -1; }
std::unique_ptr<DeviceModel> DeviceModel::make(std::shared_ptr<Device>, const Config&, const Network&) { refuse(); }
std::shared_ptr<DeviceEnsemble> DeviceEnsemble::make(int) { refuse(); }
std::unique_ptr<DeviceStep> DeviceStep::make(DeviceModel&, const fvae_trainer_options&, Precision) { refuse(); }

}  // namespace fusedvae
