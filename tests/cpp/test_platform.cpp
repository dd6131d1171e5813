// SPDX-License-Identifier: MIT
//
// Operating system services: cores, sleeping on a word, aligned memory, mapped files, atomic writing. What only POSIX
// has (permissions, links, fork) is tested there.
#include "backend/platform.h"

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <limits>
#include <new>
#include <sstream>
#include <thread>
#include <vector>

#include "backend/cgroup.h"
#include "check.h"
#include "model/error.h"

#if !defined(_WIN32)
#include <csignal>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#endif
#if defined(__linux__)
#include <sched.h>
#endif

using fusedvae::Error;
namespace fs = std::filesystem;
namespace platform = fusedvae::platform;

namespace {

// A folder of the test's own, removed with all it holds.
struct Folder {
    fs::path path;

    Folder() {
        static int count = 0;
        const auto now = static_cast<long long>(platform::seconds() * 1e9);
        path = fs::temp_directory_path() / ("fusedvae-platform-" + std::to_string(now) + "-" + std::to_string(count++));
        fs::create_directories(path);
    }
    ~Folder() {
        std::error_code unused;
        fs::remove_all(path, unused);
    }
    std::string operator/(const std::string& name) const { return (path / name).u8string(); }
    size_t entries() const {
        return static_cast<size_t>(std::distance(fs::directory_iterator(path), fs::directory_iterator()));
    }
};

void put(const std::string& path, const std::string& text) {
    fs::create_directories(fs::u8path(path).parent_path());
    std::ofstream(fs::u8path(path), std::ios::binary) << text;
}

std::string content(const std::string& path) {
    const platform::FileView view(path);
    return view.size() > 0 ? std::string(reinterpret_cast<const char*>(view.data()), view.size()) : std::string();
}

void save(const std::string& path, const std::string& text) {
    platform::write_file_atomically(path, [&](const platform::Sink& sink) { sink(text.data(), text.size()); });
}

fvae_status status_of(void (*call)(const std::string&), const std::string& path) {
    try {
        call(path);
    } catch (const Error& error) {
        return error.status;
    }
    return FVAE_OK;
}

void view(const std::string& path) { platform::FileView file(path); }
void save_x(const std::string& path) { save(path, "x"); }

}  // namespace

TEST(cores_follow_omp_num_threads) {
#if !defined(_WIN32)
    unsetenv("OMP_NUM_THREADS");
    const int all = platform::usable_cores();
    CHECK(all >= 1);
    setenv("OMP_NUM_THREADS", "1", 1);
    CHECK_EQUAL(platform::usable_cores(), 1);
    setenv("OMP_NUM_THREADS", "1,4", 1);
    CHECK_EQUAL(platform::usable_cores(), 1);
    for (const char* no_limit : {"0", "-3", "many", "", "100000"}) {
        setenv("OMP_NUM_THREADS", no_limit, 1);
        CHECK_EQUAL(platform::usable_cores(), all);
    }
    CHECK_EQUAL(std::string(platform::environment("OMP_NUM_THREADS")), "100000");
    unsetenv("OMP_NUM_THREADS");
    CHECK(platform::environment("OMP_NUM_THREADS") == nullptr);
#endif
}

#if defined(__linux__)
TEST(cores_follow_affinity) {
    cpu_set_t before, one;
    CHECK(sched_getaffinity(0, sizeof before, &before) == 0);
    CPU_ZERO(&one);
    for (int core = 0; core < CPU_SETSIZE && CPU_COUNT(&one) == 0; ++core)
        if (CPU_ISSET(core, &before)) CPU_SET(core, &one);
    CHECK(sched_setaffinity(0, sizeof one, &one) == 0);
    const int cores = platform::usable_cores();
    CHECK(sched_setaffinity(0, sizeof before, &before) == 0);
    CHECK_EQUAL(cores, 1);
}
#endif

