# SPDX-License-Identifier: MIT
# shellcheck shell=bash disable=SC2154,SC2164 # .ci/run sets the variables and `set -e`
#
# The steps of .ci/run that every change passes. Each runs in a subshell and may be run alone.

step_lint() {
    need_clone
    # The versions of .pre-commit-config.yaml; others format differently.
    venv lint clang-format==14.0.6 cmakelang==0.6.13 pyyaml ruff==0.17.6 mypy==2.4.1 numpy
    cd "$clone"
    ruff check .
    ruff format --check .
    mypy
    git ls-files -z '*.h' '*.hpp' '*.c' '*.cpp' '*.cu' | xargs -0 clang-format --dry-run -Werror
    git ls-files -z '*CMakeLists.txt' '*.cmake' | xargs -0 cmake-format --check
}

# README's two commands, word for word, in a clean checkout.
step_readme() {
    need_clone
    cd "$clone"
    readme_command 'fusedvae demo' | tee /dev/stderr | bash -euo pipefail
    readme_command pytest | tee /dev/stderr | bash -euo pipefail
}

# readme_command WORDS: the shell block of README.md that holds the words.
readme_command() {
    awk -v words="$1" '
        /^```/ { if (inside && index(block, words)) { printf "%s", block; found = 1; exit }
                 inside = !inside && /^```(sh|bash|console)$/; block = ""; next }
        inside { block = block $0 "\n" }
        END { exit !found }' README.md
}

# What needs PyTorch, ONNX, PyOD, Sphinx or the Hugging Face Hub's library, which the other steps do without. PyTorch's
# CPU build is asked for by name, because the default one brings gigabytes of GPU libraries.
step_torch() {
    need_clone
    local torch='torch==2.13.0+cpu'
    pip download --quiet --no-deps --dest "$work/torch" "$torch" >/dev/null 2>&1 || skip "$torch is not to be had here"
    venv torch "${clone}[test-torch,docs]" "$work"/torch/*.whl
    cd "$clone"
    python -m pytest tests/python/test_{pytorch,torch_interchange,onnx,hub,pyod,sources,threads,spool,loggers,progress,tables_by_name,doctests,docs}.py
}

step_native() {
    venv_build
    build native -DFUSEDVAE_TESTS=ON -DFUSEDVAE_BENCH=ON
    test_native native
}

# tests/embed over the installed library, the one within the Python package, and one with a single backend, whose static
# library stays below a megabyte.
step_embed() {
    venv_build
    build native -DFUSEDVAE_TESTS=ON
    cmake --install "$work/native" --prefix "$work/prefix" >/dev/null
    local package
    package=$(cd "$work" && python -c 'import fusedvae; print(fusedvae.__path__[0])')
    local one=scalar
    grep -qw avx2 /proc/cpuinfo && one=avx2
    build one -DFUSEDVAE_BACKENDS=$one
    cmake --install "$work/one" --prefix "$work/one-prefix" >/dev/null
    local size
    size=$(stat -c %s "$(find "$work/one-prefix" -name libfusedvae.a)")
    echo "the static library with $one alone has $size bytes"
    [[ $size -lt 1000000 ]]
    local prefix
    for prefix in "$work/prefix" "$package" "$work/one-prefix"; do
        local -x FUSEDVAE_BACKEND=
        [[ $prefix != "$work/one-prefix" ]] || FUSEDVAE_BACKEND=$one # Python's scores in the same bits
        rm -rf "$work/embed"
        cmake -S "$clone/tests/embed" -B "$work/embed" -G Ninja "-Dfusedvae_ROOT=$prefix" >/dev/null
        cmake --build "$work/embed"
        test_native embed
        FUSEDVAE_EMBED_BUILD=$work/embed FUSEDVAE_LIB=$prefix/lib python -m pytest -q "$clone/tests/embed"
    done
    if command -v pkg-config >/dev/null; then
        local -x PKG_CONFIG_PATH
        PKG_CONFIG_PATH=$(dirname "$(find "$work/prefix" -name fusedvae.pc)")
        # shellcheck disable=SC2046
        cc "$clone/tests/embed/consumer.c" $(pkg-config --cflags --libs fusedvae) \
            "-Wl,-rpath,$(pkg-config --variable=libdir fusedvae)" -o "$work/consumer"
        "$work/consumer" "$work/consumer.safetensors"
    fi
}

# AddressSanitizer and UndefinedBehaviorSanitizer over the native and the Python tests, without those whose programs and
# pictures reach no more of the engine than others.
step_asan() {
    venv_build
    build asan -DFUSEDVAE_TESTS=ON -DFUSEDVAE_PYTHON=ON -DFUSEDVAE_SANITIZE=address,undefined \
        -DCMAKE_BUILD_TYPE=RelWithDebInfo "-DPython_EXECUTABLE=$(command -v python)" \
        "-Dpybind11_DIR=$(python -m pybind11 --cmakedir)"
    # A request for more memory than there is must come back as an error, as it does without the sanitizer.
    local -x ASAN_OPTIONS=allocator_may_return_null=1 UBSAN_OPTIONS=print_stacktrace=1
    test_native asan

    local package=$work/asan-python/fusedvae
    rm -rf "$package" && mkdir -p "$package"
    cp -r "$clone"/python/fusedvae/. "$package"
    cmake --install "$work/asan" --prefix "$package" >/dev/null
    cd "$clone"
    # The interpreter is not instrumented: the runtime must be loaded first, and Python's own leaks are not ours.
    # Reports go to files, because a process that is aborted takes what pytest has captured with it.
    ASAN_OPTIONS+=:detect_leaks=0:log_path=$work/asan-report UBSAN_OPTIONS+=:log_path=$work/asan-report
    PYTHONPATH=$work/asan-python LD_PRELOAD="$(c++ -print-file-name=libasan.so) $(c++ -print-file-name=libstdc++.so)" \
        python -m pytest --ignore-glob='*/test_cli*' --ignore-glob='*/test_demo.py' --ignore-glob='*/test_docs.py' \
        --ignore-glob='*/test_plot.py' --ignore-glob='*/test_readme.py' --ignore-glob='*/test_report.py' || {
        cat "$work"/asan-report.* 2>/dev/null
        return 1
    }
}

