// Threads that wait between calls and meet at barriers within one. PyTorch's own are not ours to use, and OpenMP's spin while nothing runs.
#pragma once
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>
#if !defined(_WIN32)
#include <unistd.h>
#endif

// One for the process, never destroyed: at exit its threads sleep. Calls of several models take turns.
struct Team {
    std::mutex turn, door;
    std::condition_variable bell;
    std::vector<std::thread> workers;
    const std::function<void(int)>* job = nullptr;
    int size = 1;
    uint64_t calls = 0;
    std::atomic<int> inside{0}, arrived{0}, phase{0};

    void barrier() {
        if (size == 1) return;
        int now = phase.load(std::memory_order_acquire);
        if (arrived.fetch_add(1, std::memory_order_acq_rel) + 1 == size) {
            arrived.store(0, std::memory_order_relaxed);
            phase.store(now + 1, std::memory_order_release);
            return;
        }
        for (int spins = 0; phase.load(std::memory_order_acquire) == now; spins++) {
            if (spins > 4000) std::this_thread::yield();  // the other one was sent away by the system
#if defined(__x86_64__) || defined(__i386__)
            else __builtin_ia32_pause();
#endif
        }
    }
    void work(int id) {
        uint64_t seen = 0;
        while (true) {
            const std::function<void(int)>* mine;
            {
                std::unique_lock<std::mutex> lock(door);
                bell.wait(lock, [&] { return calls != seen; });
                seen = calls;
                if (id >= size) continue;
                mine = job;
            }
            (*mine)(id);
            inside.fetch_sub(1, std::memory_order_release);
        }
    }
    void run(int threads, const std::function<void(int)>& what) {
        std::lock_guard<std::mutex> alone(turn);
        {
            std::lock_guard<std::mutex> lock(door);
            while (int(workers.size()) + 1 < threads) { int id = int(workers.size()) + 1; workers.emplace_back([this, id] { work(id); }); }
            size = threads;
            job = &what;
            inside.store(threads - 1);
            if (threads > 1) calls++;
        }
        if (threads > 1) bell.notify_all();
        what(0);
        while (inside.load(std::memory_order_acquire)) std::this_thread::yield();
    }
};
static Team& team() {
    static std::atomic<Team*> one{new Team};
#if !defined(_WIN32)
    static std::atomic<int> owner{int(getpid())};
    int me = int(getpid());
    if (owner.exchange(me) != me) one.store(new Team);  // after fork() the threads are the parent's alone
#endif
    return *one.load();
}