TEST(cores_follow_cgroup_quotas) {
    const Folder folder;
    const std::string membership = folder / "self", mount = folder / "mount";
    CHECK_EQUAL(platform::cgroup_core_limit(membership, mount), 0);  // no such files
    put(membership, "0::/a/b\n");
    put(mount + "/a/b/cpu.max", "max 100000\n");
    CHECK_EQUAL(platform::cgroup_core_limit(membership, mount), 0);
    put(mount + "/a/cpu.max", "350000 100000\n");  // an ancestor's quota, rounded up
    CHECK_EQUAL(platform::cgroup_core_limit(membership, mount), 4);
    put(mount + "/a/b/cpu.max", "50000 100000\n");
    CHECK_EQUAL(platform::cgroup_core_limit(membership, mount), 1);

    // Version 1 in a container: the path is the host's and does not exist here, its root does.
    put(membership, "not a line\n5:memory:/m\n4:cpu,cpuacct:/docker/123\n");
    CHECK_EQUAL(platform::cgroup_core_limit(membership, mount), 0);
    put(mount + "/cpu/cpu.cfs_period_us", "100000\n");
    put(mount + "/cpu/cpu.cfs_quota_us", "-1\n");
    CHECK_EQUAL(platform::cgroup_core_limit(membership, mount), 0);
    put(mount + "/cpu/cpu.cfs_quota_us", "200000\n");
    CHECK_EQUAL(platform::cgroup_core_limit(membership, mount), 2);
    put(membership, "0::/\n");
    CHECK_EQUAL(platform::cgroup_core_limit(membership, mount), 0);  // the quota above is no version 2 file
    put(mount + "/cpu.max", "100000 100000\n");
    CHECK_EQUAL(platform::cgroup_core_limit(membership, mount), 1);
}

TEST(waiting_ends_when_woken_and_never_misses_a_change) {
    std::atomic<uint32_t> word{1};
    platform::wait_on(word, 0);  // another value: returns at once
    // Two threads pass the word back and forth; a missed wake would hang here.
    std::atomic<uint32_t> turn{0};
    constexpr uint32_t kTurns = 20000;
    const auto play = [&turn](uint32_t mine) {
        for (uint32_t t = mine; t < kTurns; t += 2) {
            for (uint32_t seen; (seen = turn.load()) != t;) platform::wait_on(turn, seen);
            turn.store(t + 1);
            platform::wake_all(turn);
        }
    };
    std::thread other(play, 1);
    play(0);
    other.join();
    CHECK_EQUAL(turn.load(), kTurns);
}

TEST(waking_reaches_every_sleeper) {
    std::atomic<uint32_t> word{0}, awake{0};
    std::vector<std::thread> sleepers;
    for (int i = 0; i < 5; ++i)
        sleepers.emplace_back([&] {
            while (word.load() == 0) platform::wait_on(word, 0);
            ++awake;
        });
    const double start = platform::seconds();
    while (platform::seconds() - start < 0.02) platform::cpu_pause();  // most are asleep by then
    word.store(1);
    platform::wake_all(word);
    for (std::thread& sleeper : sleepers) sleeper.join();
    CHECK_EQUAL(awake.load(), 5u);
}

TEST(memory_is_aligned) {
    for (const size_t bytes : {size_t{0}, size_t{1}, size_t{1000}, size_t{5} << 20}) {
        void* block = platform::aligned_alloc(bytes, 64);
        CHECK_EQUAL(reinterpret_cast<uintptr_t>(block) % 64, uintptr_t{0});
        std::memset(block, 1, bytes);
        platform::aligned_free(block);
    }
    platform::aligned_free(nullptr);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__) && !defined(__has_feature)
    // The sanitizers' allocators end the program instead.
    CHECK_THROWS(platform::aligned_alloc(std::numeric_limits<size_t>::max() - 4096, 64), std::bad_alloc, "");
#endif
}

