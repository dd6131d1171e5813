// SPDX-License-Identifier: MIT
//
// The one file with system calls. First what all systems share, then each service once per system: Windows, and POSIX
// with what Linux does better (affinity, futex, huge pages).
#include "backend/platform.h"

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <limits>
#include <new>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "backend/cgroup.h"
#include "model/error.h"

#if defined(_WIN32)
#define WIN32_LEAN_AND_MEAN
#define NOMINMAX
#include <malloc.h>
#include <windows.h>
#else
#include <fcntl.h>
#include <pthread.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#endif
#if defined(__linux__)
#include <linux/futex.h>
#include <sched.h>
#include <sys/syscall.h>
#else
#include <condition_variable>
#include <mutex>
#endif

namespace fusedvae::platform {
namespace fs = std::filesystem;
namespace {

[[noreturn]] void fail(const char* action, const std::string& path, const std::error_code& reason) {
    fvae_status status = FVAE_IO_ERROR;
    if (reason == std::errc::no_such_file_or_directory) status = FVAE_NOT_FOUND;
    if (reason == std::errc::permission_denied || reason == std::errc::operation_not_permitted ||
        reason == std::errc::read_only_file_system)
        status = FVAE_PERMISSION_DENIED;
    throw Error(status, std::string("cannot ") + action + " '" + path + "': " + reason.message());
}

std::error_code last_error() {
#if defined(_WIN32)
    return {static_cast<int>(GetLastError()), std::system_category()};
#else
    return {errno, std::system_category()};
#endif
}

long process_id() {
#if defined(_WIN32)
    return static_cast<long>(GetCurrentProcessId());
#else
    return static_cast<long>(getpid());
#endif
}

// Names for new files in `folder` that no other thread or process is using. They do not contain the target's name, which
// may already be as long as names can be. python/fusedvae/_atomic.py follows the same rules.
constexpr char kTemporary[] = ".fusedvae-", kTemporaryEnd[] = ".tmp";
fs::path temporary_name(const fs::path& folder) {
    static std::atomic<unsigned> counter{0};
    return folder / (kTemporary + std::to_string(process_id()) + "-" + std::to_string(counter++) + kTemporaryEnd);
}

// Where the data of a file at `path` would lie: symbolic links followed, also one whose target does not exist yet.
fs::path followed(const std::string& path) {
    fs::path target = fs::u8path(path);
    std::error_code unused;
    for (int links = 0; fs::is_symlink(target, unused); ++links) {
        if (links == 40) fail("write", path, std::make_error_code(std::errc::too_many_symbolic_link_levels));
        std::error_code reason;
        const fs::path next = fs::read_symlink(target, reason);
        if (reason) fail("write", path, reason);
        target = target.parent_path() / next;
    }
    return target;
}

// A file under a temporary name that either takes the target's place or disappears.
class NewFile {
  public:
    NewFile(const std::string& shown_path, const fs::path& target);
    ~NewFile();
    NewFile(const NewFile&) = delete;
    NewFile& operator=(const NewFile&) = delete;
    void write(const void* data, size_t bytes);
    void replace_target();

  private:
    [[noreturn]] void write_failed() const { fail("write", shown_path_, last_error()); }

    std::string shown_path_;
    fs::path target_, name_;
#if defined(_WIN32)
    HANDLE file_ = INVALID_HANDLE_VALUE;
#else
    int file_ = -1;
#endif
    bool replaced_ = false;
};

}  // namespace

double seconds() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

const char* environment(const char* name) { return std::getenv(name); }

void cpu_pause() {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__) || defined(__arm__)
    __asm__ volatile("yield" ::: "memory");
#endif
}

void write_file_atomically(const std::string& path, const std::function<void(const Sink&)>& write) {
    const fs::path target = followed(path);
    std::error_code unused;
    const fs::file_status status = fs::status(target, unused);
    if (fs::is_directory(status)) fail("write", path, std::make_error_code(std::errc::is_a_directory));
    if (fs::exists(status) && !fs::is_regular_file(status))  // a rename would replace the device or pipe itself
        throw Error(FVAE_IO_ERROR, "cannot write '" + path + "': it is not a regular file");
    NewFile file(path, target);
    write([&file](const void* data, size_t bytes) { file.write(data, bytes); });
    file.replace_target();
}