# ThreadSanitizer over the thread pool and the step.
step_tsan() {
    venv_build
    build tsan -DFUSEDVAE_TESTS=ON -DFUSEDVAE_SANITIZE=thread -DCMAKE_BUILD_TYPE=RelWithDebInfo
    # Some kernels randomise addresses further than ThreadSanitizer's shadow map allows for.
    local fixed=()
    setarch -R true 2>/dev/null && fixed=(setarch -R)
    "${fixed[@]}" ctest --test-dir "$work/tsan" --output-on-failure -R 'threads|sharing|trainer|concurrency|ensemble'
}

step_clang() {
    local suffix=
    for suffix in "" -20 -19 -18 -17 -16 -15 -14; do
        command -v "clang++$suffix" >/dev/null && break
    done
    need "clang++$suffix" clang-14
    venv_build
    build clang -DFUSEDVAE_TESTS=ON -DFUSEDVAE_BENCH=ON -DFUSEDVAE_PYTHON=ON "-DCMAKE_C_COMPILER=clang$suffix" \
        "-DCMAKE_CXX_COMPILER=clang++$suffix" "-DPython_EXECUTABLE=$(command -v python)" \
        "-Dpybind11_DIR=$(python -m pybind11 --cmakedir)"
    test_native clang
}

# Instruction counts of a step and of the AVX-512 kernel's loop against their record: no clock, so no noise.
step_instructions() {
    [[ $(uname -m) == x86_64 ]] || skip "the record is of x86-64"
    need valgrind valgrind
    need objdump binutils
    need g++-12 g++-12
    venv_build # bench/problems.py takes its networks from the package
    CMAKE_GENERATOR=Ninja python "$clone/bench/instructions.py" --build "$work/instructions" \
        --check "$clone/bench/results/instructions.json"
}

# csrc/cuda over the emulated GPU: its native tests in both orders, and the Python tests of device="cuda". Where nvcc is,
# the same sources for Ampere and Hopper.
step_cuda() {
    venv_build
    local log=$work/cuda-build.log
    cmake -S "$clone" -B "$work/cuda" -G Ninja -DCMAKE_COMPILE_WARNING_AS_ERROR=ON -DFUSEDVAE_TESTS=ON \
        -DFUSEDVAE_PYTHON=ON -DFUSEDVAE_CUDA_EMULATED=ON "-DPython_EXECUTABLE=$(command -v python)" \
        "-Dpybind11_DIR=$(python -m pybind11 --cmakedir)" >"$log"
    # The CPU's tests are other steps'.
    cmake --build "$work/cuda" -j "$jobs" --target cuda_tests _core >>"$log" 2>&1 || { tail -n 60 "$log" && return 1; }
    test_native cuda -R 'emulator|device'

    local package=$work/cuda-python/fusedvae
    rm -rf "$package" && mkdir -p "$package"
    cp -r "$clone"/python/fusedvae/. "$package"
    cp "$work"/cuda/_core.*.so "$package"
    (cd "$clone" && PYTHONPATH=$work/cuda-python python -m pytest tests/python/test_cuda*.py)
    # The GPU's benchmarks run rarely where there is one; that they run at all is seen here.
    (cd "$clone/bench" && export PYTHONPATH=$work/cuda-python &&
        python gpu.py --dry-run --arms fusedvae --configs tiny --rounds 1 &&
        python gpu_jobs.py likelihood --dry-run --arms fusedvae --rounds 1)

    if ! command -v nvcc >/dev/null; then
        echo "csrc/cuda is not compiled for a GPU: there is no nvcc"
        return
    fi
    cmake -S "$clone" -B "$work/nvcc" -G Ninja -DFUSEDVAE_CUDA=ON "-DCMAKE_CUDA_ARCHITECTURES=80-real;90-real" >"$log"
    cmake --build "$work/nvcc" -j "$jobs" --target fusedvae_device >>"$log" 2>&1 || { tail -n 60 "$log" && return 1; }
}

# The NEON backend: the native tests, compiled by Debian's cross-compiler, run by qemu.
step_aarch64() {
    need aarch64-linux-gnu-g++ g++-aarch64-linux-gnu
    need qemu-aarch64 qemu-user
    venv_build
    build aarch64 -DFUSEDVAE_TESTS=ON "-DCMAKE_TOOLCHAIN_FILE=$clone/cmake/toolchains/aarch64-linux-gnu.cmake"
    test_native aarch64
}
