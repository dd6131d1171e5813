#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# All that a machine with a GPU is needed for, in one command: builds with CUDA, runs the native and the Python tests on
# the GPU, then compute-sanitizer over the native ones, then bench/cuda.py. Each stage prints its name, time and outcome,
# and its output goes to a log of its own; a stage that fails does not keep the next from running. Needs nvcc, cmake, a
# C++17 compiler, and a Python with numpy, pybind11 and pytest (with torch for the benchmark's peers).
#
#     tests/cuda/run_on_gpu.sh [FOLDER for build and logs, default build/gpu] [STAGE ...]
set -uo pipefail

source_dir=$(cd "$(dirname "$0")/../.." && pwd)
folder=${1:-$source_dir/build/gpu}
shift || true
mkdir -p "$folder" && folder=$(cd "$folder" && pwd) || exit 1
build=$folder/build package=$folder/python/fusedvae
: "${PYTHON:=python3}"
export PYTHONPATH=$folder/python${PYTHONPATH:+:$PYTHONPATH}

stage_machine() {
    nvidia-smi && nvcc --version && cmake --version && "$PYTHON" --version &&
        "$PYTHON" -c 'import numpy, pybind11, pytest; print("numpy", numpy.__version__, "pybind11", pybind11.__version__)'
}

stage_build() {
    cmake -S "$source_dir" -B "$build" -DCMAKE_BUILD_TYPE=Release -DFUSEDVAE_CUDA=ON -DFUSEDVAE_TESTS=ON \
        -DFUSEDVAE_PYTHON=ON -DFUSEDVAE_STATIC=OFF -DCMAKE_INSTALL_LIBDIR=lib \
        "-DPython_EXECUTABLE=$(command -v "$PYTHON")" "-Dpybind11_DIR=$("$PYTHON" -m pybind11 --cmakedir)" &&
        cmake --build "$build" -j "$(nproc)" &&
        rm -rf "$package" && mkdir -p "$package" && cp -r "$source_dir"/python/fusedvae/. "$package" &&
        cmake --install "$build" --prefix "$package" &&
        "$PYTHON" -m fusedvae info
}

stage_native() { ctest --test-dir "$build" --output-on-failure -R device; }

stage_python() { "$PYTHON" -m pytest -q -rs -p no:cacheprovider "$source_dir/tests/python/test_cuda.py"; }

# Exit status 99 is the sanitizer's; a test that is too slow under it ends with 124.
stage_sanitizer() {
    local test tool status=0
    for test in "$build"/tests/cuda/test_device_*; do
        [[ -x $test && -f $test ]] || continue
        for tool in memcheck racecheck initcheck synccheck; do
            echo "== $tool $(basename "$test")"
            timeout 300 compute-sanitizer --tool "$tool" --error-exitcode 99 "$test" 2>&1 | tail -40 || status=1
        done
    done
    return $status
}

stage_bench() { (cd "$source_dir/bench" && "$PYTHON" cuda.py --json "$folder/cuda.json"); }

stages=("$@")
((${#stages[@]})) || stages=(machine build native python sanitizer bench)
failed=()
for stage in "${stages[@]}"; do
    declare -F "stage_$stage" >/dev/null || { echo "no stage $stage" && exit 2; }
    begin=$SECONDS
    echo "---- $stage (log: $folder/$stage.log)"
    if "stage_$stage" >"$folder/$stage.log" 2>&1; then outcome=passed; else outcome=FAILED failed+=("$stage"); fi
    tail -n 15 "$folder/$stage.log" | sed 's/^/    /'
    echo "---- $stage $outcome after $((SECONDS - begin)) s"
    [[ $stage == build && $outcome == FAILED ]] && break
done
((${#failed[@]} == 0)) || { echo "failed: ${failed[*]}" && exit 1; }
echo "all stages passed"
