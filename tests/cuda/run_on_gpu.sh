#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# All that a machine with a GPU is needed for, in one command: builds with CUDA for that GPU, runs the native and the
# Python tests on it, then compute-sanitizer over the native ones, then the benchmarks: bench/gpu.py, bench/ensemble.py,
# bench/gpu_jobs.py. Each stage prints its name, time and outcome, and its output goes to a log of its own; a stage that
# fails does not keep the next from running. Needs nvcc, cmake 3.24, ninja or make, a C++17 compiler, and a Python with
# numpy, pybind11 3 and pytest (with torch and jax for the benchmarks' peers); without pybind11 the native stages run
# all the same.
#
#     tests/cuda/run_on_gpu.sh [FOLDER for the build, default build/gpu] [STAGE ...]
#
# LOGS is another folder for the logs, PYTHON another interpreter, BENCH the options of bench/gpu.py, JOBS those of
# bench/gpu_jobs.py, FASHION_MNIST the folder of its images, SECONDS_EACH the longest that the sanitizer may take over one
# test (240).
set -uo pipefail

source_dir=$(cd "$(dirname "$0")/../.." && pwd)
folder=${1:-$source_dir/build/gpu}
shift || true
mkdir -p "$folder" && folder=$(cd "$folder" && pwd) || exit 1
build=$folder/build package=$folder/python/fusedvae
: "${PYTHON:=python3}" "${LOGS:=$folder}" "${SECONDS_EACH:=240}"
mkdir -p "$LOGS" && LOGS=$(cd "$LOGS" && pwd) || exit 1
command -v ninja >/dev/null && export CMAKE_GENERATOR=${CMAKE_GENERATOR:-Ninja}
export PYTHONPATH=$folder/python${PYTHONPATH:+:$PYTHONPATH}

stage_machine() {
    nvidia-smi && nvcc --version && cmake --version && c++ --version && "$PYTHON" --version && "$PYTHON" -c '
import numpy, pybind11, pytest
print("numpy", numpy.__version__, "pybind11", pybind11.__version__, "pytest", pytest.__version__)'
}

configure() {
    cmake -S "$source_dir" -B "$build" -DCMAKE_BUILD_TYPE=Release -DFUSEDVAE_CUDA=ON -DCMAKE_CUDA_ARCHITECTURES=native \
        -DFUSEDVAE_TESTS=ON -DFUSEDVAE_STATIC=OFF -DCMAKE_INSTALL_LIBDIR=lib "$@"
}

stage_build() { configure && cmake --build "$build" -j "$(nproc)" --target cuda_tests; }

stage_native() { ctest --test-dir "$build" --output-on-failure -R '^test_device_'; }

stage_package() {
    configure -DFUSEDVAE_PYTHON=ON "-DPython_EXECUTABLE=$(command -v "$PYTHON")" \
        "-Dpybind11_DIR=$("$PYTHON" -m pybind11 --cmakedir)" &&
        cmake --build "$build" -j "$(nproc)" --target fusedvae _core &&
        rm -rf "$package" && mkdir -p "$package" && cp -r "$source_dir"/python/fusedvae/. "$package" &&
        cmake --install "$build" --prefix "$package" &&
        "$PYTHON" -m fusedvae info
}

# Of pytest's plugins none is needed, and the warnings of any would be errors.
stage_python() {
    PYTEST_DISABLE_PLUGIN_AUTOLOAD=1 "$PYTHON" -m pytest -q -rs -p no:cacheprovider \
        "$source_dir"/tests/python/test_cuda*.py
}

# All at once: each keeps a core busy, and the GPU little. Exit status 99 is the sanitizer's; a test that is too slow
# under it ends with 124.
stage_sanitizer() {
    local test tool name status=0 result
    local -A running=()
    mkdir -p "$folder/sanitizer"
    for test in "$build"/tests/cuda/test_device_*; do
        [[ -x $test && -f $test ]] || continue
        for tool in memcheck racecheck initcheck synccheck; do
            name="$tool $(basename "$test")"
            timeout "$SECONDS_EACH" compute-sanitizer --tool "$tool" --error-exitcode 99 "$test" \
                >"$folder/sanitizer/${name/ /-}.log" 2>&1 &
            running[$name]=$!
        done
    done
    for name in "${!running[@]}"; do
        wait "${running[$name]}"
        result=$?
        echo "$name: $result"
        ((result == 0)) && continue
        status=1
        head -n 60 "$folder/sanitizer/${name/ /-}.log"
        tail -n 5 "$folder/sanitizer/${name/ /-}.log"
    done
    ((${#running[@]})) && return $status
}

stage_ensemble() {
    (cd "$source_dir/bench" && "$PYTHON" ensemble.py --device cuda --precision bfloat16 --configs tabular,mnist \
        --json "$LOGS/gpu_ensemble.json")
}

stage_bench() { (cd "$source_dir/bench" && "$PYTHON" gpu.py --json "$LOGS/gpu.json" ${BENCH:-}); }

stage_jobs() {
    local job status=0
    for job in epoch likelihood elbo; do
        (cd "$source_dir/bench" && "$PYTHON" gpu_jobs.py $job --json "$LOGS/gpu_$job.json" ${JOBS:-}) || status=1
    done
    return $status
}

stages=("$@")
((${#stages[@]})) || stages=(machine build native package python sanitizer bench ensemble jobs)
failed=()
for stage in "${stages[@]}"; do
    declare -F "stage_$stage" >/dev/null || { echo "no stage $stage" && exit 2; }
    begin=$SECONDS
    echo "---- $stage (log: $LOGS/$stage.log)"
    if "stage_$stage" >"$LOGS/$stage.log" 2>&1; then outcome=passed; else outcome=FAILED failed+=("$stage"); fi
    tail -n 15 "$LOGS/$stage.log" | sed 's/^/    /'
    echo "---- $stage $outcome after $((SECONDS - begin)) s"
    [[ $stage == build && $outcome == FAILED ]] && break
done
((${#failed[@]} == 0)) || { echo "failed: ${failed[*]}" && exit 1; }
echo "all stages passed"