FileView::FileView(FileView&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

FileView& FileView::operator=(FileView&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
}

namespace {

int cores_by_affinity();

}  // namespace

int usable_cores() {
    int cores = cores_by_affinity();
#if defined(__linux__)
    // Read once: it takes 60 us, as long as a step of a small model.
    static const int quota = cgroup_core_limit("/proc/self/cgroup", "/sys/fs/cgroup");
    if (quota > 0) cores = std::min(cores, quota);
#endif
    if (const char* omp = environment("OMP_NUM_THREADS")) {
        const long threads = std::strtol(omp, nullptr, 10);  // "4,2" (nested levels) counts as 4
        if (threads > 0) cores = static_cast<int>(std::min<long>(cores, threads));
    }
    return std::max(1, cores);
}

#if defined(_WIN32)

namespace {

int cores_by_affinity() {
    DWORD_PTR process = 0, system = 0;
    int cores = 0;
    if (GetProcessAffinityMask(GetCurrentProcess(), &process, &system))
        for (; process != 0; process &= process - 1) ++cores;
    // The mask is 0 where the process spans several groups of 64 processors.
    return cores > 0 ? cores : static_cast<int>(std::thread::hardware_concurrency());
}

NewFile::NewFile(const std::string& shown_path, const fs::path& target) : shown_path_(shown_path), target_(target) {
    do {
        name_ = temporary_name(target.parent_path());
        file_ = CreateFileW(name_.c_str(), GENERIC_WRITE, 0, nullptr, CREATE_NEW, FILE_ATTRIBUTE_NORMAL, nullptr);
    } while (file_ == INVALID_HANDLE_VALUE && GetLastError() == ERROR_FILE_EXISTS);
    if (file_ == INVALID_HANDLE_VALUE) fail("create a file beside", shown_path_, last_error());
}

NewFile::~NewFile() {
    if (file_ != INVALID_HANDLE_VALUE) CloseHandle(file_);
    if (!replaced_) DeleteFileW(name_.c_str());
}

void NewFile::write(const void* data, size_t bytes) {
    const char* at = static_cast<const char*>(data);
    while (bytes > 0) {
        DWORD written = 0;
        const DWORD part = static_cast<DWORD>(std::min<size_t>(bytes, size_t{1} << 30));
        if (!WriteFile(file_, at, part, &written, nullptr)) write_failed();
        at += written;
        bytes -= written;
    }
}

void NewFile::replace_target() {
    if (!FlushFileBuffers(file_)) write_failed();
    if (!CloseHandle(std::exchange(file_, INVALID_HANDLE_VALUE))) write_failed();
    if (!MoveFileExW(name_.c_str(), target_.c_str(), MOVEFILE_REPLACE_EXISTING | MOVEFILE_WRITE_THROUGH))
        write_failed();
    replaced_ = true;
}

}  // namespace

FileView::FileView(const std::string& path) {
    const HANDLE file = CreateFileW(fs::u8path(path).c_str(), GENERIC_READ, FILE_SHARE_READ | FILE_SHARE_DELETE,
                                    nullptr, OPEN_EXISTING, FILE_ATTRIBUTE_NORMAL, nullptr);
    if (file == INVALID_HANDLE_VALUE) fail("read", path, last_error());
    LARGE_INTEGER size;
    std::error_code reason;
    if (!GetFileSizeEx(file, &size)) {
        reason = last_error();
    } else if (size.QuadPart > 0) {
        const HANDLE mapping = CreateFileMappingW(file, nullptr, PAGE_READONLY, 0, 0, nullptr);
        void* block = mapping ? MapViewOfFile(mapping, FILE_MAP_READ, 0, 0, 0) : nullptr;
        if (!block) reason = last_error();
        if (mapping) CloseHandle(mapping);  // the view keeps what it needs
        data_ = static_cast<const unsigned char*>(block);
        size_ = static_cast<size_t>(size.QuadPart);
    }
    CloseHandle(file);
    if (reason) fail("read", path, reason);
}

FileView::~FileView() {
    if (data_) UnmapViewOfFile(data_);
}

void on_fork_child(void (*)()) {}

void* aligned_alloc(size_t bytes, size_t alignment) {
    void* block = _aligned_malloc(std::max<size_t>(bytes, 1), alignment);
    if (!block) throw std::bad_alloc();
    return block;
}

void aligned_free(void* block) { _aligned_free(block); }

#else  // POSIX

namespace {

int cores_by_affinity() {
#if defined(__linux__)
    // The kernel's mask may be larger than the 1024 cores of one cpu_set_t; it then answers EINVAL.
    for (size_t sets = 1; sets <= 64; sets *= 2) {
        std::vector<cpu_set_t> mask(sets);
        const size_t bytes = sets * sizeof(cpu_set_t);
        if (sched_getaffinity(0, bytes, mask.data()) == 0) return CPU_COUNT_S(bytes, mask.data());
        if (errno != EINVAL) break;
    }
#elif defined(__EMSCRIPTEN__) && !defined(__EMSCRIPTEN_PTHREADS__)
    return 1;  // the page has the cores it says, this build no threads
#endif
    return static_cast<int>(std::thread::hardware_concurrency());
}

// Removes what processes that were killed while they wrote have left in a folder. Who writes holds a lock until the file
// is in place, so that an unlocked one is nobody's, in whatever container or machine its writer ran.
void remove_leftovers(const fs::path& folder) {
    std::error_code ended;
    for (fs::directory_iterator entry(folder.empty() ? "." : folder, ended), end; !ended && entry != end;
         entry.increment(ended)) {
        const std::string name = entry->path().filename().string();
        if (name.rfind(kTemporary, 0) != 0 || name.find(kTemporaryEnd) == std::string::npos) continue;
        const int file = open(entry->path().c_str(), O_RDWR | O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC);
        if (file < 0) continue;
        if (flock(file, LOCK_EX | LOCK_NB) == 0) unlink(entry->path().c_str());
        close(file);
    }
}

// Locks a file that was just made; false where remove_leftovers of another process was quicker. File systems without locks
// have no leftovers removed either.
bool lock_new(int file) {
    if (flock(file, LOCK_EX | LOCK_NB) != 0) return errno != EWOULDBLOCK;
    struct stat made;
    return fstat(file, &made) == 0 && made.st_nlink > 0;
}

NewFile::NewFile(const std::string& shown_path, const fs::path& target) : shown_path_(shown_path), target_(target) {
    remove_leftovers(target.parent_path());
    struct stat old;
    const bool exists = stat(target.c_str(), &old) == 0;
    // A rename needs no permission on the file it replaces, but whoever made it read-only meant it.
    if (exists && access(target.c_str(), W_OK) != 0) write_failed();
    const mode_t mode = exists ? old.st_mode & 07777 : 0666;
    for (bool again = true; again;) {
        name_ = temporary_name(target.parent_path());
        file_ = open(name_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
        again = file_ < 0 ? errno == EEXIST || errno == EINTR : !lock_new(file_);
        if (again && file_ >= 0) close(file_);
    }
    if (file_ < 0) fail("create a file beside", shown_path_, last_error());
    struct stat made;
    if (exists && (fstat(file_, &made) != 0 || ((made.st_mode & 07777) != mode && fchmod(file_, mode) != 0))) {
        const std::error_code reason = last_error();
        close(file_);
        unlink(name_.c_str());
        fail("keep the permissions of", shown_path_, reason);
    }
}

NewFile::~NewFile() {
    if (file_ >= 0) close(file_);
    if (!replaced_) unlink(name_.c_str());
}

void NewFile::write(const void* data, size_t bytes) {
    const char* at = static_cast<const char*>(data);
    while (bytes > 0) {
        const ssize_t written = ::write(file_, at, std::min<size_t>(bytes, size_t{1} << 30));  // macOS refuses 2 GB
        if (written < 0 && errno == EINTR) continue;
        if (written < 0) write_failed();
        at += written;
        bytes -= static_cast<size_t>(written);
    }
}

void NewFile::replace_target() {
#if defined(F_FULLFSYNC)  // macOS: fsync alone leaves the data in the drive's cache
    const bool synced = fcntl(file_, F_FULLFSYNC) == 0 || fsync(file_) == 0;
#else
    const bool synced = fsync(file_) == 0;
#endif
    if (!synced) write_failed();
    if (rename(name_.c_str(), target_.c_str()) != 0) write_failed();
    replaced_ = true;
    close(std::exchange(file_, -1));  // which lets go of the lock; the data is on disk already
    // The rename itself reaches the disk with its folder. Some file systems cannot sync a folder; the new file is in
    // place all the same, so that is no failure.
    const fs::path parent = target_.parent_path();
    const int folder = open(parent.empty() ? "." : parent.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (folder >= 0) {
        fsync(folder);
        close(folder);
    }
}

}  // namespace

FileView::FileView(const std::string& path) {
    // O_NONBLOCK: opening a pipe must not wait for its writer.
    const int file = open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    if (file < 0) fail("read", path, last_error());
    struct stat info;
    std::error_code reason;
    bool regular = true;
    if (fstat(file, &info) != 0) {
        reason = last_error();
    } else if (S_ISDIR(info.st_mode)) {
        reason = std::make_error_code(std::errc::is_a_directory);
    } else if (!S_ISREG(info.st_mode)) {
        regular = false;
    } else if (info.st_size > 0) {  // an empty mapping is an error
        size_ = static_cast<size_t>(info.st_size);
        void* block = mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, file, 0);
        if (block == MAP_FAILED)
            reason = last_error();
        else
            data_ = static_cast<const unsigned char*>(block);
    }
    close(file);
    if (reason) fail("read", path, reason);
    if (!regular) throw Error(FVAE_IO_ERROR, "cannot read '" + path + "': it is not a regular file");
}

FileView::~FileView() {
    if (data_) munmap(const_cast<unsigned char*>(data_), size_);
}

void on_fork_child(void (*handler)()) {
    if (pthread_atfork(nullptr, nullptr, handler) != 0) throw std::bad_alloc();
}

void* aligned_alloc(size_t bytes, size_t alignment) {
    constexpr size_t kHuge = size_t{2} << 20;
    const bool huge = bytes >= 2 * kHuge;
    void* block = nullptr;
    if (posix_memalign(&block, huge ? std::max(alignment, kHuge) : alignment, std::max<size_t>(bytes, 1)) != 0)
        throw std::bad_alloc();
#if defined(__linux__)
    if (huge) madvise(block, bytes, MADV_HUGEPAGE);  // only advice: a refusal changes nothing
#endif
    return block;
}

void aligned_free(void* block) { std::free(block); }

#endif

#if defined(__linux__)

static_assert(sizeof(std::atomic<uint32_t>) == sizeof(uint32_t) && std::atomic<uint32_t>::is_always_lock_free,
              "a futex is a plain 32-bit word");

void wait_on(const std::atomic<uint32_t>& word, uint32_t expected) {
    syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, expected, nullptr, nullptr, 0);
}

void wake_all(std::atomic<uint32_t>& word) {
    syscall(SYS_futex, &word, FUTEX_WAKE_PRIVATE, std::numeric_limits<int>::max(), nullptr, nullptr, 0);
}

#else  // Windows' WaitOnAddress would need another library to link, by a name that differs between toolchains

namespace {

// Words share a few places to sleep at, by address. Never destroyed: threads may still sleep when the program ends.
struct SleepingPlace {
    std::mutex mutex;
    std::condition_variable woken;
};
constexpr size_t kPlaces = 64;

SleepingPlace* make_places() {
    static SleepingPlace* places = new SleepingPlace[kPlaces];
    // A thread that does not exist in the child may have held one of the mutexes.
    on_fork_child([] {
        for (size_t i = 0; i < kPlaces; ++i) new (&places[i]) SleepingPlace;
    });
    return places;
}

SleepingPlace& place_of(const void* word) {
    static SleepingPlace* const places = make_places();
    return places[(reinterpret_cast<uintptr_t>(word) / 64) % kPlaces];
}

}  // namespace

void wait_on(const std::atomic<uint32_t>& word, uint32_t expected) {
    SleepingPlace& place = place_of(&word);
    std::unique_lock<std::mutex> lock(place.mutex);
    if (word.load() == expected) place.woken.wait(lock);
}

void wake_all(std::atomic<uint32_t>& word) {
    SleepingPlace& place = place_of(&word);
    // Taking the lock puts this wake after the check of every waiter that saw the old value.
    std::lock_guard<std::mutex> lock(place.mutex);
    place.woken.notify_all();
}

#endif

}  // namespace fusedvae::platform