TEST(files_are_viewed_whole) {
    const Folder folder;
    put(folder / "empty", "");
    put(folder / "file", std::string("a\0b", 3));
    platform::FileView empty(folder / "empty"), file(folder / "file");
    CHECK_EQUAL(empty.size(), size_t{0});
    CHECK_EQUAL(file.size(), size_t{3});
    platform::FileView moved(std::move(file));
    CHECK(file.size() == 0 && file.data() == nullptr);
    empty = std::move(moved);
    CHECK_EQUAL(std::memcmp(empty.data(), "a\0b", 3), 0);
}

TEST(unreadable_files_say_why) {
    const Folder folder;
    CHECK_THROWS(platform::FileView(folder / "none"), Error, "cannot read '" + (folder / "none") + "': ");
    CHECK_EQUAL(status_of(view, folder / "none"), FVAE_NOT_FOUND);
    CHECK_EQUAL(status_of(view, ""), FVAE_NOT_FOUND);
    CHECK(status_of(view, folder.path.u8string()) != FVAE_OK);  // a folder
#if !defined(_WIN32)
    CHECK_THROWS(platform::FileView(folder.path.string()), Error, "Is a directory");
    CHECK_THROWS(platform::FileView("/dev/null"), Error, "not a regular file");
    CHECK(mkfifo((folder / "pipe").c_str(), 0600) == 0);
    CHECK_THROWS(platform::FileView(folder / "pipe"), Error, "not a regular file");  // and does not wait for a writer
    put(folder / "secret", "x");
    fs::permissions(folder.path / "secret", fs::perms::none);
    if (geteuid() != 0) CHECK_EQUAL(status_of(view, folder / "secret"), FVAE_PERMISSION_DENIED);
#endif
}

TEST(writing_replaces_the_whole_content) {
    const Folder folder;
    const std::string path = folder / "model \xC3\xA9.safetensors";
    save(path, "first");
    CHECK_EQUAL(content(path), "first");
    platform::write_file_atomically(path, [](const platform::Sink& sink) {
        for (int i = 0; i < 1000; ++i) sink("0123456789", 10);
        sink(nullptr, 0);
    });
    CHECK_EQUAL(content(path).size(), size_t{10000});
    save(path, "");
    CHECK_EQUAL(content(path), "");
    CHECK_EQUAL(folder.entries(), size_t{1});  // nothing temporary is left
}

TEST(a_failed_write_leaves_the_old_file) {
    const Folder folder;
    save(folder / "file", "old");
    const auto interrupted = [](const platform::Sink& sink) {
        sink("new", 3);
        throw std::runtime_error("stop");
    };
    CHECK_THROWS(platform::write_file_atomically(folder / "file", interrupted), std::runtime_error, "stop");
    CHECK_THROWS(platform::write_file_atomically(folder / "other", interrupted), std::runtime_error, "stop");
    CHECK_EQUAL(content(folder / "file"), "old");
    CHECK_EQUAL(folder.entries(), size_t{1});
}

#if !defined(_WIN32)
TEST(what_a_killed_write_left_is_removed_and_a_living_one_is_not) {
    const Folder folder;
    put(folder / ".fusedvae-1-7.tmp", "nobody's");
    put(folder / ".fusedvae-1-8.tmp.png", "nobody's");
    put(folder / ".fusedvae-1-9.txt", "another's");
    const int living = open((folder / ".fusedvae-1-0.tmp").c_str(), O_WRONLY | O_CREAT, 0600);
    CHECK(living >= 0 && flock(living, LOCK_EX) == 0);
    save(folder / "file", "new");
    CHECK_EQUAL(content(folder / "file"), "new");
    CHECK(fs::exists(folder.path / ".fusedvae-1-0.tmp"));
    CHECK(fs::exists(folder.path / ".fusedvae-1-9.txt"));
    CHECK_EQUAL(folder.entries(), size_t{3});
    close(living);
}
#endif

