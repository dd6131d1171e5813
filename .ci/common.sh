# SPDX-License-Identifier: MIT
# shellcheck shell=bash disable=SC2154,SC2164 # .ci/run sets the variables and `set -e`
#
# What the steps of .ci/run share: running them with a summary, Debian packages, virtual environments, builds.

# run_steps STEP...: runs each in a subshell of its own, its output shown and kept, then prints the summary.
run_steps() {
    need_clone
    local step status begin failed=0 lines=() closings=()
    local log
    for step in "$@"; do
        log=$work/$step.log
        printf '\n==> %s\n' "$step"
        begin=$SECONDS
        status=0
        # Not in an `if` or before `||`: bash would ignore `set -e` within the step.
        set +e
        (
            set -euo pipefail
            "step_$step"
        ) 2>&1 | tee "$log"
        status=${PIPESTATUS[0]}
        set -e
        case $status in
        0) status=ok ;;
        "$kSkip") status=skipped ;;
        *) status=FAILED failed=1 ;;
        esac
        lines+=("$(printf '%-8s %-14s %5d s  %s' "$status" "$step" $((SECONDS - begin)) "$(closing_line "$log")")")
        closings+=("$(closing_line "$log" pytest)")
        [[ $keeps_all == yes ]] || free_room
    done

    printf '\n==> summary\n'
    printf '%s\n' "${lines[@]}"
    if [[ -n ${summary:-} ]]; then
        {
            echo "$(date -u +%F)  $(git -C "$clone" rev-parse --short HEAD)  $(cpu_name)"
            printf '%s\n' "${lines[@]}"
        } >"$summary"
    fi
    printf '%s\n' "${closings[@]}" | grep . || true
    return $failed
}

# Removes what later steps do not use: all steps' builds and environments together would take 6 GB.
free_room() {
    git -C "$clone" clean --quiet --force -dx
    find "$work" -mindepth 1 -maxdepth 1 ! -name clone ! -name venv-build ! -name native ! -name '*.log' \
        ! -name apt-updated -exec rm -rf {} +
}

# The last thing that a step's runner said: pytest's or ctest's closing line, or why it was skipped.
closing_line() {
    local pattern='^=+ .*(passed|failed|error).* =+$|tests passed|^passed with CPython|^[0-9]+ passed, [0-9]+ failed$|^no count is more than|^skipped: '
    [[ ${2:-} == pytest ]] && pattern='^=+ .*(passed|failed|error).* =+$'
    grep -aE "$pattern" "$1" | tail -n 1 || true
}

cpu_name() { sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1; }

skip() {
    echo "skipped: $*"
    exit "$kSkip"
}

# need COMMAND PACKAGE...: has COMMAND, or installs Debian's packages for it, or skips the step.
need() {
    command -v "$1" >/dev/null && return
    debian "${@:2}"
    command -v "$1" >/dev/null || skip "$1 is not to be had here (Debian's ${*:2})"
}

# Tries to install Debian's packages.
debian() {
    [[ $(id -u) == 0 ]] && command -v apt-get >/dev/null || return 0
    [[ -e $work/apt-updated ]] || { apt-get update -qq && touch "$work/apt-updated"; } || true
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >"$work/apt.log" 2>&1 ||
        tail -n 3 "$work/apt.log"
    apt-get clean
}

# A clean checkout of HEAD.
need_clone() { [[ -d $clone ]] || git clone --quiet "$root" "$clone"; }

# venv NAME REQUIREMENT...: a virtual environment of that name with the requirements, first on PATH from here on.
venv() {
    local path=$work/venv-$1
    shift
    [[ -e $path/complete ]] || {
        "${python:-python3}" -m venv "$path" &&
            "$path/bin/pip" install --quiet "$@" &&
            touch "$path/complete"
    } || return 1
    export PATH=$path/bin:$PATH
}

# The environment of most steps: the package itself, its tests' imports, and what an outside build needs.
venv_build() {
    need_clone
    venv build cmake ninja 'pybind11>=3.0' "${clone}[test]"
}

# build NAME OPTION...: configures and builds the checkout into $work/NAME, every warning an error.
build() {
    local name=$1 log=$work/$1-build.log
    shift
    if ! { cmake -S "$clone" -B "$work/$name" -G Ninja -DCMAKE_COMPILE_WARNING_AS_ERROR=ON "$@" &&
        cmake --build "$work/$name" -j "$jobs"; } >"$log" 2>&1; then
        tail -n 60 "$log"
        return 1
    fi
}

test_native() { ctest --test-dir "$work/$1" --output-on-failure -j "$jobs" "${@:2}"; }