TEST(unwritable_places_say_why) {
    const Folder folder;
    CHECK_EQUAL(status_of(save_x, folder / "none/file"), FVAE_NOT_FOUND);
    CHECK_THROWS(save(folder / "none/file", "x"), Error, (folder / "none/file") + "'");
    CHECK_THROWS(save(folder.path.u8string(), "x"), Error, "cannot write");
    CHECK(status_of(save_x, "") != FVAE_OK);
#if !defined(_WIN32)
    CHECK_THROWS(save("/dev/null", "x"), Error, "not a regular file");
    put(folder / "fixed", "old");
    fs::permissions(folder.path / "fixed", fs::perms::owner_read);
    fs::create_directory(folder.path / "closed");
    fs::permissions(folder.path / "closed", fs::perms::owner_read | fs::perms::owner_exec);
    if (geteuid() != 0) {  // permissions do not stop root
        CHECK_EQUAL(status_of(save_x, folder / "fixed"), FVAE_PERMISSION_DENIED);
        CHECK_EQUAL(content(folder / "fixed"), "old");
        CHECK_EQUAL(status_of(save_x, folder / "closed/file"), FVAE_PERMISSION_DENIED);
    }
#endif
}

#if !defined(_WIN32)

TEST(a_full_disk_says_so_and_leaves_the_old_file) {
    const Folder folder;
    save(folder / "file", "old");
    rlimit before;  // a limit on file sizes fails writes the way a full disk does
    CHECK(getrlimit(RLIMIT_FSIZE, &before) == 0);
    rlimit small = before;
    small.rlim_cur = 4096;
    std::signal(SIGXFSZ, SIG_IGN);
    CHECK(setrlimit(RLIMIT_FSIZE, &small) == 0);
    const fvae_status status =
        status_of([](const std::string& path) { save(path, std::string(10000, 'x')); }, folder / "file");
    CHECK(setrlimit(RLIMIT_FSIZE, &before) == 0);
    CHECK_EQUAL(status, FVAE_IO_ERROR);
    CHECK_EQUAL(content(folder / "file"), "old");
    CHECK_EQUAL(folder.entries(), size_t{1});
}

TEST(permission_bits_stay) {
    const Folder folder;
    const mode_t before = umask(022);
    save(folder / "fresh", "x");
    put(folder / "kept", "x");
    fs::permissions(folder.path / "kept", fs::perms(0660));
    save(folder / "kept", "y");
    umask(before);
    CHECK(fs::status(folder.path / "fresh").permissions() == fs::perms(0644));
    CHECK(fs::status(folder.path / "kept").permissions() == fs::perms(0660));
    CHECK_EQUAL(content(folder / "kept"), "y");
}

TEST(links_are_followed) {
    const Folder folder;
    fs::create_directory(folder.path / "store");
    put(folder / "store/real", "old");
    fs::create_symlink("store/real", folder.path / "link");
    fs::create_symlink("link", folder.path / "link2");
    save(folder / "link2", "new");
    CHECK(fs::is_symlink(folder.path / "link2") && fs::is_symlink(folder.path / "link"));
    CHECK_EQUAL(content(folder / "store/real"), "new");
    fs::create_symlink("store/later", folder.path / "dangling");
    save(folder / "dangling", "made");
    CHECK_EQUAL(content(folder / "store/later"), "made");
    fs::create_symlink("loop", folder.path / "loop");
    CHECK_THROWS(save(folder / "loop", "x"), Error, "cannot write");
}

namespace {
volatile int fork_calls = 0;
}

TEST(a_fork_calls_the_handler_in_the_child_alone) {
    platform::on_fork_child([] { fork_calls = fork_calls + 1; });
    const pid_t child = fork();
    if (child == 0) _exit(fork_calls);
    int status = 0;
    CHECK(waitpid(child, &status, 0) == child);
    CHECK(WIFEXITED(status));
    CHECK_EQUAL(WEXITSTATUS(status), 1);
    CHECK_EQUAL(int{fork_calls}, 0);
}

#endif
